"""A rotation: mint, store, deliver, verify, revoke; each phase in the ledger before its effect.

    intent → minted → delivering → committed | rolling back → closed

A run that is killed anywhere leaves a usable key, and the next one finishes or undoes the rest: recovery is
the same code, entered at the phase that the ledger holds. What decides is always which key the store holds,
never which step was last. tests/test_rotation_model.py models the protocol, every crash point of it.
"""

import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from tskeys import authkey, held, revocation
from tskeys.bookkeeping import Book
from tskeys.deliver import FAILED, RUNNING, RUNS, SICK, Applied, Consumer, bring, elsewhere, lagging
from tskeys.errors import (
    CannotDecrypt,
    Conflict,
    IssuerError,
    IssuerRefused,
    KeyNotFound,
    MintUnanswered,
    StoreError,
    StoreUnavailable,
    TskeysError,
    UsageError,
)
from tskeys.keyinfo import KeyInfo, Minted, MintRequest
from tskeys.ledger import COMMITTED, DELIVERING, INTENT, MINTED, ROLLING_BACK, Ledger, RotationRecord
from tskeys.lock import Lock
from tskeys.name import KeyName
from tskeys.plan import ABANDONED, ROLLED_BACK, ROTATED, SUPERSEDED, UNANSWERED, Outcome, Plan
from tskeys.secret import Secret
from tskeys.store import ABSENT, KeyStore, Stash, Version

UNANSWERED_FOR = timedelta(days=1)
"""How long a request to mint that got no answer may still arrive."""

CLOCKS_APART = timedelta(hours=1)
"""How far the issuer's clock and ours may be apart."""


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
class Rotation:
    """The rotations of one key in one store; its collaborators are passed in.

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
        self.where = self.store.location.text
        self.book = Book(self.ledger, self.where, self.name, self.now)
        self.outcome = Outcome()

    def rotate(self) -> Outcome:
        """Replace the key by a new one.

        Raises an error where nothing was changed or the change was undone; what else went wrong stands in
        the outcome. Whatever happens, a key that was usable stays usable.
        """
        if self.plan.issuer is None:
            raise UsageError(
                f"{self.name} has no issuer, so nobody can mint a new key",
                hint=f'Name one in the config: [keys."{self.name}"] issuer = "…"',
            )
        with self.lock:
            self._finish_earlier()
            self.outcome = Outcome()
            self._compare_clocks(self.plan.issuer)
            self._forget_stash()  # an earlier one may be revoked by now: it must not be restored
            record = self._intend(self.plan.issuer)
            record, secret = self._mint(record)
            self._go(record, secret)
            return self._finish()

    def recover(self) -> Outcome:
        """Finish or undo what earlier runs left, catch up consumers that lag, and revoke what is due."""
        with self.lock:
            self._finish_earlier()
            self._catch_up(self._lagging())
            return self._finish()

    def deliver(self) -> Outcome:
        """Bring every consumer onto what the store holds; mint nothing."""
        with self.lock:
            self._finish_earlier()
            key = self.store.get(self.name)
            states = self.ledger.consumers(self.where, self.name)
            self._catch_up(elsewhere(self.consumers, authkey.fingerprint(key.reveal()), states))
            return self._finish()

    def _finish_earlier(self) -> None:
        for record in self.book.open_rotations():
            self._go(record, None)
        if self.book.notice(held.look(self.store, self.name, self.ledger), self.plan.issuer):
            self.step("noticed")
        self._revoke()

    def _catch_up(self, late: Sequence[Consumer]) -> None:
        if late:
            baselines = {consumer.name: RUNNING for consumer in late if consumer.observe().running}
            self._bring(self.store.get(self.name), baselines, late)

    def _finish(self) -> Outcome:
        self.outcome.overdue += self._revoke()
        self.outcome.lagging = {consumer.name: reason for consumer, reason in self._behind().items()}
        return self.outcome

    # intent and mint

    def _compare_clocks(self, issuer: str) -> None:
        theirs = self.issuers(issuer).clock()
        if theirs and abs(theirs.timestamp() - self.now()) > CLOCKS_APART.total_seconds():
            raise TskeysError(
                f"the clock here is wrong: {issuer} says it is {theirs:%Y-%m-%d %H:%M} UTC",
                hint="Set it (timedatectl set-ntp true): with a wrong one every key or none seems expired.",
            )

    def _intend(self, issuer: str) -> RotationRecord:
        current = held.look(self.store, self.name, self.ledger)
        self.book.notice(current, issuer)
        baselines = {consumer.name: consumer.baseline() for consumer in self.consumers}
        record = self.book.begin(issuer, current, baselines)
        self.step("intent")
        return record

    def _mint(self, record: RotationRecord) -> tuple[RotationRecord, Secret]:
        issuer = self.issuers(record.issuer)
        description = describe(record.rotation_id, os.uname().nodename, self.name)
        try:
            minted = issuer.mint(MintRequest(record.rotation_id, description, self.plan.settings))
        except MintUnanswered:
            self._go(record, None)
            self._revoke()
            raise
        except TskeysError as error:
            self.book.close(record, f"not minted: {error}")
            raise
        self.step("mint")
        record = self.ledger.advance(
            record,
            MINTED,
            new_fingerprint=authkey.fingerprint(minted.secret.reveal()),
            new_key_id=minted.key_id,
            new_expires=int(minted.expires.timestamp()) if minted.expires else None,
        )
        self.ledger.record("mint", self.where, self.name, minted.key_id, f"by {record.issuer}")
        self.step("minted")
        try:
            info = issuer.lookup(minted.key_id)
            if info is None or not info.valid:
                raise IssuerRefused(f"{record.issuer}: does not know the key that it has just minted")
        except IssuerError:
            self._undo(record, held.look(self.store, self.name, self.ledger), ABANDONED)
            raise
        self.step("check")
        return record, minted.secret

    # from the phase in the ledger to the end

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

    # the end

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


def describe(rotation_id: str, host: str, name: KeyName) -> str:
    """Return `tskeys RID HOST NAME`, at most 50 of [A-Za-z0-9 -] (createKey in Tailscale's API)."""
    return re.sub(r"[^A-Za-z0-9 -]", "-", f"tskeys {rotation_id} {host} {name}")[:50]
