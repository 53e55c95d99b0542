"""The queue of keys to revoke: worked off at every run, never slept for, and never a key that is in use."""

from collections.abc import Callable, Sequence
from typing import Protocol

from tskeys import authkey, held
from tskeys.errors import CannotDecrypt, IssuerError, NeedsPerson, StoreError
from tskeys.keyinfo import KeyInfo
from tskeys.ledger import Ledger, Revocation
from tskeys.name import KeyName
from tskeys.store import KeyStore

REPLACED = "replaced"
"""The reason of a revocation that waits while a consumer lags; every other one does not."""

DONE, KEPT, PERSON, WAITING = "done", "kept", "person", "waiting"


class Revoker(Protocol):
    """What is needed of an issuer here."""

    def lookup(self, key_id: str) -> KeyInfo | None:
        """Return what the issuer knows of a key."""

    def revoke(self, key_id: str) -> None:
        """Revoke a key; one that is gone already is no error."""


def work_off(
    ledger: Ledger,
    where: str,
    name: KeyName,
    *,
    stores: Callable[[], Sequence[KeyStore]],
    issuer: Callable[[str], Revoker],
    lagging: Callable[[], bool],
    adopted_too: bool,
    now: int,
    step: Callable[[str], None],
) -> list[str]:
    """Revoke what is due for a key and return what is overdue, each in one sentence.

    `stores` are all places where a key of this name may be current: what one of them holds is kept, and
    while one does not answer nothing is revoked.
    """
    overdue = []
    for entry in ledger.revocations(where, name):
        if entry.due > now:
            continue
        try:
            state, problem = _revoke(ledger, name, entry, stores, issuer, lagging, adopted_too)
        except (StoreError, IssuerError) as error:
            state, problem = WAITING, str(error)
        ledger.settle(entry, state, problem)
        ledger.record("revoke", where, name, entry.key_id, f"{state} {problem}".strip())
        step(f"revoke {entry.key_id}: {state}")
        if state == WAITING:
            overdue.append(f"{entry.key_id} is still to be revoked: {problem}")
    return overdue


def _revoke(
    ledger: Ledger,
    name: KeyName,
    entry: Revocation,
    stores: Callable[[], Sequence[KeyStore]],
    issuer: Callable[[str], Revoker],
    lagging: Callable[[], bool],
    adopted_too: bool,
) -> tuple[str, str]:
    for store in stores():
        current = held.look(store, name, ledger)
        if current.is_key(entry.fingerprint, entry.key_id):
            return KEPT, f"{store.location} holds it again"
        if not current.absent and current.fingerprint is None:
            raise CannotDecrypt(f"{store.location}: {name} cannot be read now, and it could be that key")
    if entry.reason == REPLACED and lagging():
        return WAITING, "a consumer still runs on it"
    by = issuer(entry.issuer)
    if not entry.minted:
        # DELETE takes any credential: an OAuth client that somebody stored as a key would be gone for all.
        if not authkey.is_id(entry.key_id):
            return PERSON, "tskeys did not mint it and does not know its ID"
        known = by.lookup(entry.key_id)
        if known is None or not known.valid:
            return DONE, "it was not valid any more"
        if not adopted_too or known.key_type != "auth":
            return PERSON, "tskeys did not mint it, so others may use it"
    try:
        by.revoke(entry.key_id)
    except NeedsPerson as error:
        return PERSON, f"{error}. {error.hint}".strip()
    return DONE, ""
