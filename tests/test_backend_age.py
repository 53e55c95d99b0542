"""What is age's own; the conformance suite tests what every store does."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyrage
import pytest
from agekeys import KEY, OLD, needs, opened, private, ssh, told, toy_bech32, x25519

from tskeys import process, registry
from tskeys.errors import (
    BackendUnavailable,
    CannotDecrypt,
    KeyNotFound,
    StoreError,
    UsageError,
)
from tskeys.name import KeyName
from tskeys.secret import Secret
from tskeys.store import Version
from tskeys.testing.conformance import KeyStoreConformance

WEB, PROD = KeyName("web"), KeyName("web/prod")


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    if "age" not in registry.BUILTIN:
        monkeypatch.setitem(registry.BUILTIN, "age", "tskeys_age:AgeStore")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "keys").mkdir(mode=0o700)
    return tmp_path / "keys"


class OfAge(KeyStoreConformance):
    def interrupt(self, location: str, name: KeyName) -> None:
        super().interrupt(location, KeyName(f"{name}.age"))


class TestX25519(OfAge):
    @pytest.fixture
    def location(self, tmp_path: Path, root: Path) -> str:
        path, recipient = x25519(tmp_path)
        return f"age:{root}?identity={path}&recipient={recipient}"


class TestSshHostKey(OfAge):
    kills = 2

    @pytest.fixture
    def location(self, tmp_path: Path, root: Path) -> str:
        path, _ = ssh(tmp_path)
        return f"age:{root}?identity={path}&recipients={path}.pub"


class TestIdentityAlone(OfAge):
    kills = 2

    @pytest.fixture
    def location(self, tmp_path: Path, root: Path) -> str:
        return f"age:{root}?identity={x25519(tmp_path)[0]}"


# A store with a mistake must not pass.

BROKEN = """
import pytest, pyrage
from tskeys.errors import CannotDecrypt, KeyNotFound
from tskeys.secret import Secret
from tskeys.store import Version
from tskeys.testing.conformance import KeyStoreConformance
from tskeys_age import AgeStore

class AbsentForDamaged(AgeStore):
    def version(self, name):
        return Version.of(self.get(name).reveal()) if super().version(name) else None

class StashesNothing(AgeStore):
    def stash(self, name):
        self._files.read(name, name.leaf + ".age")

class Suite(KeyStoreConformance):
    @pytest.fixture
    def location(self, tmp_path):
        (tmp_path / "keys").mkdir(mode=0o700)
        (tmp_path / "id").touch(mode=0o600)
        (tmp_path / "id").write_text(str(pyrage.x25519.Identity.generate()))
        return f"age:{tmp_path}/keys?identity={tmp_path}/id"

class TestVersion(Suite):
    backend = AbsentForDamaged

class TestStash(Suite):
    backend = StashesNothing
