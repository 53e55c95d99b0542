"""Identity files: what opens a key (age-encryption.org/v1, and ssh's private keys)."""

import os

import pyrage

from tskeys.errors import CannotDecrypt, UsageError
from tskeys.secret import Secret
from tskeys_age import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    Native = pyrage.x25519.Identity | pyrage.ssh.Identity

ENCRYPTED = (b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED FILE-----")


class Identities:
    """The identity files of a location, read anew each time; `pin` is the path of a file."""

    def __init__(self, paths: list[str], pin: str | None) -> None:
        for path in (*paths, *([pin] if pin is not None else [])):
            if not path.startswith("/"):
                raise UsageError(f"{path!r}: the path of an identity or a PIN is absolute")
        self.paths = paths
        self._pin = pin
        self._pin_held: Secret | None = None
        self._refused = False

    def __bool__(self) -> bool:
        return bool(self.paths)

    def decrypt(self, sealed: bytes, what: str) -> bytes:
        """Open a sealed key by the identities that need nobody, then by those that do.

        Raises CannotDecrypt, or BackendUnavailable for a missing plugin.
        """
        native: list[Native] = []
        asked: list[str] = []
        protected: list[tuple[str, bytes]] = []
        for path in self.paths:
            data = read_private(path, "identity")
            if data.lstrip().startswith(ENCRYPTED):
                protected.append((path, data))
            else:
                parse(data, path, native, asked)
        opened = _open(sealed, native, what)
        if opened is None and protected:
            for path, data in protected:
                from tskeys_age import passphrase  # late: only who has such a file pays for it

                more: list[Native] = []
                parse(passphrase.decrypted(path, data, self._secret()), path, more, asked)
                opened = _open(sealed, more, what)
                if opened is not None:
                    break
        if opened is None and asked:
            opened = self._by_plugins(sealed, asked, what)
        if opened is None:
            raise CannotDecrypt(
                f"{what} is sealed for none of the identities in {', '.join(self.paths)}",
                hint="Who holds another of its recipients can seal it anew for this one.",
            )
        return opened

    def decrypt_alone(self, sealed: bytes) -> bytes | None:
        """Open what has just been sealed, or return None where that takes a person or another host."""
        native: list[Native] = []
        for path in self.paths:
            try:
                parse(read_private(path, "identity"), path, native, [])
            except (
                CannotDecrypt,
                UsageError,
            ):  # writing needs no identity, so a broken one is get's to report
                continue
        return _open(sealed, native, "the key that has just been sealed")

    def _by_plugins(self, sealed: bytes, asked: list[str], what: str) -> bytes | None:
        from tskeys_age import plugin  # late: spawning costs more than all the rest

        if self._refused:
            # A token blocks after three wrong PINs, and 200 keys would use them up.
            raise CannotDecrypt(
                f"{what}: the PIN in {self._pin} was refused before and is not tried again", hint=plugin.PIN
            )
        try:
            return plugin.decrypt(sealed, asked, self._secret(), what)
        except plugin.WrongPin:
            self._refused = self._pin is not None
            raise

    def _secret(self) -> Secret | None:
        if self._pin is not None and self._pin_held is None:
            held = read_private(self._pin, "PIN").strip(b"\r\n")
            if not held:
                raise CannotDecrypt(f"{self._pin}: the PIN is empty")
            self._pin_held = Secret(held)  # kept, since a descriptor (/dev/fd/3) can be read once
        return self._pin_held


def read_private(path: str, what: str) -> bytes:
    """Return a file's bytes; raise CannotDecrypt for a missing one and for one that others may read."""
    try:
        # Not atomic.read_at: the secrets of sops-nix and agenix are symlinks.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            mode = os.fstat(fd).st_mode & 0o7777
            data = b""
            while piece := os.read(fd, 65536):
                data += piece
        finally:
            os.close(fd)
    except OSError as error:
        raise CannotDecrypt(f"{path}: the {what} cannot be read: {error.strerror}") from None
    # systemd lets a unit's user read a credential by an ACL, which shows as the group's bit.
    credential = path.startswith(os.environ.get("CREDENTIALS_DIRECTORY", "\n") + "/")
    if mode & (0o007 if credential else 0o077):
        raise CannotDecrypt(
            f"{path}: others may read the {what} (mode {mode:04o})", hint=f"Run: chmod 0600 {path}"
        )
    return data


def parse(data: bytes, path: str, native: "list[Native]", asked: list[str]) -> None:
    """Add the identities of a file to `native`, or to `asked` those that a plugin has to be asked for.

    Raises CannotDecrypt with the line, never with what stands in it.
    """
    if data.lstrip().startswith(ENCRYPTED):
        raise CannotDecrypt(f"{path}: is an encrypted identity file")
    if data.startswith(b"-----BEGIN "):
        native.append(_ssh(data, path))
        return
    for number, line in enumerate(data.decode("ascii", "replace").splitlines(), 1):
        text = line.strip()
        try:
            if text.startswith("AGE-SECRET-KEY-1"):
                native.append(pyrage.x25519.Identity.from_str(text))
            elif text.startswith("AGE-PLUGIN-"):
                names.of_identity(text)
                asked.append(text)
            elif text.startswith("AGE-SECRET-KEY-PQ-1"):
                raise CannotDecrypt(
                    f"{path}:{number}: pyrage opens no post-quantum keys by itself",
                    hint=f"Install age-plugin-pq and convert it: age-plugin-pq -identity -o NEW {path}",
                )
            elif text and not text.startswith("#"):
                raise CannotDecrypt(
                    f"{path}:{number}: is no age identity",
                    hint="One looks like AGE-SECRET-KEY-1… or AGE-PLUGIN-NAME-1…, or the file is an ssh key.",
                )
        except (UsageError, pyrage.IdentityError):
            raise CannotDecrypt(f"{path}:{number}: is a damaged age identity") from None


def _ssh(data: bytes, path: str) -> "pyrage.ssh.Identity":
    try:
        return pyrage.ssh.Identity.from_buffer(data)
    except pyrage.IdentityError as error:
        if "must be decrypted" in str(error):
            raise CannotDecrypt(
                f"{path}: is an ssh key with a passphrase, which cannot be used",
                hint=f"Use an age identity, or take it off with: ssh-keygen -p -f {path}",
            ) from None
        if "unsupported" in str(error):
            raise CannotDecrypt(
                f"{path}: is an ssh key of a type that age does not know",
                hint="ssh-ed25519 and ssh-rsa keys work.",
            ) from None
        raise CannotDecrypt(f"{path}: is a damaged ssh key") from None


def _open(sealed: bytes, native: "list[Native]", what: str) -> bytes | None:
    try:
        return pyrage.decrypt(sealed, native) if native else None
    except pyrage.DecryptError as error:
        if "No matching keys" in str(error):
            return None
        raise damaged(what) from None


def damaged(what: str) -> CannotDecrypt:
    """Return the error for a file that is cut short or was changed."""
    return CannotDecrypt(
        f"{what} is damaged: the file was cut short or changed",
        hint="Restore it from a backup, or rotate the key.",
    )
