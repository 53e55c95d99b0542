"""What `list` and `status` say of a key, without asking anybody but the ledger and the store."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypedDict

from tskeys import held
from tskeys.cli.app import App
from tskeys.cli.wiring import consumers_of
from tskeys.deliver import lagging
from tskeys.errors import StoreError
from tskeys.ledger import KnownKey
from tskeys.name import KeyName


class ConsumerRow(TypedDict):
    """A consumer in JSON; `state` is runs or lags."""

    name: str
    state: str
    reason: str


class KeyRow(TypedDict):
    """A key in JSON; times are RFC 3339 in UTC."""

    name: str
    store: str
    key_id: str | None
    expires: str | None
    state: str
    consumers: list[ConsumerRow]
    last_rotation: str | None


def rfc3339(seconds: float | None) -> str | None:
    """Return a time as `2026-11-21T10:00:00Z`."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def key_rows(app: App, keys: Sequence[tuple[str, KeyName]]) -> list[KeyRow]:
    """Return what is known of keys."""
    return [_row(app, where, name) for where, name in keys]


def _row(app: App, where: str, name: KeyName) -> KeyRow:
    known = app.ledger.known(where, name)
    last = app.ledger.last_rotation(where, name)
    state, key_id = _state(app, where, name, known)
    consumers: list[ConsumerRow] = []
    key = app.config.keys.get(name)
    if key is not None and key.location.place == where:
        all_of_it = consumers_of(name, key, app.config.run)
        behind = {}
        if known:
            behind = lagging(all_of_it, known.fingerprint, known.since, app.ledger.consumers(where, name))
        for consumer in all_of_it:
            reason = behind.get(consumer, "")
            consumers.append({"name": consumer.name, "state": "lags" if reason else "runs", "reason": reason})
    return {
        "name": str(name),
        "store": where,
        "key_id": key_id,
        "expires": rfc3339(known.expires) if known else None,
        "state": state,
        "consumers": consumers,
        "last_rotation": rfc3339(last.started) if last else None,
    }


def _state(app: App, where: str, name: KeyName, known: KnownKey | None) -> tuple[str, str | None]:
    try:
        current = held.look(app.open_place(where), name, app.ledger)
    except StoreError:
        return "unavailable", known.key_id if known else None
    if current.absent:
        return "absent", None
    if known is None or current.fingerprint != known.fingerprint:
        return "unknown" if current.fingerprint is None or known is None else "changed", current.key_id
    if any(record.new_key_id for record in app.ledger.open_rotations(where, name)):
        return "unfinished", current.key_id
    if known.expires is None:
        return "ok", current.key_id
    left = known.expires - time.time()
    if left <= 0:
        return "expired", current.key_id
    key = app.config.keys.get(name)
    due = key is not None and left <= key.rotate_before.total_seconds()
    return "due" if due else "ok", current.key_id
