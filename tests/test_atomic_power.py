"""A power cut on a real ext4: the kernel forgets at once whatever was not written to the disk.

FS_IOC_SHUTDOWN stops the file system without writing its journal; mounting it again recovers as after a cut.
Each cut comes right after the call returned; ext4 would else have written everything within some seconds.
"""

import ctypes
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

CUTS = 20
_FS_IOC_SHUTDOWN, _NO_LOG_FLUSH = 0x8004587D, (2).to_bytes(4, "little")


def impossible() -> str:
    """Why there can be no power cut here, or an empty string."""
    if os.geteuid() != 0:
        return "only root may mount"
    if not os.path.exists("/dev/loop-control"):
        return "there are no loop devices"
    missing = [program for program in ("mkfs.ext4", "losetup", "unshare") if shutil.which(program) is None]
    return f"{', '.join(missing)}: not installed" if missing and not os.environ.get("CI") else ""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    if why := impossible():
        pytest.skip(why)
    path = tmp_path / "ext4.img"
    with open(path, "wb") as file:
        file.truncate(8 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(path)], check=True, capture_output=True)
    (tmp_path / "mnt").mkdir()
    if not os.environ.get("CI"):
        mounting = ["unshare", "--mount", "mount", "-o", "loop", str(path), str(tmp_path / "mnt")]
        tried = subprocess.run(mounting, capture_output=True, text=True, check=False)
        if tried.returncode:
            pytest.skip(f"cannot mount: {tried.stderr.strip()}")
    return path


def kept(image: Path, what: str) -> int:
    """Return how many of CUTS values were still there after the cut."""
    # In a mount namespace of its own, so that nothing stays mounted whatever happens.
    command = ["unshare", "--mount", sys.executable, __file__, str(image), what]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    after: list[bool] = json.loads(ran.stdout)
    assert len(after) == CUTS
    return sum(after)


@pytest.mark.parametrize(
    "what", ["replaced file", "new file", "new directory", "removed file", "stored key", "stash", "lock"]
)
def test_what_has_returned_survives(image: Path, what: str) -> None:
    assert kept(image, what) == CUTS


@pytest.mark.parametrize("what", ["replaced file", "new file", "removed file", "lock"])
def test_without_a_sync_of_the_directory_it_is_lost(image: Path, what: str) -> None:
    """The control: these cuts do lose what is not on the disk."""
    assert kept(image, f"unsynced {what}") == 0


def _held(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _replaced(root: Path, number: int) -> Callable[[], bool]:
    from tskeys import atomic

    atomic.write(f"{root}/key", b"value %d" % number)
    return lambda: _held(root / "key") == b"value %d" % number


def _new(root: Path, number: int) -> Callable[[], bool]:
    from tskeys import atomic

    path = root / f"new-{number}"
    atomic.write(str(path), b"value")
    return lambda: _held(path) == b"value"


def _directory(root: Path, number: int) -> Callable[[], bool]:
    from tskeys import atomic

    opened = os.open(root, atomic.DIRECTORY)
    below = atomic.subdirectory(opened, f"dir-{number}/below", mode=0o711, create=True)
    atomic.write_at(below, "key", b"value")
    os.close(below)
    os.close(opened)
    return lambda: _held(root / f"dir-{number}/below/key") == b"value"


def _removed(root: Path, number: int) -> Callable[[], bool]:
    from tskeys import atomic

    opened = os.open(root, atomic.DIRECTORY)
    (root / f"gone-{number}").write_bytes(b"value")
    os.sync()
    atomic.remove_at(opened, f"gone-{number}")
    os.close(opened)
    return lambda: not (root / f"gone-{number}").exists()


def _stored(root: Path, number: int) -> Callable[[], bool]:
    from tskeys.name import KeyName
    from tskeys.registry import open_store
    from tskeys.secret import Secret

    root.chmod(0o700)
    store, name, secret = (
        open_store(f"file:{root}"),
        KeyName(f"web/{number % 3}"),
        Secret(b"value %d" % number),
    )
    store.put(name, secret)
    del store
    return lambda: open_store(f"file:{root}").get(name) == secret


def _stash(root: Path, number: int) -> Callable[[], bool]:
    from tskeys.name import KeyName
    from tskeys.secret import Secret
    from tskeys.store import Location
    from tskeys_file import FileStore

    root.chmod(0o700)
    store, name = FileStore.open(Location(f"file:{root}")), KeyName("stashed")
    store.put(name, Secret(b"old %d" % number))
    store.stash(name)
    del store

    def check() -> bool:
        again = FileStore.open(Location(f"file:{root}"))
        again.restore(name)
        return again.get(name).reveal() == b"old %d" % number

    return check


def _lock(root: Path, number: int) -> Callable[[], bool]:
    from tskeys.lock import Lock
    from tskeys.name import KeyName
    from tskeys.registry import open_store

    root.chmod(0o700)
    store, name = open_store(f"file:{root}"), KeyName(f"lock-{number}")
    with Lock(store, name, fallback="/nonexistent"):
        pass
    path = store.lock_path(name) or ""
    return lambda: os.path.exists(path)


_WORK = {
    "replaced file": _replaced,
    "new file": _new,
    "new directory": _directory,
    "removed file": _removed,
    "stored key": _stored,
    "stash": _stash,
    "lock": _lock,
}


def _cut(image: str, what: str) -> list[bool]:
    """Work, cut, mount again and look, CUTS times."""
    from tskeys import atomic

    if what.startswith("unsynced "):
        what = what.removeprefix("unsynced ")
        atomic.sync = lambda directory: None
    root = Path(image).parent / "mnt"
    attach = ["losetup", "--find", "--show", image]
    device = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()
    after = []
    try:
        _mount(device, root)
        for number in range(CUTS):
            check = _WORK[what](root, number)
            opened = os.open(root, os.O_RDONLY)
            fcntl.ioctl(opened, _FS_IOC_SHUTDOWN, _NO_LOG_FLUSH)
            os.close(opened)
            _unmount(root)
            _mount(device, root)
            after.append(check())
        _unmount(root)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    return after


def _mount(device: str, root: Path) -> None:
    if ctypes.CDLL(None, use_errno=True).mount(device.encode(), bytes(root), b"ext4", 0, None):
        raise OSError(ctypes.get_errno(), f"mount {device}")


def _unmount(root: Path) -> None:
    if ctypes.CDLL(None, use_errno=True).umount(bytes(root)):
        raise OSError(ctypes.get_errno(), f"umount {root}")


if __name__ == "__main__":
    print(json.dumps(_cut(*sys.argv[1:])))
