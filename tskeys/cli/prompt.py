"""Asking a person for a secret, hidden; without a terminal that is an error and never an echo."""

import getpass
import os
import sys
import warnings

from tskeys import authkey
from tskeys.errors import NeedsPerson, UsageError
from tskeys.secret import Secret


def has_terminal() -> bool:
    """Tell whether somebody is there to ask."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def ask_key(prompt: str) -> Secret:
    """Ask twice for a key; raise NeedsPerson without a terminal and UsageError when the two differ."""
    if not has_terminal():
        raise NeedsPerson("there is no terminal to ask on", hint="Pipe the key in: tskeys set NAME < FILE")
    with warnings.catch_warnings():
        # getpass would fall back to an echo with no more than a warning.
        warnings.simplefilter("error", getpass.GetPassWarning)
        first = Secret(getpass.getpass(f"{prompt}: ").encode())
        again = Secret(getpass.getpass("Once more: ").encode())
    if first != again:
        raise UsageError("the two are not the same; nothing was changed")
    return first


def read_key(name: str) -> Secret:
    """Read a key from standard input, or ask for it where that is a terminal."""
    if sys.stdin is not None and not sys.stdin.isatty():
        data = authkey.trim(sys.stdin.buffer.read(65536))
        if not data:
            raise UsageError("standard input is empty; nothing was changed", hint=f"tskeys set {name} < FILE")
        return Secret(data)
    return ask_key(f"Auth key for {name}")
