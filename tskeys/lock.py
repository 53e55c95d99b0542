"""One lock per store and name, kept beside the store, so that two ledgers cannot rotate the same key.

The kernel drops a flock with its holder's last descriptor, so a killed run blocks nobody, and one that is
merely stopped keeps everybody out.
"""

import fcntl
import os
import time

from tskeys import atomic
from tskeys.errors import Locked, StoreUnavailable
from tskeys.name import KeyName
from tskeys.store import KeyStore, Version

WAIT = 60.0
"""Seconds to wait for another run before giving up."""


class Lock:
    """Hold the lock of a key; raise Locked when another run keeps it for `wait` seconds, WAIT by default.

    `fallback` is a directory for the locks of stores that have no place for one. `remembered` says that the
    ledger knows a key here: a store that then has lost both the key and its lock file has lost its file
    system, and StoreUnavailable is raised instead of taking it for an empty one.
    """

    def __init__(
        self,
        store: KeyStore,
        name: KeyName,
        *,
        fallback: str,
        remembered: bool = False,
        wait: float | None = None,
    ) -> None:
        self._store, self._name, self._remembered = store, name, remembered
        self._wait = WAIT if wait is None else wait
        beside = store.lock_path(name)
        elsewhere = Version.of(f"{store.location} {name}".encode())[3:23]
        self.path = beside or f"{fallback}/{elsewhere}.lock"
        self._witness = beside is not None
        self._fd = -1

    def __enter__(self) -> "Lock":
        if not self._witness:
            try:
                os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            except OSError as error:
                raise StoreUnavailable(f"{self.path}: {error.strerror}") from None
        elif self._remembered and not os.path.lexists(self.path) and not self._store.version(self._name):
            raise StoreUnavailable(
                f"{self._store.location}: {self._name} was here and is gone, and its lock file too",
                hint="Is the file system mounted? If the key is given up for good: "
                f"tskeys delete {self._name} --forget",
            )
        deadline = time.monotonic() + self._wait
        while not self._take():
            if time.monotonic() >= deadline:
                raise Locked(
                    f"{self._store.location}: {self._name} is locked by another run",
                    hint=f"It has the lock on {self.path} for more than {self._wait:g} s; fuser shows who.",
                )
            time.sleep(0.05)
        return self

    def __exit__(self, *error: object) -> None:
        os.close(self._fd)
        self._fd = -1

    def verify(self) -> None:
        """Raise Locked if this run has lost the lock: somebody removed or replaced the file."""
        try:
            on_disk = os.stat(self.path, follow_symlinks=False)
        except OSError:
            on_disk = None
        if self._fd < 0 or on_disk is None or not os.path.samestat(on_disk, os.fstat(self._fd)):
            raise Locked(f"{self.path}: this run has lost its lock, and changes nothing more")

    def _take(self) -> bool:
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnavailable(f"{self.path}: {error.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        self._fd = fd
        try:
            self.verify()
        except Locked:
            self.__exit__()
            return False
        try:
            self._durable()
        except OSError as error:
            self.__exit__()
            raise StoreUnavailable(f"{self.path}: {error.strerror}") from None
        return True

    def _durable(self) -> None:
        # The file is also the witness that this is the store it was, so it must outlive a power cut.
        directory = os.open(os.path.dirname(self.path), atomic.DIRECTORY)
        try:
            if os.geteuid() == 0:
                status = os.fstat(directory)
                os.fchown(self._fd, status.st_uid, status.st_gid)
            atomic.sync(directory)
        finally:
            os.close(directory)
