"""Identity files under a passphrase, as `age-keygen | age -p` makes them."""

import pyrage

from tskeys.errors import CannotDecrypt
from tskeys.secret import Secret
from tskeys_age.terminal import Terminal


def decrypted(path: str, data: bytes, passphrase: Secret | None) -> bytes:
    """Return an identity file in the clear; takes seconds, by design. Raises CannotDecrypt."""
    text = passphrase.reveal().decode(errors="replace") if passphrase else _asked(path)
    try:
        return pyrage.passphrase.decrypt(data.strip() + b"\n" if data.lstrip()[:1] == b"-" else data, text)
    except pyrage.DecryptError:
        raise CannotDecrypt(
            f"{path}: the passphrase of the identity file is wrong, or the file is damaged"
        ) from None


def _asked(path: str) -> str:
    terminal = Terminal.here()
    if terminal is None:
        raise CannotDecrypt(
            f"{path}: needs a passphrase, and there is neither a file with it nor a terminal",
            hint="Add &pin=FILE to the location, for example a systemd credential's.",
        )
    try:
        typed = terminal.ask(f"Passphrase of {path}", hidden=True)
    finally:
        terminal.close()
    if not typed:
        raise CannotDecrypt(f"{path}: no passphrase was given")
    return typed
