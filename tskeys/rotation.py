"""A rotation: mint, store, deliver, verify, revoke; each phase in the ledger before its effect.

    intent → minted → delivering → committed | rolling back → closed

A run that is killed anywhere leaves a usable key, and the next one finishes or undoes the rest: recovery is
the same code (tskeys.phases), entered at the phase that the ledger holds. tests/test_rotation_model.py models
the protocol, every crash point of it.
"""

import os
import re
from collections.abc import Sequence
from datetime import timedelta

from tskeys import authkey, held
from tskeys.deliver import RUNNING, Consumer, elsewhere
from tskeys.errors import IssuerError, IssuerRefused, MintUnanswered, TskeysError, UsageError
from tskeys.keyinfo import MintRequest
from tskeys.ledger import MINTED, RotationRecord
from tskeys.name import KeyName
from tskeys.phases import Phases
from tskeys.plan import ABANDONED, Outcome
from tskeys.secret import Secret

CLOCKS_APART = timedelta(hours=1)
"""How far the issuer's clock and ours may be apart."""


class Rotation(Phases):
    """The rotations of one key in one store."""

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
            self.compare_clocks()
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

    def compare_clocks(self) -> None:
        """Raise TskeysError where the issuer's clock and ours are far apart: no expiry could be trusted."""
        issuer = self.plan.issuer
        theirs = self.issuers(issuer).clock() if issuer else None
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


def describe(rotation_id: str, host: str, name: KeyName) -> str:
    """Return `tskeys RID HOST NAME`, at most 50 of [A-Za-z0-9 -] (createKey in Tailscale's API)."""
    return re.sub(r"[^A-Za-z0-9 -]", "-", f"tskeys {rotation_id} {host} {name}")[:50]
