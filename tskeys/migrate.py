"""Move a key from one store to another: copy, read back, compare, and only then delete."""

from collections.abc import Callable
from datetime import UTC, datetime

from tskeys import held
from tskeys.bookkeeping import Book
from tskeys.errors import CannotDecrypt, Conflict, StoreError, UsageError
from tskeys.ledger import Ledger
from tskeys.name import KeyName
from tskeys.store import ABSENT, KeyStore


def migrate(
    name: KeyName,
    source: KeyStore,
    target: KeyStore,
    ledger: Ledger,
    *,
    delete_source: bool,
    now: Callable[[], float],
    step: Callable[[str], None],
) -> None:
    """Copy a key, and delete it at its source if asked for; interrupted anywhere, it can be run again.

    The caller holds the locks of both. Raises Conflict where the target holds another key of that name, and
    CannotDecrypt where the copy cannot be compared, so that its source must stay.
    """
    before = Book(ledger, source.location.place, name, now)
    after = Book(ledger, target.location.place, name, now)
    if any(record.new_key_id for book in (before, after) for record in book.open_rotations()):
        raise UsageError(f"{name} is being rotated", hint=f"Finish that first: tskeys recover {name}")
    secret = source.get(name)
    known = before.known()
    if target.version(name) is None:
        expires = datetime.fromtimestamp(known.expires, UTC) if known and known.expires else None
        target.put(name, secret, expect=ABSENT, expires=expires)
        step("copied")
    try:
        same = target.get(name) == secret
    except CannotDecrypt:
        if delete_source:
            raise CannotDecrypt(
                f"{target.location.place}: {name} cannot be read here, so its source keeps it",
                hint="Run it again where the copy can be decrypted.",
            ) from None
        same = True
    if not same:
        raise Conflict(
            f"{target.location.place}: holds another key {name}; nothing was changed",
            hint="Look at both with `tskeys get`, and delete the one that is wrong.",
        )
    step("compared")
    after.learn(
        held.look(target, name, ledger), known.issuer if known else None, known.expires if known else None
    )
    ledger.record("migrate", target.location.place, name, None, f"from {source.location.place}")
    if delete_source:
        source.delete(name)
        step("deleted")
        ledger.forget(source.location.place, name)
        if source.version(name) is not None:
            raise StoreError(f"{source.location.place}: {name} is still there although it was deleted")
