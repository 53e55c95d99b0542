import errno
import fcntl
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import NOBODY, die, fork, in_child, in_memory, listing, status_of

from tskeys import atomic

root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
SYSCALLS = ["listdir", "open", "write", "fchown", "fchmod", "fsync", "rename"]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory with a file `key` that holds `old`."""
    atomic.write(f"{tmp_path}/key", b"old")
    before = signal.signal(signal.SIGALRM, too_late)
    signal.alarm(10)  # a FIFO or a lock could be waited for without an end
    yield tmp_path
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def too_late(signum: int, frame: object) -> None:
    raise TimeoutError


@pytest.fixture
def directory(place: Path) -> Iterator[int]:
    opened = os.open(place, atomic.DIRECTORY)
    yield opened
    os.close(opened)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", [0o400, 0o600, 0o640, 0o444])
@pytest.mark.parametrize("umask", [0, 0o22, 0o777])
def test_the_mode_is_what_was_asked_for(place: Path, mode: int, umask: int) -> None:
    before = os.umask(umask)
    try:
        atomic.write(f"{place}/key", b"new", mode=mode)
        atomic.write(f"{place}/fresh", b"new", mode=mode)
    finally:
        os.umask(before)
    assert (mode_of(place / "key"), mode_of(place / "fresh")) == (mode, mode)


@pytest.mark.parametrize("data", [b"", b"x", os.urandom(3_000_000)])
def test_every_byte_is_written(place: Path, data: bytes) -> None:
    atomic.write(f"{place}/key", data)
    assert (place / "key").read_bytes() == data
    assert listing(place) == ["key"]


def test_short_writes_go_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, data[:3]))
    atomic.write(f"{place}/key", b"0123456789")
    assert (place / "key").read_bytes() == b"0123456789"


@root
def test_owner_group_and_mode_are_set_before_the_name_appears(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = os.rename

    def rename(source: str, target: str, **directories: Any) -> None:
        status = os.stat(place / source)
        seen.append(
            (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode), (place / source).read_bytes())
        )
        real(source, target, **directories)

    monkeypatch.setattr(os, "rename", rename)
    atomic.write(f"{place}/key", b"new", mode=0o440, uid=NOBODY, gid=7)
    assert seen == [(NOBODY, 7, 0o440, b"new")]


@root
def test_the_old_owner_is_not_kept_by_chance(place: Path) -> None:
    os.chown(place / "key", NOBODY, NOBODY)
    atomic.write(f"{place}/key", b"new")
    assert (place / "key").stat().st_uid == 0


def test_nobody_can_read_a_temporary_file_meanwhile(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    real = os.write

    def write(fd: int, data: bytes) -> int:
        modes.append(stat.S_IMODE(os.fstat(fd).st_mode))
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    atomic.write(f"{place}/key", b"new", mode=0o444)
    assert modes == [0o600]


def test_the_file_is_synced_before_and_its_directory_after_the_rename(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    sync, rename = os.fsync, os.rename

    def fsync(fd: int) -> None:
        steps.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        sync(fd)

    def renamed(source: str, target: str, **directories: Any) -> None:
        steps.append("rename")
        rename(source, target, **directories)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", renamed)
    atomic.write(f"{place}/key", b"new")
    assert steps == ["file", "rename", "directory"]


@pytest.mark.parametrize("target", ["victim", "missing", "/dev/null"])
def test_a_symlink_is_refused(place: Path, target: str) -> None:
    (place / "victim").write_bytes(b"precious")
    (place / "link").symlink_to(target)
    with pytest.raises(OSError, match="symlink") as refused:
        atomic.write(f"{place}/link", b"new")
    assert refused.value.errno == errno.ELOOP
    assert (place / "victim").read_bytes() == b"precious"
    assert os.readlink(place / "link") == target
    assert listing(place) == ["key", "link", "victim"]


def test_what_is_no_regular_file_is_refused(place: Path, directory: int) -> None:
    os.mkfifo(place / "fifo")
    (place / "sub").mkdir()
    with pytest.raises(OSError, match="regular"):
        atomic.write_at(directory, "fifo", b"new")
    with pytest.raises(IsADirectoryError):
        atomic.write_at(directory, "sub", b"new")
    with pytest.raises(OSError, match="regular"):
        atomic.read_at(directory, "fifo")
    with pytest.raises(IsADirectoryError):
        atomic.read_at(directory, "sub")
    assert listing(place) == ["fifo", "key", "sub"]


def test_a_check_may_keep_the_old_file(place: Path, directory: int) -> None:
    def veto() -> None:
        assert len(listing(place)) == 2  # all is written, and only the rename is left
        raise RuntimeError("changed")

    with pytest.raises(RuntimeError, match="changed"):
        atomic.write_at(directory, "key", b"new", check=veto)
    assert (place / "key").read_bytes() == b"old"
    assert listing(place) == ["key"]


# failures


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("call", SYSCALLS)
def test_a_failing_call_leaves_the_old_file_and_no_other(
    place: Path, directory: int, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match=os.strerror(number)):
            atomic.write_at(directory, "key", b"new")
    assert (place / "key").read_bytes() == b"old"
    assert listing(place) == ["key"]
    descriptors = len(os.listdir("/proc/self/fd"))
    atomic.write_at(directory, "key", b"new")
    assert (place / "key").read_bytes() == b"new"
    assert len(os.listdir("/proc/self/fd")) == descriptors


WRITER = """
import os, sys
from tskeys import atomic
try:
    atomic.write(sys.argv[1], b"new")
