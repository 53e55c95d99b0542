"""From the phase that the ledger holds to the end of a rotation: the way that recovery takes too.

What decides is always which key the store holds, never which step was last.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from tskeys import authkey, held, revocation
from tskeys.bookkeeping import Book
from tskeys.deliver import FAILED, RUNS, SICK, Applied, Consumer, bring, lagging
from tskeys.errors import (
    CannotDecrypt,
    Conflict,
    IssuerError,
    KeyNotFound,
    StoreError,
    StoreUnavailable,
    TskeysError,
)
from tskeys.keyinfo import KeyInfo, Minted, MintRequest
from tskeys.ledger import COMMITTED, DELIVERING, INTENT, MINTED, ROLLING_BACK, Ledger, RotationRecord
from tskeys.lock import Lock
from tskeys.plan import ABANDONED, ROLLED_BACK, ROTATED, SUPERSEDED, UNANSWERED, Outcome, Plan
from tskeys.secret import Secret
from tskeys.store import ABSENT, KeyStore, Stash, Version

UNANSWERED_FOR = timedelta(days=1)
"""How long a request to mint that got no answer may still arrive."""


class Issuer(Protocol):
    """What a rotation needs of an issuer."""

    def mint(self, request: MintRequest) -> Minted:
        """Mint a key, at most once."""

    def lookup(self, key_id: str) -> KeyInfo | None:
        """Return what the issuer knows of a key."""

    def find(self, rotation_id: str) -> list[KeyInfo]:
        """Return the keys minted for a rotation."""

    def revoke(self, key_id: str) -> None:
        """Revoke a key."""

    def clock(self) -> datetime | None:
        """Return the time on the issuer's clock, or None where it has none."""


