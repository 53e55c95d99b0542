"""Keyrings that must not be used, as PYTHON_KEYRING_BACKEND names them."""

from keyring.backend import KeyringBackend


class Weak(KeyringBackend):
    """Keeps what it is given, in plain text, and says so by its priority."""

    priority = 0.5
    held: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.held.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.held[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.held[service, username]


class PlaintextKeyring(Weak):
    """Says that it is good."""

    priority = 9


class Forgets(Weak):
    """Takes everything and keeps nothing."""

    priority = 9

    def set_password(self, service: str, username: str, password: str) -> None:
        pass


class Tells(Weak):
    """Fails with the key in its message."""

    priority = 9

    def set_password(self, service: str, username: str, password: str) -> None:
        raise ValueError(f"cannot store {password} ({password[:-1]})")


class Breaks(Weak):
    """Cannot even say what it is."""

    priority = property(lambda self: 1 / 0)
