"""The names of age's plugins, which become the names of programs (C2SP age-plugin.md)."""

from tskeys.errors import UsageError

_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyz0123456789+-._")


def checked(plugin: str) -> str:
    """Return a plugin's name if it is one, so that no path and no option is ever run; raise UsageError."""
    # age 1.1.1 runs age1/../../x1…'s "age-plugin-/../../x" (GHSA-4fg7-vxc8-qx5w).
    if not plugin or plugin[0] in "-." or not _ALLOWED.issuperset(plugin):
        raise UsageError(f"{plugin!r} is no name of an age plugin: a-z 0-9 + - . _ are allowed")
    return plugin


def of_identity(text: str) -> str:
    """Return the plugin of `AGE-PLUGIN-NAME-1…`; raise UsageError."""
    prefix = text.upper().rpartition("1")[0]
    if not prefix.startswith("AGE-PLUGIN-") or not prefix.endswith("-"):
        raise UsageError("an identity of a plugin looks like AGE-PLUGIN-NAME-1…")
    return checked(prefix[len("AGE-PLUGIN-") : -1].lower())


def of_recipient(text: str) -> str:
    """Return the plugin of `age1NAME1…`; raise UsageError."""
    return checked(text.rpartition("1")[0].removeprefix("age1"))
