"""Encrypt with python-gnupg, in memory, and say what is wrong with a recipient."""

from typing import Any

import gnupg

from tskeys.errors import StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tskeys_pass.gpg import Gpg

# pass's own, and never a look into the network for a recipient's key: gpg would ask its mail domain.
_OPTIONS = ["--quiet", "--compress-algo=none", "--no-encrypt-to", "--no-auto-key-locate"]


class BadRecipient(StoreError):
    """A recipient's key is missing, expired, revoked, disabled, for signing only, or not trusted."""


class Sealer:
    """Encrypt to recipients, and check a message against them."""

    def __init__(self, gpg: "Gpg", recipients: list[str], options: str) -> None:
        self._gpg, self._recipients, self._options = gpg, recipients, options.split()
        try:
            self._library = gnupg.GPG(gpgbinary=gpg.program, env=gpg.environment)
        except (OSError, ValueError) as error:
            raise StoreError(f"{gpg.program} cannot be used: {error}") from None

    def seal(self, plaintext: bytes) -> bytes:
        """Return the message, binary as pass writes it. Raises BadRecipient."""
        done = self._library.encrypt(
            plaintext, self._recipients, armor=False, extra_args=[*self._options, *_OPTIONS]
        )
        if done.ok and done.data:
            return bytes(done.data)
        for recipient in self._recipients:
            if reason := self._problem(recipient, done.stderr):
                raise BadRecipient(*reason[:1], hint=reason[1])
        raise StoreError(f"gpg could not encrypt: {done.status}", hint="Try: gpg --encrypt --recipient …")

    def matches(self, found: list[str]) -> bool:
        """Tell whether a message's key IDs are those of all the recipients and of nobody else."""
        hidden = [ident for ident in found if not ident.strip("0")]
        if hidden:  # throw-keyids in gpg.conf
            return len(found) == len(self._recipients)
        groups, known = False, set()
        for recipient in self._recipients:
            idents = {ident for key in self._listed(recipient) for ident, _ in _encrypting(key)}
            groups |= not idents  # a group of gpg.conf is no key, and gpg has refused what is neither
            if idents and not idents.intersection(found):
                return False
            known |= idents
        return bool(found) and (groups or known.issuperset(found))

    def _problem(self, recipient: str, stderr: str) -> tuple[str, str] | None:
        keys = self._listed(recipient)
        if not keys:
            if f"INV_RECP 1 {recipient}" not in stderr:
                return None
            return f"no public key of the recipient {recipient} is here", "Import it with: gpg --import FILE"
        states = {state for key in keys for _, state in _encrypting(key)} or {key["trust"] for key in keys}
        if states <= {"e"}:
            hint = f"Extend it with: gpg --edit-key {recipient} expire, and import the extended key here."
            return f"the key of the recipient {recipient} has expired", hint
        if states <= {"r", "e"}:
            hint = "Take it out with: pass init, naming those who stay; what it could read, rotate."
            return f"the key of the recipient {recipient} is revoked", hint
        if all("D" in key["cap"] for key in keys):
            return f"the key of the recipient {recipient} is disabled", f"gpg --edit-key {recipient} enable"
        if not any(_encrypting(key) for key in keys):
            hint = f"Add a subkey with: gpg --quick-add-key FINGERPRINT cv25519 encr ({recipient})"
            return f"the key of the recipient {recipient} cannot encrypt", hint
        if f"INV_RECP 10 {recipient}" in stderr:
            hint = (
                f"Compare its fingerprint with its owner, then: gpg --lsign-key {recipient}; "
                "or trust every key in the keyring: PASSWORD_STORE_GPG_OPTS=--trust-model=always"
            )
            return f"the key of the recipient {recipient} is not trusted", hint
        return None

    def _listed(self, recipient: str) -> "list[dict[str, Any]]":
        return list(self._library.list_keys(keys=[recipient]))


def _encrypting(key: "dict[str, Any]") -> list[tuple[str, str]]:
    """Return ID and validity of what a key encrypts with; capital letters speak of the whole key."""
    parts = [key, *key.get("subkey_info", {}).values()]
    return [(part["keyid"], part["trust"]) for part in parts if "e" in part["cap"]]
