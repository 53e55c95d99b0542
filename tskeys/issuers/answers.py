"""What the answers of Tailscale's API v2 mean.

Source: the schemas Key and KeyCapabilities of Tailscale's OpenAPI document; RFC 6749, section 5.1.
Fields may be absent, and Go's zero time may stand where a timestamp is not set.
"""

import re
import time
from datetime import UTC, datetime, timedelta

from tskeys.authkey import plausible
from tskeys.issuers.connection import clean
from tskeys.issuers.http import Answer
from tskeys.keyinfo import KeyInfo, KeySettings, Minted
from tskeys.secret import Secret

KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")


def access(answer: Answer) -> tuple[Secret, float] | None:
    """Return an access token and the monotonic time to renew it, or None where the answer holds none."""
    body = answer.body
    if not isinstance(body, dict) or not isinstance(body.get("access_token"), str):
        return None
    lives = _seconds(body.get("expires_in")) or 3600
    return Secret(body["access_token"].encode("utf-8", "replace")), time.monotonic() + lives * 0.9 - 5


def minted(answer: Answer, otherwise: datetime) -> Minted | None:
    """Return the key that was made, or None; `otherwise` stands in for an absent expiry."""
    body = answer.body
    if answer.status >= 300 or not isinstance(body, dict):
        return None
    ident, key = body.get("id"), body.get("key")
    if not isinstance(ident, str) or not KEY_ID.fullmatch(ident) or not isinstance(key, str):
        return None
    secret = Secret(key.encode("utf-8", "replace"))
    return (
        Minted(secret, ident, _time(body.get("expires")) or otherwise) if plausible(secret.reveal()) else None
    )


def info(entry: dict[str, object], now: datetime) -> KeyInfo:
    """Return what an entry says of a key; `now` is the server's time."""
    expires = _time(entry.get("expires"))
    gone = entry.get("invalid") is True or _time(entry.get("revoked")) or (expires and expires <= now)
    create: object = entry.get("capabilities")
    for part in ("devices", "create"):
        create = create.get(part) if isinstance(create, dict) else None
    settings = None
    if isinstance(create, dict):
        tags = create.get("tags")
        lives = _seconds(entry.get("expirySeconds"))
        settings = KeySettings(
            tags=tuple(str(tag) for tag in tags) if isinstance(tags, list) else (),
            reusable=create.get("reusable") is True,
            ephemeral=create.get("ephemeral") is True,
            preauthorized=create.get("preauthorized") is True,
            lifetime=timedelta(seconds=lives) if lives else timedelta(days=90),
        )
    return KeyInfo(
        key_id=clean(str(entry.get("id"))),
        valid=not gone,
        key_type=clean(str(entry.get("keyType") or ("auth" if settings else "unknown"))),
        description=clean(str(entry.get("description") or "")),
        created=_time(entry.get("created")),
        expires=expires,
        settings=settings,
    )


def _seconds(value: object) -> int:
    return value if isinstance(value, int) and 0 < value < 10**9 else 0


def _time(value: object) -> datetime | None:
    # Go writes its zero time where a timestamp is not set.
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if moment is None or moment.year == 1:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