"""


def test_a_broken_store_fails_the_suite(tmp_path: Path) -> None:
    (tmp_path / "test_broken.py").write_text(BROKEN)
    wanted = "test_version or test_restore_brings_back"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rf", "--tb=no", "-p", "no:cacheprovider", "-k", wanted],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "FAILED test_broken.py::TestVersion::test_version" in run.stdout, run.stdout
    assert "FAILED test_broken.py::TestStash::test_restore_brings_back" in run.stdout, run.stdout
    assert "ERROR" not in run.stdout


# age itself, both ways


@pytest.fixture(scope="session")
def age() -> Callable[..., bytes]:
    needs("age")

    def run(*arguments: object, stdin: bytes = b"") -> bytes:
        done = subprocess.run(["age", *map(str, arguments)], input=stdin, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    return run


MAKERS: dict[str, Callable[[Path], tuple[Path, str]]] = {
    "x25519": x25519,
    "ssh-ed25519": ssh,
    "ssh-rsa": lambda directory: ssh(directory, "rsa"),
    "ssh-rsa in PEM": lambda directory: ssh(directory, "rsa", "-m", "PEM", "-N", ""),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_age_and_tskeys_read_each_other(
    age: Callable[..., bytes], tmp_path: Path, root: Path, kind: str
) -> None:
    path, recipient = MAKERS[kind](tmp_path)
    store = opened(root, identity=path, recipient=recipient)
    store.put(WEB, Secret(KEY))
    written = root / "web.age"
    assert written.read_bytes().startswith(b"age-encryption.org/v1\n")
    assert written.stat().st_mode & 0o777 == 0o600
    assert age("-d", "-i", path, written) == KEY
    for armor in ([], ["-a"]):
        for plaintext in (KEY, KEY + b"\n", KEY + b"\r\n"):
            written.write_bytes(age("-r", recipient, *armor, stdin=plaintext))
            assert store.get(WEB).reveal() == KEY
    written.write_bytes(b"\r\n \n" + written.read_bytes())  # age takes blanks before the armor
    assert store.get(WEB).reveal() == KEY


def test_several_recipients_and_identities(age: Callable[..., bytes], tmp_path: Path, root: Path) -> None:
    one, two, three = x25519(tmp_path, "one"), x25519(tmp_path, "two"), ssh(tmp_path)
    team = tmp_path / "team.txt"
    team.write_text(f"# the team\n\n{two[1]}\n  {three[1]}\n")
    opened(root, recipient=one[1], recipients=team).put(WEB, Secret(KEY))
    for path, _ in (one, two, three):
        assert age("-d", "-i", path, root / "web.age") == KEY
        assert opened(root, identity=path).get(WEB).reveal() == KEY
    both = private(tmp_path / "both", x25519(tmp_path, "other")[0].read_bytes() + two[0].read_bytes())
    assert opened(root, identity=both).get(WEB).reveal() == KEY
    assert opened(root, identity=[str(x25519(tmp_path, "x")[0]), str(three[0])]).get(WEB).reveal() == KEY


def test_the_nearest_age_recipients_counts(age: Callable[..., bytes], tmp_path: Path, root: Path) -> None:
    top, team = x25519(tmp_path, "top"), x25519(tmp_path, "team")
    (root / "web/eu").mkdir(parents=True, mode=0o700)
    (root / ".age-recipients").write_text(f"# all\n{top[1]}\n")
    (root / "web/.age-recipients").write_text(f"\n{team[1]}")
    store = opened(root, identity=[str(top[0]), str(team[0])])
    for name, reader, other in (
        ("db", top, team),
        ("web/prod", team, top),
        ("web/eu/a", team, top),
        ("new/a", top, team),
    ):
        store.put(KeyName(name), Secret(KEY))
        assert store.get(KeyName(name)).reveal() == KEY
        assert age("-d", "-i", reader[0], root / f"{name}.age") == KEY
        with pytest.raises(CannotDecrypt, match="none of the identities"):
            opened(root, identity=other[0]).get(KeyName(name))
    opened(root, recipient=top[1]).put(PROD, Secret(OLD))  # the location goes before the file
    assert age("-d", "-i", top[0], root / "web/prod.age") == OLD
    assert [str(name) for name in store.names()] == ["db", "new/a", "web/eu/a", "web/prod"]
    store.delete(PROD)
    store.delete(KeyName("new/a"))
    assert (root / "web/.age-recipients").exists()
    assert not (root / "new").exists()


def test_an_empty_age_recipients_shuts_everybody_out(tmp_path: Path, root: Path) -> None:
    path, recipient = x25519(tmp_path)
    (root / ".age-recipients").write_text(f"{recipient}\n")
    (root / "web").mkdir(mode=0o700)
    (root / "web/.age-recipients").write_text("# nobody yet\n")
    with pytest.raises(UsageError, match=r"web/\.age-recipients: there is no recipient"):
        opened(root, identity=path).put(PROD, Secret(KEY))
    assert not (root / "web/prod.age").exists()


# recipients that do not work


@pytest.mark.parametrize(
    ("recipient", "message", "hint"),
    [
        ("ecdsa-sha2-nistp256 AAAAE2VjZHNh PIV AUTH", "ssh-keygen -D", "age-plugin-yubikey"),
        ("sk-ssh-ed25519@openssh.com AAAAGnNr", "signs and opens nothing", "age-plugin-yubikey"),
        ("age1qqqq", "damaged recipient", ""),
        ("ssh-ed25519 AAAA", "damaged recipient", ""),
        ("age1tag1qqqq", "damaged recipient", ""),
        ("age1tagpq1qqqq", "damaged recipient", ""),
        ("github:someone", "no recipient of age's", "age1"),
        ("age1/../../tmp/evil1qqqq", "no name of an age plugin", ""),
        ("age1-r1qqqq", "no name of an age plugin", ""),
        ("age1nosuch1qqqq", "age-plugin-nosuch, which is missing", "age-plugin-nosuch"),
        ("age1pq1qqqq", "age-plugin-pq, which is missing", "age 1.3"),
        ("age1yubikey1qqqq", "age-plugin-yubikey, which is missing", "cargo install age-plugin-yubikey"),
    ],
)
def test_a_recipient_that_does_not_work_is_explained(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipient: str, message: str, hint: str
) -> None:
    monkeypatch.setattr(process, "PATH", "/nonexistent")
    good = x25519(tmp_path)[1]
    listed = tmp_path / "listed"
    listed.write_text(f"{good}\n{recipient}\n")
    for options in ({"recipient": recipient}, {"recipients": str(listed)}):
        with pytest.raises((UsageError, BackendUnavailable)) as caught:
            opened(root, **options).put(WEB, Secret(KEY))
        assert message in str(caught.value)
        assert hint in caught.value.hint
    assert list(root.iterdir()) == []


def test_an_identity_among_the_recipients_is_not_repeated(root: Path, tmp_path: Path) -> None:
    secret = str(pyrage.x25519.Identity.generate())
    with pytest.raises(UsageError, match="an identity stands where") as caught:
        opened(root, recipients=private(tmp_path / "r", secret)).put(WEB, Secret(KEY))
    assert secret[-20:] not in told(caught.value)


def test_nobody_to_seal_for(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nobody is named"):
        opened(root).put(WEB, Secret(KEY))
    assert list(root.iterdir()) == []
    path, _ = ssh(tmp_path)
    store = opened(root, identity=path)
    store.put(WEB, Secret(KEY))  # for FILE.pub, which is beside it
    assert store.get(WEB).reveal() == KEY
    path.with_suffix(".pub").unlink()
    with pytest.raises(UsageError, match="nobody is named"):
        store.put(WEB, Secret(OLD))
    assert store.get(WEB).reveal() == KEY


def test_recipients_that_others_may_change_are_refused(root: Path, tmp_path: Path) -> None:
    path, recipient = x25519(tmp_path)
    listed = tmp_path / "listed"
    listed.write_text(recipient)
    listed.chmod(0o666)
    nearest = root / ".age-recipients"
    nearest.write_text(recipient)
    nearest.chmod(0o664)
    for store in (opened(root, recipients=listed), opened(root, identity=path)):
        with pytest.raises(StoreError, match="others may write"):
            store.put(WEB, Secret(KEY))
    nearest.chmod(0o644)
    opened(root, identity=path).put(WEB, Secret(KEY))
    root.chmod(0o770)
    with pytest.raises(StoreError, match="writable for its group or others"):
        opened(root, identity=path)
    root.chmod(0o755)
    assert opened(root, identity=path).get(WEB).reveal() == KEY
    (root / "web.age").chmod(0o646)
    with pytest.raises(StoreError, match="others may write"):
        opened(root, identity=path).get(WEB)


def test_tag_recipients_need_no_plugin(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "PATH", "/nonexistent")
    # C2SP age.md's own example of a tagged recipient is not a valid one, so this is a point of P-256's.
    recipient = toy_bech32("age1tag", bytes.fromhex("03") + P256_X)
    opened(root, recipient=recipient).put(WEB, Secret(KEY))
    assert b"-> p256tag " in (root / "web.age").read_bytes()


def test_post_quantum_recipients_stand_alone(root: Path, tmp_path: Path) -> None:
    # A key of ML-KEM's that is all zeros will do for somebody who never reads.
    hybrid = toy_bech32("age1tagpq", bytes(1184) + bytes.fromhex("04") + P256_X + P256_Y)
    with pytest.raises(UsageError, match="cannot stand beside others"):
        opened(root, recipient=[hybrid, x25519(tmp_path)[1]]).put(WEB, Secret(KEY))
    opened(root, recipient=hybrid).put(WEB, Secret(KEY))
    assert list(root.iterdir()) == [root / "web.age"]


P256_X = bytes.fromhex("6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296")
P256_Y = bytes.fromhex("4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5")


# identities that do not work


def test_no_identity(root: Path, tmp_path: Path) -> None:
    store = opened(root, recipient=x25519(tmp_path)[1])
    first = store.put(WEB, Secret(OLD))
    store.stash(WEB)
    second = store.put(WEB, Secret(KEY), expect=first)
    assert store.version(WEB) == second == Version.of((root / "web.age").read_bytes())
    assert (root / ".web.previous.age").exists()
    assert store.restore(WEB, expect=second) == first
    assert opened(root, identity=tmp_path / "id").get(WEB).reveal() == OLD
    with pytest.raises(CannotDecrypt, match="names no identity") as caught:
        store.get(WEB)
    assert "/etc/ssh/ssh_host_ed25519_key" in caught.value.hint
    with pytest.raises(KeyNotFound):
        store.get(PROD)


def test_identities_that_do_not_work(root: Path, tmp_path: Path) -> None:
    good, recipient = x25519(tmp_path)
    opened(root, recipient=recipient).put(WEB, Secret(KEY))
    secret = str(pyrage.x25519.Identity.generate())
    readable = private(tmp_path / "readable", secret)
    readable.chmod(0o640)
    ssh(tmp_path, "ecdsa")
    ssh(tmp_path, "ed25519", "-N", "a passphrase")
    for path, message, hint in (
        (tmp_path / "missing", "No such file", ""),
        (tmp_path, "Is a directory", ""),
        (readable, "others may read the identity", "chmod 0600"),
        (tmp_path / "ssh_host_ecdsa_key", "of a type that age does not know", "ssh-ed25519"),
        (tmp_path / "ssh_host_ed25519_key", "an ssh key with a passphrase", "ssh-keygen -p"),
        (private(tmp_path / "cut", secret[:-9]), "cut:1: is a damaged age identity", ""),
        (private(tmp_path / "cutssh", "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n"), "a damaged ssh key", ""),
        (private(tmp_path / "text", f"#\n{secret[3:]}"), "text:2: is no age identity", "AGE-SECRET-KEY"),
        (private(tmp_path / "pq", "AGE-SECRET-KEY-PQ-1QQQQ"), "post-quantum", "age-plugin-pq"),
        (private(tmp_path / "evil", "AGE-PLUGIN-/../../TMP/EVIL-1QQQQ"), "evil:1: is a damaged", ""),
        (private(tmp_path / "other", secret), "none of the identities", "another of its recipients"),
        (private(tmp_path / "empty", "# nothing\n"), "none of the identities", ""),
    ):
        with pytest.raises(CannotDecrypt) as caught:
            opened(root, identity=path).get(WEB)
        assert message in str(caught.value)
        assert hint in caught.value.hint
        assert secret[-20:] not in told(caught.value)
        opened(root, identity=path, recipient=recipient).put(WEB, Secret(KEY))
    with pytest.raises(UsageError, match="is absolute"):
        opened(root, identity="id")
    assert opened(root, identity=good).get(WEB).reveal() == KEY


def test_a_credential_that_an_acl_lets_through_is_read(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, recipient = x25519(tmp_path)
    path.chmod(0o440)
    store = opened(root, identity=path, recipient=recipient)
    store.put(WEB, Secret(KEY))
    with pytest.raises(CannotDecrypt, match="others may read"):
        store.get(WEB)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert store.get(WEB).reveal() == KEY
    path.chmod(0o444)
    with pytest.raises(CannotDecrypt, match="others may read"):
        store.get(WEB)


def test_an_identity_file_under_a_passphrase(root: Path, tmp_path: Path) -> None:
    path, recipient = x25519(tmp_path)
    sealed = private(tmp_path / "sealed", pyrage.passphrase.encrypt(path.read_bytes(), "correct horse", True))
    opened(root, recipient=recipient).put(WEB, Secret(KEY))
    right, wrong = private(tmp_path / "right", "correct horse\n"), private(tmp_path / "wrong", "battery")
    store = opened(root, identity=sealed, pin=right)
    assert store.get(WEB).reveal() == KEY
    with pytest.raises(UsageError, match="nobody is named"):
        store.put(WEB, Secret(OLD))  # nobody is asked for a passphrase to write
    with pytest.raises(CannotDecrypt, match="passphrase of the identity file is wrong"):
        opened(root, identity=sealed, pin=wrong).get(WEB)


@pytest.mark.parametrize("armor", [False, True])
def test_a_damaged_file_never_yields_a_key(root: Path, tmp_path: Path, armor: bool) -> None:
    path, recipient = x25519(tmp_path)
    whole = pyrage.encrypt(KEY, [pyrage.x25519.Recipient.from_str(recipient)], armored=armor)
    store = opened(root, identity=path)
    file = root / "web.age"
    said = set()
    for at in range(0, len(whole) - armor, 10):
        for damaged in (whole[:at], whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]):
            file.write_bytes(damaged)
            with pytest.raises(CannotDecrypt) as caught:
                store.get(WEB)
            said.add(str(caught.value).partition(f"{WEB} ")[2].partition(" in /")[0])
    file.write_bytes(KEY)
    with pytest.raises(CannotDecrypt, match="no file of age's"):
        store.get(WEB)
    assert said == {
        "is no file of age's",
        "is damaged: the file was cut short or changed",
        "is sealed for none of the identities",
    }
