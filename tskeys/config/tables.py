"""From the tables of a config to its dataclasses, with every mistake noted."""

import os
import re
from collections.abc import Mapping
from datetime import timedelta

from tskeys import duration
from tskeys.config.consumers import consumers
from tskeys.config.reader import Table, dotted, nearest, quoted
from tskeys.config.types import (
    MANUAL,
    TAILSCALE,
    CredentialConfig,
    IssuerConfig,
    KeyConfig,
    StoreConfig,
)
from tskeys.errors import UsageError
from tskeys.keyinfo import KeySettings
from tskeys.name import KeyName
from tskeys.registry import PATH_SCHEMES
from tskeys.store import Location

TOP = ("state", "run", "stores", "issuers", "keys")
_KINDS = (TAILSCALE, MANUAL)
_LATER = ("headscale", "command")
_ISSUER = ("kind", "tailnet", "base_url", "ca_file", "proxy", "timeout", "credential_file", "credential")
_CREDENTIAL = ("store", "key", "env", "systemd")
_KEY = (
    *("store", "issuer", "tags", "reusable", "ephemeral", "preauthorized", "lifetime"),
    *("rotate_before", "grace", "revoke_adopted", "consumers"),
)

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_TAG = re.compile(r"tag:[a-zA-Z][a-zA-Z0-9-]*")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SYSTEMD = re.compile(r"(?!\.\.?\Z)[!-.0-9;-~]{1,255}")  # systemd's filename_is_valid and fdname_is_valid
_URL = re.compile(r"https://[^\s/?#@]+(/[^\s?#]*)?|http://(127\.0\.0\.1|\[::1\])(:[0-9]+)?(/[^\s?#]*)?")
_PROXY = re.compile(r"https?://[^\s/?#]+/?")
_NOWHERE = Location("file:/")  # stands in for what is wrong until all mistakes are reported


def stores(top: Table) -> dict[str, StoreConfig]:
    """Return the `[stores.NAME]`."""
    return {name: _store(name, table) for name, table in top.named("stores", ("location",)).items()}


def issuers(top: Table, stores: Mapping[str, StoreConfig]) -> dict[str, IssuerConfig]:
    """Return the `[issuers.NAME]`."""
    return {name: _issuer(name, table, stores) for name, table in top.named("issuers", _ISSUER).items()}


def keys(
    top: Table, stores: Mapping[str, StoreConfig], issuers: Mapping[str, IssuerConfig]
) -> dict[KeyName, KeyConfig]:
    """Return the `[keys."NAME"]`, none of which stands in another's way."""
    found = {}
    places: dict[str, KeyConfig] = {}
    targets: dict[str, str] = {}
    for text, table in top.named("keys", _KEY).items():
        try:
            name = KeyName(text)
        except UsageError as error:
            table.mistakes.add(table.path, str(error))
            _key(KeyName("wrong"), table, stores, issuers, targets)
            continue
        found[name] = key = _key(name, table, stores, issuers, targets)
        if key.location != _NOWHERE:
            _settle(table, key, places)
    return found


def _store(name: str, table: Table) -> StoreConfig:
    _word(name, table)
    table.need("location", '"file:/etc/tailscale-keys"')
    return StoreConfig(name, _location(table, "location", table.text("location")))


def _issuer(name: str, table: Table, stores: Mapping[str, StoreConfig]) -> IssuerConfig:
    _word(name, table)
    table.need("kind", f'"{TAILSCALE}" or "{MANUAL}"')
    kind = table.text("kind")
    if kind in _LATER:
        table.wrong("kind", f"{quoted(kind)} is not supported by this version; it has {', '.join(_KINDS)}")
    elif kind and kind not in _KINDS:
        meant = nearest(kind, _KINDS + _LATER)
        table.wrong("kind", f"{quoted(kind)} is none of {', '.join(_KINDS)}{meant}")
    if kind == MANUAL:
        for key in _ISSUER[1:]:
            if key in table.values:
                table.wrong(key, "is not for a manual issuer, where a person pastes the new key")
        return IssuerConfig(name, kind)
    default = IssuerConfig(name, kind)
    base_url = table.text("base_url", default.base_url)
    if not _URL.fullmatch(base_url):
        table.wrong(
            "base_url",
            "must be https://HOST, or http:// to 127.0.0.1 or [::1], and nothing but a path after it",
        )
    proxy = table.text("proxy")
    if proxy and not _PROXY.fullmatch(proxy):
        table.wrong("proxy", "must be http://HOST:PORT or https://HOST:PORT")
    return IssuerConfig(
        name,
        kind,
        table.text("tailnet", default.tailnet),
        base_url.rstrip("/"),
        table.file("ca_file") or None,
        proxy or None,
        table.duration("timeout", default.timeout, positive=True),
        _credential(table, stores, required=kind == TAILSCALE),
    )


