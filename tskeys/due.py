"""Whether a key is to be rotated now, and why."""

from collections.abc import Callable
from datetime import datetime, timedelta

from tskeys import authkey
from tskeys.duration import show
from tskeys.held import Held
from tskeys.keyinfo import KeyInfo
from tskeys.ledger import KnownKey, moment


def why(
    current: Held,
    known: KnownKey | None,
    rotate_before: timedelta,
    lookup: Callable[[str], KeyInfo | None] | None,
    now: datetime,
) -> tuple[str, datetime | None]:
    """Return why a key is due, an empty string if it is not, and when it expires where that is known.

    `lookup` asks its issuer, and is called only where the ledger does not know the expiry: after a person
    stored the key.
    """
    if current.absent:
        return "there is none yet", None
    expires = moment(known.expires) if known and known.version == current.version else None
    if expires is None and lookup and current.key_id and authkey.is_id(current.key_id):
        info = lookup(current.key_id)
        if info is None:
            return "its issuer knows no such key", None
        if not info.valid:
            return "its issuer says that it is not valid any more", None
        expires = info.expires
    if expires is None:
        return "", None
    left = expires - now
    if left <= timedelta(0):
        return f"it expired {show(-left)} ago", expires
    return (f"it expires in {show(left)}" if left <= rotate_before else ""), expires
