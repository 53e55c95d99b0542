"""A model of the protocol in tskeys/rotation.py: every crash point of every run, and one edit by a person.

The model knows no code: a state is what the store, the server, the ledger and the delivery hold, and a run
is a list of states, one after each effect. A crash may come after any of them, and after a crash a person
may store a key of their own or put back any key that lives. All states that can be reached are visited.
Names stand as in the code: `intent`, `switch`, `retire` are Rotation's own steps.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

FIRST, HAND = "K0", "H"


@dataclass(frozen=True, slots=True)
class State:
    current: str = FIRST
    stash: str | None = None
    live: frozenset[str] = frozenset({FIRST})
    delivered: str = FIRST
    phase: str | None = None
    old: str | None = None
    new: str | None = None
    queue: frozenset[str] = frozenset()
    minted: int = 1
    edited: bool = False


Step = tuple[str, State]


def rotate(s: State, healthy: bool) -> Iterator[Step]:
    s = replace(s, stash=None)  # an earlier one may be revoked by now
    yield "forget", s
    s = replace(s, phase="intent", old=s.current, new=None)
    yield "intent", s
    key = f"K{s.minted}"
    s = replace(s, live=s.live | {key}, minted=s.minted + 1)
    yield "mint", s
    s = replace(s, phase="minted", new=key)
    yield "minted", s
    yield from go(s, healthy, secret=True)


def go(s: State, healthy: bool, *, secret: bool = False) -> Iterator[Step]:
    """Carry on from the phase in the ledger; `secret` is lost with the process that minted."""
    if s.phase == "intent":
        lost = {key for key in s.live if key.startswith("K") and key not in (s.old, s.current)}
        s = replace(s, queue=s.queue | lost, phase=None)
        yield "searched", s
        yield from revoke(s)
    elif s.phase == "minted":
        yield from switch(s, healthy, secret)
    elif s.phase == "delivering":
        yield from deliver(s, healthy)
    elif s.phase == "rolling back":
        yield from roll_back(s)
    elif s.phase == "committed":
        yield from retire(s)


def switch(s: State, healthy: bool, secret: bool) -> Iterator[Step]:
    if s.current == s.old and secret:
        s = replace(s, stash=s.old)
        yield "stash", s
        assert s.new
        s = replace(s, current=s.new)
        yield "put", s
    elif s.current != s.new:
        if s.current != s.old:
            s = replace(s, delivered=s.current)
            yield "deliver", s
        yield from retire(s)
        return
    s = replace(s, phase="delivering")
    yield "delivering", s
    yield from deliver(s, healthy)


def deliver(s: State, healthy: bool) -> Iterator[Step]:
    s = replace(s, delivered=s.current)
    yield "deliver", s
    if not healthy and s.stash:
        s = replace(s, phase="rolling back")
        yield "rolling back", s
        yield from roll_back(s)
    else:
        s = replace(s, phase="committed")
        yield "committed", s
        yield from retire(s)


def roll_back(s: State) -> Iterator[Step]:
    if s.current == s.new and s.stash:
        s = replace(s, current=s.stash)
        yield "restore", s
    s = replace(s, delivered=s.current)
    yield "deliver", s
    yield from retire(s)


def retire(s: State) -> Iterator[Step]:
    """Queue whichever key is not current, by what the store holds and not by which step was last."""
    over = {key for key in (s.old, s.new) if key and key != s.current and key.startswith("K")}
    s = replace(s, queue=s.queue | over, phase=None, old=None, new=None)
    yield "closed", s
    yield from revoke(s)


def revoke(s: State) -> Iterator[Step]:
    for key in sorted(s.queue):
        # Read `current` again: a person may have put it back since it was queued.
        s = replace(s, live=s.live if key == s.current else s.live - {key}, queue=s.queue - {key})
        yield f"revoke {key}", s
    s = replace(s, stash=None)
    yield "forget", s


def recover(s: State, healthy: bool) -> Iterator[Step]:
    if s.phase:
        yield from go(s, healthy)
        return
    if s.delivered != s.current:
        s = replace(s, delivered=s.current)
        yield "noticed", s
    yield from revoke(s)


def violations(s: State) -> Iterator[str]:
    if s.current not in s.live:
        yield "I1: the current key is revoked"
    if s.phase is None and not s.queue and not s.edited:
        if s.live != {s.current}:
            yield "I3: a key lives that is nobody's"
        if s.delivered != s.current:
            yield "I6: a consumer has another key"


def explore(most_keys: int = 4) -> tuple[int, int, dict[str, str]]:
    """Visit every state; return how many there are, how many crash points, and a story for each violation."""
    todo: deque[tuple[State, str]] = deque([(State(), "")])
    seen: set[State] = set()
    broken: dict[str, str] = {}
    crashes = 0
    while todo:
        state, story = todo.popleft()
        if state in seen or state.minted > most_keys:
            continue
        seen.add(state)
        for what in violations(state):
            broken.setdefault(what, story)
        for healthy in (True, False):
            for run in (recover, rotate) if state.phase is None else (recover,):
                for step, after in run(state, healthy):
                    crashes += 1
                    told = (
                        f"{story}\n{run.__name__} {'' if healthy else 'with a sick consumer '}to {step} CRASH"
                    )
                    todo.append((after, told))
                    if not after.edited:
                        for key in {HAND, *after.live}:
                            hand = replace(after, current=key, live=after.live | {key}, edited=True)
                            todo.append((hand, f"{told}; a person stores {key}"))
    return len(seen), crashes, broken


def test_no_crash_and_no_edit_breaks_an_invariant() -> None:
    states, crashes, broken = explore()

    assert broken == {}
    assert states > 500
    assert crashes > 4000


original_rotate, original_switch, original_go = rotate, switch, go


def stale_stash_is_kept(s: State, healthy: bool) -> Iterator[Step]:
    for step, after in original_rotate(s, healthy):
        yield step, replace(after, stash=after.stash or s.stash)


def old_one_revoked_before_the_new_is_there(s: State, healthy: bool, secret: bool) -> Iterator[Step]:
    if s.old and secret and s.current == s.old:
        s = replace(s, live=s.live - {s.old})
        yield "revoke too early", s
    yield from original_switch(s, healthy, secret)


def current_not_read_again(s: State) -> Iterator[Step]:
    for key in sorted(s.queue):
        s = replace(s, live=s.live - {key}, queue=s.queue - {key})
        yield f"revoke {key}", s
    yield "forget", replace(s, stash=None)


def lost_keys_not_looked_for(s: State, healthy: bool, *, secret: bool = False) -> Iterator[Step]:
    if s.phase == "intent":
        yield "closed", replace(s, phase=None)
    else:
        yield from original_go(s, healthy, secret=secret)


@pytest.mark.parametrize(
    ("name", "mutant", "invariant"),
    [
        ("switch", old_one_revoked_before_the_new_is_there, "I1"),
        ("revoke", current_not_read_again, "I1"),
        ("rotate", stale_stash_is_kept, "I1"),
        ("go", lost_keys_not_looked_for, "I3"),
    ],
)
def test_the_model_can_fail(
    monkeypatch: pytest.MonkeyPatch, name: str, mutant: object, invariant: str
) -> None:
    monkeypatch.setitem(globals(), name, mutant)

    _, _, broken = explore(most_keys=3)

    assert any(what.startswith(invariant) for what in broken)
