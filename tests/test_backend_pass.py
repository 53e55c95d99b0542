"""pass:PREFIX against the real gpg, pass and git."""

import inspect
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from gpg_home import PASSPHRASE, GpgHome, need

from tskeys import extract, registry
from tskeys.errors import BackendUnavailable, CannotDecrypt, KeyNotFound, StoreError, TskeysError, UsageError
from tskeys.lock import Lock
from tskeys.name import KeyName
from tskeys.secret import Secret
from tskeys.store import KeyStore, Location, Version
from tskeys.testing.backend_under_test import NEW, OLD
from tskeys.testing.conformance import KeyStoreConformance
from tskeys_pass import PassStore, gpg, outcome, sealing

WEB = KeyName("web")


@pytest.fixture(scope="module", autouse=True)
def _programs() -> None:
    need("gpg", "pass", "git")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in list(os.environ):
        if variable.startswith(("PASSWORD_STORE_", "GIT_", "GPG_", "GNUPG", "INVOCATION_ID", "EMAIL")):
            monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.setattr(gpg, "_environment", _without_terminal(gpg._environment))


def _without_terminal(real: Callable[[], dict[str, str]]) -> Callable[[], dict[str, str]]:
    """Let the tests behave at a terminal as they do without one: no pinentry may come up."""
    return lambda: {name: value for name, value in real().items() if name not in ("GPG_TTY", "DISPLAY")}


@pytest.fixture(scope="module")
def home() -> Iterator[GpgHome]:
    """alice and bob, whose keys are open, and carol, whose key has a passphrase."""
    with GpgHome() as made:
        made.key("alice")
        made.key("bob")
        made.key("carol", passphrase=PASSPHRASE)
        made.stop()
        yield made


@pytest.fixture(scope="module")
def stranger() -> Iterator[GpgHome]:
    """A home that has the public keys and no secret one."""
    with GpgHome() as made:
        yield made


