"""What the loopback control server knows: keys, credentials and the rules of Tailscale's API v2.

Source: Tailscale's OpenAPI document for paths, fields and the trap of listing without `all=true`; public bug
reports for the texts of errors. Where nothing is known (the text for a bad description, whether DELETE of a
revoked key is 200), the likeliest was chosen. No secret is kept: keys are known by their hash.
"""

import base64
import binascii
import hashlib
import json
import re
import secrets
import string
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

DAYS_90 = 7_776_000
USER = "uTESTER1CNTRL"
_PATH = re.compile(r"/api/v2/tailnet/(?P<tailnet>[^/]+)/keys(?:/(?P<id>[^/]+))?")


@dataclass(slots=True)
class Reply:
    """An answer to send; a body of None is an empty one."""

    status: int
    body: object = None


@dataclass(slots=True)
class _Key:
    """A key or credential; `shown` is what the API shows of it."""

    shown: dict[str, Any]
    digest: str
    ends: float
    revoked: bool = False
    gets: int = 0


@dataclass(slots=True)
class Settings:
    """What a test may change while the server runs."""

    scopes: tuple[str, ...] = ("all",)
    """What the API token may do."""
    client_scopes: tuple[str, ...] = ("auth_keys",)
    tags: tuple[str, ...] | None = None
    """The tags that the token's user may give; None for any."""
    client_tags: tuple[str, ...] | None = ("tag:container", "tag:server")
    token_lifetime: int = 3600
    gone_after: int | None = 3
    """How many GETs a revoked key answers with invalid:true before it is 404; None for ever."""
    ids_only: bool = False
    """List only IDs, as the API did in 2024."""


