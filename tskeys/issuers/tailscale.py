"""The issuer behind Tailscale's API v2, which headscale speaks too from 0.30 on.

Source of the paths, fields and statuses: Tailscale's OpenAPI document, https://api.tailscale.com/api/v2, and
tailscale/publicapi. It documents neither 401 nor 429, and no texts of errors; those here were seen in public
bug reports, and an unknown one is passed on in the server's words.
"""

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from tskeys.authkey import CLIENT, key_id, kind, plausible, trim
from tskeys.errors import IssuerError, IssuerRefused, IssuerUnreachable, MintUnanswered, UsageError
from tskeys.issuers import answers
from tskeys.issuers.http import Answer, Client, Unanswered
from tskeys.issuers.issuer import Issuer
from tskeys.keyinfo import KeyInfo, KeySettings, Minted, MintRequest
from tskeys.secret import Secret

API = "https://api.tailscale.com"
CONSOLE = "https://login.tailscale.com/admin/settings"

_FRESH = 60.0  # seconds for which a Date header tells the time; a suspended machine's clock stands still


class TailscaleIssuer(Issuer):
    """Mint, look up and revoke keys with an API token or an OAuth client.

    `timeout` is the deadline of one request in seconds, with all its repetitions. `ca_file` replaces the
    system's CAs. Raises UsageError for an address, tailnet or credential that cannot be one.
    """

    def __init__(
        self,
        *,
        name: str,
        credential: Callable[[], Secret],
        tailnet: str = "-",
        base_url: str = API,
        ca_file: str | None = None,
        proxy: str | None = None,
        timeout: float = 30.0,
        backoff: float = 0.5,
    ) -> None:
        if not tailnet.isprintable() or not tailnet.strip(" .") or "/" in tailnet:
            raise UsageError(f"{name}: {tailnet!r} is no tailnet", hint='Write tailnet = "-" for your own.')
        self.name = name
        self._tailnet = tailnet
        self._http = Client(name, base_url, ca_file=ca_file, proxy=proxy, timeout=timeout, backoff=backoff)
        self._ask = credential
        self._credential: Secret | None = None
        self._access: tuple[Secret, float] | None = None
        self._seen: tuple[datetime, float] | None = None
        self._known = False

    def mint(self, request: MintRequest) -> Minted:
        """Mint a key with one POST that is never repeated unless it surely was not processed."""
        settings = request.settings
        create = {
            "reusable": settings.reusable,
            "ephemeral": settings.ephemeral,
            "preauthorized": settings.preauthorized,
        }
        body = {
            "keyType": "auth",
            "description": request.description,
            "expirySeconds": int(settings.lifetime.total_seconds()),
            "capabilities": {
                "devices": {"create": create | ({"tags": [*settings.tags]} if settings.tags else {})}
            },
        }
        try:
            answer = self._send("POST", "/keys", json=body, repeat=False)
        except Unanswered as error:
            problem = str(error)
        else:
            if answer.status != 408 and 400 <= answer.status < 500:
                raise self._refusal(answer, "mint keys", settings)
            minted = answers.minted(answer, self._now() + settings.lifetime)
            if minted is not None:
                return minted
            problem = f"{self.name}: the answer ({answer.status}) shows no key{_said(answer)}"
        raise MintUnanswered(
            f"{problem}; a key may have been made",
            hint="`tskeys recover` looks for it by its rotation id and revokes it.",
        )

    def lookup(self, key_id: str) -> KeyInfo | None:
        """Return what the server knows of a key; one that was revoked may be None or not valid."""
        answer = self._send("GET", self._key(key_id))
        if self._gone(answer):
            return None
        entry = self._body(answer, "read keys")
        if entry.get("id") != key_id:
            raise IssuerUnreachable(f"{self.name}: asked for {key_id}, the server answered something else")
        return self._info(entry)

    def find(self, rotation_id: str) -> list[KeyInfo]:
        """Return the keys in whose description the rotation id stands as a word."""
        found = [self._info(entry) for entry in self._entries("description")]
        return [i for i in found if i.key_type == "auth" and rotation_id in i.description.split()]

    def list(self) -> list[KeyInfo]:
        """Return every auth key of the tailnet that the credential may see."""
        found = [self._info(entry) for entry in self._entries("created")]
        return [i for i in found if i.key_type == "auth"]

    def revoke(self, key_id: str) -> None:
        """Revoke a key. DELETE takes any credential's ID, so the caller must know that it is an auth key."""
        answer = self._send("DELETE", self._key(key_id))
        if not self._gone(answer) and answer.status >= 300:
            raise self._refusal(answer, "revoke keys")

    def clock(self) -> datetime | None:
        """Return the server's time from its latest answer, else from a list of keys."""
        if self._seen is None or time.monotonic() - self._seen[1] > _FRESH:
            self._send("GET", "/keys")
        if self._seen is None:
            return None
        return self._seen[0] + timedelta(seconds=time.monotonic() - self._seen[1])

    def _gone(self, answer: Answer) -> bool:
        # 404 also stands for an unknown tailnet, whose keys must not pass for revoked.
        if answer.status == 404 and not self._known:
            self._body(self._send("GET", "/keys"), "list keys")
        return answer.status == 404

    def _key(self, ident: str) -> str:
        if not answers.KEY_ID.fullmatch(ident):
            raise UsageError(f"{self.name}: {ident!r} is no key ID of Tailscale's, such as k123CNTRL")
        return f"/keys/{quote(ident, safe='')}"

    def _entries(self, needed: str) -> Iterator[dict[str, object]]:
        # Without `all`, an OAuth client would see OAuth clients only. Some servers list only the IDs.
        answer = self._send("GET", "/keys?all=true")
        entries = self._body(answer, "list keys").get("keys")
        if not isinstance(entries, list):
            raise IssuerUnreachable(f"{self.name}: the server's list of keys is none")
        for entry in entries:
            if not isinstance(entry, dict) or entry.get("keyType", "auth") != "auth":
                continue
            if entry.get(needed):
                yield entry
                continue
            answer = self._send("GET", self._key(str(entry.get("id"))))
            if not self._gone(answer):
                yield self._body(answer, "read keys")

    def _send(self, method: str, path: str, *, json: object = None, repeat: bool = True) -> Answer:
        path = f"/api/v2/tailnet/{quote(self._tailnet, safe='')}{path}"
        answer = self._note(self._http.request(method, path, token=self._token(), json=json, repeat=repeat))
        if answer.status == 401 and self._access is not None:
            self._access = None
            answer = self._note(
                self._http.request(method, path, token=self._token(), json=json, repeat=repeat)
            )
        return answer

    def _note(self, answer: Answer) -> Answer:
        if answer.date is not None:
            self._seen = (answer.date, time.monotonic())
        return answer

    def _token(self) -> Secret:
        if self._credential is None:
            self._credential = Secret(trim(self._ask().reveal()).partition(b"?")[0])
        credential = self._credential
        if kind(credential.reveal()) != CLIENT or not plausible(credential.reveal()):
            return credential
        if self._access is None or time.monotonic() >= self._access[1]:
            self._access = self._log_in(credential)
        return self._access[0]

    def _log_in(self, credential: Secret) -> tuple[Secret, float]:
        form: dict[str, str | Secret] = {
            "grant_type": "client_credentials",
            "client_id": key_id(credential.reveal()) or "",
            "client_secret": credential,
        }
        try:
            answer = self._note(self._http.request("POST", "/api/v2/oauth/token", form=form))
        except Unanswered as error:  # what was lost is a token, no key
            raise IssuerUnreachable(str(error), hint=error.hint) from None
        if answer.status in (400, 401, 403):
            raise IssuerRefused(
                f"{self.name}: the OAuth client {form['client_id']} is not accepted{_said(answer)}",
                hint=f"Was it revoked? Make a new one with the scope auth_keys at {CONSOLE}/oauth.",
            )
        if answer.status >= 300:
            raise self._refusal(answer, "log in")
        access = answers.access(answer)
        if access is None:
            raise IssuerUnreachable(f"{self.name}: the answer to the OAuth client's login holds no token")
        return access

    def _body(self, answer: Answer, doing: str) -> dict[str, object]:
        if answer.status >= 300:
            raise self._refusal(answer, doing)
        if not isinstance(answer.body, dict):
            raise IssuerUnreachable(f"{self.name}: the server's answer is no JSON object")
        return answer.body

    def _info(self, entry: dict[str, object]) -> KeyInfo:
        return answers.info(entry, self._now())

    def _now(self) -> datetime:
        return self._seen[0] if self._seen else datetime.now(UTC)

    def _refusal(self, answer: Answer, doing: str, settings: KeySettings | None = None) -> IssuerError:
        status, said = answer.status, _said(answer)
        if status >= 500 or status == 408:
            wait = f"; it asks to wait {answer.retry_after:g} s" if answer.retry_after else ""
            return IssuerUnreachable(
                f"{self.name}: the server failed ({status}){said}{wait}", hint="Try later."
            )
        message, hint = f"the server refuses to {doing} ({status}){said}", ""
        if status == 401:
            message = f"the credential is expired, revoked or mistyped (401){said}"
            hint = (
                f"Make a new API token at {CONSOLE}/keys, or an OAuth client, which does not expire, "
                f"at {CONSOLE}/oauth, and put it where the config of {self.name} says."
            )
        elif status == 403:
            message = f"the credential may not {doing} (403){said}"
            hint = "An OAuth client needs the scope auth_keys; an API token's owner must be allowed to."
        elif status == 404:
            message = f"the tailnet {self._tailnet!r} is unknown to this credential (404){said}"
            hint = 'tailnet = "-" means the credential\'s own.'
        elif status == 429:
            wait = f" for {answer.retry_after:g} s" if answer.retry_after else ""
            message = f"too many requests, the server asks to wait{wait} (429){said}"
            hint = "Run tskeys again after that; nothing was changed."
        elif settings and "expirySeconds" in answer.message:
            message = f"a lifetime of {settings.lifetime / timedelta(days=1):g} days is refused (400){said}"
            hint = "Tailscale's keys live 90 days at most."
        elif settings and "tag" in answer.message:
            message = (
                f"the credential may not give the tags {', '.join(settings.tags) or '(none)'} (400){said}"
            )
            hint = (
                "Each tag must stand in tagOwners of the policy file. "
                "An OAuth client must give tags: its own, or tags that these own."
            )
        return IssuerRefused(f"{self.name}: {message}", hint=hint)


def _said(answer: Answer) -> str:
    return f": {answer.message}" if answer.message else ""
