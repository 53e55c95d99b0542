"""What tskeys remembers and is no secret: SQLite, written durably before every effect.

Key IDs, fingerprints, expiry, rotations under way, revocations that wait, which consumer runs on which key,
and an append-only audit. Times are seconds since the epoch.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from tskeys.authkey import redact
from tskeys.database import Database
from tskeys.name import KeyName

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    _Row = TypeVar("_Row", bound=DataclassInstance)

INTENT, MINTED, DELIVERING, COMMITTED, ROLLING_BACK, CLOSED = (
    "intent",
    "minted",
    "delivering",
    "committed",
    "rolling back",
    "closed",
)


@dataclass(frozen=True, slots=True)
class KnownKey:
    """The key that a store was last known to hold."""

    store: str
    name: str
    fingerprint: str
    key_id: str
    version: str
    issuer: str | None
    minted: bool
    since: int
    expires: int | None


@dataclass(frozen=True, slots=True)
class RotationRecord:
    """A rotation and how far it has come; `old` is what was current when it began, None where nothing was."""

    rotation_id: str
    store: str
    name: str
    issuer: str
    phase: str
    started: int
    outcome: str
    old_fingerprint: str | None
    old_key_id: str | None
    old_version: str
    old_minted: bool
    old_expires: int | None
    new_fingerprint: str | None
    new_key_id: str | None
    new_version: str | None
    new_expires: int | None


@dataclass(frozen=True, slots=True)
class ConsumerState:
    """What a consumer was last known to run on; `problem` is empty where all is well."""

    store: str
    name: str
    consumer: str
    fingerprint: str
    invocation: str
    problem: str
    at: int


@dataclass(frozen=True, slots=True)
class Revocation:
    """A key to revoke once it is due; `state` is waiting, done, kept or person."""

    issuer: str
    key_id: str
    store: str
    name: str
    fingerprint: str | None
    minted: bool
    reason: str
    due: int
    state: str
    problem: str


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """Who did what to which key, and how it went."""

    at: int
    who: str
    what: str
    store: str
    name: str
    key_id: str
    outcome: str


class Ledger(Database):
    """The ledger of one machine, in the directory `state`."""

    def known(self, store: str, name: KeyName) -> KnownKey | None:
        """Return what a store was last known to hold."""
        rows = self._rows(KnownKey, "SELECT * FROM keys WHERE store = ? AND name = ?", store, str(name))
        return next(rows, None)

    def known_keys(self) -> list[KnownKey]:
        """Return every key known."""
        return list(self._rows(KnownKey, "SELECT * FROM keys ORDER BY name, store"))

    def learn(self, key: KnownKey) -> None:
        """Remember what a store holds now."""
        self._insert("REPLACE", "keys", key)

    def forget(self, store: str, name: KeyName) -> None:
        """Forget what a store held, after it was deleted there."""
        with self.writing() as db:
            for table in ("keys", "consumers"):
                db.execute(f"DELETE FROM {table} WHERE store = ? AND name = ?", (store, str(name)))  # noqa: S608

    def begin(self, rotation: RotationRecord, baselines: dict[str, str]) -> None:
        """Remember a rotation and the state of its consumers before anything is minted."""
        with self.writing() as db:
            self._insert("INSERT", "rotations", rotation)
            for consumer, state in baselines.items():
                db.execute("INSERT INTO baselines VALUES (?, ?, ?)", (rotation.rotation_id, consumer, state))

    def advance(self, rotation: RotationRecord, phase: str, **columns: str | int | None) -> RotationRecord:
        """Move a rotation to its next phase, with what is known now; return it as it is then."""
        changed = {"phase": phase, **columns}
        with self.writing() as db:
            db.execute(
                f"UPDATE rotations SET {', '.join(f'{column} = ?' for column in changed)}"  # noqa: S608
                " WHERE rotation_id = ?",
                (*changed.values(), rotation.rotation_id),
            )
        return next(
            self._rows(RotationRecord, "SELECT * FROM rotations WHERE rotation_id = ?", rotation.rotation_id)
        )

    def open_rotations(self, store: str, name: KeyName) -> list[RotationRecord]:
        """Return the rotations of a key that are not closed, oldest first."""
        query = (
            "SELECT * FROM rotations WHERE store = ? AND name = ? AND phase != 'closed'"
            " ORDER BY started, rowid"
        )
        return list(self._rows(RotationRecord, query, store, str(name)))

    def last_rotation(self, store: str, name: KeyName) -> RotationRecord | None:
        """Return the youngest rotation of a key."""
        query = (
            "SELECT * FROM rotations WHERE store = ? AND name = ? ORDER BY started DESC, rowid DESC LIMIT 1"
        )
        return next(self._rows(RotationRecord, query, store, str(name)), None)

    def unfinished(self) -> list[tuple[str, str]]:
        """Return store and name of every key with an open rotation or a revocation that waits."""
        query = (
            "SELECT store, name FROM rotations WHERE phase != 'closed'"
            " UNION SELECT store, name FROM revocations WHERE state = 'waiting' ORDER BY name, store"
        )
        return [(row["store"], row["name"]) for row in self.read(query)]

    def baselines(self, rotation: RotationRecord) -> dict[str, str]:
        """Return the state in which each consumer was when a rotation began."""
        query = "SELECT consumer, state FROM baselines WHERE rotation_id = ?"
        return {row["consumer"]: row["state"] for row in self.read(query, rotation.rotation_id)}

    def note_consumer(self, state: ConsumerState) -> None:
        """Remember what a consumer runs on."""
        self._insert("REPLACE", "consumers", replace(state, problem=redact(state.problem)))

    def consumers(self, store: str, name: KeyName) -> dict[str, ConsumerState]:
        """Return what each consumer of a key was last known to run on."""
        rows = self._rows(
            ConsumerState, "SELECT * FROM consumers WHERE store = ? AND name = ?", store, str(name)
        )
        return {row.consumer: row for row in rows}

    def queue(self, revocation: Revocation) -> None:
        """Queue a revocation; one that waits already keeps the earlier time."""
        with self.writing() as db:
            db.execute(
                "INSERT INTO revocations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (issuer, key_id)"
                " DO UPDATE SET due = min(due, excluded.due), state = 'waiting', reason = excluded.reason",
                tuple(getattr(revocation, field.name) for field in fields(revocation)),
            )

    def revocations(self, store: str, name: KeyName, *, state: str = "waiting") -> list[Revocation]:
        """Return the revocations of a key in one state, the earliest first."""
        query = "SELECT * FROM revocations WHERE store = ? AND name = ? AND state = ? ORDER BY due, rowid"
        return list(self._rows(Revocation, query, store, str(name), state))

    def settle(self, revocation: Revocation, state: str, problem: str = "") -> None:
        """Remember how a revocation went."""
        with self.writing() as db:
            db.execute(
                "UPDATE revocations SET state = ?, problem = ? WHERE issuer = ? AND key_id = ?",
                (state, redact(problem), revocation.issuer, revocation.key_id),
            )

    def was_minted(self, fingerprint: str) -> bool:
        """Tell whether a key was minted by tskeys on this machine."""
        query = "SELECT 1 FROM rotations WHERE new_fingerprint = ?"
        return bool(self.read(query, fingerprint))

    def record(self, what: str, store: str, name: KeyName | str, key_id: str | None, outcome: str) -> None:
        """Append to the audit; `key_id` and `outcome` hold no secret, and are redacted all the same."""
        entry = AuditEntry(
            int(time.time()), _who(), what, store, str(name), redact(key_id or ""), redact(outcome)
        )
        self._insert("INSERT", "audit", entry)

    def audit(self) -> list[AuditEntry]:
        """Return the audit, oldest first."""
        return list(self._rows(AuditEntry, "SELECT * FROM audit ORDER BY id"))

    def _insert(self, verb: str, table: str, row: "DataclassInstance") -> None:
        columns = [field.name for field in fields(row)]
        marks = ", ".join("?" for _ in columns)
        with self.writing() as db:
            db.execute(
                f"{verb} INTO {table} ({', '.join(columns)}) VALUES ({marks})",
                [getattr(row, column) for column in columns],
            )

    def _rows(self, kind: "type[_Row]", query: str, *values: str) -> "Iterator[_Row]":
        columns = [(field.name, field.type is bool) for field in fields(kind)]
        for row in self.read(query, *values):
            yield kind(**{name: bool(row[name]) if flag else row[name] for name, flag in columns})


def moment(seconds: int | None) -> datetime | None:
    """Return a time of the ledger as an aware datetime."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def _who() -> str:
    user = os.environ.get("SUDO_USER") or os.environ.get("USER") or f"uid {os.geteuid()}"
    return f"{user} on {os.uname().nodename}"
