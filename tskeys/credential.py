"""Where an issuer's credential comes from; read anew each time, and never from the command line."""

import os
from collections.abc import Callable, Mapping

from tskeys import atomic, registry
from tskeys.config import CredentialConfig
from tskeys.errors import UsageError
from tskeys.secret import Secret


def reader(config: CredentialConfig, environ: Mapping[str, str]) -> Callable[[], Secret]:
    """Return what reads a credential; calling it raises UsageError or StoreError where it is not there."""

    def read() -> Secret:
        if config.store is not None and config.key is not None:
            return registry.open_store(config.store).get(config.key)
        if config.env is not None:
            value = environ.get(config.env, "")
            if not value:
                raise UsageError(f"the credential is to come from ${config.env}, which is not set")
            return Secret(value.strip().encode())
        if config.systemd is not None:
            directory = environ.get("CREDENTIALS_DIRECTORY")
            if not directory:
                raise UsageError(
                    f"the credential {config.systemd} comes from systemd, which handed none to this process",
                    hint=f"Run it as a unit with LoadCredential={config.systemd}:PATH.",
                )
            return _file(f"{directory}/{config.systemd}")
        return _file(config.file or "")

    return read


def _file(path: str) -> Secret:
    # Secrets of sops-nix and agenix are symlinks, so the last component is resolved first.
    head, leaf = os.path.split(os.path.realpath(path))
    try:
        directory = os.open(head, atomic.DIRECTORY)
        try:
            data, status = atomic.read_at(directory, leaf, limit=65536)
        finally:
            os.close(directory)
    except OSError as error:
        raise UsageError(f"{path}: the credential cannot be read: {error.strerror}") from None
    if status.st_mode & 0o007:
        raise UsageError(f"{path}: everybody may read the credential", hint=f"Run: chmod 0600 {path}")
    if not data.strip():
        raise UsageError(f"{path}: the credential is empty")
    return Secret(data.strip())
