"""The keyring that the library found, if it is one that seals what it holds, and its errors in our words.

Without D-Bus the library silently takes keyrings.alt's PlaintextKeyring where that is installed (priority
0.5), and keyring.backends.null takes everything and keeps nothing, so nothing that the library itself does
not recommend (priority 1 or more) is used.
"""

from tskeys import authkey
from tskeys.errors import BackendUnavailable, CannotDecrypt, StoreError, StoreUnavailable
from tskeys.secret import Secret

TYPE_CHECKING = False
if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

_NO_REAL_ONE = (
    "A real one is a Secret Service in this D-Bus session (GNOME Keyring, KWallet, KeePassXC). "
    "Without a desktop: dbus-run-session -- sh -c 'gnome-keyring-daemon --unlock --components=secrets "
    "--daemonize && tskeys …' with the keyring's password on standard input; or keep the keys in age:, "
    "pass: or credstore:."
)
_UNLOCK = (
    "Unlock it by logging in to the desktop, or with the keyring's password on standard input: "
    "gnome-keyring-daemon --replace --unlock --components=secrets --daemonize"
)


class Provider:
    """One keyring; every method raises StoreError or one of its subclasses, and none tells a key."""

    def __init__(self, keyring: "KeyringBackend") -> None:
        self._keyring = keyring

    @classmethod
    def find(cls) -> "Provider":
        """Return the keyring that the library chooses here. Raises BackendUnavailable."""
        try:
            from keyring import core
        except ImportError:
            raise BackendUnavailable(
                "keyring: needs the Python library keyring",
                hint="Install it with: pip install 'tskeys[keyring]'",
            ) from None
        try:
            # The limit also keeps a chain of several keyrings from falling back to a plaintext one.
            core.init_backend(core.recommended)
            found = core.get_keyring()
            kind = f"{type(found).__module__}.{type(found).__name__}"
            priority = float(found.priority)
        except Exception as error:  # a configured one may fail in any way
            raise BackendUnavailable(
                f"keyring: the configured keyring cannot be used: {_told(error)}", hint=_NO_REAL_ONE
            ) from None
        if kind.startswith("keyring.backends.fail."):
            raise BackendUnavailable("keyring: there is no keyring in this session", hint=_NO_REAL_ONE)
        if priority < 1 or kind.startswith("keyring.backends.null.") or "plaintext" in kind.lower():
            raise BackendUnavailable(
                f"keyring: {kind} (priority {priority:g}) does not keep keys safe and is not used",
                hint=_NO_REAL_ONE,
            )
        return cls(found)

    def get(self, service: str, user: str, *, where: str) -> bytes | None:
        """Return what is held, or None."""
        try:
            value = self._keyring.get_password(service, user)
            return None if value is None else value.encode()
        except UnicodeError:
            raise CannotDecrypt(f"{where}: what the keyring holds is no text") from None
        except Exception as error:
            raise _explained(error, where) from None

    def set(self, service: str, user: str, secret: Secret, *, where: str) -> None:
        """Add or replace a password."""
        try:
            value = secret.reveal().decode()
        except UnicodeError:
            raise StoreError(f"{where}: a keyring holds text, and this key is none") from None
        try:
            self._keyring.set_password(service, user, value)
        except Exception as error:
            raise _explained(error, where, value) from None

    def delete(self, service: str, user: str, *, where: str) -> None:
        """Delete one password."""
        try:
            self._keyring.delete_password(service, user)
        except Exception as error:
            raise _explained(error, where) from None


def _explained(error: Exception, where: str, secret: str = "") -> StoreError:
    if isinstance(error, StoreError):  # extract's deadline comes out of a signal
        return error
    from keyring import errors

    if isinstance(error, errors.KeyringLocked) or type(error).__name__ == "LockedException":
        return StoreUnavailable(f"{where}: the keyring is locked", hint=_UNLOCK)
    if isinstance(error, errors.InitError):
        return StoreUnavailable(
            f"{where}: the keyring has no collection: {_told(error, secret)}", hint=_UNLOCK
        )
    return StoreUnavailable(f"{where}: the keyring failed: {_told(error, secret)}", hint=_NO_REAL_ONE)


def _told(error: Exception, secret: str = "") -> str:
    text = str(error)
    kind = type(error).__name__
    return kind if not text or (secret and secret in text) else f"{kind}: {authkey.redact(text)}"
