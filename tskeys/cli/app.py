"""What every command needs, made when it is first asked for: config, stores, ledger, issuers, rotations."""

import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import click

from tskeys import config, registry
from tskeys.errors import UsageError
from tskeys.extract import DEFAULT_STORE
from tskeys.name import KeyName
from tskeys.store import KeyStore, Listable, Location

if TYPE_CHECKING:
    from tskeys.issuers.issuer import Issuer
    from tskeys.ledger import Ledger
    from tskeys.lock import Lock
    from tskeys.rotation import Rotation


class App:
    """The wiring of one call of the command line."""

    def __init__(self, config_path: str | None, store: str | None) -> None:
        self._config_path = config_path
        self.store_option = store

    @cached_property
    def config(self) -> config.Config:
        """The config."""
        return config.load(self._config_path, os.environ)

    @cached_property
    def ledger(self) -> "Ledger":
        """The ledger."""
        from tskeys.ledger import Ledger

        return Ledger(self.config.state)

    def location(self, name: KeyName | None = None) -> Location:
        """Return where a key is: --store, what its config says, the only store, or the default."""
        given = self.store_option or os.environ.get("TSKEYS_STORE")
        if given:
            return self.locate(given)
        if name is not None and name in self.config.keys:
            return self.config.keys[name].location
        only = list(self.config.stores.values())
        return only[0].location if len(only) == 1 else Location(DEFAULT_STORE)

    def locate(self, word: str) -> Location:
        """Return what a location or the name of a [stores] table on the command line means."""
        return located(word) if ":" in word else self.config.location(word)

    def locations(self) -> list[Location]:
        """Return every store that a command on all keys means."""
        if self.store_option or os.environ.get("TSKEYS_STORE"):
            return [self.location()]
        configured = [store.location for store in self.config.stores.values()]
        configured += [key.location for key in self.config.keys.values()]
        return list(dict.fromkeys(configured)) or [Location(DEFAULT_STORE)]

    def names_in(self, store: KeyStore) -> list[KeyName]:
        """Return the names of the keys in a store; one that cannot enumerate is asked of the ledger."""
        if not isinstance(store, Listable):
            place = store.location.place
            return [KeyName(key.name) for key in self.ledger.known_keys() if key.store == place]
        for key in self.config.keys.values():
            if key.location == store.location:
                # A file that records no names learns here what its variable is called.
                store.version(key.name)
        return list(store.names())

    def open(self, name: KeyName) -> KeyStore:
        """Open the store of a key."""
        return registry.open_store(self.location(name))

    def open_place(self, place: str) -> KeyStore:
        """Open a store that the ledger knows, with the options that the config has for it."""
        configured = [store.location for store in self.config.stores.values()]
        configured += [key.location for key in self.config.keys.values()]
        found = [location for location in configured if location.place == place]
        return registry.open_store(found[0] if found else place)

    def lock(self, store: KeyStore, name: KeyName, *, forget: bool = False) -> "Lock":
        """Return the lock of a key; with `forget` what the ledger remembers of it does not count."""
        from tskeys.lock import Lock

        known = None if forget else self.ledger.known(store.location.place, name)
        return Lock(store, name, fallback=f"{self.config.state}/locks", remembered=known is not None)

    def issuer(self, name: str) -> "Issuer":
        """Return an issuer of the config; raise UsageError for an unknown one."""
        if name not in self._issuers:
            self._issuers[name] = self._make_issuer(name)
        return self._issuers[name]

    @cached_property
    def _issuers(self) -> "dict[str, Issuer]":
        return {}

    def _make_issuer(self, name: str) -> "Issuer":
        found = self.config.issuers.get(name)
        if found is None:
            raise UsageError(
                f"no [issuers.{name}] in the config", hint="The ledger knows a key of that issuer."
            )
        if found.kind == config.MANUAL:
            from tskeys.cli.prompt import ask_key, has_terminal
            from tskeys.issuers.manual import ManualIssuer

            return ManualIssuer(name=name, ask=ask_key if has_terminal() else None)
        from tskeys import credential
        from tskeys.issuers.tailscale import TailscaleIssuer

        assert found.credential is not None
        return TailscaleIssuer(
            name=name,
            tailnet=found.tailnet,
            base_url=found.base_url,
            credential=credential.reader(found.credential, os.environ),
            ca_file=found.ca_file,
            proxy=found.proxy,
            timeout=found.timeout.total_seconds(),
        )

    def rotation(
        self, name: KeyName, *, place: str | None = None, step: Callable[[str], None] = lambda what: None
    ) -> "Rotation":
        """Return the rotation of a key, in its own store or at `place`, with its collaborators."""
        from tskeys.cli.wiring import consumers_of, plan_of
        from tskeys.rotation import Rotation

        store = self.open_place(place) if place else self.open(name)
        key = self.config.keys.get(name)
        return Rotation(
            plan=plan_of(name, key),
            store=store,
            ledger=self.ledger,
            lock=self.lock(store, name),
            issuers=self.issuer,
            consumers=consumers_of(name, key, self.config.run),
            stores=lambda: self._other_stores(store, name),
            step=step,
        )

    def _other_stores(self, store: KeyStore, name: KeyName) -> Sequence[KeyStore]:
        known = {key.store for key in self.ledger.known_keys() if key.name == str(name)}
        if name in self.config.keys:
            known.add(self.config.keys[name].location.place)
        return [self.open_place(place) for place in known - {store.location.place}]


def located(text: str) -> Location:
    """Return a location of the command line, where `~` and relative paths mean what a shell user expects."""
    scheme, _, rest = text.partition(":")
    path, question, query = rest.partition("?")
    if scheme in registry.PATH_SCHEMES and path:
        slash = "/" if path.endswith("/") and scheme != "file" else ""
        path = os.path.abspath(os.path.expanduser(path)).replace("%", "%25") + slash
        return Location(f"{scheme}:{path}{question}{query}")
    return Location(text)


def store_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Let --store stand after the command too."""

    def remember(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
        if value is not None:
            context.find_root().obj.store_option = value

    return click.option(
        "--store", metavar="STORE", expose_value=False, callback=remember, help="As before the command."
    )(command)


class NameType(click.ParamType[KeyName]):
    """A key name on the command line."""

    name = "name"

    def convert(
        self, value: Any, parameter: click.Parameter | None, context: click.Context | None
    ) -> KeyName:
        """Parse it; UsageError says what is wrong."""
        return value if isinstance(value, KeyName) else KeyName(value)


NAME = NameType()
