"""`file:DIR`: each key in a file of its own, `DIR/NAME`, mode 0600 in a directory of mode 0700."""

import fcntl
import os

from tskeys import atomic, authkey
from tskeys.errors import BackendUnavailable, Conflict, KeyNotFound, StoreError, StoreUnavailable, UsageError
from tskeys.name import KeyName
from tskeys.secret import Secret
from tskeys.store import ABSENT, KeyStore, Listable, Location, Stash, Version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime


class FileStore(KeyStore, Listable, Stash):
    """Keys in plain files; the replaced one of `web/prod` rests in `web/.prod.previous`."""

    scheme = "file"

    def __init__(self, location: Location, root: int) -> None:
        self.location = location
        self._path = location.path.rstrip("/") or "/"
        self._root = root

    def __del__(self) -> None:
        os.close(self._root)

    @classmethod
    def open(cls, location: Location) -> "FileStore":
        """Open a directory that nobody else can look into; raise BackendUnavailable for a missing one."""
        location.allow()
        path = location.absolute_path()
        try:
            root = os.open(path, atomic.DIRECTORY)
        except OSError as error:
            raise BackendUnavailable(
                f"{location}: {error.strerror}",
                hint=f"Is its file system mounted? To make it: install -d -m 0700 {path}",
            ) from None
        status = os.fstat(root)
        store = cls(location, root)
        if status.st_mode & 0o077:
            raise StoreError(
                f"{location}: others may look into the directory (mode {status.st_mode & 0o7777:04o})",
                hint=f"Run: chmod 0700 {path}",
            )
        if status.st_uid not in (0, os.geteuid()):
            raise StoreError(f"{location}: the directory belongs to uid {status.st_uid}, not to you or root")
        return store

    def get(self, name: KeyName) -> Secret:
        """Return the key without the one newline that `echo` leaves."""
        return Secret(authkey.trim(self._read(name, name.leaf)))

    def put(
        self,
        name: KeyName,
        secret: Secret,
        *,
        expect: Version | None = None,
        expires: "datetime | None" = None,
    ) -> Version:
        """Write the key, and nothing else, to its file."""
        self._write(name, name.leaf, secret.reveal(), expect)
        if self.get(name) != secret:
            raise StoreError(f"{self.location}: {name} did not read back as it was written")
        return Version.of(secret.reveal())

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
        """Return the version of the file's bytes."""
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
        """Copy the file."""
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
        try:
            data, status = atomic.read_at(self._root, name.sibling(leaf))
        except OSError as error:
            raise self._explained(error, name) from None
        if status.st_mode & 0o077:
            path = f"{self._path}/{name.sibling(leaf)}"
            raise StoreError(
                f"{path}: others may read it (mode {status.st_mode & 0o7777:04o})",
                hint=f"Run: chmod 0600 {path}",
            )
        return data

    def _write(self, name: KeyName, leaf: str, data: bytes, expect: Version | None) -> None:
        def unchanged() -> None:
            if expect is not None and (self.version(name) or ABSENT) != expect:
                raise Conflict(f"{self.location}: {name} was changed by somebody else meanwhile")

        try:
            directory = atomic.subdirectory(self._root, name.parent, mode=0o700, create=True)
            try:
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
