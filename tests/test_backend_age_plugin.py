"""Age's plugins, as a YubiKey's: the PIN, the touch, the deadline, and whatever can go wrong."""

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyrage
import pytest
from agekeys import KEY, OLD, install, needs, opened, private, token, told, toy_bech32, x25519

from tskeys import process, registry
from tskeys.errors import BackendUnavailable, CannotDecrypt, StoreError, StoreUnavailable, UsageError
from tskeys.name import KeyName
from tskeys.secret import Secret
from tskeys_age import child, names, plugin
from tskeys_age.terminal import Terminal

WEB = KeyName("web")
PIN, WRONG = "739164", "518203"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "keys").mkdir(mode=0o700)
    return tmp_path / "keys"


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The plugin, in the path of children: the fixed one of root's, or the user's own."""
    path = f"{tmp_path}/bin:/usr/bin:/bin"
    monkeypatch.setattr(process, "PATH", path)
    monkeypatch.setenv("PATH", path)
    # No terminal: what runs the tests may have one.
    monkeypatch.setattr(Terminal, "here", classmethod(lambda cls: None))
    return install(tmp_path / "bin")


def test_age_and_tskeys_read_each_other_through_a_plugin(toy: Path, tmp_path: Path, root: Path) -> None:
    needs("age")
    path, recipient = token(toy, tmp_path, touch=0)
    host, host_recipient = x25519(tmp_path)
    store = opened(root, identity=path, recipient=[recipient, host_recipient])
    store.put(WEB, Secret(KEY))
    assert store.get(WEB).reveal() == KEY
    assert opened(root, identity=host).get(WEB).reveal() == KEY
    sealed = root / "web.age"
    for identity in (path, host):
        read = subprocess.run(["age", "-d", "-i", identity, sealed], capture_output=True, check=True)
        assert read.stdout == KEY
    written = subprocess.run(["age", "-a", "-r", recipient], input=OLD, capture_output=True, check=True)
    sealed.write_bytes(written.stdout)
    assert store.get(WEB).reveal() == OLD


def test_a_token_that_is_absent_keeps_nobody_from_writing(toy: Path, tmp_path: Path, root: Path) -> None:
    path, recipient = token(toy, tmp_path, mode="absent")
    store = opened(root, identity=path, recipient=recipient)
    first = store.put(WEB, Secret(OLD))
    store.stash(WEB)
    second = store.put(WEB, Secret(KEY), expect=first)
    assert store.restore(WEB, expect=second) == store.version(WEB) == first
    with pytest.raises(CannotDecrypt, match=r"token is not there: Please insert .* 12345678") as caught:
        store.get(WEB)
    assert "Plug it in" in caught.value.hint


def test_a_key_that_a_file_opens_wakes_no_token(toy: Path, tmp_path: Path, root: Path) -> None:
    path, recipient = token(toy, tmp_path, mode="die")
    host, host_recipient = x25519(tmp_path)
    store = opened(root, identity=[str(path), str(host)], recipient=[recipient, host_recipient])
    store.put(WEB, Secret(KEY))
    assert store.get(WEB).reveal() == KEY
    opened(root, recipient=recipient).put(WEB, Secret(KEY))
    with pytest.raises(CannotDecrypt, match="age-plugin-toy died"):
        store.get(WEB)


# the PIN


def test_the_pin_comes_from_a_file(toy: Path, tmp_path: Path, root: Path) -> None:
    path, recipient = token(toy, tmp_path, pin=PIN)
    pin = private(tmp_path / "pin", f"{PIN}\n")
    store = opened(root, identity=path, recipient=recipient, pin=pin)
    store.put(WEB, Secret(KEY))
    assert store.get(WEB).reveal() == KEY
    pin.chmod(0o644)
    with pytest.raises(CannotDecrypt, match="others may read the PIN"):
        opened(root, identity=path, pin=pin).get(WEB)
    with pytest.raises(CannotDecrypt, match="the PIN is empty"):
        opened(root, identity=path, pin=private(tmp_path / "none", "\n")).get(WEB)


def test_the_pin_comes_from_a_descriptor(toy: Path, tmp_path: Path, root: Path) -> None:
    path, recipient = token(toy, tmp_path, pin=PIN)
    reading, writing = os.pipe()
    os.write(writing, PIN.encode())
    os.close(writing)
    store = opened(root, identity=path, recipient=recipient, pin=f"/dev/fd/{reading}")
    for key in (OLD, KEY):
        store.put(WEB, Secret(key))
        assert store.get(WEB).reveal() == key
    os.close(reading)
    assert PIN not in f"{store!r} {vars(store)} {vars(store._identities)}"


def test_a_wrong_pin_is_tried_once(toy: Path, tmp_path: Path, root: Path) -> None:
    tries = tmp_path / "tries"
    path, recipient = token(toy, tmp_path, pin=PIN, tries=str(tries))
    pin = private(tmp_path / "pin", WRONG)
    store = opened(root, identity=path, recipient=recipient, pin=pin)
    store.put(WEB, Secret(KEY))
    with pytest.raises(CannotDecrypt, match=r"did not open it with this PIN: Invalid PIN.*2 tries") as caught:
        store.get(WEB)
    assert WRONG not in told(caught.value)
    for _ in range(5):
        with pytest.raises(CannotDecrypt, match="was refused before and is not tried again"):
            store.get(WEB)
    assert tries.read_text() == "wrong\n"
    tries.write_text("wrong\n" * 3)
    with pytest.raises(CannotDecrypt, match="the PIN is blocked") as caught:
        opened(root, identity=path, pin=pin).get(WEB)
    assert "PUK" in caught.value.hint


def test_no_pin_and_no_terminal(toy: Path, tmp_path: Path, root: Path) -> None:
    tries = tmp_path / "tries"
    path, recipient = token(toy, tmp_path, pin=PIN, tries=str(tries))
    store = opened(root, identity=path, recipient=recipient)
    store.put(WEB, Secret(KEY))
    with pytest.raises(CannotDecrypt, match="neither a PIN file nor a terminal") as caught:
        store.get(WEB)
    assert "pin=FILE" in caught.value.hint
    assert not tries.exists()


def test_a_damaged_file_is_no_wrong_pin(toy: Path, tmp_path: Path, root: Path) -> None:
    path, recipient = token(toy, tmp_path, pin=PIN)
    store = opened(root, identity=path, recipient=recipient, pin=private(tmp_path / "pin", PIN))
    store.put(WEB, Secret(KEY))
    whole = (root / "web.age").read_bytes()
    (root / "web.age").write_bytes(whole[:-3] + b"abc")
    with pytest.raises(CannotDecrypt, match="is damaged"):
        store.get(WEB)
    (root / "web.age").write_bytes(whole)
    assert store.get(WEB).reveal() == KEY


# what can go wrong


def test_errors_are_told_apart(
    toy: Path, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, recipient = token(toy, tmp_path, mode="refuse")
    opened(root, recipient=recipient).put(WEB, Secret(KEY))
    with pytest.raises(CannotDecrypt, match="age-plugin-toy gave up: It is out of order"):
        opened(root, identity=path).get(WEB)
    with pytest.raises(CannotDecrypt, match="sealed for none of the identities"):
        opened(root, identity=token(toy, tmp_path)[0]).get(WEB)
    damaged = private(tmp_path / "damaged", path.read_text().split()[-1][:-1] + "Q")
    with pytest.raises(CannotDecrypt, match="an identity is damaged"):
        opened(root, identity=damaged).get(WEB)
    with pytest.raises(UsageError, match="age1toy1… is damaged"):
        opened(root, recipient=recipient[:-4] + "qqqq").put(WEB, Secret(OLD))
    with pytest.raises(StoreError, match="age-plugin-toy died"):
        opened(root, recipient=token(toy, tmp_path, recipient="die")[1]).put(WEB, Secret(OLD))
    toy.unlink()
    for call in (
        lambda: opened(root, identity=path).get(WEB),
        lambda: opened(root, recipient=recipient).put(WEB, Secret(OLD)),
    ):
        with pytest.raises(BackendUnavailable, match="needs the program age-plugin-toy, which is missing"):
            call()


def test_post_quantum_recipients_work_where_their_plugin_does(toy: Path, tmp_path: Path, root: Path) -> None:
    path, recipient = token(install(toy.parent, "pq"), tmp_path)
    assert recipient.startswith("age1pq1")
    store = opened(root, identity=path, recipient=recipient)
    store.put(WEB, Secret(KEY))
    assert store.get(WEB).reveal() == KEY


@pytest.mark.parametrize("bad", ["/../../EVIL", "..", "-R", "A B", "a;b", "é", ""])
def test_a_name_that_is_no_plugin_never_runs(toy: Path, tmp_path: Path, root: Path, bad: str) -> None:
    marker = tmp_path / "ran"
    for place in (tmp_path / "evil", toy.parent / "evil", tmp_path / "bin/age-plugin-"):
        if not place.exists():
            place.write_text(f"#!/bin/sh\ntouch {marker}\n")
            place.chmod(0o755)
    with pytest.raises(UsageError):
        names.checked(bad.lower())
    with pytest.raises(UsageError):
        opened(root, recipient=toy_bech32(f"age1{bad.lower()}", b"x" * 16)).put(WEB, Secret(KEY))
    opened(root, recipient=x25519(tmp_path)[1]).put(WEB, Secret(KEY))
    identity = toy_bech32(f"age-plugin-{bad.lower()}-", b"x" * 16).upper()
    with pytest.raises(CannotDecrypt):
        opened(root, identity=private(tmp_path / "bad", identity)).get(WEB)
    assert not marker.exists()


def running(what: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(entry.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return [line for line in found if str(what) in line]


def gone(what: Path) -> bool:
    until = time.monotonic() + 5
    while running(what) and time.monotonic() < until:
        time.sleep(0.02)
    return not running(what)


def test_a_deadline_holds(toy: Path, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "PATIENCE", 1.0)
    path, recipient = token(toy, tmp_path, mode="hang")
    opened(root, recipient=recipient).put(WEB, Secret(KEY))
    hanging = token(toy, tmp_path, recipient="hang")[1]
    for call in (
        lambda: opened(root, identity=path).get(WEB),
        lambda: opened(root, recipient=hanging).put(WEB, Secret(OLD)),
    ):
        begun = time.monotonic()
        with pytest.raises(StoreError, match="age-plugin-toy did not answer within 1 s") as caught:
            call()
        assert 1 <= time.monotonic() - begun < 5
        assert "touched" in caught.value.hint
        assert gone(toy)


def test_an_alarm_gets_through(toy: Path, tmp_path: Path, root: Path) -> None:
    def late(signum: int, frame: object) -> None:
        raise StoreUnavailable("too late")

    path, recipient = token(toy, tmp_path, mode="hang")
    store = opened(root, identity=path, recipient=recipient)
    store.put(WEB, Secret(KEY))
    before = signal.signal(signal.SIGALRM, late)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(StoreUnavailable, match="too late"):
            store.get(WEB)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert gone(toy)


def test_callbacks_never_raise() -> None:
    reading, writing = os.pipe()
    os.close(writing)
    for terminal in (None, Terminal(reading), Terminal(9999)):
        person = child.Person(None, terminal)
        person.display_message("\udcff")
        assert person.request_passphrase("PIN") is None
        assert person.request_public_string("name") is None
        assert person.confirm("insert", "yes", None) is False
    os.close(reading)


# a process of its own: the terminal, and what others see of it

SCRIPT = """
import sys
from pathlib import Path
from tskeys import process
from tskeys.errors import TskeysError
from tskeys.name import KeyName
from tskeys.secret import Secret
from tskeys.store import Location
from tskeys_age import AgeStore, plugin
process.PATH = sys.argv[2]
plugin.PATIENCE = float(sys.argv[3])
store = AgeStore.open(Location(sys.argv[1]))
key = Path(sys.argv[4]).read_bytes()
try:
    store.put(KeyName("web"), Secret(key))
    print("opened" if store.get(KeyName("web")).reveal() == key else "another")