@dataclass
class Phases:
    """A key in a store, and all that its rotations work with, passed in.

    `issuers` gives the issuer of a name in the ledger, `stores` every place where a key of this name may be
    current, `step` is told after each step (progress; a test may stop there) and `now` gives seconds since
    the epoch.
    """

    plan: Plan
    store: KeyStore
    ledger: Ledger
    lock: Lock
    issuers: Callable[[str], Issuer]
    consumers: Sequence[Consumer] = ()
    stores: Callable[[], Sequence[KeyStore]] = lambda: ()
    step: Callable[[str], None] = lambda what: None
    now: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self.name = self.plan.name
        self.where = self.store.location.place
        self.book = Book(self.ledger, self.where, self.name, self.now)
        self.outcome = Outcome()

    def _go(self, record: RotationRecord, secret: Secret | None) -> None:
        if record.phase == INTENT:
            self._search(record)
        elif record.phase == MINTED:
            self._switch(record, secret)
        elif record.phase == DELIVERING:
            self._deliver(record, secret)
        elif record.phase == ROLLING_BACK:
            self._roll_back(record)
        elif record.phase == COMMITTED:
            self._retire(record, ROTATED)

    def _search(self, record: RotationRecord) -> None:
        # A request that got no answer may have minted, or may yet: whoever carries its id is nobody's key.
        try:
            found = self.issuers(record.issuer).find(record.rotation_id)
        except IssuerError as error:
            self.outcome.overdue.append(f"whether a key was minted is to be asked again: {error}")
            return
        self.step("search")
        with self.ledger.writing():
            for info in found:
                if info.valid:
                    self.book.queue(record.issuer, info.key_id, None, minted=True, reason=UNANSWERED)
            if self.now() - record.started > UNANSWERED_FOR.total_seconds():
                self.book.close(record, UNANSWERED)
        self.step("searched")

    def _switch(self, record: RotationRecord, secret: Secret | None) -> None:
        current = held.look(self.store, self.name, self.ledger)
        if current.absent and record.old_version != ABSENT:
            raise StoreUnavailable(
                f"{self.where}: {self.name} is gone while it is being rotated",
                hint=f"Put it back, or give it up with: tskeys delete {self.name} --forget",
            )
        if current.is_key(record.new_fingerprint, None):
            self._delivering(record, current.version, secret)
        elif current.version == record.old_version and secret is not None:
            self._store(record, secret)
        elif current.version == record.old_version:
            # Killed between mint and put: the secret went with the process.
            self._undo(record, current, ABANDONED)
        else:
            self._told(current)
            self._undo(record, current, SUPERSEDED)

    def _store(self, record: RotationRecord, secret: Secret) -> None:
        expires = datetime.fromtimestamp(record.new_expires, UTC) if record.new_expires else None
        old = Version(record.old_version)
        try:
            if old != ABSENT and isinstance(self.store, Stash):
                self.store.stash(self.name)
                self.step("stash")
            self.lock.verify()
            version = self.store.put(self.name, secret, expect=old, expires=expires)
        except TskeysError as error:
            current = held.look(self.store, self.name, self.ledger)
            if current.is_key(record.new_fingerprint, None):
                # It is there, but not as it should be: not durable, say. Nothing but the old one is safe.
                self._roll_back(self.ledger.advance(record, ROLLING_BACK, new_version=current.version))
            else:
                self._undo(record, current, SUPERSEDED if isinstance(error, Conflict) else ABANDONED)
            raise
        self.step("put")
        self._delivering(record, version, secret)

    def _delivering(self, record: RotationRecord, version: Version, secret: Secret | None) -> None:
        record = self.ledger.advance(record, DELIVERING, new_version=version)
        self.step("delivering")
        self._deliver(record, secret)

    def _deliver(self, record: RotationRecord, secret: Secret | None) -> None:
        current = held.look(self.store, self.name, self.ledger)
        if secret is None or not current.is_key(record.new_fingerprint, None):
            secret = self.store.get(self.name)
        baselines = self.ledger.baselines(record)
        applied = self._bring(secret, baselines)
        failed = [
            f"{name}: {result.reason}"
            for name, result in applied.items()
            if result.state == FAILED and baselines.get(name) != SICK
        ]
        proven = any(result.state == RUNS for result in applied.values())
        if failed and not proven and self._can_roll_back(record):
            self.outcome.reasons += failed
            record = self.ledger.advance(record, ROLLING_BACK)
            self.step("rolling back")
            self._roll_back(record)
            return
        record = self.ledger.advance(record, COMMITTED)
        self.step("committed")
        self._retire(record, ROTATED)

    def _can_roll_back(self, record: RotationRecord) -> bool:
        if record.old_version == ABSENT or not isinstance(self.store, Stash):
            return False
        if record.old_expires is not None and record.old_expires <= self.now():
            return False
        if record.old_key_id is None or not authkey.is_id(record.old_key_id):
            return True
        try:
            info = self.issuers(record.issuer).lookup(record.old_key_id)
        except IssuerError:
            return True  # it was in use when this run began, and nothing says that it is dead
        return info.valid if info else not record.old_minted

    def _roll_back(self, record: RotationRecord) -> None:
        current = held.look(self.store, self.name, self.ledger)
        if isinstance(self.store, Stash) and current.is_key(record.new_fingerprint, record.new_key_id):
            self.lock.verify()
            try:
                self.store.restore(self.name, expect=current.version)
            except KeyNotFound:
                # A person put the new key there, so nothing was stashed: there is no way back.
                self._retire(self.ledger.advance(record, COMMITTED), ROTATED)
                return
            self.step("restore")
        self._bring(self.store.get(self.name), self.ledger.baselines(record))
        self._retire(record, ROLLED_BACK)

    def _undo(self, record: RotationRecord, current: held.Held, outcome: str) -> None:
        if current.version != record.old_version:
            self._bring(self.store.get(self.name), self.ledger.baselines(record))
        self._retire(record, outcome)

    def _retire(self, record: RotationRecord, outcome: str) -> None:
        current = held.look(self.store, self.name, self.ledger)
        self._told(current)
        self.book.retire(record, current, outcome, self.plan.grace if outcome == ROTATED else None)
        self.outcome.state = outcome
        self.outcome.key_id = current.key_id
        self.step("closed")

    def _told(self, current: held.Held) -> None:
        if not current.absent and current.fingerprint is None:
            raise CannotDecrypt(
                f"{self.where}: {self.name} was changed and cannot be read here, so nothing is revoked",
                hint="Run `tskeys recover` where it can be decrypted.",
            )

    def _bring(
        self, secret: Secret, baselines: dict[str, str], consumers: Sequence[Consumer] | None = None
    ) -> dict[str, Applied]:
        chosen = self.consumers if consumers is None else consumers
        applied = bring(chosen, secret, baselines, self.ledger, self.where, self.name, now=int(self.now()))
        self.step("deliver")
        return applied

    def _behind(self) -> dict[Consumer, str]:
        known = self.book.known()
        if known is None:
            return {}
        states = self.ledger.consumers(self.where, self.name)
        return lagging(self.consumers, known.fingerprint, known.since, states)

    def _lagging(self) -> list[Consumer]:
        return list(self._behind())

    def _revoke(self) -> list[str]:
        """Work off the queue; return what is overdue."""
        overdue = revocation.work_off(
            self.ledger,
            self.where,
            self.name,
            stores=lambda: [self.store, *self.stores()],
            issuer=self.issuers,
            lagging=lambda: bool(self._lagging()),
            adopted_too=self.plan.revoke_adopted,
            now=int(self.now()),
            step=self.step,
        )
        open_ones = self.book.open_rotations()
        waits = any(record.phase != INTENT for record in open_ones)
        if not waits and not self.ledger.revocations(self.where, self.name):
            try:
                self._forget_stash()
            except StoreError as error:
                overdue.append(f"the stash is still to be forgotten: {error}")
        return overdue

    def _forget_stash(self) -> None:
        if isinstance(self.store, Stash):
            self.store.forget(self.name)
            self.step("forget")
