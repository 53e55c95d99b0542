"""The config: TOML to frozen dataclasses, with file, line and key of everything that is wrong."""

import os
from collections.abc import Mapping
from types import MappingProxyType

from tskeys.config import file as config_file
from tskeys.config import reader as config_reader
from tskeys.config import tables as config_tables
from tskeys.config.types import (
    DELIVER,
    MANUAL,
    RELOAD,
    RESTART,
    TAILSCALE,
    Config,
    ConsumerConfig,
    CredentialConfig,
    IssuerConfig,
    KeyConfig,
    StoreConfig,
)
from tskeys.delivery import ENV, KEY

__all__ = [
    "DELIVER",
    "ENV",
    "KEY",
    "MANUAL",
    "RELOAD",
    "RESTART",
    "TAILSCALE",
    "Config",
    "ConsumerConfig",
    "CredentialConfig",
    "IssuerConfig",
    "KeyConfig",
    "StoreConfig",
    "load",
]


def load(explicit: str | None, environ: Mapping[str, str]) -> Config:
    """Read the config that `--config`, $TSKEYS_CONFIG or the usual places name; none at all is an empty one.

    Raises ConfigError with every mistake that is in it.
    """
    root = os.geteuid() == 0
    state = "/var/lib" if root else config_file.xdg("XDG_STATE_HOME", ".local/state", environ)
    run = "/run" if root else config_file.xdg("XDG_RUNTIME_DIR", f"/run/user/{os.geteuid()}", environ)
    path = config_file.find(explicit, environ)
    if path is None:
        return Config(None, f"{state}/tskeys", f"{run}/tskeys")
    top = config_reader.parse(path, config_file.read(path), config_tables.TOP)
    stores = config_tables.stores(top)
    issuers = config_tables.issuers(top, stores)
    keys = config_tables.keys(top, stores, issuers)
    config = Config(
        path,
        top.file("state", f"{state}/tskeys"),
        top.file("run", f"{run}/tskeys"),
        MappingProxyType(stores),
        MappingProxyType(issuers),
        MappingProxyType(keys),
    )
    top.mistakes.report()
    return config