except OSError as error:
    os._exit(error.errno)
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize(
    ("calls", "number"),
    [
        ("write", errno.ENOSPC),
        ("fsync", errno.EIO),
        ("rename,renameat,renameat2", errno.EACCES),
        ("fchown", errno.EPERM),
        ("flock", errno.ENOLCK),
    ],
)
def test_the_kernel_says_no(place: Path, calls: str, number: int) -> None:
    inject = f"inject={calls}:error={errno.errorcode[number]}:when=1"
    strace = ["strace", "-o", "/dev/null", "-e", f"trace={calls}", "-e", inject]
    ran = subprocess.run(
        [*strace, sys.executable, "-B", "-c", WRITER, f"{place}/key"],
        capture_output=True,
        text=True,
        check=False,
    )
    if "PTRACE" in ran.stderr:
        pytest.skip("tracing is not allowed here")
    assert ran.returncode == number, ran
    assert (place / "key").read_bytes() == b"old"
    assert listing(place) == ["key"]


def test_a_full_disk_leaves_the_old_file(place: Path) -> None:
    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        with pytest.raises(OSError, match="too large"):
            atomic.write(f"{place}/key", b"x" * 5000)

    assert in_child(fill) == 0
    assert (place / "key").read_bytes() == b"old"
    assert listing(place) == ["key"]


# runs that are killed


def each_call(place: Path, work: Callable[[], None]) -> Iterator[int]:
    """Kill a child before each call that atomic makes, and yield which one that was."""
    calls = [*SYSCALLS, "stat", "fstat", "close", "unlink", "urandom"]
    for number in range(100):

        def run(last: int = number) -> None:
            left = last

            def counted(real: Callable[..., Any]) -> Callable[..., Any]:
                def call(*arguments: Any, **options: Any) -> Any:
                    nonlocal left
                    if left == 0:
                        die()
                    left -= 1
                    return real(*arguments, **options)

                return call

            for name in calls:
                setattr(os, name, counted(getattr(os, name)))
            work()

        status = in_child(run)
        yield number
        if status == 0:
            return
        assert status == -signal.SIGKILL
    raise AssertionError("the write does not end")


def test_killed_before_any_call_a_write_is_whole_or_not_there(place: Path) -> None:
    seen = []
    for number in each_call(place, lambda: atomic.write(f"{place}/key", b"new value")):
        held = (place / "key").read_bytes()
        assert held in (b"old", b"new value"), number
        seen.append(held)
        atomic.write(f"{place}/key", b"old")  # still works, and sweeps
        assert listing(place) == ["key"]
    assert len(seen) > 12
    assert seen == sorted(seen, reverse=True)
    assert {b"old", b"new value"} == set(seen)