except TskeysError as error:
    print(type(error).__name__, error)
"""


def command(toy: Path, root: Path, patience: float, **options: object) -> list[str]:
    store = opened(root, **{k: str(v) for k, v in options.items()})
    key = private(root.parent / "key", KEY)
    path = f"{toy.parent}:/usr/bin:/bin"
    return [sys.executable, "-c", SCRIPT, str(store.location), path, str(patience), str(key)]


def test_no_secret_is_in_an_argument(toy: Path, tmp_path: Path, root: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("there is no strace")
    path, recipient = token(toy, tmp_path, pin=PIN)
    pin = private(tmp_path / "pin", PIN)
    trace = tmp_path / "trace"
    argv = command(toy, root, 30, identity=path, recipient=recipient, pin=pin)
    run = subprocess.run(
        ["strace", "-f", "-v", "-s", "100000", "-e", "trace=execve", "-o", str(trace), *argv],
        capture_output=True,
        text=True,
        check=False,
    )
    if "ptrace" in run.stderr:
        pytest.skip("strace may not trace here")
    assert run.stdout == "opened\n", run.stderr
    seen = trace.read_text()
    assert seen.count("--age-plugin=identity-v1") >= 1
    for secret in (KEY.decode(), PIN, path.read_text().split()[-1]):
        assert secret not in seen


@contextmanager
def at_a_terminal(argv: list[str]) -> Iterator[tuple["subprocess.Popen[bytes]", Callable[[str], str], int]]:
    """Run a command on a terminal of its own; yield it, what waits for a text on it, and the terminal."""
    ours, theirs = pty.openpty()
    program = subprocess.Popen(["setsid", "-c", *argv], stdin=theirs, stdout=theirs, stderr=theirs)
    seen = ""

    def wait_for(text: str) -> str:
        nonlocal seen
        until = time.monotonic() + 20
        while text not in seen:
            ready, _, _ = select.select([ours], [], [], max(0, until - time.monotonic()))
            assert ready, seen
            seen += os.read(ours, 4096).decode()
        return seen

    try:
        yield program, wait_for, ours
    finally:
        program.kill()
        program.wait()
        os.close(ours)
        os.close(theirs)


def echoes(terminal: int) -> bool:
    return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)


def test_the_pin_is_asked_for_at_the_terminal(toy: Path, tmp_path: Path, root: Path) -> None:
    path, recipient = token(toy, tmp_path, pin=PIN, touch=0.1)
    with at_a_terminal(command(toy, root, 30, identity=path, recipient=recipient)) as (_, wait_for, terminal):
        wait_for("tskeys: Enter PIN for the toy token: ")
        assert not echoes(terminal)
        os.write(terminal, f"{PIN}\n".encode())
        seen = wait_for("opened")
        assert "tskeys: \N{WHITE UP POINTING BACKHAND INDEX} Please touch the toy token" in seen
        assert PIN not in seen
        assert echoes(terminal)


def test_a_wrong_pin_at_the_terminal(toy: Path, tmp_path: Path, root: Path) -> None:
    path, recipient = token(toy, tmp_path, pin=PIN)
    with at_a_terminal(command(toy, root, 30, identity=path, recipient=recipient)) as (_, wait_for, terminal):
        wait_for("PIN for the toy token: ")
        os.write(terminal, f"{WRONG}\n".encode())
        wait_for("did not open it with this PIN: Invalid PIN")


@pytest.mark.parametrize(("typed", "said"), [("\n", "opened"), ("n\n", "the token is not there")])
def test_a_token_is_asked_for_at_the_terminal(
    toy: Path, tmp_path: Path, root: Path, typed: str, said: str
) -> None:
    path, recipient = token(toy, tmp_path, mode="absent")
    with at_a_terminal(command(toy, root, 30, identity=path, recipient=recipient)) as (_, wait_for, terminal):
        wait_for("serial 12345678 [Enter: It is plugged in; n: Skip it]: ")
        os.write(terminal, typed.encode())
        wait_for(said)


def test_a_deadline_and_an_interrupt_bring_the_echo_back(toy: Path, tmp_path: Path, root: Path) -> None:
    path, recipient = token(toy, tmp_path, pin=PIN)
    for patience, typed, said in (
        (1.5, "", "did not answer within 1.5 s"),
        (30, "\x03", "KeyboardInterrupt"),
    ):
        argv = command(toy, root, patience, identity=path, recipient=recipient)
        with at_a_terminal(argv) as (program, wait_for, terminal):
            wait_for("PIN for the toy token: ")
            os.write(terminal, typed.encode())
            wait_for(said)
            program.wait(10)
            assert echoes(terminal)
        assert gone(toy)


def test_a_passphrase_is_asked_for_at_the_terminal(toy: Path, tmp_path: Path, root: Path) -> None:
    path, recipient = x25519(tmp_path)
    sealed = private(tmp_path / "sealed", pyrage.passphrase.encrypt(path.read_bytes(), "correct horse"))
    with at_a_terminal(command(toy, root, 30, identity=sealed, recipient=recipient)) as (
        _,
        wait_for,
        terminal,
    ):
        wait_for(f"tskeys: Passphrase of {sealed}: ")
        assert not echoes(terminal)
        os.write(terminal, b"correct horse\n")
        assert "horse" not in wait_for("opened")
        assert echoes(terminal)


# what it costs, and what is missing


def test_reading_imports_pyrage_and_little_else(tmp_path: Path, root: Path) -> None:
    path, recipient = x25519(tmp_path)
    opened(root, recipient=recipient).put(WEB, Secret(KEY))
    script = (
        "from tskeys.store import Location\nfrom tskeys.name import KeyName\n"
        "from tskeys_age import AgeStore\n"
        f"store = AgeStore.open(Location('age:{root}?identity={path}'))\n"
        f"assert store.get(KeyName('web')).reveal() == {KEY!r}"
    )

    def imported(code: str) -> set[str]:
        run = subprocess.run(
            [sys.executable, "-I", "-X", "importtime", "-c", code], capture_output=True, text=True, check=True
        )
        return {line.rpartition("|")[2].strip() for line in run.stderr.splitlines()[1:]}

    allowed = {f"tskeys.{module}" for module in ("atomic", "authkey", "errors", "name", "secret", "store")}
    allowed |= {"tskeys", "errno", "fcntl", "pyrage", "pyrage.pyrage"}
    allowed |= {"tskeys_age", "tskeys_age.files", "tskeys_age.identities", "tskeys_age.names"}
    assert imported(script) - imported("pass") <= allowed


def test_a_missing_library_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BUILTIN, "age", "tskeys_age:AgeStore")
    for module in [module for module in sys.modules if module.startswith("tskeys_age")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "pyrage", None)
    with pytest.raises(BackendUnavailable, match="needs the Python library pyrage") as caught:
        registry.open_store(f"age:{root}")
    assert "pip install 'tskeys[age]'" in caught.value.hint


def test_pyrage_says_what_the_child_listens_for() -> None:
    ours, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    with pytest.raises(pyrage.DecryptError, match="No matching keys"):
        pyrage.decrypt(pyrage.encrypt(KEY, [ours.to_public()]), [other])
