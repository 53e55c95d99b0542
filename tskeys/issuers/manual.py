"""The issuer where a person makes the key in the admin console and pastes it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tskeys.authkey import API, CLIENT, OTHER, kind, plausible, shown, trim
from tskeys.errors import NeedsPerson, UsageError
from tskeys.issuers.issuer import Issuer
from tskeys.keyinfo import KeyInfo, KeySettings, Minted, MintRequest
from tskeys.secret import Secret

CONSOLE = "https://login.tailscale.com/admin/settings/keys"


class ManualIssuer(Issuer):
    """Ask a person. `ask` shows a prompt and returns what was typed; None where nobody can be asked."""

    def __init__(
        self, *, name: str, ask: Callable[[str], Secret] | None = None, admin_url: str = CONSOLE
    ) -> None:
        self.name = name
        self._ask = ask
        self._url = admin_url

    def mint(self, request: MintRequest) -> Minted:
        """Ask for a key; raise UsageError for what cannot be one.

        The expiry is what the request wants, since nobody says what the person chose.
        """
        settings = request.settings
        if self._ask is None:
            raise NeedsPerson(
                f"{self.name}: a person has to make the new key",
                hint=f"Run `tskeys rotate` in a terminal, and have {self._url} open.",
            )
        secret = Secret(trim(self._ask(self._prompt(request)).reveal()))
        what = kind(secret.reveal())
        if not plausible(secret.reveal()):
            raise UsageError(
                f"{self.name}: what was pasted is no key: it is empty, too short, or has blanks in it",
                hint="Paste the whole key on one line. If one was made already, revoke it in the console.",
            )
        if what in (API, OTHER):
            raise UsageError(
                f"{self.name}: {shown(secret.reveal())} is no auth key but another kind of credential",
                hint=f"Choose `Generate auth key` at {self._url}.",
            )
        expires = None if what == CLIENT else datetime.now(UTC).replace(microsecond=0) + settings.lifetime
        return Minted(secret, shown(secret.reveal()), expires)

    def lookup(self, key_id: str) -> KeyInfo | None:
        """Return a valid key without expiry: nobody says otherwise, and None would mean that it is gone."""
        return KeyInfo(key_id=key_id, valid=True)

    def find(self, rotation_id: str) -> list[KeyInfo]:
        """Return nothing: a key that was made and never pasted is known to the person alone."""
        return []

    def list(self) -> list[KeyInfo]:
        """Return nothing: the console has no list that a program may read."""
        return []

    def revoke(self, key_id: str) -> None:
        """Raise NeedsPerson: only a person can."""
        raise NeedsPerson(
            f"{self.name}: a person has to revoke {key_id}",
            hint=f"Open {self._url}, find {key_id} and click `Revoke`.",
        )

    def clock(self) -> datetime | None:
        """Return None: a person has no clock that could be trusted more."""
        return None

    def _prompt(self, request: MintRequest) -> str:
        settings = request.settings
        return (
            f"Generate an auth key at {self._url} with\n"
            f"  description   {request.description}\n"
            f"  reusable      {_yes(settings.reusable)}\n"
            f"  expiration    {_days(settings)}\n"
            f"  ephemeral     {_yes(settings.ephemeral)}\n"
            f"  pre-approved  {_yes(settings.preauthorized)}\n"
            f"  tags          {', '.join(settings.tags) or 'none'}\n"
            "and paste it here: "
        )


def _yes(wanted: bool) -> str:
    return "yes" if wanted else "no"


def _days(settings: KeySettings) -> str:
    days = settings.lifetime / timedelta(days=1)
    return "1 day" if days == 1 else f"{days:g} days"
