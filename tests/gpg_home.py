"""GNUPGHOMEs to throw away, with keys that are made in an instant."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

PASSPHRASE = "open sesame, please"


def need(*programs: str) -> None:
    """Skip where a program is missing; in CI, where all are installed, fail instead."""
    missing = [program for program in programs if not shutil.which(program)]
    if missing and os.environ.get("CI"):
        pytest.fail(f"these tests must not be skipped in CI: no {', '.join(missing)}")
    if missing:
        pytest.skip(f"no {', '.join(missing)}")


class GpgHome:
    """A home for gpg with a short path, as its agent's socket needs; `with` ends the agent and removes it."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="gpg-", dir="/tmp"))
        self.env = {
            "PATH": os.environ["PATH"],
            "LC_ALL": "C.UTF-8",
            "GNUPGHOME": str(self.path),
            "HOME": str(self.path),
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.path)

    def stop(self) -> None:
        """End the agent, which forgets every passphrase."""
        subprocess.run(["gpgconf", "--kill", "all"], env=self.env, check=True)

    def run(self, *arguments: str, stdin: bytes = b"") -> bytes:
        """Run gpg here."""
        done = subprocess.run(
            ["gpg", "--batch", "--quiet", "--no-tty", *arguments],
            input=stdin,
            env=self.env,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def key(self, owner: str, *, passphrase: str = "", expires: str = "never", encrypts: bool = True) -> str:
        """Make a key and return its fingerprint."""
        unlock = ["--pinentry-mode", "loopback", "--passphrase", passphrase]
        self.run(*unlock, "--quick-gen-key", f"{owner} <{owner}@example.org>", "ed25519", "sign", expires)
        listed = self.run("--list-keys", "--with-colons", f"={owner} <{owner}@example.org>").decode()
        fingerprint = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
        if encrypts:
            self.run(*unlock, "--quick-add-key", fingerprint, "cv25519", "encr", expires)
        return fingerprint

    def take(self, other: "GpgHome", *owners: str, trusted: bool = True) -> None:
        """Import public keys of another home."""
        self.run("--import", stdin=other.run("--export", *owners))
        if trusted:
            for owner in owners:
                listed = self.run("--list-keys", "--with-colons", owner).decode()
                print_ = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr:"))
                self.run("--import-ownertrust", stdin=f"{print_}:6:\n".encode())

    def agents(self) -> list[int]:
        """Return the process ids of the agents that serve this home."""
        found = []
        for entry in Path("/proc").iterdir():
            try:
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"gpg-agent" in command and str(self.path).encode() in command:
                found.append(int(entry.name))
        return found
