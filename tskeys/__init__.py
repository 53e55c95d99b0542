"""Keeps Tailscale auth keys in a store, renews them before they expire and hands them to services.

The library in one line: `tskeys.open_store("file:/etc/tailscale-keys").get(KeyName("container-key"))`.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tskeys.store import KeyStore

__all__ = ["open_store"]


def open_store(location: "str") -> "KeyStore":
    """Open the store at a location such as `file:/etc/tailscale-keys`.

    Raises UsageError for a location that cannot be read and BackendUnavailable for a missing root,
    mount, library or program.
    """
    # Imported here so that `import tskeys` costs nothing.
    from tskeys import registry

    return registry.open_store(location)
