"""Which key a store holds now: told by its version where the ledger knows it, else by decrypting it."""

from dataclasses import dataclass

from tskeys import authkey
from tskeys.errors import CannotDecrypt
from tskeys.ledger import Ledger
from tskeys.name import KeyName
from tskeys.store import ABSENT, KeyStore, Version


@dataclass(frozen=True, slots=True)
class Held:
    """What a store holds; a fingerprint of None means that it is there and cannot be told."""

    version: Version
    fingerprint: str | None = None
    key_id: str | None = None

    @property
    def absent(self) -> bool:
        """Whether the store answered that there is no such key."""
        return self.version == ABSENT

    def is_key(self, fingerprint: str | None, key_id: str | None) -> bool:
        """Tell whether this is that key, by whichever of the two is known."""
        if fingerprint is not None and self.fingerprint is not None:
            return fingerprint == self.fingerprint
        return key_id is not None and key_id == self.key_id


def look(store: KeyStore, name: KeyName, ledger: Ledger) -> Held:
    """Return what the store holds; raise StoreUnavailable where it does not answer."""
    version = store.version(name)
    if version is None:
        return Held(ABSENT)
    where = store.location.place
    known = ledger.known(where, name)
    if known and known.version == version:
        return Held(version, known.fingerprint, known.key_id)
    for record in ledger.open_rotations(where, name):
        if record.new_version == version:
            return Held(version, record.new_fingerprint, record.new_key_id)
        if record.old_version == version and record.old_fingerprint:
            return Held(version, record.old_fingerprint, record.old_key_id)
    try:
        key = store.get(name).reveal()
    except CannotDecrypt:
        return Held(version)
    return Held(version, authkey.fingerprint(key), authkey.shown(key))
