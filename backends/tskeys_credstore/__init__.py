"""`credstore:DIR`: each key sealed by `systemd-creds`, in `DIR/NAME`, for the credential name LEAF.

A unit reads it with `LoadCredentialEncrypted=LEAF:DIR/NAME`, or by name alone where DIR is
/etc/credstore.encrypted: nothing of tskeys runs at its start. The file is what `systemd-creds encrypt` writes
(systemd.exec(5), systemd-creds(1)), so that either reads what the other wrote.

Options: `key`, what to seal with (host, tpm2, host+tpm2, or auto for what systemd-creds finds here), and
`seal-expiry`, on or off. Off is the default: with it on, a unit whose key has expired starts no more, and a
node that is registered already needs no key.
"""

import fcntl
import os

from tskeys import atomic
from tskeys.errors import BackendUnavailable, Conflict, KeyNotFound, StoreError, StoreUnavailable, UsageError
from tskeys.name import KeyName
from tskeys.secret import Secret
from tskeys.store import ABSENT, KeyStore, Listable, Location, Stash, Version
from tskeys_credstore import seal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime


class CredStore(KeyStore, Listable, Stash):
    """Keys in encrypted credentials; the replaced one of `web/prod` rests in `web/.prod.previous`."""

    scheme = "credstore"

    def __init__(self, location: Location, root: int, key: str, seal_expiry: bool) -> None:
        self.location = location
        self._path = location.path.rstrip("/") or "/"
        self._root = root
        self._key = key
        self._seal_expiry = seal_expiry

    def __del__(self) -> None:
        os.close(self._root)

    @classmethod
    def open(cls, location: Location) -> "CredStore":
        """Open a directory into which nobody else writes; raise BackendUnavailable for a missing one."""
        location.allow("key", "seal-expiry")
        key = _choice(location, "key", "auto", seal.KEYS)
        seal_expiry = _choice(location, "seal-expiry", "off", ("on", "off")) == "on"
        path = location.absolute_path()
        seal.program()
        try:
            root = os.open(path, atomic.DIRECTORY)
        except OSError as error:
            raise BackendUnavailable(
                f"{location}: {error.strerror}",
                hint=f"Is its file system mounted? To make it: install -d -m 0700 {path}",
            ) from None
        store = cls(location, root, key, seal_expiry)
        store._refuse_unsafe(root)
        return store

    def get(self, name: KeyName) -> Secret:
        """Return the key as a unit gets it."""
        return seal.decrypt(self._read(name, name.leaf), name.leaf, where=f"{self.location}: {name}")

    def put(
        self,
        name: KeyName,
        secret: Secret,
        *,
        expect: Version | None = None,
        expires: "datetime | None" = None,
    ) -> Version:
        """Seal the key, and replace the file only by what could be opened again."""
        where = f"{self.location}: {name}"
        sealed = seal.encrypt(
            secret,
            name.leaf,
            key=self._key,
            not_after=expires if self._seal_expiry else None,
            where=where,
        )
        if seal.decrypt(sealed, name.leaf, where=where) != secret:
            raise StoreError(f"{where} did not open again as it was sealed")
        self._write(name, name.leaf, sealed, expect)
        if self._read(name, name.leaf) != sealed:
            raise StoreError(f"{where} did not read back as it was written")
        return Version.of(sealed)

    def delete(self, name: KeyName) -> None:
        """Remove the stash, the key, and directories that are empty then.

        In this order a crash in between leaves a key that can be deleted again.
        """
        if self.version(name) is None:
            raise self._missing(name)
        self.forget(name)
        self._remove(name, name.leaf)
        parent = name.parent
        while parent:
            try:
                os.rmdir(parent, dir_fd=self._root)
            except OSError:
                break
            parent = parent.rpartition("/")[0]

    def version(self, name: KeyName) -> Version | None:
        """Return the version of the sealed bytes; sealing the same key again gives another one."""
        try:
            return Version.of(self._read(name, name.leaf))
        except KeyNotFound:
            return None

    def lock_path(self, name: KeyName) -> str:
        """Return `DIR/.web+prod.lock`; a + stands in no name."""
        return f"{self._path}/.{name.text.replace('/', '+')}.lock"

    def names(self) -> "Iterator[KeyName]":
        """Yield every file below the root whose path is a key name."""
        found = []
        for here, directories, files in os.walk(self._path, onerror=self._unreadable):
            directories[:] = [entry for entry in directories if not entry.startswith(".")]
            for entry in files:
                try:
                    found.append(KeyName(os.path.relpath(f"{here}/{entry}", self._path)))
                except UsageError:
                    continue
        yield from sorted(found)

    def stash(self, name: KeyName) -> None:
        """Copy the sealed bytes: the name they are sealed for is the key's, not the file's."""
        self._write(name, _previous(name), self._read(name, name.leaf), None)

    def restore(self, name: KeyName, *, expect: Version | None = None) -> Version:
        """Copy the stash back."""
        data = self._read(name, _previous(name))
        self._write(name, name.leaf, data, expect)
        return Version.of(data)

    def forget(self, name: KeyName) -> None:
        """Remove the stash, and temporary files of a killed run."""
        try:
            self._remove(name, _previous(name))
        except KeyNotFound:
            pass

    def _read(self, name: KeyName, leaf: str) -> bytes:
        # Others may read it, as they may what `systemd-creds encrypt` leaves: it is sealed.
        try:
            return atomic.read_at(self._root, name.sibling(leaf))[0]
        except OSError as error:
            raise self._explained(error, name) from None

    def _write(self, name: KeyName, leaf: str, data: bytes, expect: Version | None) -> None:
        def unchanged() -> None:
            if expect is not None and (self.version(name) or ABSENT) != expect:
                raise Conflict(f"{self.location}: {name} was changed by somebody else meanwhile")

        try:
            directory = atomic.subdirectory(self._root, name.parent, mode=0o700, create=True)
            try:
                self._refuse_unsafe(directory)
                # Nobody else may write between the comparison and the rename; close() lets go.
                fcntl.flock(directory, fcntl.LOCK_EX)
                atomic.write_at(directory, leaf, data, mode=0o600, check=unchanged)
            finally:
                os.close(directory)
        except OSError as error:
            raise self._explained(error, name) from None

    def _remove(self, name: KeyName, leaf: str) -> None:
        try:
            directory = atomic.subdirectory(self._root, name.parent, mode=0o700)
            try:
                atomic.sweep(directory, name.leaf)
                atomic.remove_at(directory, leaf)
            finally:
                os.close(directory)
        except OSError as error:
            raise self._explained(error, name) from None

    def _refuse_unsafe(self, directory: int) -> None:
        # Who writes here can bring back an older key of the same name, which opens as well as the current.
        status = os.fstat(directory)
        path = os.readlink(f"/proc/self/fd/{directory}")
        if status.st_uid not in (0, os.geteuid()):
            raise StoreError(f"{path}: the directory belongs to uid {status.st_uid}, not to you or root")
        if status.st_mode & 0o022:
            raise StoreError(
                f"{path}: others may put files there (mode {status.st_mode & 0o7777:04o})",
                hint=f"Run: chmod go-w {path}",
            )

    def _explained(self, error: OSError, name: KeyName) -> StoreError | UsageError:
        if isinstance(error, FileNotFoundError):
            return self._missing(name)
        if isinstance(error, NotADirectoryError | IsADirectoryError):
            return UsageError(
                f"{self.location}: {name} cannot stand beside a key whose path it begins or goes on"
            )
        return StoreUnavailable(f"{self.location}: {name}: {error.strerror}")

    def _unreadable(self, error: OSError) -> None:
        raise StoreUnavailable(f"{self.location}: {error.strerror}")

    def _missing(self, name: KeyName) -> KeyNotFound:
        # A root that was removed while it was open answers ENOENT for everything.
        if not os.path.isdir(self._path):
            raise StoreUnavailable(f"{self.location}: is gone", hint="Is its file system mounted?")
        return KeyNotFound(f"{self.location}: no key {name}", hint=f"Store one with: tskeys set {name}")


def _previous(name: KeyName) -> str:
    return f".{name.leaf}.previous"


def _choice(location: Location, option: str, default: str, known: tuple[str, ...]) -> str:
    given = location.option(option)
    value = default if given is None else given
    if value not in known:
        raise UsageError(f"{location}: {option}={value!r} is none of {', '.join(known)}")
    return value