def test_temporary_files_of_the_dead_are_swept(place: Path) -> None:
    def write_and_die(fd: int) -> None:
        os.write(1, b"")
        die()

    def work() -> None:
        os.fsync = write_and_die  # type: ignore[assignment]
        atomic.write(f"{place}/key", b"a key that nobody must find")

    for _ in range(3):
        assert in_child(work) == -signal.SIGKILL
    left = listing(place)
    assert len(left) == 2, "each run sweeps what the one before it left"
    assert left[0].startswith(".key.")
    assert left[0].endswith(".tmp")
    atomic.write(f"{place}/other", b"x")
    assert left[0] in listing(place)
    opened = os.open(place, atomic.DIRECTORY)
    atomic.remove_at(opened, "key")
    os.close(opened)
    assert listing(place) == ["other"]


def test_temporary_files_of_the_living_stay(place: Path, directory: int) -> None:
    told, tell = os.pipe()
    wait, go = os.pipe()

    def write_slowly() -> None:
        def check() -> None:
            os.write(tell, b"x")
            os.read(wait, 1)

        opened = os.open(place, atomic.DIRECTORY)
        atomic.write_at(opened, "key", b"slow", check=check)

    child = fork(write_slowly)
    assert os.read(told, 1) == b"x"
    atomic.sweep(directory, "key")
    assert len(listing(place)) == 2
    atomic.write_at(directory, "key", b"fast")
    assert len(listing(place)) == 2
    os.write(go, b"x")
    assert status_of(child) == 0
    assert (place / "key").read_bytes() == b"slow"
    assert listing(place) == ["key"]
    for end in (told, tell, wait, go):
        os.close(end)


def test_a_sweep_bears_whatever_it_meets(place: Path, directory: int) -> None:
    (place / ".key.directory.tmp").mkdir()
    (place / ".key.link.tmp").symlink_to("key")
    os.mkfifo(place / ".key.fifo.tmp")
    (place / ".key.previous").write_bytes(b"stash")
    (place / ".other.0123.tmp").write_bytes(b"somebody else's")
    atomic.write_at(directory, "key", b"new")
    assert (place / "key").read_bytes() == b"new"
    assert listing(place) == [
        ".key.directory.tmp",
        ".key.link.tmp",
        ".key.previous",
        ".other.0123.tmp",
        "key",
    ]


