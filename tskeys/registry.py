"""From a location to its backend: a table first, entry points only for a scheme that is not in it."""

from tskeys.errors import BackendUnavailable, UsageError
from tskeys.store import KeyStore, Location

# Strings, so that opening one store imports one backend and the core knows none of them.
BUILTIN = {
    "age": "tskeys_age:AgeStore",
    "credstore": "tskeys_credstore:CredStore",
    "dotenv": "tskeys_dotenv:DotenvStore",
    "envfile": "tskeys_envfile:EnvFileStore",
    "file": "tskeys_file:FileStore",
    "keyring": "tskeys_keyring:KeyringStore",
    "pass": "tskeys_pass:PassStore",
}
PATH_SCHEMES = frozenset({"age", "credstore", "dotenv", "envfile", "file"})
"""Schemes whose path is one of the file system, so that `~` and relative ones mean something."""


def open_store(location: str | Location, *, plugins: bool = True) -> KeyStore:
    """Open the store at a location.

    Without `plugins` only the built-in schemes are known, and no foreign code runs. Raises UsageError for
    an unknown scheme and BackendUnavailable where the backend cannot work here.
    """
    where = location if isinstance(location, Location) else Location(location)
    target = BUILTIN.get(where.scheme)
    if target is None:
        return _plugin(where, look=plugins).open(where)
    module, _, attribute = target.partition(":")
    try:
        backend: type[KeyStore] = getattr(__import__(module), attribute)
    except ModuleNotFoundError as error:
        raise BackendUnavailable(
            f"{where.scheme}: needs the Python library {error.name}",
            hint=f"Install it with: pip install 'tskeys[{where.scheme}]'",
        ) from None
    return backend.open(where)


def _plugin(where: Location, *, look: bool) -> type[KeyStore]:
    if look:
        from importlib.metadata import entry_points  # costs three times a bare interpreter

        found = list(entry_points(group="tskeys.backends", name=where.scheme))
        if len(found) > 1:
            owners = " and ".join(sorted(point.dist.name if point.dist else point.value for point in found))
            raise UsageError(f"{where.scheme}: is claimed by {owners}", hint="Uninstall all but one of them.")
        if found:
            try:
                backend: type[KeyStore] = found[0].load()
            except ImportError as error:
                raise BackendUnavailable(f"{where.scheme}: its backend cannot be loaded: {error}") from None
            return backend
    raise UsageError(
        f"{where.text}: no backend for {where.scheme!r}", hint=f"Known schemes: {', '.join(sorted(BUILTIN))}."
    )