@dataclass(slots=True)
class KeysApi:
    """The state of one tailnet."""

    settings: Settings = field(default_factory=Settings)
    offset: float = 0.0
    """Seconds by which the server's clock is ahead."""
    _keys: dict[str, _Key] = field(default_factory=dict)
    _access: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def now(self) -> float:
        """Return the server's time in seconds since 1970."""
        return time.time() + self.offset

    def credential(self, kind: str) -> str:
        """Make an API token (`api`) or an OAuth client (`client`), which are keys like any other."""
        return self._make(kind, {"description": f"test {kind}", "userId": USER}, DAYS_90)[1]

    def verify(self, key: str) -> dict[str, Any]:
        """Tell whether a key would join a node now."""
        for ident, held in tuple(self._keys.items()):
            if held.digest == _digest(key.partition("?")[0]):
                return {"id": ident, "live": self._state(held) == "live"}
        return {"id": None, "live": False}

    def keys(self, *, everything: bool) -> list[dict[str, Any]]:
        """Return every key ever made, with its state: live, revoked or expired."""
        return [
            {**held.shown, "state": self._state(held)}
            for held in tuple(self._keys.values())
            if everything or held.shown["keyType"] == "auth"
        ]

    def revoke(self, ident: str) -> bool:
        """Revoke a key as a person in the admin console would; False where there is none."""
        if ident not in self._keys:
            return False
        held = self._keys[ident]
        held.revoked = True
        held.shown.setdefault("revoked", _stamp(self.now()))
        return True

    def expire(self, ident: str) -> bool:
        """Let a key expire now; False where there is none."""
        if ident not in self._keys:
            return False
        held = self._keys[ident]
        held.ends = self.now()
        held.shown["expires"] = _stamp(held.ends)
        return True

    def log_out(self) -> None:
        """Forget every access token, so that OAuth clients must log in again."""
        self._access.clear()

    def handle(self, method: str, path: str, query: dict[str, list[str]], auth: str, body: bytes) -> Reply:
        """Answer a request to the API."""
        with self._lock:
            if (method, path) == ("POST", "/api/v2/oauth/token"):
                return self._log_in(body)
            who = self._who(auth)
            if who is None:
                return _error(401, "API token invalid")
            match = _PATH.fullmatch(path)
            if match is None or match["tailnet"] not in ("-", "example.com"):
                return _error(404, "404 page not found")
            enough = {"all", "auth_keys"} | ({"all:read", "auth_keys:read"} if method == "GET" else set())
            if not enough.intersection(self.settings.scopes if who == "api" else self.settings.client_scopes):
                return _error(403, "calling actor does not have enough permissions to perform this function")
            if match["id"] is None:
                if method == "GET":
                    return self._list(who, query.get("all") == ["true"])
                return self._create(who, body) if method == "POST" else _error(405, "method not allowed")
            return self._one(method, match["id"])

    def _who(self, auth: str) -> str | None:
        scheme, _, token = auth.partition(" ")
        if scheme.lower() == "basic":
            try:
                token = base64.b64decode(token, validate=True).decode().partition(":")[0]
            except (binascii.Error, UnicodeDecodeError):
                return None
        if self._access.get(_digest(token), 0) > self.now():
            return "client"
        held = next((k for k in self._keys.values() if k.digest == _digest(token)), None)
        known = held is not None and held.shown["keyType"] == "api" and self._state(held) == "live"
        return "api" if known else None

    def _log_in(self, body: bytes) -> Reply:
        form = parse_qs(body.decode("utf-8", "replace"))
        if form.get("grant_type", ["client_credentials"]) != ["client_credentials"]:
            return Reply(400, {"error": "unsupported_grant_type"})
        digest = _digest(form.get("client_secret", [""])[0])
        held = next((k for k in self._keys.values() if k.digest == digest), None)
        if held is None or held.shown["keyType"] != "client" or self._state(held) != "live":
            return Reply(401, {"error": "invalid_client", "error_description": "invalid client credentials"})
        token = f"tskey-api-k{_random(10)}CNTRL-{_random(33)}"
        self._access[_digest(token)] = self.now() + self.settings.token_lifetime
        return Reply(
            200,
            {
                "access_token": token,
                "token_type": "Bearer",
                "expires_in": self.settings.token_lifetime,
                "scope": " ".join(self.settings.client_scopes),
            },
        )

    def _list(self, who: str, everything: bool) -> Reply:
        shown = []
        for held in self._keys.values():
            mine = held.shown["keyType"] == "client" if who == "client" else held.shown.get("userId") == USER
            if self._state(held) == "live" and (everything or mine):
                shown.append({"id": held.shown["id"]} if self.settings.ids_only else held.shown)
        return Reply(200, {"keys": shown})

    def _create(self, who: str, body: bytes) -> Reply:
        try:
            wanted = json.loads(body)
            create = wanted["capabilities"]["devices"].get("create", {})
            tags = create.get("tags", [])
            flags = {
                flag: bool(create.get(flag, False)) for flag in ("reusable", "ephemeral", "preauthorized")
            }
            description, seconds = wanted.get("description", ""), wanted.get("expirySeconds", 0)
        except (ValueError, KeyError, AttributeError, TypeError):
            return _error(400, "invalid request body")
        if not (isinstance(description, str) and isinstance(seconds, int) and isinstance(tags, list)):
            return _error(400, "invalid request body")
        if wanted.get("keyType", "auth") != "auth":
            return _error(403, "calling actor does not have enough permissions to perform this function")
        if not re.fullmatch(r"[A-Za-z0-9 -]{0,50}", description):
            return _error(400, "description must be at most 50 alphanumeric characters, hyphens and spaces")
        if seconds > DAYS_90:
            return _error(400, f"expirySeconds must be less than or equal to {DAYS_90}")
        if seconds < 0:
            return _error(400, "expirySeconds must not be negative")
        owned = self.settings.client_tags if who == "client" else self.settings.tags
        bad = [
            t
            for t in tags
            if not re.fullmatch(r"tag:[a-z][a-z0-9-]*", str(t)) or (owned is not None and t not in owned)
        ]
        if bad or (who == "client" and not tags):
            return _error(400, f"requested tags [{' '.join(map(str, bad))}] are invalid or not permitted")
        capabilities = {"devices": {"create": {**flags, "tags": tags}}}
        shown = {"description": description, "capabilities": capabilities}
        if who == "api":
            shown["userId"] = USER
        held, key = self._make("auth", shown, seconds or DAYS_90)
        return Reply(200, {**held.shown, "key": key})

    def _one(self, method: str, ident: str) -> Reply:
        held = self._keys.get(ident)
        if held is None or (held.revoked and self._is_gone(held)):
            return _error(404, "404 page not found")
        if method == "GET":
            dead = self._state(held) != "live"
            held.gets += dead
            return Reply(200, {**held.shown, "invalid": True} if dead else held.shown)
        if method == "DELETE":
            self.revoke(ident)
            return Reply(200)
        return _error(405, "method not allowed")

    def _is_gone(self, held: _Key) -> bool:
        return self.settings.gone_after is not None and held.gets >= self.settings.gone_after

    def _make(self, kind: str, fields: dict[str, Any], seconds: int) -> tuple[_Key, str]:
        ident = f"k{_random(10)}CNTRL"
        key = f"tskey-{kind}-{ident}-{_random(32)}"
        now = self.now()
        shown = {"id": ident, "keyType": kind, **fields, "created": _stamp(now), "updated": _stamp(now)}
        if kind != "client":
            shown |= {"expirySeconds": seconds, "expires": _stamp(now + seconds)}
        held = _Key(shown, _digest(key), now + seconds if kind != "client" else float("inf"))
        self._keys[ident] = held
        return held, key

    def _state(self, held: _Key) -> str:
        if held.revoked:
            return "revoked"
        return "live" if self.now() < held.ends else "expired"


def _error(status: int, message: str) -> Reply:
    return Reply(status, {"message": message})


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _random(length: int) -> str:
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(length))


def _stamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