def test_whoever_loses_a_temporary_file_to_a_sweep_tries_again(
    place: Path, directory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    swept: list[int] = []

    def flock(fd: int, how: int) -> None:
        if not swept:  # a sweep comes between the open and the lock
            swept.append(fd)
            monkeypatch.setattr(fcntl, "flock", real)
            atomic.sweep(directory, "key")
            monkeypatch.setattr(fcntl, "flock", flock)
        real(fd, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    atomic.write_at(directory, "key", b"new")
    assert swept
    assert (place / "key").read_bytes() == b"new"
    assert listing(place) == ["key"]


def test_many_writers_leave_one_whole_file(place: Path) -> None:
    values = [b"%d" % number * 5000 for number in range(4)]

    def write(value: bytes) -> None:
        for _ in range(20):
            atomic.write(f"{place}/key", value)

    children = [fork(lambda value=value: write(value)) for value in values]  # type: ignore[misc]
    assert [status_of(child) for child in children] == [0] * 4
    assert (place / "key").read_bytes() in values
    assert listing(place) == ["key"]


# reading


def test_read_has_a_limit(place: Path, directory: int) -> None:
    (place / "big").write_bytes(b"x" * 101)
    with pytest.raises(OSError, match="larger than 100") as refused:
        atomic.read_at(directory, "big", limit=100)
    assert refused.value.errno == errno.EFBIG
    data, status = atomic.read_at(directory, "big", limit=101)
    assert (len(data), status.st_size) == (101, 101)
    with open("/dev/zero", "rb") as zeros, pytest.raises(OSError, match="regular"):
        atomic.read_at(os.dup(zeros.fileno()), "/dev/zero")


def test_read_follows_no_symlink(place: Path, directory: int) -> None:
    (place / "link").symlink_to("key")
    with pytest.raises(OSError) as refused:  # noqa: PT011
        atomic.read_at(directory, "link")
    assert refused.value.errno == errno.ELOOP
    with pytest.raises(FileNotFoundError):
        atomic.read_at(directory, "missing")


# directories


def test_subdirectories_are_made_with_their_mode(place: Path, directory: int) -> None:
    before = os.umask(0o077)
    try:
        os.close(atomic.subdirectory(directory, "a/b", mode=0o711, create=True))
    finally:
        os.umask(before)
    assert [mode_of(place / path) for path in ("a", "a/b")] == [0o711, 0o711]
    (place / "a").chmod(0o750)
    os.close(atomic.subdirectory(directory, "a/b", mode=0o711, create=True))
    assert mode_of(place / "a") == 0o750, "what is there keeps its mode"
    with pytest.raises(FileNotFoundError):
        atomic.subdirectory(directory, "c", mode=0o711)
    own = atomic.subdirectory(directory, "", mode=0o711)
    assert own != directory
    os.close(own)


def test_subdirectories_are_durable(place: Path, directory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # ext4 writes the parent along with its child, so that no power cut there can tell.
    synced = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    for _ in "twice":
        os.close(atomic.subdirectory(directory, "a/b", mode=0o711, create=True))
    assert synced == [str(place), str(place / "a")]


def test_subdirectories_are_not_reached_by_symlinks(place: Path, directory: int) -> None:
    (place / "real").mkdir()
    (place / "link").symlink_to("real")
    for path in ("link", "link/below", "real/../link"):
        with pytest.raises(OSError):  # noqa: PT011
            atomic.subdirectory(directory, path, mode=0o711, create=True)
    assert listing(place / "real") == []


def test_a_safe_directory() -> None:
    with in_memory() as base:  # below /dev/shm, which is sticky
        assert why_unsafe(base, {0, os.geteuid()}) is None


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o720, 0o1777])
def test_a_directory_that_others_may_write_to_is_unsafe(mode: int) -> None:
    with in_memory() as base:
        base.chmod(mode)
        assert str(base) in (why_unsafe(base, {0, os.geteuid()}) or "")


def test_a_parent_that_others_may_write_to_is_unsafe_unless_sticky() -> None:
    with in_memory() as base:
        below = base / "parent" / "here"
        below.mkdir(parents=True)
        (base / "parent").chmod(0o777)
        assert "parent is writable" in (why_unsafe(below, {0, os.geteuid()}) or "")
        (base / "parent").chmod(0o1777)
        assert why_unsafe(below, {0, os.geteuid()}) is None


@root
def test_a_directory_or_parent_of_another_user_is_unsafe() -> None:
    with in_memory() as base:
        below = base / "parent" / "here"
        below.mkdir(parents=True)
        os.chown(below, NOBODY, NOBODY)
        assert why_unsafe(below, {0}) == f"{below} is owned by uid {NOBODY}"
        assert why_unsafe(below, {0, NOBODY}) is None
        os.chown(below, 0, 0)
        os.chown(base / "parent", NOBODY, NOBODY)
        assert why_unsafe(below, {0}) == f"{base / 'parent'} is owned by uid {NOBODY}"


def test_a_symlink_on_the_way_hides_nothing() -> None:
    with in_memory() as base:
        (base / "open").mkdir()
        (base / "open").chmod(0o777)
        (base / "open" / "real").mkdir()
        (base / "link").symlink_to("open/real")
        assert "open is writable" in (why_unsafe(base / "link", {0, os.geteuid()}) or "")


def why_unsafe(path: Path, owners: set[int]) -> str | None:
    opened = os.open(path, atomic.DIRECTORY)
    try:
        return atomic.unsafe(opened, owners)
    finally:
        os.close(opened)


@pytest.mark.parametrize(("path", "kind"), [("/dev/shm", "tmpfs"), ("/proc", "proc"), ("/sys", "sysfs")])
def test_the_type_of_a_file_system(path: str, kind: str) -> None:
    opened = os.open(path, atomic.DIRECTORY)
    assert atomic.filesystem(opened) == kind
    os.close(opened)


def test_the_disk_is_not_taken_for_memory(directory: int, tmp_path: Path) -> None:
    told = subprocess.run(
        ["findmnt", "-no", "FSTYPE", "-T", tmp_path], capture_output=True, text=True, check=True
    )
    assert atomic.filesystem(directory) == told.stdout.split()[0]
