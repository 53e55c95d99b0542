"""A file that others write to as well: changed with no other writer in between, and safe from other users.

For backends that keep a key among a file's other settings.
"""

import errno
import fcntl
import os
import stat
import time

from tskeys import atomic
from tskeys.errors import StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_PATIENCE = 10.0  # seconds for other writers of the same file
_TRIES = 8


class _Edited(Exception):
    pass


def refuse_readable(status: os.stat_result, path: str) -> None:
    """Raise StoreError for a file that others may read."""
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        raise StoreError(
            f"{path}: others may read it (mode {mode:04o})", hint=f"Run: chmod {mode & 0o700:04o} {path}"
        )


def refuse_unsafe(directory: int) -> None:
    """Raise StoreError for an open directory into which others could put their own files."""
    status = os.fstat(directory)
    mode = stat.S_IMODE(status.st_mode)
    foreign = status.st_uid not in (0, os.geteuid())
    if foreign or mode & 0o022:
        path = os.readlink(f"/proc/self/fd/{directory}")
        if foreign:
            raise StoreError(f"{path}: the directory belongs to uid {status.st_uid}, not to you or root")
        raise StoreError(
            f"{path}: others may put files there (mode {mode:04o})", hint=f"Run: chmod go-w {path}"
        )


def owner(directory: int) -> tuple[int, int]:
    """Return whose a new file is: root that writes into a user's directory leaves the user's files there."""
    status = os.fstat(directory)
    return (status.st_uid, status.st_gid) if os.geteuid() == 0 else (-1, -1)


def rewrite(
    directory: int, leaf: str, change: "Callable[[bytes], bytes]", *, remove_empty: bool = False
) -> None:
    """Replace a file by what `change` makes of its bytes; a missing file is empty, and a new one is 0600.

    Owner and mode stay. What a person saves meanwhile with an editor, which knows of no lock, is not lost:
    `change` is then called again. With `remove_empty` a file that has nothing left but blanks is removed.
    Raises OSError.
    """
    lock = _lock(directory, leaf)
    try:
        for _ in range(_TRIES):
            try:
                return _once(directory, leaf, change, remove_empty)
            except _Edited:
                continue
        raise OSError(errno.EBUSY, "is edited by somebody else all the time", leaf)
    finally:
        os.close(lock)


def _once(directory: int, leaf: str, change: "Callable[[bytes], bytes]", remove_empty: bool) -> None:
    before, mode, uid, gid = _look(directory, leaf)

    def unchanged() -> None:
        if _look(directory, leaf)[0] != before:
            raise _Edited

    after = change(before or b"")
    if remove_empty and not after.strip():
        unchanged()
        atomic.remove_at(directory, leaf)
    else:
        atomic.write_at(directory, leaf, after, mode=mode, uid=uid, gid=gid, check=unchanged)


def _look(directory: int, leaf: str) -> tuple[bytes | None, int, int, int]:
    try:
        data, status = atomic.read_at(directory, leaf)
    except FileNotFoundError:
        return None, 0o600, *owner(directory)
    return data, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def _lock(directory: int, leaf: str) -> int:
    # Neither the directory, which any reader of /etc/default could keep locked for ever, nor the file, which
    # gets another inode. A key's own lock is another file, since its holder comes here.
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(f".{leaf}.edit-lock", flags, 0o600, dir_fd=directory)
    deadline = time.monotonic() + _PATIENCE
    try:
        if os.geteuid() == 0:
            os.fchown(fd, *owner(directory))
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return fd
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise OSError(errno.EBUSY, "is being written by another process", leaf) from None
                time.sleep(0.01)
    except BaseException:
        os.close(fd)
        raise
