"""`pass:PREFIX`: each key is an entry of the password store, as pass 1.7.4 keeps it.

The key is an entry's first line; lines that a person wrote below it stay when the key changes. Where nobody
can decrypt an entry that is replaced, its lines cannot be carried over: then git has it, and a store that git
does not keep gets a sealed copy, `.LEAF.unread.gpg`. The first such copy stays: what replaces it is tskeys'
own, the key alone. `gpg --decrypt` opens it, and it may be deleted.
"""

import os
import sys

from tskeys.errors import (
    BackendUnavailable,
    CannotDecrypt,
    Conflict,
    StoreError,
    UsageError,
)
from tskeys.name import KeyName
from tskeys.secret import Secret
from tskeys.store import ABSENT, KeyStore, Listable, Location, Stash, Version
from tskeys_pass import recipients
from tskeys_pass.gpg import Gpg
from tskeys_pass.outcome import Damaged
from tskeys_pass.tree import Tree, entry, previous, unread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime


class PassStore(KeyStore, Listable, Stash):
    """Keys in a password store; the replaced one of `web/prod` rests in `web/.prod.previous.gpg`."""

    scheme = "pass"

    def __init__(self, location: Location, tree: Tree, gpg: Gpg) -> None:
        self.location = location
        self._tree, self._gpg = tree, gpg

    @classmethod
    def open(cls, location: Location) -> "PassStore":
        """Open a store; raise BackendUnavailable where it, gpg, gpg's home or python-gnupg is missing."""
        location.allow("dir", "gnupghome", "passphrase")
        prefix = location.path.rstrip("/")
        if prefix and any(not part or part.startswith(".") for part in prefix.split("/")):
            raise UsageError(
                f"{location}: {location.path!r} is no folder of a password store",
                hint="Write pass:tailscale for the folder tailscale; dir= names the store itself.",
            )
        for option in ("dir", "gnupghome", "passphrase"):
            if not (location.option(option) or "/").startswith("/"):
                raise UsageError(f"{location}: the path of {option}= is not absolute")
        gpg = Gpg(location.option("gnupghome"), location.option("passphrase"))
        # Not imported, which extract would pay for, but missed now and not after a key was minted.
        if not any(finder.find_spec("gnupg", None) for finder in sys.meta_path):
            raise BackendUnavailable(
                "pass: needs the Python library python-gnupg",
                hint="Install it with: pip install 'tskeys[pass]'",
            )
        path = location.option("dir") or os.environ.get("PASSWORD_STORE_DIR", "")
        home = os.environ.get("HOME")
        if not path and not home:
            raise BackendUnavailable(
                f"{location}: neither PASSWORD_STORE_DIR nor HOME is set",
                hint="Add dir=/… to the location, or set PASSWORD_STORE_DIR.",
            )
        path = (path or f"{home}/.password-store").rstrip("/") or "/"
        tree = Tree(location, path, prefix, gpg.environment.get("GNUPGHOME"))
        return cls(location, tree, gpg)

    def get(self, name: KeyName) -> Secret:
        """Return the entry's first line."""
        return Secret(self._first(name, self._opened(name, self._tree.read(name, entry(name)))))

    def put(
        self,
        name: KeyName,
        secret: Secret,
        *,
        expect: Version | None = None,
        expires: "datetime | None" = None,
    ) -> Version:
        """Seal the key and one LF for the store's recipients, check that, and only then replace the entry."""
        to = self._recipients(name)
        turn = self._tree.turn()
        try:
            held = self._tree.held(name)
            _expected(self, name, held, expect)
            changes: dict[str, bytes | None] = {}
            more = b""
            if held is not None:
                try:
                    more = self._gpg.decrypt(held, ask=False).partition(b"\n")[2]
                except CannotDecrypt:
                    if not self._tree.kept(name):
                        changes[unread(name)] = held
            plaintext = secret.reveal() + b"\n" + more
            sealed = self._sealed(name, plaintext, to)
            changes[entry(name)] = sealed
            self._tree.change(
                name, changes, f"Add given password for {self._tree.shown(name)} to store.", held
            )
            if self._tree.held(name) != sealed:
                raise StoreError(f"{self.location}: {name} did not read back as it was written")
            return Version.of(sealed)
        finally:
            os.close(turn)

    def delete(self, name: KeyName) -> None:
        """Remove the stash and the entry, in one commit, and folders that are empty then."""
        turn = self._tree.turn()
        try:
            held = self._tree.read(name, entry(name))
            leaves = [previous(name), unread(name), entry(name)]
            self._tree.change(
                name, dict.fromkeys(leaves), f"Remove {self._tree.shown(name)} from store.", held
            )
        finally:
            os.close(turn)
        folder = self._tree.folder(name)
        while folder:
            try:
                os.rmdir(folder, dir_fd=self._tree.root)
            except OSError:
                break
            folder = folder.rpartition("/")[0]

    def version(self, name: KeyName) -> Version | None:
        """Return the version of the entry's ciphertext."""
        held = self._tree.held(name)
        return None if held is None else Version.of(held)

    def lock_path(self, name: KeyName) -> str:
        """Return a path in the git directory, where no commit finds it, else at the store's root."""
        return self._tree.lock_path(name)

    def names(self) -> "Iterator[KeyName]":
        """Yield every entry below the prefix whose path is a key name."""
        return self._tree.names()

    def stash(self, name: KeyName) -> None:
        """Copy the ciphertext; the next put commits it."""
        turn = self._tree.turn()
        try:
            held = self._tree.read(name, entry(name))
            self._tree.change(name, {previous(name): held}, "", held)
        finally:
            os.close(turn)

    def restore(self, name: KeyName, *, expect: Version | None = None) -> Version:
        """Copy the stash back."""
        turn = self._tree.turn()
        try:
            sealed = self._tree.read(name, previous(name))
            held = self._tree.held(name)
            _expected(self, name, held, expect)
            message = f"Add given password for {self._tree.shown(name)} to store."
            self._tree.change(name, {entry(name): sealed}, message, held)
            return Version.of(sealed)
        finally:
            os.close(turn)

    def forget(self, name: KeyName) -> None:
        """Remove the stash, and temporary files of a killed run."""
        turn = self._tree.turn()
        try:
            message = f"Remove {self._tree.shown(name, f'.{name.leaf}.previous')} from store."
            self._tree.change(name, {previous(name): None}, message, None, sweep=True)
        finally:
            os.close(turn)

    # The contents.

    def _opened(self, name: KeyName, sealed: bytes, *, ask: bool = True) -> bytes:
        try:
            return self._gpg.decrypt(sealed, ask=ask)
        except StoreError as error:
            raise type(error)(f"{self.location}: {name}: {error}", hint=error.hint) from None

    def _first(self, name: KeyName, plaintext: bytes) -> bytes:
        key = plaintext.partition(b"\n")[0].removesuffix(b"\r")
        if not key:
            raise StoreError(
                f"{self.location}: the first line of {name} is empty",
                hint=f"The key belongs there: pass edit {self._tree.shown(name)}",
            )
        return key

    def _recipients(self, name: KeyName) -> list[str]:
        try:
            return recipients.of(self._tree.root, self._tree.folder(name), self._gpg)
        except StoreError as error:
            self._tree.present()
            raise type(error)(f"{self.location}: {error}", hint=error.hint) from None
        except OSError as error:
            raise self._tree.explained(error, name) from None

    def _sealed(self, name: KeyName, plaintext: bytes, to: list[str]) -> bytes:
        from tskeys_pass.sealing import Sealer  # late: python-gnupg costs more than gpg takes

        try:
            sealer = Sealer(self._gpg, to, os.environ.get("PASSWORD_STORE_GPG_OPTS", ""))
            sealed = sealer.seal(plaintext)
            try:
                good = self._gpg.decrypt(sealed, ask=False) == plaintext
            except Damaged:
                good = False
            except CannotDecrypt:  # nobody here can, and nobody needs to
                good = sealer.matches(self._gpg.recipients(sealed))
        except StoreError as error:
            raise type(error)(f"{self.location}: {name}: {error}", hint=error.hint) from None
        if not good:
            raise StoreError(f"{self.location}: {name}: gpg did not encrypt to {', '.join(to)} alone")
        return sealed


def _expected(store: PassStore, name: KeyName, held: bytes | None, expect: Version | None) -> None:
    if expect is not None and (ABSENT if held is None else Version.of(held)) != expect:
        raise Conflict(f"{store.location}: {name} was changed by somebody else meanwhile")
