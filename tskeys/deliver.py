"""Bring every consumer onto what the store holds, one after the other; mint nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tskeys.authkey import fingerprint
from tskeys.ledger import ConsumerState, Ledger
from tskeys.name import KeyName
from tskeys.secret import Secret

RUNNING, STOPPED, SICK = "running", "stopped", "sick"
"""What a consumer was before it was touched; a sick one lags already and is no reason to roll back."""

RUNS, DELIVERED, FAILED = "runs", "delivered", "failed"
"""What became of a consumer: it runs on the key, the key lies ready for it, or neither."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of one consumer; `reason` says why it failed."""

    state: str
    invocation: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Observed:
    """What a consumer is seen to be.

    `fingerprint` is that of the key it was handed as it started, or that lies ready for it; None where
    nothing tells. `invocation` is empty where it need not be restarted to read a new key. `started` is in
    seconds since the epoch.
    """

    running: bool
    failed: bool = False
    fingerprint: str | None = None
    invocation: str = ""
    started: float = 0.0


class Consumer(Protocol):
    """A service that reads a delivered key."""

    @property
    def name(self) -> str:
        """What the ledger and the user call it."""

    def baseline(self) -> str:
        """Return RUNNING, STOPPED or SICK."""

    def apply(self, secret: Secret, *, start: bool) -> Applied:
        """Write its delivery, do what `on_rotate` says, and wait until it is healthy; never raise.

        Without `start` a service that does not run stays as it is.
        """

    def observe(self) -> Observed:
        """Look at it without touching it."""


def bring(
    consumers: Sequence[Consumer],
    secret: Secret,
    baselines: Mapping[str, str],
    ledger: Ledger,
    store: str,
    name: KeyName,
    *,
    now: int,
) -> dict[str, Applied]:
    """Bring consumers onto a key in their order; a failed one holds back none of the others."""
    ident = fingerprint(secret.reveal())
    applied = {}
    for consumer in consumers:
        result = consumer.apply(secret, start=baselines.get(consumer.name, STOPPED) != STOPPED)
        applied[consumer.name] = result
        ledger.note_consumer(
            ConsumerState(store, str(name), consumer.name, ident, result.invocation, result.reason, now)
        )
    return applied


def lagging(
    consumers: Sequence[Consumer], ident: str, since: int, known: Mapping[str, ConsumerState]
) -> dict[Consumer, str]:
    """Return the consumers that do not run on the current key, each with the reason in a few words.

    `ident` is the fingerprint of the current key and `since` when it became current. A service that was
    stopped lags in nothing: it will read the current key when it starts.
    """
    behind = {}
    for consumer in consumers:
        seen = consumer.observe()
        last = known.get(consumer.name)
        if not (seen.running or seen.failed):
            continue
        if last and last.problem:
            behind[consumer] = last.problem
            continue
        runs_on = _runs_on(seen, last)
        if not seen.running or (runs_on is None and (last is None or seen.started >= since)):
            continue
        if runs_on != ident:
            behind[consumer] = "runs on an earlier key"
    return behind


def _runs_on(seen: Observed, last: ConsumerState | None) -> str | None:
    # What was noted of this very invocation is younger than the stamp that it left as it started.
    if last and seen.invocation and last.invocation == seen.invocation:
        return last.fingerprint
    return seen.fingerprint


def elsewhere(
    consumers: Sequence[Consumer], ident: str, known: Mapping[str, ConsumerState]
) -> list[Consumer]:
    """Return the consumers that are not known to run on the key of this fingerprint."""
    found = []
    for consumer in consumers:
        seen = consumer.observe()
        last = known.get(consumer.name)
        if not seen.running or (last and last.problem) or _runs_on(seen, last) != ident:
            found.append(consumer)
    return found
