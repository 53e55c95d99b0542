"""The ledger as a rotation of one key sees it."""

import base64
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from tskeys import authkey, revocation
from tskeys.held import Held
from tskeys.ledger import CLOSED, INTENT, KnownKey, Ledger, Revocation, RotationRecord
from tskeys.name import KeyName
from tskeys.plan import GIVEN_UP


@dataclass(frozen=True, slots=True)
class Book:
    """What is written down of the key `name` in the store at `where`; `now` gives seconds since the epoch."""

    ledger: Ledger
    where: str
    name: KeyName
    now: Callable[[], float]

    def known(self) -> KnownKey | None:
        """Return the key that was last known to be current."""
        return self.ledger.known(self.where, self.name)

    def open_rotations(self) -> list[RotationRecord]:
        """Return the rotations under way, oldest first."""
        return self.ledger.open_rotations(self.where, self.name)

    def begin(self, issuer: str, current: Held, baselines: dict[str, str]) -> RotationRecord:
        """Write down the intent to rotate, with what is current now and how the consumers are."""
        known = self.known()
        expires = known.expires if known and known.version == current.version else None
        record = RotationRecord(
            rotation_id=base64.b32encode(os.urandom(10)).decode(),
            store=self.where,
            name=str(self.name),
            issuer=issuer,
            phase=INTENT,
            started=int(self.now()),
            outcome="",
            old_fingerprint=current.fingerprint,
            old_key_id=current.key_id,
            old_version=current.version,
            old_minted=self._minted(current),
            old_expires=expires,
            new_fingerprint=None,
            new_key_id=None,
            new_version=None,
            new_expires=None,
        )
        self.ledger.begin(record, baselines)
        return record

    def retire(self, record: RotationRecord, current: Held, outcome: str, grace: timedelta | None) -> None:
        """Queue whichever key of a rotation is not current for revocation, and close it, all at once.

        `grace` is how long the old key lives on while its consumers change over; None for no reason to wait.
        """
        with self.ledger.writing():
            for fingerprint, key_id, minted, wait in (
                (record.new_fingerprint, record.new_key_id, True, None),
                (record.old_fingerprint, record.old_key_id, record.old_minted, grace),
            ):
                if key_id and not current.is_key(fingerprint, key_id):
                    self.queue(record.issuer, key_id, fingerprint, minted, outcome, wait)
            if current.is_key(record.new_fingerprint, record.new_key_id):
                self.learn(current, record.issuer, record.new_expires)
            elif current.is_key(record.old_fingerprint, record.old_key_id):
                self.learn(current, record.issuer, record.old_expires)
            else:
                self.learn(current, record.issuer, None)
            self.close(record, outcome)

    def close(self, record: RotationRecord, outcome: str) -> None:
        """Close a rotation."""
        self.ledger.advance(record, CLOSED, outcome=authkey.redact(outcome))
        self.ledger.record("rotate", self.where, self.name, record.new_key_id, outcome)

    def notice(self, current: Held, issuer: str | None) -> bool:
        """Take note of a key that a person stored since the last run: theirs wins, and ours is replaced.

        Tell whether there was one.
        """
        known = self.known()
        if current.fingerprint is None or (known and known.fingerprint == current.fingerprint):
            return False
        with self.ledger.writing():
            if known and known.minted and (by := known.issuer or issuer):
                self.queue(by, known.key_id, known.fingerprint, True, revocation.REPLACED, timedelta(0))
            self.learn(current, issuer, None)
            self.ledger.record("notice", self.where, self.name, current.key_id, "stored by somebody")
        return known is not None

    def learn(self, current: Held, issuer: str | None, expires: int | None) -> None:
        """Remember what is current now; what cannot be told is left as it was."""
        if current.fingerprint is None:
            return
        before = self.known()
        unchanged = before is not None and before.fingerprint == current.fingerprint
        self.ledger.learn(
            KnownKey(
                store=self.where,
                name=str(self.name),
                fingerprint=current.fingerprint,
                key_id=current.key_id or "",
                version=current.version,
                issuer=issuer,
                minted=self._minted(current),
                since=before.since if before and unchanged else int(self.now()),
                expires=before.expires if before and unchanged and expires is None else expires,
            )
        )

    def give_up(self) -> None:
        """Forget a key that was deleted; of what is under way for it, only the revocation of ours is left."""
        with self.ledger.writing():
            for record in self.open_rotations():
                if record.new_key_id:
                    self.queue(record.issuer, record.new_key_id, record.new_fingerprint, True, GIVEN_UP)
                self.close(record, GIVEN_UP)
            self.ledger.forget(self.where, self.name)

    def queue(
        self,
        issuer: str,
        key_id: str,
        fingerprint: str | None,
        minted: bool,
        reason: str,
        grace: timedelta | None = None,
    ) -> None:
        """Queue a revocation; with a `grace` it waits for that long and for every consumer."""
        self.ledger.queue(
            Revocation(
                issuer=issuer,
                key_id=key_id,
                store=self.where,
                name=str(self.name),
                fingerprint=fingerprint,
                minted=minted,
                reason=reason if grace is None else revocation.REPLACED,
                due=int(self.now() + (grace or timedelta(0)).total_seconds()),
                state=revocation.WAITING,
                problem="",
            )
        )

    def _minted(self, current: Held) -> bool:
        return current.fingerprint is not None and self.ledger.was_minted(current.fingerprint)
