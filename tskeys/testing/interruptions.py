"""What a backend must bear: runs that are killed, that race each other, that read while another writes."""

# ruff: noqa: D102  # tests and fixtures say it by their names

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tskeys.errors import Conflict
from tskeys.lock import Lock
from tskeys.name import KeyName
from tskeys.secret import Secret
from tskeys.store import KeyStore, Listable, Stash, Version
from tskeys.testing.backend_under_test import FORMS, NEW, OLD, BackendUnderTest

# What a run does that is killed in the middle; keys reach it by standard input, as they must.
_WRITER = """
import json, sys
job = json.load(sys.stdin)
sys.path[:] = job["path"]
from importlib import import_module
from tskeys.name import KeyName
from tskeys.secret import Secret
from tskeys.store import Location
store = getattr(import_module(job["module"]), job["class"]).open(Location(job["location"]))
print("ready", flush=True)
while True:
    for key in job["keys"]:
        store.put(KeyName(job["name"]), Secret(key.encode()))
"""


class Interruptions(BackendUnderTest):
    """The part of the conformance suite with more than one run in it."""

    def test_what_a_killed_run_left_is_in_nobodys_way(
        self, store: KeyStore, location: str, name: KeyName
    ) -> None:
        for key in (OLD, NEW):
            self.interrupt(location, name)
            store.put(name, Secret(key))
            assert store.get(name).reveal() == key
            if isinstance(store, Stash):
                store.stash(name)
        self.interrupt(location, name)
        if isinstance(store, Listable):
            assert list(store.names()) == [name]

    def test_a_killed_writer_leaves_one_key_or_the_other(
        self, store: KeyStore, location: str, name: KeyName
    ) -> None:
        keys = [OLD, FORMS["long"]]
        backend = type(store)
        job = {"path": sys.path, "module": backend.__module__, "class": backend.__qualname__}
        job |= {"location": location, "name": str(name), "keys": [key.decode() for key in keys]}
        store.put(name, Secret(OLD))
        for number in range(self.kills):
            with subprocess.Popen(
                [sys.executable, "-c", _WRITER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            ) as writer:
                assert writer.stdin
                assert writer.stdout
                writer.stdin.write(json.dumps(job).encode())
                writer.stdin.close()
                assert writer.stdout.readline() == b"ready\n"
                time.sleep(0.003 + 0.0017 * number)
                writer.kill()
            assert store.get(name).reveal() in keys
            if isinstance(store, Listable):
                assert list(store.names()) == [name]
        store.put(name, Secret(NEW))
        assert store.get(name).reveal() == NEW

    def test_a_reader_sees_one_key_or_the_other(
        self, store: KeyStore, reopen: Callable[[], KeyStore], name: KeyName
    ) -> None:
        keys = [OLD, FORMS["long"]]
        store.put(name, Secret(OLD))
        seen: set[object] = set()
        done = threading.Event()

        def read() -> None:
            mine = reopen()
            while not done.is_set():
                try:
                    seen.add(mine.get(name).reveal())
                except Exception as error:  # asserted on below
                    seen.add(type(error))

        reader = threading.Thread(target=read)
        reader.start()
        until = time.monotonic() + 0.1
        while time.monotonic() < until:
            for key in keys:
                store.put(name, Secret(key))
        done.set()
        reader.join()
        assert seen <= set(keys), [what for what in seen if what not in keys]

    def test_one_of_two_who_expect_the_same_wins(
        self, store: KeyStore, reopen: Callable[[], KeyStore], name: KeyName, tmp_path: Path
    ) -> None:
        for _ in range(3):
            expect = store.put(name, Secret(OLD))
            outcomes: list[object] = []

            def race(number: int, expect: Version = expect, outcomes: list[object] = outcomes) -> None:
                mine = reopen()
                try:
                    with Lock(mine, name, fallback=str(tmp_path / "locks")):
                        mine.put(name, Secret(NEW[:-1] + b"%d" % number), expect=expect)
                    outcomes.append(number)
                except Exception as error:  # asserted on below
                    outcomes.append(type(error))

            racers = [threading.Thread(target=race, args=(number,)) for number in (1, 2)]
            for racer in racers:
                racer.start()
            for racer in racers:
                racer.join()
            winners = [outcome for outcome in outcomes if outcome in (1, 2)]
            assert (len(outcomes), len(winners), Conflict in outcomes) == (2, 1, True), outcomes
            assert store.get(name).reveal() == NEW[:-1] + b"%d" % winners[0]