def _credential(
    issuer: Table, stores: Mapping[str, StoreConfig], *, required: bool
) -> CredentialConfig | None:
    # No value below `credential` is ever shown: it could be a token in the wrong place.
    if "credential_file" in issuer.values and "credential" in issuer.values:
        issuer.wrong("credential", "stands beside credential_file; keep one of them")
    if "credential_file" in issuer.values or "credential" not in issuer.values:
        if required and not issuer.given("credential"):
            issuer.need("credential_file", '"/etc/tskeys/api-token", or credential = { … }')
        return CredentialConfig(file=issuer.file("credential_file") or None)
    if not isinstance(issuer.values["credential"], dict):
        issuer.wrong(
            "credential",
            "no credential stands in the config, which too many can read; write credential_file = PATH, "
            "or credential = { store = LOCATION, key = NAME } or { env = VARIABLE } or { systemd = ID }",
        )
        return None
    table = issuer.table("credential", _CREDENTIAL)
    assert table
    if sum(table.given(key) for key in ("store", "env", "systemd")) != 1:
        issuer.wrong("credential", "needs exactly one of store (with key), env and systemd")
    env, systemd = table.text("env"), table.text("systemd")
    if env and not _VARIABLE.fullmatch(env):
        table.wrong("env", "is no name of an environment variable")
    if systemd and not _SYSTEMD.fullmatch(systemd):
        table.wrong("systemd", "is no ID of a systemd credential, as in LoadCredential=ID:PATH")
    store = _which(table, stores, secret=True)[1] if "store" in table.values else None
    if table.given("store"):
        table.need("key", '"NAME", the name of the credential in that store')
    elif "key" in table.values:
        table.wrong("key", "needs a store beside it")
    key = None
    if text := table.text("key"):
        try:
            key = KeyName(text)
        except UsageError:
            table.wrong("key", "is no key name; names look like api-token or web/prod")
    return CredentialConfig(store=store, key=key, env=env or None, systemd=systemd or None)


def _settle(table: Table, key: KeyConfig, places: dict[str, KeyConfig]) -> None:
    place = _place(key)
    for each, other in places.items():
        if each == place:
            table.wrong("store", f"the key {quoted(str(other.name))} is kept in the same place")
        elif place.startswith(f"{each}/"):
            _prefix(table, other, key)
        elif each.startswith(f"{place}/"):
            _prefix(table, key, other)
    places.setdefault(place, key)


def _prefix(table: Table, short: KeyConfig, long: KeyConfig) -> None:
    one, two = quoted(str(short.name)), quoted(str(long.name))
    table.mistakes.add(
        table.path, f"the name {one} is a prefix of the path {two} in the same store; rename one"
    )


def _place(key: KeyConfig) -> str:
    """Return what tells where a key is kept, equal for two keys that overwrite each other."""
    where = key.location
    path = os.path.normpath(where.path) if where.scheme in PATH_SCHEMES else where.path
    if where.scheme in ("envfile", "dotenv") and not (where.path.endswith("/") or os.path.isdir(where.path)):
        name = str(key.name)
        named = name if re.fullmatch("[A-Z_][A-Z0-9_]*", name) else "TS_AUTHKEY"
        return f"{where.scheme}:{path}?{(where.options('var') or [named])[0]}"
    query = "" if where.scheme in PATH_SCHEMES else where.text.partition("?")[2]
    return f"{where.scheme}:{query}:{path.rstrip('/')}/{key.name}"


def _key(
    name: KeyName,
    table: Table,
    stores: Mapping[str, StoreConfig],
    issuers: Mapping[str, IssuerConfig],
    targets: dict[str, str],
) -> KeyConfig:
    table.need("store", '"NAME" of a [stores] table, or a location')
    store, location = _which(table, stores)
    issuer = table.text("issuer")
    if issuer and issuer not in issuers:
        table.wrong("issuer", f"no [issuers.{dotted((issuer,))}] here{nearest(issuer, issuers)}")
    settings = _settings(table)
    before = table.duration("rotate_before", settings.lifetime / 3)
    if before >= settings.lifetime:
        life, given = duration.show(settings.lifetime), duration.show(before)
        table.wrong(
            "rotate_before", f"{given} before the end is too early for a key that lives {life} (lifetime)"
        )
    return KeyConfig(
        name,
        store,
        location,
        issuer or None,
        settings,
        before,
        table.duration("grace", timedelta(0)),
        table.flag("revoke_adopted"),
        consumers(table, targets),
    )


def _settings(table: Table) -> KeySettings:
    tags = table.texts("tags", example='["tag:container"]')
    for at, tag in enumerate(tags):
        if not _TAG.fullmatch(tag):
            meant = f' (did you mean "tag:{tag}"?)' if _TAG.fullmatch(f"tag:{tag}") else ""
            path = (*table.path, "tags", at)
            table.mistakes.add(
                path, f"{quoted(tag)} is no tag: tag:, a letter, then letters, digits and -{meant}"
            )
    return KeySettings(
        tags,
        table.flag("reusable"),
        table.flag("ephemeral"),
        table.flag("preauthorized"),
        table.duration("lifetime", KeySettings().lifetime, positive=True),
    )


def _which(table: Table, stores: Mapping[str, StoreConfig], *, secret: bool = False) -> tuple[str, Location]:
    """Return the text and the location of `store`, which is a name of a store or a location."""
    store = table.text("store")
    if not store or store in stores:
        return store, stores[store].location if store else _NOWHERE
    if ":" in store:
        return store, _location(table, "store", store, secret=secret)
    what = "is no [stores] table" if secret else f"no [stores.{dotted((store,))}] here"
    table.wrong("store", f"{what}, and no location either{nearest(store, stores)}")
    return store, _NOWHERE


def _location(table: Table, key: str, text: str, *, secret: bool = False) -> Location:
    if not text:
        return _NOWHERE
    try:
        location = Location(text)
    except UsageError as error:
        table.wrong(key, "is not a location" if secret else f"{error}; {error.hint}".rstrip("; "))
        return _NOWHERE
    if location.scheme in PATH_SCHEMES and not location.path.startswith("/"):
        table.wrong(
            key, f"the path after {location.scheme}: is not absolute; ~ and relative ones are for --store"
        )
        return _NOWHERE
    return location


def _word(name: str, table: Table) -> None:
    if not _NAME.fullmatch(name):
        table.mistakes.add(table.path, f"{quoted(name)} is no name: write letters, digits, _ . and - only")
