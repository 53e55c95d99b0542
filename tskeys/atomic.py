"""The only writer of files: temporary file, fsync, rename, fsync of the directory.

Without the last step a power cut loses the new value although the write had returned (tried on ext4 and
xfs: 100 of 100). Everything works on directory descriptors, so that nobody can swap a path in between.
Every function raises OSError.
"""

import errno
import fcntl
import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
PASSAGE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
"""Opens a directory of mode 0711 too, which lets others through and shows them nothing."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def write(path: str, data: bytes, *, mode: int = 0o600, uid: int = -1, gid: int = -1) -> None:
    """Write a file by its path; see `write_at`."""
    head, leaf = os.path.split(os.path.abspath(path))
    directory = os.open(head, DIRECTORY)
    try:
        write_at(directory, leaf, data, mode=mode, uid=uid, gid=gid)
    finally:
        os.close(directory)


def write_at(
    directory: int,
    leaf: str,
    data: bytes,
    *,
    mode: int = 0o600,
    uid: int = -1,
    gid: int = -1,
    check: "Callable[[], None] | None" = None,
) -> None:
    """Replace a file in an open directory; it is whole and survives a power cut when this returns.

    Owner, group and mode are set before the name appears. `check` runs last before the rename and may raise
    to keep the old file. A symlink or anything else that is no regular file is refused, not replaced.
    """
    try:
        there = os.stat(leaf, dir_fd=directory, follow_symlinks=False).st_mode
        if not stat.S_ISREG(there):
            number = errno.EISDIR if stat.S_ISDIR(there) else errno.ELOOP
            raise OSError(number, "is a symlink or no regular file", leaf)
    except FileNotFoundError:
        pass
    sweep(directory, leaf)
    temporary, fd = _temporary(directory, leaf)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
        os.fsync(fd)
        if check is not None:
            check()
        os.rename(temporary, leaf, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        try:
            os.unlink(temporary, dir_fd=directory)
        except FileNotFoundError:
            pass
        raise
    finally:
        os.close(fd)
    sync(directory)


def _temporary(directory: int, leaf: str) -> tuple[str, int]:
    # The lock on it tells sweep() that its writer lives; whoever loses the race to a sweep tries again.
    while True:
        name = f".{leaf}.{os.urandom(6).hex()}.tmp"
        fd = os.open(name, _NEW, 0o600, dir_fd=directory)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                return name, fd
        except BlockingIOError:
            pass
        except OSError:
            os.unlink(name, dir_fd=directory)
            os.close(fd)
            raise
        os.close(fd)


def sweep(directory: int, leaf: str) -> None:
    """Remove the temporary files of a leaf whose writers were killed."""
    for name in os.listdir(directory):
        if not (name.startswith(f".{leaf}.") and name.endswith(".tmp")):
            continue
        try:
            fd = os.open(name, _READ, dir_fd=directory)
        except OSError:
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name, dir_fd=directory)
        except OSError:  # its writer lives, has finished, or it is nothing of ours
            pass
        finally:
            os.close(fd)


def read_at(directory: int, leaf: str, *, limit: int = 1 << 20) -> tuple[bytes, os.stat_result]:
    """Read a regular file of at most `limit` bytes without following a symlink in the last component."""
    fd = os.open(leaf, _READ, dir_fd=directory)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            number = errno.EISDIR if stat.S_ISDIR(status.st_mode) else errno.EINVAL
            raise OSError(number, "is no regular file", leaf)
        if status.st_size > limit:
            raise OSError(errno.EFBIG, f"is larger than {limit} bytes", leaf)
        data = b""
        while piece := os.read(fd, limit + 1 - len(data)):
            data += piece
        return data, status
    finally:
        os.close(fd)


def remove_at(directory: int, leaf: str) -> None:
    """Remove a file so that a power cut does not bring it back, and what killed writers left of it."""
    sweep(directory, leaf)
    os.unlink(leaf, dir_fd=directory)
    sync(directory)


def subdirectory(directory: int, path: str, *, mode: int, create: bool = False) -> int:
    """Open a directory below an open one, without following a symlink, and make the missing levels.

    Returns a descriptor of its own, for `path` "" too.
    """
    here = os.open(".", DIRECTORY, dir_fd=directory)
    for segment in path.split("/") if path else []:
        try:
            try:
                below = os.open(segment, DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            except FileNotFoundError:
                if not create:
                    raise
                try:
                    os.mkdir(segment, mode, dir_fd=here)
                except FileExistsError:
                    pass
                below = os.open(segment, DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
                os.fchmod(below, mode)  # the umask may have taken some of it
                sync(here)
        finally:
            os.close(here)
        here = below
    return here


def sync(directory: int) -> None:
    """Make the names in a directory durable, where its file system knows how."""
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def unsafe(directory: int, owners: "Collection[int]") -> str | None:
    """Say why others could put their own files into an open directory, or return None.

    Looks at the directory and at all its parents, by descriptor: each must be owned by one of `owners` and
    be writable by nobody else. A sticky parent (`/tmp`) is good enough, since nobody else can rename in it.
    """
    here = os.open(".", PASSAGE, dir_fd=directory)
    try:
        sticky_is_enough = False
        while True:
            status = os.fstat(here)
            where = os.readlink(f"/proc/self/fd/{here}")
            if status.st_uid not in owners:
                return f"{where} is owned by uid {status.st_uid}"
            writable = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
            if writable and not (sticky_is_enough and status.st_mode & stat.S_ISVTX):
                return f"{where} is writable for its group or others"
            parent = os.open("..", PASSAGE, dir_fd=here)
            os.close(here)
            here = parent
            above = os.fstat(here)
            if (above.st_dev, above.st_ino) == (status.st_dev, status.st_ino):
                return None
            sticky_is_enough = True
    finally:
        os.close(here)


def filesystem(directory: int) -> str:
    """Return the type of the file system under an open directory, `tmpfs` or `ext4` (proc(5), mountinfo)."""
    device = os.fstat(directory).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields = line.split()
            if fields[2] == wanted:
                return fields[fields.index("-") + 1]
    return "unknown"
