"""The directory of sealed files: who may write to it, and how one file is read, replaced and removed."""

import fcntl
import os

from tskeys import atomic
from tskeys.errors import BackendUnavailable, Conflict, KeyNotFound, StoreError, StoreUnavailable, UsageError
from tskeys.name import KeyName
from tskeys.store import ABSENT, Location, Version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIX = ".age"


class SealedFiles:
    """An open directory; raise BackendUnavailable for a missing one, StoreError where others may write.

    Who can put files there can make a host join another tailnet, and become a recipient of the next key.
    Being able to read them does no harm.
    """

    def __init__(self, location: Location) -> None:
        self.path = location.absolute_path().rstrip("/") or "/"
        try:
            self._root = os.open(self.path, atomic.DIRECTORY)
        except OSError as error:
            raise BackendUnavailable(
                f"{self}: {error.strerror}",
                hint=f"Is its file system mounted? To make it: install -d -m 0700 {self.path}",
            ) from None
        reason = atomic.unsafe(self._root, (0, os.geteuid()))
        if reason:
            raise StoreError(
                f"{self}: others could put keys and recipients there: {reason}",
                hint=f"Run: chmod go-w {self.path} and see to its parents.",
            )

    def __del__(self) -> None:
        if hasattr(self, "_root"):
            os.close(self._root)

    def __str__(self) -> str:
        return f"age:{self.path}"  # without the options: a post-quantum recipient has 2,000 characters

    def read(self, name: KeyName, leaf: str) -> bytes:
        """Return the bytes of a file beside a key; raise KeyNotFound."""
        try:
            data, status = atomic.read_at(self._root, name.sibling(leaf))
        except OSError as error:
            raise self._explained(error, name) from None
        self._refuse_writable(status, name.sibling(leaf))
        return data

    def read_setting(self, path: str) -> bytes | None:
        """Return the bytes of a file that is no key, by its path below the root, or None without one."""
        try:
            data, status = atomic.read_at(self._root, path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreUnavailable(f"{self.path}/{path}: {error.strerror}") from None
        self._refuse_writable(status, path)
        return data

    def write(self, name: KeyName, leaf: str, data: bytes, expect: Version | None) -> None:
        """Replace a file beside a key; raise Conflict where the key is not the expected one."""

        def unchanged() -> None:
            if expect is not None and self._version(name) != expect:
                raise Conflict(f"{self}: {name} was changed by somebody else meanwhile")

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

    def remove(self, name: KeyName, leaf: str) -> None:
        """Remove a file beside a key, and what killed writers of the key left; raise KeyNotFound."""
        try:
            directory = atomic.subdirectory(self._root, name.parent, mode=0o700)
            try:
                atomic.sweep(directory, name.leaf + SUFFIX)
                atomic.remove_at(directory, leaf)
            finally:
                os.close(directory)
        except OSError as error:
            raise self._explained(error, name) from None

    def prune(self, name: KeyName) -> None:
        """Remove the directories above a key that are empty."""
        parent = name.parent
        while parent:
            try:
                os.rmdir(parent, dir_fd=self._root)
            except OSError:
                break
            parent = parent.rpartition("/")[0]

    def names(self) -> "Iterator[KeyName]":
        """Yield every key, sorted."""
        found = []
        for here, directories, files in os.walk(self.path, onerror=self._unreadable):
            directories[:] = [entry for entry in directories if not entry.startswith(".")]
            for entry in files:
                if entry.endswith(SUFFIX):
                    path = os.path.relpath(f"{here}/{entry}", self.path)
                    try:
                        found.append(KeyName(path.removesuffix(SUFFIX)))
                    except UsageError:
                        continue
        yield from sorted(found)

    def missing(self, name: KeyName) -> KeyNotFound:
        """Return the error for a key that is not there; raise StoreUnavailable where the root is gone too."""
        # A root that was removed while it was open answers ENOENT for everything.
        if not os.path.isdir(self.path):
            raise StoreUnavailable(f"{self}: is gone", hint="Is its file system mounted?")
        return KeyNotFound(f"{self}: no key {name}", hint=f"Store one with: tskeys set {name}")

    def _version(self, name: KeyName) -> Version:
        try:
            return Version.of(self.read(name, name.leaf + SUFFIX))
        except KeyNotFound:
            return ABSENT

    def _refuse_writable(self, status: os.stat_result, path: str) -> None:
        if status.st_mode & 0o022:
            raise StoreError(
                f"{self.path}/{path}: others may write to it (mode {status.st_mode & 0o7777:04o})",
                hint=f"Run: chmod go-w {self.path}/{path}",
            )
        if status.st_uid not in (0, os.geteuid()):
            raise StoreError(f"{self.path}/{path}: belongs to uid {status.st_uid}, not to you or root")

    def _explained(self, error: OSError, name: KeyName) -> StoreError | UsageError:
        if isinstance(error, FileNotFoundError):
            return self.missing(name)
        if isinstance(error, NotADirectoryError | IsADirectoryError):
            return UsageError(f"{self}: {name} cannot stand beside a key whose path it begins or goes on")
        return StoreUnavailable(f"{self}: {name}: {error.strerror}")

    def _unreadable(self, error: OSError) -> None:
        raise StoreUnavailable(f"{self}: {error.strerror}")
