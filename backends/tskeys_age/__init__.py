"""`age:DIR`: each key sealed in a file of its own, `DIR/NAME.age`, as passage lays it out.

Options of the location, all but `pin` repeatable:

    recipient    whom a key is sealed for: age1…, ssh-ed25519 …, ssh-rsa … or a plugin's age1NAME1…
    recipients   a file of them, one a line
    identity     a file that opens keys: age identities, or a private ssh key, a host's own for one
    pin          a file with the PIN of a token, or with the passphrase of an identity file

Without a recipient the nearest `.age-recipients` from the key's directory up to DIR counts, and without
one, the recipients that belong to the identities. Reading needs an identity; writing needs none.
"""

from tskeys import authkey
from tskeys.errors import CannotDecrypt, KeyNotFound, StoreError
from tskeys.name import KeyName
from tskeys.secret import Secret
from tskeys.store import KeyStore, Listable, Location, Stash, Version
from tskeys_age.files import SealedFiles
from tskeys_age.identities import Identities

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime


class AgeStore(KeyStore, Listable, Stash):
    """Keys in files of age's; the replaced one of `web/prod` rests in `web/.prod.previous.age`."""

    scheme = "age"

    def __init__(self, location: Location, files: SealedFiles) -> None:
        self.location = location
        self._files = files
        self._identities = Identities(location.options("identity"), location.option("pin"))

    @classmethod
    def open(cls, location: Location) -> "AgeStore":
        """Open a directory that nobody else can write to; raise BackendUnavailable for a missing one."""
        location.allow("identity", "recipients", "recipient", "pin")
        return cls(location, SealedFiles(location))

    def get(self, name: KeyName) -> Secret:
        """Return the key, without the one newline that `echo` leaves; no plugin runs if a file opens it."""
        sealed = _sealed(self._files.read(name, _leaf(name)), f"{self._files}: {name}")
        if not self._identities:
            raise CannotDecrypt(
                f"{self._files}: names no identity, so it can be written to and not read",
                hint="Add ?identity=FILE; for a host's own key: ?identity=/etc/ssh/ssh_host_ed25519_key.",
            )
        opened = self._identities.decrypt(sealed, f"{self._files}: {name}")
        return Secret(authkey.trim(opened))

    def put(
        self,
        name: KeyName,
        secret: Secret,
        *,
        expect: Version | None = None,
        expires: "datetime | None" = None,
    ) -> Version:
        """Seal the key for its recipients, and open it again before it replaces anything.

        A key that only a token, a passphrase or another host can open is compared as ciphertext alone.
        """
        from tskeys_age import recipients  # late: who reads needs none

        sealed = recipients.encrypt(secret, self._recipients(name))
        opened = self._identities.decrypt_alone(sealed)
        if opened is not None and Secret(opened) != secret:
            raise StoreError(f"{self._files}: {name} did not decrypt to what was encrypted")
        self._files.write(name, _leaf(name), sealed, expect)
        if self._files.read(name, _leaf(name)) != sealed:
            raise StoreError(f"{self._files}: {name} did not read back as it was written")
        return Version.of(sealed)

    def delete(self, name: KeyName) -> None:
        """Remove the stash, the key, and directories that are empty then.

        In this order a crash in between leaves a key that can be deleted again.
        """
        if self.version(name) is None:
            raise self._files.missing(name)
        self.forget(name)
        self._files.remove(name, _leaf(name))
        self._files.prune(name)

    def version(self, name: KeyName) -> Version | None:
        """Return the version of the ciphertext."""
        try:
            return Version.of(self._files.read(name, _leaf(name)))
        except KeyNotFound:
            return None

    def lock_path(self, name: KeyName) -> str:
        """Return `DIR/.web+prod.lock`; a + stands in no name."""
        return f"{self._files.path}/.{name.text.replace('/', '+')}.lock"

    def names(self) -> "Iterator[KeyName]":
        """Yield every file below the root whose path is a key name and `.age`."""
        yield from self._files.names()

    def stash(self, name: KeyName) -> None:
        """Copy the ciphertext."""
        self._files.write(name, _previous(name), self._files.read(name, _leaf(name)), None)

    def restore(self, name: KeyName, *, expect: Version | None = None) -> Version:
        """Copy the stashed ciphertext back."""
        sealed = self._files.read(name, _previous(name))
        self._files.write(name, _leaf(name), sealed, expect)
        return Version.of(sealed)

    def forget(self, name: KeyName) -> None:
        """Remove the stash, and temporary files of a killed run."""
        try:
            self._files.remove(name, _previous(name))
        except KeyNotFound:
            pass

    def _recipients(self, name: KeyName) -> list[str]:
        from tskeys_age import recipients

        given = recipients.of_location(self.location) or recipients.nearest(self._files, name)
        return given or recipients.of_identities(self._identities, self.location)


def _leaf(name: KeyName) -> str:
    return f"{name.leaf}.age"


def _previous(name: KeyName) -> str:
    return f".{name.leaf}.previous.age"


def _sealed(data: bytes, what: str) -> bytes:
    # age takes blanks before an armored file, pyrage does not.
    if data.lstrip().startswith(b"-----BEGIN AGE ENCRYPTED FILE-----"):
        return data.lstrip()
    if data.startswith(b"age-encryption.org/"):
        return data
    raise CannotDecrypt(
        f"{what} is no file of age's",
        hint="Was it cut short, or stored in the clear? Store the key again with: tskeys set",
    )
