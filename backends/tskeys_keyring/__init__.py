"""`keyring:SERVICE`: keys in the keyring of the operating system, through the library keyring.

A key is the password of the user NAME at SERVICE, as `keyring get SERVICE NAME` and
`secret-tool lookup service SERVICE username NAME` read it; the replaced one is at `SERVICE.previous`. A
keyring cannot enumerate, gives no version without decrypting, and knows no compare-and-set: `version` is a
hash of the key itself, and it is the lock above the store that keeps two runs apart.

Which keyring is used is the library's choice, and with it whose code runs: PYTHON_KEYRING_BACKEND,
~/.config/python_keyring/keyringrc.cfg (with a path to load from) and every installed package with an entry
point `keyring.backends` can name a module. Whoever can set these for a user can read the user's keys.
"""

from tskeys import authkey
from tskeys.errors import Conflict, KeyNotFound, StoreError, UsageError
from tskeys.name import KeyName
from tskeys.secret import Secret
from tskeys.store import ABSENT, KeyStore, Location, Stash, Version
from tskeys_keyring.provider import Provider

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime


class KeyringStore(KeyStore, Stash):
    """Keys in the keyring of this session; names come from elsewhere."""

    scheme = "keyring"

    def __init__(self, location: Location, provider: Provider) -> None:
        self.location = location
        self._service = location.path
        self._previous = f"{location.path}.previous"
        self._provider = provider

    @classmethod
    def open(cls, location: Location) -> "KeyringStore":
        """Find a keyring that seals what it holds; raise BackendUnavailable where there is none."""
        location.allow()
        if not location.path.strip() or location.path.endswith(".previous"):
            raise UsageError(
                f"{location}: keyring: needs the name of a service, which does not end in .previous",
                hint="For example: keyring:tskeys",
            )
        return cls(location, Provider.find())

    def get(self, name: KeyName) -> Secret:
        """Return the key without the one newline that `echo` leaves."""
        return Secret(authkey.trim(self._held(self._service, name)))

    def put(
        self,
        name: KeyName,
        secret: Secret,
        *,
        expect: Version | None = None,
        expires: "datetime | None" = None,
    ) -> Version:
        """Set the password and read it back: there are keyrings that take everything and keep nothing."""
        if expect is not None and (self.version(name) or ABSENT) != expect:
            raise Conflict(f"{self.location}: {name} was changed by somebody else meanwhile")
        self._write(self._service, name, secret)
        return Version.of(secret.reveal())

    def delete(self, name: KeyName) -> None:
        """Delete the stash first, so that a crash in between leaves a key that can be deleted again."""
        if self.version(name) is None:
            raise self._missing(name)
        self.forget(name)
        self._remove(self._service, name)

    def version(self, name: KeyName) -> Version | None:
        """Return the version of the key itself: a keyring hands out nothing that is sealed."""
        try:
            return Version.of(self._held(self._service, name))
        except KeyNotFound:
            return None

    def stash(self, name: KeyName) -> None:
        """Copy the key to `SERVICE.previous`; the keyring seals it like the first."""
        self._write(self._previous, name, Secret(self._held(self._service, name)))

    def restore(self, name: KeyName, *, expect: Version | None = None) -> Version:
        """Copy the stash back."""
        return self.put(name, Secret(self._held(self._previous, name)), expect=expect)

    def forget(self, name: KeyName) -> None:
        """Delete the stash."""
        self._remove(self._previous, name)

    def _held(self, service: str, name: KeyName) -> bytes:
        value = self._provider.get(service, str(name), where=f"{self.location}: {name}")
        if value is None:
            raise self._missing(name)
        return value

    def _write(self, service: str, name: KeyName, secret: Secret) -> None:
        where = f"{self.location}: {name}"
        self._provider.set(service, str(name), secret, where=where)
        if self._provider.get(service, str(name), where=where) != secret.reveal():
            raise StoreError(
                f"{where} did not read back as it was written",
                hint="Another item with this service and user may stand before it: delete that with "
                f"`secret-tool clear service {service} username {name}`, and store the key again.",
            )

    def _remove(self, service: str, name: KeyName) -> None:
        # Other programs may have left several items with this service and user: one call deletes one.
        where = f"{self.location}: {name}"
        for _ in range(16):
            if self._provider.get(service, str(name), where=where) is None:
                return
            self._provider.delete(service, str(name), where=where)
        raise StoreError(f"{where}: is still there after it was deleted")

    def _missing(self, name: KeyName) -> KeyNotFound:
        return KeyNotFound(f"{self.location}: no key {name}", hint=f"Store one with: tskeys set {name}")
