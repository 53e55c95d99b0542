import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import KEY, fork, status_of

from tskeys.errors import Locked, StoreUnavailable
from tskeys.lock import Lock
from tskeys.name import KeyName
from tskeys.registry import open_store
from tskeys.secret import Secret
from tskeys.store import KeyStore

NAME = KeyName("web/prod")


class Elsewhere:
    """A store that has no place for a lock file."""

    def __init__(self, store: KeyStore) -> None:
        self.location = store.location

    def lock_path(self, name: KeyName) -> None:
        return None


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    root = tmp_path / "keys"
    root.mkdir(mode=0o700)
    return open_store(f"file:{root}")


def lock(store: KeyStore, *, name: KeyName = NAME, wait: float = 0, remembered: bool = False) -> Lock:
    return Lock(store, name, fallback="/nonexistent", wait=wait, remembered=remembered)


@pytest.fixture
def holder(store: KeyStore) -> Iterator[int]:
    """Another process that has the lock."""
    told, tell = os.pipe()

    def hold() -> None:
        with lock(store):
            os.write(tell, b"x")
            time.sleep(60)

    child = fork(hold)
    assert os.read(told, 1) == b"x"
    os.close(told)
    os.close(tell)
    yield child
    try:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def test_a_second_process_waits_and_gives_up(store: KeyStore, holder: int) -> None:
    since = time.monotonic()
    with pytest.raises(Locked, match="web/prod is locked by another run") as refused, lock(store, wait=0.3):
        pass
    assert 0.3 <= time.monotonic() - since < 3
    assert refused.value.exit_code == 11
    assert str(store.lock_path(NAME)) in refused.value.hint


def test_another_key_has_another_lock(store: KeyStore, holder: int) -> None:
    with lock(store, name=KeyName("web/test")), lock(store, name=KeyName("web")):
        pass


def test_a_killed_holder_frees_it(store: KeyStore, holder: int) -> None:
    os.kill(holder, signal.SIGKILL)
    assert status_of(holder) == -signal.SIGKILL
    with lock(store) as taken:
        taken.verify()


def test_a_stopped_holder_keeps_others_out(store: KeyStore, holder: int) -> None:
    os.kill(holder, signal.SIGSTOP)
    assert os.waitpid(holder, os.WUNTRACED)[0] == holder
    with pytest.raises(Locked), lock(store, wait=0.3):
        pass


def test_a_waiter_gets_it_once_it_is_free(store: KeyStore, holder: int) -> None:
    def kill_soon() -> None:
        time.sleep(0.3)
        os.kill(holder, signal.SIGKILL)

    killer = fork(kill_soon)
    since = time.monotonic()
    with lock(store, wait=20) as taken:
        assert time.monotonic() - since < 5
        taken.verify()
    status_of(killer)


def test_it_is_free_after_an_error(store: KeyStore) -> None:
    with pytest.raises(RuntimeError), lock(store):
        raise RuntimeError
    with lock(store):
        pass


def test_of_many_one_at_a_time_holds_it(store: KeyStore, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")

    def count() -> None:
        for _ in range(5):
            with lock(store, wait=30):
                value = int(counter.read_text())
                time.sleep(0.002)
                counter.write_text(str(value + 1))

    children = [fork(count) for _ in range(3)]
    assert [status_of(child) for child in children] == [0, 0, 0]
    assert counter.read_text() == "15"


@pytest.mark.parametrize("how", ["removed", "replaced", "a directory", "released"])
def test_a_lost_lock_is_noticed(store: KeyStore, how: str) -> None:
    with lock(store) as taken:
        taken.verify()
        if how != "released":
            os.unlink(taken.path)
        if how == "replaced":
            Path(taken.path).touch()
        if how == "a directory":
            Path(taken.path).mkdir()
        if how != "released":
            with pytest.raises(Locked, match="has lost its lock"):
                taken.verify()
    with pytest.raises(Locked):
        taken.verify()


def test_it_is_not_taken_on_a_file_that_was_replaced_meanwhile(
    store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = fcntl.flock
    replaced: list[int] = []

    def flock(fd: int, how: int) -> None:
        real(fd, how)
        if not replaced:  # somebody cleans up between the lock and the look
            replaced.append(fd)
            os.unlink(str(store.lock_path(NAME)))

    monkeypatch.setattr(fcntl, "flock", flock)
    with lock(store, wait=5) as taken:
        taken.verify()
    assert replaced


def test_a_remembered_key_without_its_lock_file_means_another_file_system(store: KeyStore) -> None:
    with (
        pytest.raises(StoreUnavailable, match="was here and is gone") as refused,
        lock(store, remembered=True),
    ):
        pass
    assert "mounted" in refused.value.hint
    assert refused.value.exit_code == 12
    assert not os.path.exists(str(store.lock_path(NAME))), "the next run must not take it for the witness"


def test_the_lock_file_is_the_witness(store: KeyStore) -> None:
    with lock(store):
        pass
    with lock(store, remembered=True):  # the key was deleted, its lock file tells so
        pass
    os.unlink(str(store.lock_path(NAME)))
    store.put(NAME, Secret(KEY))
    with lock(store, remembered=True):  # a store from a backup has the key, but no lock file
        pass


def test_the_file_is_nobody_elses(store: KeyStore) -> None:
    with lock(store) as taken:
        status = os.stat(taken.path)
        assert (status.st_mode & 0o7777, status.st_uid) == (0o600, os.geteuid())
        assert not os.get_inheritable(taken._fd)


def test_a_symlink_is_not_followed(store: KeyStore, tmp_path: Path) -> None:
    Path(str(store.lock_path(NAME))).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailable), lock(store):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_a_store_without_a_place_for_it_locks_in_the_fallback(store: KeyStore, tmp_path: Path) -> None:
    other: KeyStore = Elsewhere(store)  # type: ignore[assignment]
    fallback = tmp_path / "state" / "locks"
    with Lock(other, NAME, fallback=str(fallback), remembered=True) as taken:
        assert Path(taken.path).parent == fallback
        assert fallback.stat().st_mode & 0o777 == 0o700
        with pytest.raises(Locked), Lock(other, NAME, fallback=str(fallback), wait=0):
            pass
        with Lock(other, KeyName("db"), fallback=str(fallback), wait=0):
            pass


def test_where_no_lock_can_be_the_store_is_unavailable(store: KeyStore, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    other: KeyStore = Elsewhere(store)  # type: ignore[assignment]
    with pytest.raises(StoreUnavailable), Lock(other, NAME, fallback=f"{tmp_path}/file/locks"):
        pass
    os.rmdir(store.location.path)
    with pytest.raises(StoreUnavailable), lock(store):
        pass


def test_a_failure_to_make_it_durable_frees_it(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(StoreUnavailable, match="Input/output"), lock(store):
            pass
    with lock(store):
        pass
