"""Age's plugins, behind a child process: pyrage holds the interpreter's lock while one of them waits.

So a deadline, a Ctrl-C and extract's alarm hold. Keys, identities and PINs go through pipes alone.
"""

import base64
import json
import sys

from tskeys import process
from tskeys.errors import BackendUnavailable, CannotDecrypt, ProcessError, StoreError, TskeysError, UsageError
from tskeys.secret import Secret
from tskeys_age import identities, names, recipients
from tskeys_age.terminal import Terminal

PATIENCE = 60.0
"""Seconds for a plugin, the typing of a PIN and a touch included; a plugin itself waits 15 s for a token."""

PIN = (
    "Put the right one into the PIN file before the token blocks: a YubiKey takes three wrong ones in a row."
)

_INSTALL = {
    "yubikey": "Install it with: cargo install age-plugin-yubikey, or from your distribution.",
    "pq": "Install age-plugin-pq, which comes with age 1.3 and later: it seals for age1pq1….",
}


class WrongPin(CannotDecrypt):
    """The token refused the PIN."""


def decrypt(sealed: bytes, asked: list[str], pin: Secret | None, what: str) -> bytes | None:
    """Open a sealed key by the identities of plugins; return None where none of them matches."""
    plugins = sorted({names.of_identity(text) for text in asked})
    answer = _run({"do": "decrypt", "identities": asked, "data": _text(sealed)}, plugins, pin)
    if answer["outcome"] == "done":
        return base64.b64decode(answer["data"])
    if answer["outcome"] == "no match":
        return None
    raise _explained(answer, what)


def encrypt(secret: Secret, texts: list[str]) -> bytes:
    """Seal a secret for recipients of which a plugin has to do at least one."""
    plugins = sorted({name for text in texts if (name := recipients.by_plugin(text))})
    answer = _run({"do": "encrypt", "recipients": texts, "data": _text(secret.reveal())}, plugins, None)
    if answer["outcome"] == "done":
        return base64.b64decode(answer["data"])
    raise _explained(answer, "the key")


def _run(job: dict[str, object], plugins: list[str], pin: Secret | None) -> dict[str, str]:
    programs = ", ".join(f"age-plugin-{name}" for name in plugins)
    terminal = Terminal.here()
    settings = terminal.settings() if terminal else []
    fd = terminal.fd if terminal else -1
    full = job | {"pin": pin.reveal().decode(errors="replace") if pin else None, "terminal": fd}
    late = True
    try:
        result = process.run(
            [sys.executable, "-I", "-m", "tskeys_age.child"],
            timeout=PATIENCE,
            stdin=Secret(json.dumps(full).encode()),
            pass_fds=[fd] if terminal else [],
        )
        late = False
    except ProcessError:
        return {"plugins": programs, "outcome": "late"}
    finally:
        if terminal:
            if late:
                terminal.restore(settings)
            terminal.close()
    try:
        answer: dict[str, str] = json.loads(result.output.reveal())
    except ValueError:
        answer = {"outcome": "died"}
    return {"plugins": programs} | answer


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _explained(answer: dict[str, str], what: str) -> TskeysError:
    outcome, said = answer["outcome"], answer.get("said", "")
    programs = answer["plugins"]
    kind = StoreError if what == "the key" else CannotDecrypt
    if outcome == "late":
        return kind(
            f"{what}: {programs} did not answer within {PATIENCE:g} s and was stopped",
            hint="Was the token touched? Is it plugged in?",
        )
    if outcome == "missing":
        name = answer["name"]
        hint = _INSTALL.get(name, f"Install age-plugin-{name} into one of {process.environment()['PATH']}.")
        return BackendUnavailable(f"{what} needs the program age-plugin-{name}, which is missing", hint=hint)
    if outcome == "recipient":
        return UsageError(said)
    if outcome == "refused recipients":
        return recipients.refused(said)
    if outcome == "no pin":
        return CannotDecrypt(
            f"{what}: the token asks for a PIN, and there is neither a PIN file nor a terminal",
            hint="Add &pin=FILE to the location, for example a systemd credential's.",
        )
    if outcome == "blocked":
        return WrongPin(
            f"{what}: the PIN is blocked: {said}",
            hint="Unblock it with the PUK; for a YubiKey: ykman piv access unblock-pin.",
        )
    if outcome == "wrong pin":
        return WrongPin(f"{what}: the token did not open it with this PIN: {said}", hint=PIN)
    if outcome == "absent":
        return CannotDecrypt(f"{what}: the token is not there: {said}", hint="Plug it in and try again.")
    if outcome == "damaged":
        return identities.damaged(what)
    if outcome == "died":
        return kind(f"{what}: {programs} died", hint="Does it work with age itself? Is pcscd running?")
    return kind(f"{what}: {programs} gave up: {said}")
