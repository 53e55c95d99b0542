"""Each fault of the control server at each request of a rotation: exit code, current key, and recovery."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from host import Host

from tskeys.testing.server import ControlServer

ALWAYS = 0


@pytest.fixture(scope="module")
def server() -> Iterator[ControlServer]:
    with ControlServer() as running:
        yield running


@pytest.fixture
def host(tmp_path: Path, server: ControlServer) -> Host:
    """A host whose key was minted by a rotation, and nothing else alive at the server."""
    server.clear_faults()
    for ident in server.live():
        server.revoke(ident)
    ready = Host(tmp_path / "host", server, timeout="1s")
    ready.ok("rotate", "web")
    return ready


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


FAULTS: list[tuple[str, dict[str, Any]]] = [
    ("slow", {"seconds": 2}),
    ("slow-answer", {"seconds": 2}),
    ("drip", {"seconds": 0.5}),
    ("429", {}),
    ("503", {}),
    ("500-before", {}),
    ("500-after", {}),
    ("cut-before", {}),
    ("cut-after", {}),
    ("cut-half", {}),
    ("garbage", {}),
    ("empty", {}),
    ("redirect", {}),
]
NAMES = [name for name, _ in FAULTS]


@pytest.mark.parametrize(("fault", "more"), FAULTS, ids=NAMES)
def test_a_fault_while_minting_changes_nothing_for_the_service(
    host: Host, fault: str, more: dict[str, Any]
) -> None:
    before = host.current()
    host.server.fault(fault, method="POST", path="/keys", times=ALWAYS, **more)

    result = host.run("rotate", "web")

    assert result.returncode == 13, result
    assert host.current() == before
    assert host.server.joins(before)
    host.server.clear_faults()
    if fault == "slow":
        # The request is still under way, so the key is made after the first recovery, and found by the next.
        host.ok("recover")
        wait_for(lambda: len(host.server.live()) == 2)
    host.ok("recover")
    host.check_one_live_key()


@pytest.mark.parametrize(("fault", "more"), FAULTS, ids=NAMES)
def test_a_fault_in_every_request_changes_nothing(host: Host, fault: str, more: dict[str, Any]) -> None:
    before = host.current()
    host.server.fault(fault, times=ALWAYS, **more)

    result = host.run("rotate", "web")

    assert result.returncode == 13, result
    assert host.current() == before
    host.server.clear_faults()
    host.ok("recover")
    host.check_one_live_key()


@pytest.mark.parametrize(("fault", "more"), FAULTS, ids=NAMES)
def test_a_fault_while_revoking_leaves_it_for_the_next_run(
    host: Host, fault: str, more: dict[str, Any]
) -> None:
    before = host.current_id()
    host.server.fault(fault, method="DELETE", path="/keys", times=ALWAYS, **more)

    result = host.run("rotate", "web")

    # The answer to a DELETE is 200 and empty, so that there is nothing to drip or to cut in half.
    assert result.returncode == (0 if fault in ("empty", "drip", "cut-half") else 3), result
    assert host.current_id() != before
    assert host.server.joins(host.current())
    if result.returncode:
        assert f"{before} is still to be revoked" in result.stderr
    host.server.clear_faults()
    host.ok("recover")
    host.check_one_live_key()


@pytest.mark.parametrize("fault", ["429", "500-before", "cut-before"])
def test_a_passing_fault_in_a_look_up_is_not_noticed(host: Host, fault: str) -> None:
    before = host.current_id()
    host.server.fault(fault, method="GET", path="/keys", times=1)

    host.ok("rotate", "web")

    assert host.current_id() != before
    host.check_one_live_key()


def test_a_refused_mint_is_tried_again_after_429(host: Host) -> None:
    before = host.current_id()
    host.server.fault("429", method="POST", path="/keys", times=1)

    host.ok("rotate", "web")

    assert host.current_id() != before
    host.check_one_live_key()


def test_an_unanswered_mint_is_never_sent_twice(host: Host) -> None:
    host.server.clear_requests()
    host.server.fault("cut-after", method="POST", path="/keys", times=1)

    assert host.run("rotate", "web").returncode == 13

    assert len(host.server.requests("POST", "/keys")) == 1
    host.check_one_live_key()
