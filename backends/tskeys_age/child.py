"""The process that talks to age's plugins for `plugin`: one job in JSON on stdin, one answer on stdout.

A job is `do` (encrypt or decrypt), `data` (base64), `recipients` or `identities` (texts), `pin` (or null) and
`terminal` (a descriptor, or -1). An answer is `outcome`, with `data` (base64), or `said` by whoever gave up.
"""

import base64
import json
import shutil
import sys

import pyrage

from tskeys.errors import UsageError
from tskeys_age import names, recipients
from tskeys_age.terminal import Terminal

_ISOLATES = dict.fromkeys((0x2068, 0x2069))  # pyrage's texts are localised, with these around names


class Person:
    """Pyrage's callbacks: the person at the terminal, and the PIN that was given beforehand.

    None of them ever raises: pyrage would panic, and print the exception.
    """

    def __init__(self, pin: str | None, terminal: Terminal | None) -> None:
        self._pin = pin
        self._terminal = terminal
        self.gave_pin = False
        self.lacked_pin = False
        self.absent = ""

    def display_message(self, message: str) -> None:
        """Announce a touch."""
        try:
            if self._terminal:
                self._terminal.tell(message)
        except Exception:
            return

    def confirm(self, message: str, yes_string: str, no_string: str | None) -> bool | None:
        """Ask for a token to be inserted; nobody there means no."""
        typed = self._ask(f"{message} [Enter: {yes_string}; n: {no_string or 'cancel'}]", hidden=False)
        if typed is not None and not typed.lower().startswith("n"):
            return True
        self.absent = str(message)
        return False

    def request_public_string(self, description: str) -> str | None:
        """Ask for something that may show."""
        return self._ask(description, hidden=False)

    def request_passphrase(self, description: str) -> str | None:
        """Give the PIN, the one from a file a single time: a token counts the wrong ones."""
        if self._pin is None:
            typed = self._ask(description, hidden=True)
        else:
            typed = None if self.gave_pin else self._pin
        self.gave_pin = self.gave_pin or typed is not None
        self.lacked_pin = not self.gave_pin
        return typed

    def _ask(self, text: str, *, hidden: bool) -> str | None:
        try:
            return self._terminal.ask(text, hidden=hidden) if self._terminal else None
        except Exception:
            return None


def work(job: dict[str, str], person: Person) -> dict[str, str]:
    """Do a job; return the answer."""
    texts = job["recipients" if job["do"] == "encrypt" else "identities"]
    of = recipients.by_plugin if job["do"] == "encrypt" else names.of_identity
    groups: dict[str, list[str]] = {}
    for text in texts:
        groups.setdefault(of(text), []).append(text)
    for name in groups:
        if name and not shutil.which(f"age-plugin-{name}"):
            return {"outcome": "missing", "name": name}
    data = base64.b64decode(job["data"])
    done = encrypt(data, groups, person) if job["do"] == "encrypt" else decrypt(data, groups, person)
    return {"outcome": "done", "data": base64.b64encode(done).decode()}


def encrypt(data: bytes, groups: dict[str, list[str]], person: Person) -> bytes:
    """Seal for every recipient; those under the name "" need no plugin."""
    whom: list[object] = [recipients.native(text) for text in groups.pop("", [])]
    for name, texts in groups.items():
        try:
            parsed = [pyrage.plugin.Recipient.from_str(text) for text in texts]
        except pyrage.RecipientError:
            raise UsageError(f"a recipient age1{name}1… is damaged: mistyped, or cut short") from None
        whom.append(pyrage.plugin.RecipientPluginV1(name, parsed, [], person))
    return pyrage.encrypt(data, whom)  # type: ignore[arg-type]  # the list is built for it


def decrypt(data: bytes, groups: dict[str, list[str]], person: Person) -> bytes:
    """Open by the first plugin that can."""
    return pyrage.decrypt(
        data,
        [
            pyrage.plugin.IdentityPluginV1(
                name, [pyrage.plugin.Identity.from_str(text) for text in texts], person
            )
            for name, texts in groups.items()
        ],
    )


def answer(job: dict[str, str], person: Person) -> dict[str, str]:
    """Do a job; return the answer, which says why where there is no result."""
    try:
        return work(job, person)
    except UsageError as error:
        return {"outcome": "recipient", "said": str(error)}
    except pyrage.IdentityError:
        return {"outcome": "refused", "said": "an identity is damaged"}
    except (pyrage.DecryptError, pyrage.EncryptError) as error:
        # pyrage tells its errors apart in nothing but their text.
        text = str(error).translate(_ISOLATES)
        return {"outcome": outcome(text, person, job["do"]), "said": _said(text, person, job["pin"])}


def outcome(text: str, person: Person, do: str) -> str:
    """Name what happened by pyrage's text and by what the plugin asked for."""
    if "unexpectedly died" in text:
        return "died"
    by_plugin = "age-plugin-" in text
    if by_plugin and person.lacked_pin:
        return "no pin"
    if by_plugin and "pin" in text.lower() and "block" in text.lower() and "before" not in text.lower():
        return "blocked"
    if by_plugin and person.gave_pin:
        return "wrong pin"
    if person.absent:
        return "absent"
    if by_plugin:
        return "refused"
    if do == "encrypt":
        return "refused recipients"
    return "no match" if "No matching keys" in text else "damaged"


def _said(text: str, person: Person, pin: str | None) -> str:
    said = text.partition("couldn't use an identity: ")[2] or text
    said = person.absent if person.absent and "age-plugin-" not in text else said
    said = "".join(c if c.isprintable() else " " for c in said)[:300]
    return said.replace(pin, "***") if pin else said


def main() -> None:
    """Read the job, do it, answer."""
    job = json.load(sys.stdin)
    terminal = Terminal(job["terminal"]) if job["terminal"] >= 0 else None
    json.dump(answer(job, Person(job["pin"], terminal)), sys.stdout)


if __name__ == "__main__":
    main()