class Kit:
    """A password store and its gpg, for both programs."""

    def __init__(self, home: GpgHome, path: Path) -> None:
        self.home, self.path = home, path
        self.env = {**home.env, "PASSWORD_STORE_DIR": str(path)}

    def run(self, *command: str, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(command, input=stdin, env=self.env | env, capture_output=True, check=False)

    def passes(self, *arguments: str, stdin: bytes = b"", **env: str) -> bytes:
        done = self.run("pass", *arguments, stdin=stdin, **env)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def git(self, *arguments: str) -> str:
        done = self.run("git", "-C", str(self.path), *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    def init_git(self) -> None:
        self.git("init", "-q", "-b", "main")
        self.git("config", "user.name", "Tester")
        self.git("config", "user.email", "tester@example.org")
        self.git("add", ".gpg-id")
        self.git("commit", "-q", "-m", "start")

    def location(self, *more: str, home: GpgHome | None = None) -> str:
        options = [f"dir={self.path}", f"gnupghome={(home or self.home).path}", *more]
        return f"pass:tailscale?{'&'.join(options)}"

    def store(self, *more: str, home: GpgHome | None = None) -> PassStore:
        return PassStore.open(Location(self.location(*more, home=home)))

    def file(self, name: str = "web") -> Path:
        return self.path / "tailscale" / f"{name}.gpg"

    def recipients(self, name: str = "web") -> list[str]:
        shown = self.home.run("--list-only", "--status-fd", "1", "--decrypt", str(self.file(name))).decode()
        return [line.split()[2] for line in shown.splitlines() if "ENC_TO" in line]


@pytest.fixture
def kit(home: GpgHome, tmp_path: Path) -> Kit:
    made = Kit(home, tmp_path / "store")
    made.passes("init", "alice@example.org")
    return made


class OfPass(KeyStoreConformance):
    backend = PassStore

    def missing_root(self, location: str) -> str | None:
        return location.replace("/store", "/missing", 1)

    def lose_root(self, location: str) -> bool:
        shutil.rmtree(Location(location).option("dir") or "")
        return True

    def interrupt(self, location: str, name: KeyName) -> None:
        folder = Path(Location(location).option("dir") or "", "tailscale", name.parent)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for stale in (f".{name.leaf}.gpg.0123456789ab.tmp", f".{name.leaf}.gpg.tmp"):
            (folder / stale).write_bytes(OLD[:20])


class TestPassStore(OfPass):
    @pytest.fixture
    def location(self, kit: Kit) -> str:
        return kit.location()


class TestPassStoreInGit(OfPass):
    kills = 3

    @pytest.fixture
    def location(self, kit: Kit) -> str:
        kit.init_git()
        return kit.location()


class TestBrokenStores:
    """Mistakes that the suite must find."""

    class WholeText(PassStore):
        def _first(self, name: KeyName, plaintext: bytes) -> bytes:
            return plaintext

    class ConstantVersion(PassStore):
        def version(self, name: KeyName) -> Version | None:
            return Version.of(b"")

    class NoExpectation(PassStore):
        def put(
            self,
            name: KeyName,
            secret: Secret,
            *,
            expect: Version | None = None,
            expires: datetime | None = None,
        ) -> Version:
            return super().put(name, secret)

    @pytest.mark.parametrize(
        ("broken", "test"),
        [
            (WholeText, "test_put_replaces"),
            (NoExpectation, "test_put_with_a_wrong_version_changes_nothing"),
            (ConstantVersion, "test_version"),
        ],
    )
    def test_a_broken_store_fails(self, kit: Kit, broken: type[PassStore], test: str) -> None:
        def reopen() -> KeyStore:
            return broken.open(Location(kit.location()))

        arguments = {"store": reopen(), "reopen": reopen, "name": WEB}
        taken = inspect.signature(getattr(KeyStoreConformance(), test)).parameters
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            getattr(KeyStoreConformance(), test)(**{k: arguments[k] for k in taken})


# Both ways, byte for byte


def test_what_is_put_is_what_pass_shows(kit: Kit) -> None:
    store = kit.store()
    store.put(WEB, Secret(NEW))
    assert kit.passes("show", "tailscale/web") == NEW + b"\n"
    store.put(KeyName("a/b"), Secret(OLD))
    assert kit.passes("show", "tailscale/a/b") == OLD + b"\n"
    assert kit.home.run("--decrypt", str(kit.file())) == NEW + b"\n"


@pytest.mark.parametrize("text", [NEW, NEW + b"\n", NEW + b"\r\n", NEW + b"\nuser: x\n"])
def test_what_pass_inserted_is_what_is_got(kit: Kit, text: bytes) -> None:
    kit.passes("insert", "-m", "tailscale/web", stdin=text)
    assert kit.store().get(WEB).reveal() == NEW


def test_pass_moves_and_removes_what_was_put(kit: Kit) -> None:
    store = kit.store()
    store.put(WEB, Secret(NEW))
    kit.passes("mv", "tailscale/web", "tailscale/sub/other")
    assert list(store.names()) == [KeyName("sub/other")]
    assert store.get(KeyName("sub/other")).reveal() == NEW
    kit.passes("rm", "-f", "tailscale/sub/other")
    with pytest.raises(KeyNotFound):
        store.get(KeyName("sub/other"))
    kit.passes("insert", "-e", "tailscale/web", stdin=OLD + b"\n")
    store.delete(WEB)
    assert kit.run("pass", "show", "tailscale/web").returncode
    assert not (kit.path / "tailscale").exists()


def test_pass_does_not_show_stash_or_lock(kit: Kit, tmp_path: Path) -> None:
    store = kit.store()
    with Lock(store, WEB, fallback=str(tmp_path)):
        store.put(WEB, Secret(OLD))
        store.stash(WEB)
    assert (kit.path / "tailscale/.web.previous.gpg").is_file()
    shown = kit.passes("ls").decode()
    assert "web" in shown
    assert "previous" not in shown
    assert "lock" not in shown


def test_a_prefix_may_be_empty_or_deep(kit: Kit) -> None:
    for prefix in ("", "a/b c"):
        store = PassStore.open(Location(kit.location().replace("pass:tailscale", f"pass:{prefix}")))
        store.put(WEB, Secret(NEW))
        assert kit.passes("show", f"{prefix}/web".lstrip("/")) == NEW + b"\n"


@pytest.mark.parametrize("prefix", ["../x", ".git", "a/../b", "/etc", "a//b"])
def test_a_prefix_stays_in_the_store(kit: Kit, prefix: str) -> None:
    with pytest.raises(UsageError):
        PassStore.open(Location(kit.location().replace("pass:tailscale", f"pass:{prefix}")))


# Lines below the key


def test_lines_below_the_key_stay(kit: Kit) -> None:
    kit.passes("insert", "-m", "tailscale/web", stdin=OLD + b"\nurl: https://x\n\nlast, no newline")
    store = kit.store()
    store.stash(WEB)
    store.put(WEB, Secret(NEW))
    assert kit.passes("show", "tailscale/web") == NEW + b"\nurl: https://x\n\nlast, no newline"
    store.restore(WEB)
    assert kit.passes("show", "tailscale/web") == OLD + b"\nurl: https://x\n\nlast, no newline"


def test_a_key_that_nobody_here_can_read_is_replaced_and_its_lines_are_kept_apart(
    kit: Kit, stranger: GpgHome
) -> None:
    stranger.take(kit.home, "alice@example.org")
    kit.passes("insert", "-m", "tailscale/web", stdin=OLD + b"\nnote: mine\n")
    by_hand = kit.file().read_bytes()
    blind = kit.store(home=stranger)
    with pytest.raises(outcome.MissingKey):
        blind.get(WEB)
    blind.stash(WEB)
    version = blind.put(WEB, Secret(NEW), expect=Version.of(by_hand))
    assert blind.version(WEB) == version
    assert kit.passes("show", "tailscale/web") == NEW + b"\n"
    kept = kit.path / "tailscale/.web.unread.gpg"
    assert kept.read_bytes() == by_hand
    blind.put(WEB, Secret(OLD))
    assert kept.read_bytes() == by_hand
    assert list(blind.names()) == [WEB]
    blind.delete(WEB)
    assert not kept.exists()


def test_git_keeps_the_lines_that_nobody_here_can_read(kit: Kit, stranger: GpgHome) -> None:
    stranger.take(kit.home, "alice@example.org")
    kit.init_git()
    kit.passes("insert", "-m", "tailscale/web", stdin=OLD + b"\nnote: mine\n")
    kit.store(home=stranger).put(WEB, Secret(NEW))
    assert not (kit.path / "tailscale/.web.unread.gpg").exists()
    kit.git("checkout", "-q", "HEAD~1")
    assert kit.passes("show", "tailscale/web").endswith(b"note: mine\n")


# Recipients


def test_several_recipients_with_comments_and_blanks(kit: Kit) -> None:
    (kit.path / ".gpg-id").write_text(
        "# the team\n\nalice@example.org# Alice\n  bob@example.org\n#carol@example.org\n"
    )
    kit.store().put(WEB, Secret(NEW))
    ours = kit.recipients()
    assert len(ours) == 2
    kit.passes("insert", "-e", "tailscale/theirs", stdin=b"x\n")
    assert kit.recipients("theirs") == ours
    (kit.path / ".gpg-id").write_text("alice@example.org # pass stumbles over this blank\nbob@example.org")
    kit.store().put(WEB, Secret(NEW))
    assert kit.recipients() == ours


def test_the_nearest_gpg_id_counts(kit: Kit) -> None:
    kit.passes("init", "-p", "tailscale/team", "bob@example.org")
    store = kit.store()
    for name in ("web", "team/web", "team/deep/web"):
        store.put(KeyName(name), Secret(NEW))
    alice, bob, deep = (kit.recipients(name) for name in ("web", "team/web", "team/deep/web"))
    assert alice != bob == deep


def test_a_store_with_a_gpg_id_below_its_root_only(kit: Kit) -> None:
    kit.passes("init", "-p", "tailscale", "bob@example.org")
    (kit.path / ".gpg-id").unlink()
    kit.store().put(WEB, Secret(NEW))
    assert kit.passes("show", "tailscale/web") == NEW + b"\n"


def test_password_store_key_wins(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    store = kit.store()
    store.put(KeyName("first"), Secret(NEW))
    monkeypatch.setenv("PASSWORD_STORE_KEY", "bob@example.org carol@example.org")
    store.put(WEB, Secret(NEW))
    assert len(kit.recipients()) == 2
    assert not {*kit.recipients()} & {*kit.recipients("first")}


def test_an_empty_gpg_id_and_an_option_in_it_are_refused(kit: Kit) -> None:
    store = kit.store()
    for text, error in (("# nobody\n", BackendUnavailable), ("--output=/tmp/x\n", UsageError)):
        (kit.path / ".gpg-id").write_text(text)
        with pytest.raises(error):
            store.put(WEB, Secret(NEW))


class TestSignedRecipients:
    @pytest.fixture
    def signed(self, kit: Kit, monkeypatch: pytest.MonkeyPatch) -> Kit:
        listed = kit.home.run("--list-keys", "--with-colons", "alice@example.org").decode()
        print_ = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
        monkeypatch.setenv("PASSWORD_STORE_SIGNING_KEY", print_)
        kit.env["PASSWORD_STORE_SIGNING_KEY"] = print_
        kit.passes("init", "alice@example.org")
        assert (kit.path / ".gpg-id.sig").is_file()
        return kit

    def test_a_signed_list_is_used(self, signed: Kit) -> None:
        signed.store().put(WEB, Secret(NEW))
        assert signed.passes("show", "tailscale/web") == NEW + b"\n"

    def test_a_tampered_list_is_refused(self, signed: Kit) -> None:
        store = signed.store()
        with (signed.path / ".gpg-id").open("a") as file:
            file.write("bob@example.org\n")
        with pytest.raises(StoreError, match="signature"):
            store.put(WEB, Secret(NEW))
        assert not signed.file().exists()

    def test_a_missing_signature_is_refused(self, signed: Kit) -> None:
        (signed.path / "tailscale").mkdir()
        (signed.path / "tailscale/.gpg-id").write_text("bob@example.org\n")
        with pytest.raises(StoreError, match="not signed"):
            signed.store().put(WEB, Secret(NEW))

    def test_somebody_elses_signature_is_refused(self, signed: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PASSWORD_STORE_SIGNING_KEY", "0" * 40)
        with pytest.raises(StoreError, match="signature"):
            signed.store().put(WEB, Secret(NEW))


def test_bad_recipients_are_told_apart(kit: Kit, stranger: GpgHome) -> None:
    with GpgHome() as keys:
        keys.take(kit.home, "alice@example.org", trusted=False)
        keys.key("dave", expires="seconds=1")
        keys.key("erin", encrypts=False)
        frank = keys.key("frank")
        keys.run("--import", stdin=_revocation(keys, frank))
        time.sleep(2.1)
        told = {}
        for owner in ("alice", "dave", "erin", "frank", "nobody"):
            (kit.path / ".gpg-id").write_text(f"{owner}@example.org\n")
            with pytest.raises(StoreError) as caught:
                kit.store(home=keys).put(WEB, Secret(NEW))
            assert isinstance(caught.value, sealing.BadRecipient), (owner, caught.value)
            assert caught.value.hint
            told[owner] = str(caught.value).rpartition("example.org ")[2]
        assert told == {
            "alice": "is not trusted",
            "dave": "has expired",
            "erin": "cannot encrypt",
            "frank": "is revoked",
            "nobody": "is here",
        }
        assert not kit.file().exists()


def _revocation(keys: GpgHome, fingerprint: str) -> bytes:
    text = (keys.path / "openpgp-revocs.d" / f"{fingerprint}.rev").read_bytes()
    return text.replace(b":-----BEGIN", b"-----BEGIN")


def test_gpg_options_of_the_user_count(kit: Kit, stranger: GpgHome, monkeypatch: pytest.MonkeyPatch) -> None:
    with GpgHome() as keys:
        keys.take(kit.home, "alice@example.org", trusted=False)
        monkeypatch.setenv("PASSWORD_STORE_GPG_OPTS", "--trust-model=always")
        kit.store(home=keys).put(WEB, Secret(NEW))
    assert kit.passes("show", "tailscale/web") == NEW + b"\n"


def test_a_message_to_somebody_else_is_not_stored(
    kit: Kit, stranger: GpgHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger.take(kit.home, "alice@example.org", "bob@example.org")
    blind = kit.store(home=stranger)
    for others in (["bob@example.org"], ["alice@example.org", "bob@example.org"]):
        wrong = stranger.run("--encrypt", *(f"--recipient={one}" for one in others), stdin=NEW + b"\n")
        monkeypatch.setattr(sealing.Sealer, "seal", lambda self, text, wrong=wrong: wrong)
        with pytest.raises(StoreError, match="did not encrypt"):
            blind.put(WEB, Secret(NEW))
    assert not kit.file().exists()


# Files


@pytest.mark.parametrize(("umask", "file", "folder"), [("", 0o600, 0o700), ("027", 0o640, 0o750)])
def test_modes_follow_the_umask_of_pass(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, umask: str, file: int, folder: int
) -> None:
    if umask:
        monkeypatch.setenv("PASSWORD_STORE_UMASK", umask)
    store = kit.store()
    store.put(KeyName("a/web"), Secret(NEW))
    assert kit.file("a/web").stat().st_mode & 0o777 == file
    assert (kit.path / "tailscale/a").stat().st_mode & 0o777 == folder
    kit.passes(
        "insert", "-e", "tailscale/b/web", stdin=b"x\n", **({"PASSWORD_STORE_UMASK": umask} if umask else {})
    )
    assert kit.file("b/web").stat().st_mode & 0o777 == file


def test_an_umask_that_is_no_number_is_refused(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSWORD_STORE_UMASK", "private")
    with pytest.raises(UsageError, match="PASSWORD_STORE_UMASK"):
        kit.store().put(WEB, Secret(NEW))


def test_the_store_is_where_pass_looks(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = Location(f"pass:tailscale?gnupghome={kit.home.path}")
    kit.store().put(WEB, Secret(NEW))
    monkeypatch.setenv("PASSWORD_STORE_DIR", str(kit.path))
    monkeypatch.delenv("HOME")
    assert PassStore.open(bare).get(WEB).reveal() == NEW
    monkeypatch.delenv("PASSWORD_STORE_DIR")
    with pytest.raises(BackendUnavailable, match="PASSWORD_STORE_DIR nor HOME"):
        PassStore.open(bare)
    monkeypatch.setenv("HOME", str(kit.path.parent))
    (kit.path.parent / ".password-store").symlink_to(kit.path)
    assert PassStore.open(bare).get(WEB).reveal() == NEW


def test_a_store_without_gpg_id_is_unavailable(kit: Kit) -> None:
    store = kit.store()
    (kit.path / ".gpg-id").unlink()
    with pytest.raises(BackendUnavailable, match="no password store"):
        kit.store()
    for call in (lambda: store.get(WEB), lambda: list(store.names())):
        with pytest.raises(BackendUnavailable, match="no password store"):
            call()


# Damage


def test_no_damaged_entry_yields_a_key(kit: Kit) -> None:
    store = kit.store()
    store.put(WEB, Secret(NEW))
    good = kit.file().read_bytes()
    flipped = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(1, len(good), 23)]
    cut = [good[:at] for at in range(0, len(good), 29)]
    literal = kit.home.run("--store", stdin=NEW + b"\n")
    for sealed in (*flipped, *cut, literal, literal + good, good + literal, NEW + b"\n"):
        kit.file().write_bytes(sealed)
        with pytest.raises(CannotDecrypt) as caught:
            store.get(WEB)
        assert NEW.decode()[-20:] not in repr(caught.value) + caught.value.hint
    for sealed in (good[:-1], good[:-5] + b"AAAAA"):
        kit.file().write_bytes(sealed)
        with pytest.raises(outcome.Damaged):
            store.get(WEB)
    store.put(WEB, Secret(NEW))
    assert store.get(WEB).reveal() == NEW


def test_an_empty_first_line_is_no_key(kit: Kit) -> None:
    kit.passes("insert", "-m", "tailscale/web", stdin=b"\nnote\n")
    with pytest.raises(StoreError, match="first line"):
        kit.store().get(WEB)


def test_an_entry_that_inflates_is_given_up(kit: Kit) -> None:
    (kit.path / "tailscale").mkdir()
    kit.file().write_bytes(kit.home.run("--encrypt", "-r", "alice@example.org", stdin=b"\0" * (4 << 20)))
    with pytest.raises(outcome.Damaged, match="more than"):
        kit.store().get(WEB)


# Every obstacle has its own error


class TestLocked:
    """carol's key has a passphrase."""

    @pytest.fixture
    def locked(self, kit: Kit) -> Kit:
        kit.home.stop()
        kit.passes("init", "carol@example.org")
        kit.store().put(WEB, Secret(NEW))
        return kit

    def credential(self, tmp_path: Path, text: str, mode: int = 0o400) -> str:
        path = tmp_path / "passphrase"
        path.touch(mode=0o600)
        path.write_text(text)
        path.chmod(mode)
        return f"passphrase={path}"

    @pytest.mark.parametrize("end", ["", "\n", "\r\n"])
    def test_a_passphrase_from_a_file(self, locked: Kit, tmp_path: Path, end: str) -> None:
        store = locked.store(self.credential(tmp_path, PASSPHRASE + end))
        assert store.get(WEB).reveal() == NEW
        store.put(WEB, Secret(OLD))
        assert store.get(WEB).reveal() == OLD

    def test_a_wrong_passphrase(self, locked: Kit, tmp_path: Path) -> None:
        with pytest.raises(outcome.WrongPassphrase) as caught:
            locked.store(self.credential(tmp_path, "guessed\n")).get(WEB)
        assert "guessed" not in str(caught.value) + caught.value.hint

    def test_nobody_to_ask(self, locked: Kit) -> None:
        with pytest.raises(outcome.LockedKey, match="nobody unlocked"):
            locked.store().get(WEB)

    def test_no_pinentry(self, locked: Kit) -> None:
        config = locked.home.path / "gpg-agent.conf"
        config.write_text("pinentry-program /nonexistent/pinentry\n")
        locked.home.stop()
        try:
            with pytest.raises(outcome.NoPinentry, match="no pinentry"):
                locked.store().get(WEB)
        finally:
            config.unlink()
            locked.home.stop()

    @pytest.mark.parametrize("text", ["", "\n", "two\nlines\n", "x" * 5000])
    def test_a_file_that_is_no_passphrase(self, locked: Kit, tmp_path: Path, text: str) -> None:
        with pytest.raises(UsageError, match="one line"):
            locked.store(self.credential(tmp_path, text)).get(WEB)

    def test_a_file_that_is_missing_or_open_to_others(self, locked: Kit, tmp_path: Path) -> None:
        with pytest.raises(CannotDecrypt, match="cannot be read"):
            locked.store("passphrase=/nonexistent/passphrase").get(WEB)
        with pytest.raises(StoreError, match="others may read"):
            locked.store(self.credential(tmp_path, PASSPHRASE, 0o444)).get(WEB)

    def test_a_rotation_asks_nobody(self, locked: Kit) -> None:
        store = locked.store()
        store.stash(WEB)
        store.put(WEB, Secret(OLD))
        assert store.version(WEB) != Version.of((locked.path / "tailscale/.web.previous.gpg").read_bytes())


def test_a_missing_key(kit: Kit, stranger: GpgHome) -> None:
    kit.store().put(WEB, Secret(NEW))
    with pytest.raises(outcome.MissingKey, match="no secret key"):
        kit.store(home=stranger).get(WEB)


def test_no_agent(kit: Kit) -> None:
    kit.store().put(WEB, Secret(NEW))
    with GpgHome() as copy:
        shutil.copy(kit.home.path / "pubring.kbx", copy.path)
        (copy.path / "gpg.conf").write_text("agent-program /nonexistent/gpg-agent\n")
        with pytest.raises(outcome.NoAgent, match="cannot be started") as caught:
            kit.store(home=copy).get(WEB)
        assert "gpg-agent" in caught.value.hint


def test_a_home_that_is_too_long_for_a_socket(kit: Kit, tmp_path: Path) -> None:
    kit.store().put(WEB, Secret(NEW))
    home = tmp_path / ("x" * 100)
    shutil.copytree(kit.home.path, home, ignore=shutil.ignore_patterns("S.*"))
    home.chmod(0o700)
    location = Location(f"pass:tailscale?dir={kit.path}&gnupghome={home}")
    with pytest.raises(outcome.NoAgent) as caught:
        PassStore.open(location).get(WEB)
    assert "too long" in caught.value.hint


def test_an_unwritable_home(kit: Kit) -> None:
    if os.geteuid() or subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip("needs a mount namespace of its own")
    kit.store().put(WEB, Secret(NEW))
    kit.home.stop()
    script = (
        f"mount --bind {kit.home.path} {kit.home.path} && mount -o remount,ro,bind {kit.home.path} && "
        f"exec {sys.executable} -c '{_GET}' '{kit.location()}'"
    )
    done = kit.run("unshare", "-m", "sh", "-c", script, PYTHONPATH=os.pathsep.join(sys.path))
    assert b"UnwritableHome" in done.stderr
    assert b"StateDirectory" in done.stderr


_GET = """
import sys
from tskeys.errors import TskeysError
from tskeys.name import KeyName
from tskeys.store import Location
from tskeys_pass import PassStore
try:
    print(PassStore.open(Location(sys.argv[1])).get(KeyName("web")).reveal().decode())
except TskeysError as error:
    sys.exit(f"{type(error).__name__}: {error} {error.hint}")
"""


def test_what_is_missing_is_named(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendUnavailable, match="gpg's home"):
        PassStore.open(Location(f"pass:t?dir={kit.path}&gnupghome=/nonexistent"))
    monkeypatch.delenv("HOME")
    with pytest.raises(BackendUnavailable, match="HOME nor GNUPGHOME"):
        PassStore.open(Location(f"pass:t?dir={kit.path}"))
    monkeypatch.setattr(sys, "meta_path", [])
    with pytest.raises(BackendUnavailable, match="python-gnupg") as library:
        kit.store()
    assert "tskeys[pass]" in library.value.hint
    monkeypatch.setattr(gpg, "find", lambda program: "")
    with pytest.raises(BackendUnavailable, match="the program gpg") as program:
        kit.store()
    assert "apt install gnupg" in program.value.hint


@pytest.mark.parametrize("option", ["dir", "gnupghome", "passphrase"])
def test_paths_in_options_are_absolute(option: str) -> None:
    with pytest.raises(UsageError, match="not absolute"):
        PassStore.open(Location(f"pass:t?{option}=relative"))


def test_roots_gpg_is_not_looked_for_in_a_callers_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "gpg"
    fake.write_text("#!/bin/sh\nexit 1\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert gpg.find("gpg") != str(fake)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert gpg.find("gpg") == str(fake)


# git


class TestGit:
    @pytest.fixture
    def kit(self, home: GpgHome, tmp_path: Path) -> Kit:
        made = Kit(home, tmp_path / "store")
        made.passes("init", "alice@example.org")
        made.init_git()
        return made

    def test_a_put_is_committed_with_its_stash_as_pass_would(self, kit: Kit) -> None:
        store = kit.store()
        store.put(WEB, Secret(OLD))
        assert kit.git("log", "-1", "--format=%s") == "Add given password for tailscale/web to store."
        store.stash(WEB)
        store.put(WEB, Secret(NEW))
        changed = kit.git("show", "--name-only", "--format=", "HEAD").split()
        assert changed == ["tailscale/.web.previous.gpg", "tailscale/web.gpg"]
        bodies = kit.git("log", "--format=%b").split("\n")
        lines = [line for line in bodies if line]
        assert len(set(lines)) == 2
        assert kit.git("status", "--porcelain") == ""
        store.forget(WEB)
        assert kit.git("log", "-1", "--format=%s") == "Remove tailscale/.web.previous from store."
        assert kit.git("status", "--porcelain") == ""
        store.delete(WEB)
        assert kit.git("log", "-1", "--format=%s") == "Remove tailscale/web from store."
        assert kit.git("status", "--porcelain") == ""
        assert kit.git("ls-files") == ".gpg-id"

    def test_what_else_is_staged_stays_staged(self, kit: Kit) -> None:
        (kit.path / "mine").write_text("half a thought")
        (kit.path / "other").write_text("untracked")
        kit.git("add", "mine")
        kit.store().put(WEB, Secret(NEW))
        assert kit.git("show", "--name-only", "--format=", "HEAD").split() == ["tailscale/web.gpg"]
        assert sorted(kit.git("status", "--porcelain").split("\n")) == ["?? other", "A  mine"]

    def test_the_lock_is_no_part_of_the_tree(self, kit: Kit, tmp_path: Path) -> None:
        store = kit.store()
        with Lock(store, WEB, fallback=str(tmp_path)):
            store.put(WEB, Secret(NEW))
            assert kit.git("status", "--porcelain", "--ignored") == ""
        assert str(store.lock_path(WEB)).startswith(f"{kit.path}/.git/")

    def test_a_work_tree_of_another_repository(self, kit: Kit, tmp_path: Path) -> None:
        tree = tmp_path / "tree"
        kit.git("worktree", "add", "-q", str(tree))
        other = Kit(kit.home, tree)
        store = other.store()
        with Lock(store, WEB, fallback=str(tmp_path)):
            store.put(WEB, Secret(NEW))
        assert other.git("status", "--porcelain") == ""
        assert "Add given password" in other.git("log", "-1", "--format=%s")

    def test_where_git_refuses_nothing_changes(self, kit: Kit) -> None:
        store = kit.store()
        before = store.put(WEB, Secret(OLD))
        hook = kit.path / ".git/hooks/pre-commit"
        hook.parent.mkdir(exist_ok=True)
        hook.write_text("#!/bin/sh\necho not today >&2\nexit 1\n")
        hook.chmod(0o755)
        with pytest.raises(StoreError, match="not today"):
            store.put(WEB, Secret(NEW))
        with pytest.raises(StoreError, match="not today"):
            store.put(KeyName("other"), Secret(NEW))
        with pytest.raises(StoreError, match="not today"):
            store.delete(WEB)
        assert store.version(WEB) == before
        assert store.version(KeyName("other")) is None
        assert kit.git("status", "--porcelain") == ""

    def test_somebody_elses_git_is_waited_for(self, kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
        lock = kit.path / ".git/index.lock"
        lock.touch()
        with subprocess.Popen(["sh", "-c", f"sleep 0.4; rm {lock}"]):
            kit.store().put(WEB, Secret(NEW))
        assert "Add given password" in kit.git("log", "-1", "--format=%s")

    def test_without_an_identity_tskeys_signs_for_itself(self, kit: Kit) -> None:
        kit.git("config", "--unset", "user.name")
        kit.git("config", "--unset", "user.email")
        kit.store().put(WEB, Secret(NEW))
        assert kit.git("log", "-1", "--format=%an") == "tskeys"

    def test_commits_are_signed_where_pass_signs_them(self, kit: Kit) -> None:
        kit.git("config", "pass.signcommits", "true")
        kit.git("config", "user.signingkey", "alice@example.org")
        kit.store().put(WEB, Secret(NEW))
        assert kit.git("log", "-1", "--format=%G?") in ("G", "U")

    def test_ignored_stashes_are_left_out(self, kit: Kit) -> None:
        (kit.path / ".git/info/exclude").write_text(".*.previous.gpg\n")
        store = kit.store()
        store.put(WEB, Secret(OLD))
        store.stash(WEB)
        store.put(WEB, Secret(NEW))
        assert kit.git("show", "--name-only", "--format=", "HEAD").split() == ["tailscale/web.gpg"]
        store.forget(WEB)
        store.delete(WEB)
        assert kit.git("ls-files") == ".gpg-id"

    def test_what_a_crash_left_uncommitted_is_committed_next_time(self, kit: Kit) -> None:
        store = kit.store()
        store.put(WEB, Secret(OLD))
        store.stash(WEB)
        store.put(WEB, Secret(NEW))
        (kit.path / "tailscale/.web.previous.gpg").unlink()
        store.forget(WEB)
        assert kit.git("status", "--porcelain") == ""

    def test_a_repository_around_the_store_is_not_its_own(self, kit: Kit, tmp_path: Path) -> None:
        around = Kit(kit.home, tmp_path / "around")
        around.path.mkdir()
        around.git("init", "-q")
        inside = Kit(kit.home, around.path / "store")
        inside.passes("init", "alice@example.org")
        inside.store().put(WEB, Secret(NEW))
        assert around.run("git", "-C", str(around.path), "log").returncode

    def test_pass_git_and_tskeys_take_turns(self, kit: Kit) -> None:
        store = kit.store()
        kit.passes("insert", "-e", "tailscale/web", stdin=OLD + b"\n")
        version = store.put(WEB, Secret(NEW))
        kit.passes("mv", "tailscale/web", "tailscale/web2")
        assert store.version(KeyName("web2")) == version
        kit.passes("git", "revert", "--no-edit", "HEAD")
        assert store.get(WEB).reveal() == NEW


# What a service sees


class TestInAService:
    @pytest.fixture
    def kit(self, home: GpgHome, tmp_path: Path) -> Iterator[Kit]:
        made = Kit(home, tmp_path / "store")
        made.passes("init", "alice@example.org")
        made.store().put(WEB, Secret(NEW))
        home.stop()
        yield made
        home.stop()

    def wait_for_agents(self, kit: Kit, number: int) -> None:
        until = time.monotonic() + 3
        while len(kit.home.agents()) != number and time.monotonic() < until:
            time.sleep(0.02)
        assert len(kit.home.agents()) == number

    def test_no_agent_is_left_behind(self, kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("INVOCATION_ID", "0" * 32)
        for _ in range(3):
            assert kit.store().get(WEB).reveal() == NEW
        kit.store().put(WEB, Secret(OLD))
        self.wait_for_agents(kit, 0)

    def test_an_agent_that_was_there_stays(self, kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
        assert kit.store().get(WEB).reveal() == NEW
        (before,) = kit.home.agents()
        monkeypatch.setenv("INVOCATION_ID", "0" * 32)
        assert kit.store().get(WEB).reveal() == NEW
        assert kit.home.agents() == [before]

    def test_services_that_start_together_do_not_take_each_others_agent(self, kit: Kit) -> None:
        env = {"INVOCATION_ID": "0" * 32, "PYTHONPATH": os.pathsep.join(sys.path)}
        often = f"for _ in range(6):\n{textwrap.indent(_GET, ' ')}"
        running = [
            subprocess.Popen(
                [sys.executable, "-c", often, kit.location()],
                env={"PATH": os.environ["PATH"], **env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for _ in range(4)
        ]
        assert {one.communicate()[0] for one in running} == {(NEW + b"\n") * 6}
        self.wait_for_agents(kit, 0)

    def test_a_deadline_ends_gpg(self, kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        slow = tmp_path / "gpg"
        slow.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 60\n")
        slow.chmod(0o755)
        monkeypatch.setattr(gpg, "find", lambda program: str(slow))
        store = kit.store()

        class LateError(Exception):
            pass

        def late(*_: object) -> None:
            raise LateError

        before = signal.signal(signal.SIGALRM, late)
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        try:
            with pytest.raises(LateError):
                store.get(WEB)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        pid = int((tmp_path / "pid").read_text())
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    def test_a_put_does_not_wait_for_ever(
        self, kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slow = tmp_path / "gpg"
        slow.write_text("#!/bin/sh\nexec sleep 60\n")
        slow.chmod(0o755)
        monkeypatch.setattr(gpg, "PATIENCE", 0.2)
        it = gpg.Gpg(str(kit.home.path), None)
        it.program = str(slow)
        with pytest.raises(StoreError, match="was killed"):
            it.decrypt(b"", ask=False)

    def test_no_descriptor_is_left_open(self, kit: Kit) -> None:
        store = kit.store()
        store.put(WEB, Secret(NEW))
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            store.get(WEB)
            store.put(WEB, Secret(OLD))
            with pytest.raises(KeyNotFound):
                store.get(KeyName("absent"))
        assert len(os.listdir("/proc/self/fd")) == before


def test_no_argument_and_no_file_tells_a_secret(kit: Kit, tmp_path: Path) -> None:
    need("strace")
    kit.passes("init", "carol@example.org")
    credential = tmp_path / "passphrase"
    credential.touch(mode=0o600)
    credential.write_text(PASSPHRASE)
    script = (
        "import sys; from tskeys.name import KeyName; from tskeys.secret import Secret; "
        "from tskeys.store import Location; from tskeys_pass import PassStore; "
        "store = PassStore.open(Location(sys.argv[1])); key = Secret(sys.stdin.buffer.read()); "
        "store.put(KeyName('web'), key); store.put(KeyName('web'), key); "
        "assert store.get(KeyName('web')) == key"
    )
    trace = tmp_path / "trace"
    strace = ["strace", "-f", "-v", "-s", "9999", "-e", "trace=execve", "-o", str(trace)]
    done = kit.run(
        *strace, sys.executable, "-c", script, kit.location(f"passphrase={credential}"), stdin=NEW,
        PYTHONPATH=os.pathsep.join(sys.path), TMPDIR=str(tmp_path / "temporary"), INVOCATION_ID="0" * 32,
    )  # fmt: skip  # strace ends with its last child, so no agent may stay
    if b"ptrace" in done.stderr and not os.environ.get("CI"):
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    calls = trace.read_text()
    assert calls.count("--decrypt") >= 4
    for secret in (NEW.decode()[-20:], PASSPHRASE):
        assert secret not in calls
    for place in (tmp_path, kit.home.path):
        for file in place.rglob("*"):
            if file.is_file() and file != credential:
                assert NEW[-20:] not in file.read_bytes(), file


DEAR = {
    "argparse", "click", "contextlib", "dataclasses", "enum", "gnupg", "hmac", "http",
    "importlib.metadata",
    "logging", "re", "select", "shutil", "signal", "sqlite3", "subprocess", "tempfile", "threading",
    "tomllib", "typing", "urllib",
}  # fmt: skip


def test_reading_imports_nothing_dear(kit: Kit) -> None:
    kit.store().put(WEB, Secret(NEW))
    script = f"import sys; before = set(sys.modules)\n{_GET}\nprint(*set(sys.modules) - before)"
    done = kit.run(sys.executable, "-c", script, kit.location(), PYTHONPATH=os.pathsep.join(sys.path))
    key, modules = done.stdout.decode().splitlines()
    assert key == NEW.decode()
    assert not DEAR & set(modules.split())
    assert {name for name in modules.split() if name.startswith("tskeys_pass")} == {
        "tskeys_pass", "tskeys_pass.gpg", "tskeys_pass.outcome", "tskeys_pass.recipients", "tskeys_pass.tree",
    }  # fmt: skip


def test_extract_delivers_from_the_password_store(
    kit: Kit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(registry.BUILTIN, "pass", "tskeys_pass:PassStore")
    monkeypatch.delenv("HOME")
    kit.store().put(WEB, Secret(NEW))
    to = tmp_path / "delivered" / "authkey"
    to.parent.mkdir(mode=0o711)
    arguments = ["--to", str(to), "--store", kit.location(), "--allow-disk"]
    assert extract.main(["web", *arguments]) == 0, capsys.readouterr().err
    assert to.read_bytes() == NEW
    assert extract.main(["absent", *arguments]) == 10
    kit.file().write_bytes(kit.file().read_bytes()[:-1])
    assert extract.main(["web", *arguments]) == 12
    assert "truncated" in capsys.readouterr().err


def test_every_error_is_one_of_the_tree() -> None:
    for kind in (
        outcome.MissingKey,
        outcome.LockedKey,
        outcome.NoAgent,
        outcome.Damaged,
        sealing.BadRecipient,
    ):
        assert issubclass(kind, TskeysError)
        assert kind.exit_code == 12
