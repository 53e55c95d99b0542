"""What every backend must do, as a suite that a backend's own tests run in ten lines.

    import pytest
    from tskeys.testing.conformance import KeyStoreConformance

    class TestMyStore(KeyStoreConformance):
        @pytest.fixture
        def location(self, tmp_path):
            tmp_path.chmod(0o700)
            return f"mystore:{tmp_path}"

`location` is the text of a fresh, empty store. A backend that is not registered under the entry points
`tskeys.backends` names its class as `backend`. The other class variables and hooks (`BackendUnderTest`) say
what a store cannot do; each has a default. Modes, formats and whatever else is its own need its own tests.
"""

import os
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tskeys.errors import (
    BackendUnavailable,
    Conflict,
    KeyNotFound,
    StoreError,
    StoreUnavailable,
    TskeysError,
    UsageError,
)
from tskeys.lock import Lock
from tskeys.name import KeyName
from tskeys.secret import Secret
from tskeys.store import ABSENT, KeyStore, Listable, Location, Stash, Version
from tskeys.testing.backend_under_test import FORMS, NEW, OLD
from tskeys.testing.interruptions import Interruptions


class KeyStoreConformance(Interruptions):
    """Subclass it, and give it a fixture `location`."""

    # put, get, delete

    @pytest.mark.parametrize("form", FORMS)
    def test_every_form_of_key_comes_back_byte_for_byte(
        self, store: KeyStore, reopen: Callable[[], KeyStore], name: KeyName, form: str
    ) -> None:
        store.put(name, Secret(FORMS[form]))
        assert store.get(name).reveal() == FORMS[form]
        assert reopen().get(name).reveal() == FORMS[form]

    def test_absence_is_an_error_and_never_none(self, store: KeyStore, name: KeyName) -> None:
        for call in (store.get, store.delete):
            with pytest.raises(KeyNotFound):
                call(name)
        assert store.version(name) is None

    def test_put_replaces(self, store: KeyStore, reopen: Callable[[], KeyStore], name: KeyName) -> None:
        for key in (OLD, FORMS["long"], NEW):
            store.put(name, Secret(key), expires=datetime.now(UTC) + timedelta(days=90))
            assert store.get(name).reveal() == key
        assert reopen().get(name).reveal() == NEW

    def test_delete(self, store: KeyStore, reopen: Callable[[], KeyStore], name: KeyName) -> None:
        store.put(name, Secret(OLD))
        store.delete(name)
        for opened in (store, reopen()):
            assert opened.version(name) is None
            with pytest.raises(KeyNotFound):
                opened.get(name)
            with pytest.raises(KeyNotFound):
                opened.delete(name)
        store.put(name, Secret(NEW), expect=ABSENT)
        assert store.get(name).reveal() == NEW

    # versions

    def test_version(self, store: KeyStore, reopen: Callable[[], KeyStore], name: KeyName) -> None:
        first = store.put(name, Secret(OLD))
        assert isinstance(first, Version)
        store.get(name)
        assert store.version(name) == store.version(name) == reopen().version(name) == first != ABSENT
        second = store.put(name, Secret(NEW))
        assert store.version(name) == reopen().version(name) == second != first

    def test_put_with_the_right_version(self, store: KeyStore, name: KeyName) -> None:
        first = store.put(name, Secret(OLD), expect=ABSENT)
        second = store.put(name, Secret(NEW), expect=first)
        assert store.get(name).reveal() == NEW
        assert store.version(name) == second

    def test_put_with_a_wrong_version_changes_nothing(self, store: KeyStore, name: KeyName) -> None:
        with pytest.raises(Conflict):
            store.put(name, Secret(NEW), expect=Version.of(b"something else"))
        assert store.version(name) is None
        stale = store.put(name, Secret(OLD))
        current = store.put(name, Secret(NEW))
        for wrong in (stale, ABSENT, Version.of(b"something else")):
            with pytest.raises(Conflict):
                store.put(name, Secret(OLD), expect=wrong)
            assert store.version(name) == current
            assert store.get(name).reveal() == NEW

    # names

    def test_names_are_kept_apart_and_listed_in_order(
        self, store: KeyStore, reopen: Callable[[], KeyStore], tmp_path: Path
    ) -> None:
        wanted = self.names[:1] if self.single_key else (*self.names, *self._nested("web2/prod", "web2/test"))
        keys = {KeyName(text): NEW + b"%d" % number for number, text in enumerate(wanted)}
        if isinstance(store, Listable):
            assert list(store.names()) == []
        for name, key in reversed(keys.items()):
            with Lock(store, name, fallback=str(tmp_path / "locks")):
                store.put(name, Secret(key))
        for opened in (store, reopen()):
            assert {name: opened.get(name).reveal() for name in keys} == keys
            if isinstance(opened, Listable):
                assert list(opened.names()) == sorted(keys)
        gone = KeyName(wanted[-1])
        store.delete(gone)
        assert [store.version(name) is None for name in keys] == [name == gone for name in keys]
        if isinstance(store, Listable):
            assert list(store.names()) == sorted(set(keys) - {gone})

    @pytest.mark.parametrize(("first", "second"), [("pre", "pre/fix"), ("fix/a/b", "fix/a")])
    def test_a_name_that_begins_another_is_refused_or_works(
        self, store: KeyStore, first: str, second: str
    ) -> None:
        if self.single_key or not self.nested:
            pytest.skip("the store takes no such names")
        store.put(KeyName(first), Secret(OLD))
        try:
            store.put(KeyName(second), Secret(NEW))
        except TskeysError:
            pass
        else:
            assert store.get(KeyName(second)).reveal() == NEW
        assert store.get(KeyName(first)).reveal() == OLD

    def _nested(self, *names: str) -> tuple[str, ...]:
        return names if self.nested else ()

    # the stash

    def test_restore_brings_back_the_key_and_its_version(
        self, store: KeyStore, stash: Stash, reopen: Callable[[], KeyStore], name: KeyName
    ) -> None:
        before = store.put(name, Secret(OLD))
        stash.stash(name)
        assert store.version(name) == before
        after = store.put(name, Secret(NEW), expect=before)
        again = reopen()
        assert isinstance(again, Stash)
        for _ in "twice":  # restoring keeps the stash
            assert again.restore(name, expect=after) == store.version(name) == before
            assert store.get(name).reveal() == OLD
            after = store.put(name, Secret(NEW))
        store.put(name, Secret(FORMS["long"]))
        stash.stash(name)
        store.put(name, Secret(NEW))
        stash.restore(name)
        assert store.get(name).reveal() == FORMS["long"]

    def test_restore_with_a_wrong_version_changes_nothing(
        self, store: KeyStore, stash: Stash, name: KeyName
    ) -> None:
        before = store.put(name, Secret(OLD))
        stash.stash(name)
        store.put(name, Secret(NEW))
        with pytest.raises(Conflict):
            stash.restore(name, expect=before)
        assert store.get(name).reveal() == NEW

    def test_there_is_no_stash_before_stashing_and_after_forgetting(
        self, store: KeyStore, stash: Stash, name: KeyName
    ) -> None:
        stash.forget(name)
        for call in (stash.stash, stash.restore):
            with pytest.raises(KeyNotFound):
                call(name)
        current = store.put(name, Secret(NEW))
        with pytest.raises(KeyNotFound):
            stash.restore(name)
        stash.stash(name)
        stash.forget(name)
        stash.forget(name)
        with pytest.raises(KeyNotFound):
            stash.restore(name)
        assert store.version(name) == current

    def test_delete_takes_the_stash_along(self, store: KeyStore, stash: Stash, name: KeyName) -> None:
        store.put(name, Secret(OLD))
        stash.stash(name)
        store.delete(name)
        with pytest.raises(KeyNotFound):
            stash.restore(name)
        assert store.version(name) is None

    def test_a_stash_is_not_listed(self, store: KeyStore, stash: Stash, name: KeyName) -> None:
        if not isinstance(store, Listable):
            pytest.skip("the store cannot list")
        store.put(name, Secret(OLD))
        stash.stash(name)
        assert list(store.names()) == [name]

    # what is wrong is said, and without the key

    def test_an_unknown_option_is_a_usage_error(self, location: str) -> None:
        with pytest.raises(UsageError):
            self.open(f"{location}{'&' if '?' in location else '?'}no-such-option=1")

    def test_a_missing_root_is_unavailable_and_never_empty(self, location: str) -> None:
        missing = self.missing_root(location)
        if missing is None:
            pytest.skip("the store has no root that could be missing")
        with pytest.raises(BackendUnavailable):
            self.open(missing)
        assert not os.path.exists(Location(missing).path)

    def test_a_root_that_goes_away_is_unavailable_and_never_empty(
        self, store: KeyStore, location: str, name: KeyName
    ) -> None:
        store.put(name, Secret(NEW))
        if not self.lose_root(location):
            pytest.skip("the store has no root that could go away")
        calls: list[Callable[[], object]] = [
            lambda: store.get(name),
            lambda: store.version(name),
            lambda: store.put(name, Secret(OLD)),
            lambda: store.delete(name),
        ]
        if isinstance(store, Listable):
            calls.append(lambda: list(store.names()))
        if isinstance(store, Stash):
            calls += [lambda: store.stash(name), lambda: store.restore(name)]
        for call in calls:
            with pytest.raises(StoreUnavailable):
                call()

    def test_errors_are_of_the_tree_and_tell_no_key(self, store: KeyStore, name: KeyName) -> None:
        other = KeyName("absent" if self.nested and not self.single_key else self.names[-1])
        calls: list[Callable[[], object]] = [
            lambda: store.put(name, Secret(NEW), expect=ABSENT),
            lambda: store.put(name, Secret(NEW), expect=Version.of(NEW)),
            lambda: store.delete(name),
            lambda: store.get(name),
            lambda: store.delete(name),
            lambda: store.put(name, Secret(NEW), expect=Version.of(OLD)),
            lambda: store.get(other),
            lambda: store.put(KeyName("/".join(["n" * 64] * 80)), Secret(NEW)),
        ]
        if isinstance(store, Stash):
            calls += [lambda: store.stash(name), lambda: store.restore(name)]
        store.put(name, Secret(OLD))
        for call in calls:
            if error := _raised(call):
                assert isinstance(error, StoreError | UsageError), repr(error)
                told = "".join(traceback.format_exception(error)) + repr(vars(error))
                assert not self._tells(told), "an error tells a part of the key"

    def test_a_store_tells_no_key(self, store: KeyStore, name: KeyName) -> None:
        store.put(name, Secret(NEW))
        assert store.get(name).reveal() == NEW
        state = getattr(store, "__dict__", {})
        assert not self._tells(f"{store!r} {store} {state!r} {store.location!r} {store.location}")
        assert isinstance(store.location, Location)
        assert store.scheme == store.location.scheme

    def _tells(self, text: str) -> bool:
        return any(key[-20:].decode() in text for key in (OLD, NEW))

    def test_the_lock_is_beside_the_store_or_nowhere(
        self, store: KeyStore, reopen: Callable[[], KeyStore], name: KeyName
    ) -> None:
        path = store.lock_path(name)
        assert path is None or os.path.isabs(path)
        assert path == reopen().lock_path(name)
        if path is not None and not self.single_key:
            assert path != store.lock_path(KeyName(self.names[1]))


def _raised(call: Callable[[], object]) -> Exception | None:
    try:
        call()
    except Exception as error:
        return error
    return None
