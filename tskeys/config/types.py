"""What a config says, as frozen dataclasses."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from types import MappingProxyType

from tskeys.config.reader import HINT, dotted, nearest
from tskeys.delivery import KEY
from tskeys.errors import UsageError
from tskeys.keyinfo import KeySettings
from tskeys.name import KeyName
from tskeys.store import Location

TAILSCALE, MANUAL = "tailscale", "manual"
RESTART, RELOAD, DELIVER = "restart", "reload", "deliver"


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """A `[stores.NAME]`."""

    name: str
    location: Location


@dataclass(frozen=True, slots=True)
class CredentialConfig:
    """Where an issuer's credential is: one of a file, a key in a store, a variable, a systemd credential."""

    file: str | None = None
    store: Location | None = None
    key: KeyName | None = None
    env: str | None = None
    systemd: str | None = None


@dataclass(frozen=True, slots=True)
class IssuerConfig:
    """An `[issuers.NAME]`; `manual` has no credential."""

    name: str
    kind: str
    tailnet: str = "-"
    base_url: str = "https://api.tailscale.com"
    ca_file: str | None = None
    proxy: str | None = field(default=None, repr=False)  # may hold a password
    timeout: timedelta = timedelta(seconds=30)
    credential: CredentialConfig | None = None


@dataclass(frozen=True, slots=True)
class ConsumerConfig:
    """A `[[keys."NAME".consumers]]`: a unit to restart or reload, a file to deliver, or both."""

    unit: str | None = None
    on_rotate: str = DELIVER
    to: str | None = None
    format: str = KEY
    owner: str | None = None
    group: str | None = None
    mode: int = 0o400
    stable: timedelta = timedelta(seconds=3)
    deadline: timedelta = timedelta(seconds=90)


@dataclass(frozen=True, slots=True)
class KeyConfig:
    """A `[keys."NAME"]`; `store` is what the config says, `location` what it means."""

    name: KeyName
    store: str
    location: Location
    issuer: str | None
    settings: KeySettings
    rotate_before: timedelta
    grace: timedelta = timedelta(0)
    revoke_adopted: bool = False
    consumers: tuple[ConsumerConfig, ...] = ()


@dataclass(frozen=True, slots=True)
class Config:
    """All that the config says; without a file the paths alone are set."""

    path: str | None
    state: str
    run: str
    stores: Mapping[str, StoreConfig] = field(default_factory=lambda: MappingProxyType({}))
    issuers: Mapping[str, IssuerConfig] = field(default_factory=lambda: MappingProxyType({}))
    keys: Mapping[KeyName, KeyConfig] = field(default_factory=lambda: MappingProxyType({}))

    def key(self, name: str | KeyName) -> KeyConfig:
        """Return the config of a key; raise UsageError, with the nearest name, where there is none."""
        found = self.keys.get(name if isinstance(name, KeyName) else KeyName(name))
        if found is None:
            known = [str(each) for each in self.keys]
            where = self.path or "no config, so no key"
            raise UsageError(
                f"{where}: no [keys.{dotted((str(name),))}]{nearest(str(name), known)}",
                hint=f"Known keys: {', '.join(known)}." if known else HINT,
            )
        return found

    def location(self, store: str) -> Location:
        """Return the location that a `[stores]` name or a location means, as `--store` takes both."""
        if store in self.stores:
            return self.stores[store].location
        if ":" in store:
            return Location(store)
        raise UsageError(
            f"no [stores.{dotted((store,))}]{nearest(store, self.stores)}",
            hint="A store is the name of a [stores] table or a location such as file:/etc/tailscale-keys.",
        )
