"""Recipients: whom a key is sealed for, and where they are written down."""

import os

import pyrage

from tskeys.errors import StoreError, TskeysError, UsageError
from tskeys.secret import Secret
from tskeys_age import names
from tskeys_age.files import SealedFiles
from tskeys_age.identities import Identities, read_private

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tskeys.name import KeyName
    from tskeys.store import Location

    Recipient = pyrage.x25519.Recipient | pyrage.ssh.Recipient | pyrage.tag.Recipient | pyrage.tagpq.Recipient

FILE = ".age-recipients"
"""passage's name for it."""

YUBIKEY = (
    "A YubiKey works through age-plugin-yubikey: run it to make an identity, give recipient=age1yubikey1… "
    "(or age1tag1…) and identity=FILE."
)


def of_location(location: "Location") -> list[str]:
    """Return the recipients that the location names; raise UsageError."""
    found = [_checked(text, f"{location.scheme}:{location.path}") for text in location.options("recipient")]
    for path in location.options("recipients"):
        if not path.startswith("/"):
            raise UsageError(f"{path!r}: the path of a file of recipients is absolute")
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                data = file.read(1 << 20)
        except OSError as error:
            raise StoreError(f"{path}: the recipients cannot be read: {error.strerror}") from None
        if status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid()):
            raise StoreError(
                f"{path}: others may write to it and read every key from then on",
                hint=f"Run: chmod go-w {path}, and see whose it is.",
            )
        lines = _lines(data, path)
        if not lines:
            raise UsageError(f"{path}: there is no recipient in it")
        found += lines
    return found


def nearest(files: SealedFiles, name: "KeyName") -> list[str]:
    """Return those of the nearest `.age-recipients` from the key's directory up to the root, or none."""
    parent = name.parent
    while True:
        path = f"{parent}/{FILE}" if parent else FILE
        data = files.read_setting(path)
        if data is not None:
            found = _lines(data, f"{files.path}/{path}")
            if not found:  # going on upwards would seal for people who were shut out here
                raise UsageError(f"{files.path}/{path}: there is no recipient in it")
            return found
        if not parent:
            return []
        parent = parent.rpartition("/")[0]


def of_identities(identities: Identities, location: "Location") -> list[str]:
    """Return the recipients that belong to the identities, as `age -e -i` does; raise UsageError.

    That of an ssh key stands in FILE.pub beside it. A token is not asked.
    """
    found = []
    for path in identities.paths:
        data = read_private(path, "identity")
        if data.startswith(b"-----BEGIN ") and os.path.exists(f"{path}.pub"):
            with open(f"{path}.pub", "rb") as file:
                found += _lines(file.read(1 << 20), f"{path}.pub")
            continue
        for line in data.decode("ascii", "replace").splitlines():
            if line.strip().startswith("AGE-SECRET-KEY-1"):
                try:
                    found.append(str(pyrage.x25519.Identity.from_str(line.strip()).to_public()))
                except pyrage.IdentityError:
                    raise UsageError(f"{path}: there is a damaged age identity in it") from None
    if not found:
        raise UsageError(
            f"{location.scheme}:{location.path}: nobody is named who could open a key",
            hint=f"Add ?recipient=age1… or write recipients into {location.path.rstrip('/')}/{FILE}.",
        )
    return found


def encrypt(secret: Secret, texts: list[str]) -> bytes:
    """Return the secret sealed for all of these; raise UsageError for one that cannot be used."""
    if any(by_plugin(text) for text in texts):
        from tskeys_age import plugin  # late: spawning costs more than all the rest

        return plugin.encrypt(secret, texts)
    try:
        return pyrage.encrypt(secret.reveal(), [native(text) for text in texts])
    except pyrage.EncryptError as error:
        raise refused(str(error)) from None


def refused(reason: str) -> TskeysError:
    """Return the error for recipients that age does not take together; `reason` is the library's text."""
    if "labels" in reason:
        return UsageError(
            "post-quantum recipients (age1pq1…, age1tagpq1…) cannot stand beside others",
            hint="Who breaks the others would read the key all the same. Use one kind alone.",
        )
    return StoreError("the key could not be sealed for these recipients")


def native(text: str) -> "Recipient":
    """Return a recipient that needs no plugin; raise UsageError for a damaged one."""
    try:
        if text.startswith("ssh-"):
            return pyrage.ssh.Recipient.from_str(text)
        if text.startswith("age1tag1"):
            return pyrage.tag.Recipient.from_str(text)
        if text.startswith("age1tagpq1"):
            return pyrage.tagpq.Recipient.from_str(text)
        return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError:
        raise damaged(text) from None


def damaged(text: str) -> UsageError:
    """Return the error for a recipient that was mistyped or cut short."""
    return UsageError(f"{text[:60]!r}: is a damaged recipient: mistyped, or cut short")


def by_plugin(text: str) -> str:
    """Return the plugin that seals for a recipient, or an empty string; raise UsageError for a bad name."""
    prefix = text.rpartition("1")[0]
    if text.startswith("ssh-") or prefix in ("age", "age1tag", "age1tagpq"):
        return ""
    return names.of_recipient(text)


def _lines(data: bytes, path: str) -> list[str]:
    lines = (line.strip() for line in data.decode("utf-8", "replace").splitlines())
    return [
        _checked(line, f"{path}:{number}")
        for number, line in enumerate(lines, 1)
        if line and not line.startswith("#")
    ]


def _checked(text: str, where: str) -> str:
    # Nothing that could be an identity, and so a secret, is repeated.
    if text.upper().startswith(("AGE-SECRET-KEY-", "AGE-PLUGIN-")):
        raise UsageError(
            f"{where}: an identity stands where a recipient belongs",
            hint="It opens keys: keep it in an identity file. Its recipient begins with age1.",
        )
    kind = text.partition(" ")[0]
    if kind.startswith("ecdsa-sha2-"):
        raise UsageError(
            f"{where}: age cannot seal for an ssh key of type {kind}, which `ssh-keygen -D … -e` prints",
            hint=f"No version of age ever could. {YUBIKEY}",
        )
    if kind.startswith("sk-"):
        raise UsageError(
            f"{where}: age cannot seal for an ssh key of type {kind}: such a token signs and opens nothing",
            hint=f"{YUBIKEY} Other FIDO2 tokens: age-plugin-fido2-hmac.",
        )
    if kind in ("ssh-ed25519", "ssh-rsa"):
        return text
    if not text.startswith("age1") or " " in text:
        raise UsageError(
            f"{where}: is no recipient of age's",
            hint="One looks like age1…, ssh-ed25519 …, ssh-rsa … or, with a plugin, age1NAME1….",
        )
    by_plugin(text)
    return text
