"""What gpg said: its status lines, whether an entry was decrypted, and else why not.

The status lines are those of GnuPG's doc/DETAILS, the numbers those of libgpg-error; a number's low 16 bits
are its code. gpg writes plaintext before it has checked it, so that what it wrote counts only when
DECRYPTION_OKAY and the exit status say so.
"""

from tskeys.errors import CannotDecrypt

_PROOF = ("BEGIN_DECRYPTION", "PLAINTEXT", "DECRYPTION_OKAY", "END_DECRYPTION")
_CHECKSUM, _BAD_PASSPHRASE, _NO_PIN_ENTRY = 10, 11, 85


class MissingKey(CannotDecrypt):
    """No secret key for the entry is in GNUPGHOME."""


class LockedKey(CannotDecrypt):
    """The secret key needs a passphrase or PIN, and nobody gave it."""


class WrongPassphrase(CannotDecrypt):
    """The passphrase opens no secret key of the entry."""


class NoPinentry(CannotDecrypt):
    """gpg-agent has no program to ask for a passphrase with."""


class NoAgent(CannotDecrypt):
    """gpg-agent does not run and cannot be started."""


class UnwritableHome(CannotDecrypt):
    """gpg-agent cannot be started, because GNUPGHOME cannot be written."""


class Damaged(CannotDecrypt):
    """The entry is truncated, was tampered with, or is no OpenPGP message."""


class Outcome:
    """What a finished gpg left; the output may be a secret, so it does not print."""

    __slots__ = ("code", "errors", "lines", "output")

    def __init__(self, code: int, output: bytes, status: bytes, errors: bytes) -> None:
        self.code, self.output = code, output
        self.errors = errors.decode(errors="replace")
        text = status.decode(errors="replace")
        self.lines = [line.split()[1:] for line in text.splitlines() if line.startswith("[GNUPG:] ")]

    def of(self, keyword: str) -> "list[list[str]]":
        """Return the arguments of every status line with this keyword."""
        return [line[1:] for line in self.lines if line and line[0] == keyword]

    def decrypted(self) -> bool:
        """Tell whether the output is what one sound message holds, all of it from inside the encryption."""
        proof = [line[0] for line in self.lines if line and line[0] in _PROOF]
        return self.code == 0 and proof == list(_PROOF)

    def explained(self, home: str, passphrase: str | None) -> CannotDecrypt:
        """Return the error that says why nothing was decrypted, and what to do."""
        failed = [int(line[1]) & 0xFFFF for line in self.of("ERROR") if line[0] == "pkdecrypt_failed"]
        wanted = ", ".join(line[0] for line in self.of("ENC_TO"))
        if not wanted or self.of("DECRYPTION_KEY") or _CHECKSUM in failed:
            return Damaged(
                "the entry is truncated, was tampered with, or is no OpenPGP message",
                hint="Take it from a backup or git, or store the key again with: tskeys set",
            )
        if _BAD_PASSPHRASE in failed:
            where = f"the passphrase in {passphrase}" if passphrase else "the passphrase"
            return WrongPassphrase(
                f"{where} opens no secret key of {wanted}",
                hint="Compare it with: gpg --edit-key KEY passwd. One trailing newline does not count.",
            )
        if _NO_PIN_ENTRY in failed:
            return NoPinentry(
                f"the secret key of {wanted} is locked, and gpg-agent finds no pinentry to ask with",
                hint="Install one with: apt install pinentry-curses, or name a file: passphrase=/…",
            )
        if failed or not self.of("NO_SECKEY"):
            return LockedKey(
                f"the secret key of {wanted} is locked, and nobody unlocked it",
                hint="Unlock it where gpg-agent can ask (at a terminal: export GPG_TTY=$(tty)), or name a "
                "file with its passphrase in the location: passphrase=/…",
            )
        if "can't connect to the agent" not in self.errors:
            return MissingKey(
                f"no secret key of {wanted} is in {home}",
                hint="See gpg --list-secret-keys. Is this the right gnupghome=? If it is on a token, is the "
                "token plugged in? Else somebody who can read the entry adds this host's key with pass init.",
            )
        if "Read-only file system" in self.errors or "Permission denied" in self.errors:
            return UnwritableHome(
                f"gpg-agent cannot be started: {home} cannot be written",
                hint="gpg writes there even to read; in a unit: gnupghome= under StateDirectory=.",
            )
        hint = "Install it with: apt install gpg-agent. A unit with RestrictAddressFamilies= needs AF_UNIX."
        if len(home) > 90:
            hint = f"The path {home} is too long for the agent's socket (108 bytes): use a shorter one."
        return NoAgent(f"gpg-agent does not run for {home} and cannot be started", hint=hint)
