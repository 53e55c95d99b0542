"""A host for tests of the command line: config, store and ledger in a directory, a control server beside."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tskeys.testing.server import ControlServer

BIN = Path(os.environ.get("TSKEYS_TEST_BIN", Path(sys.executable).parent))
"""Where the programs under test are: this environment's, or that of an installed wheel."""

KEY_FORM = re.compile(rb"tskey-[a-z]+-[0-9A-Za-z]+-[0-9A-Za-z]{8,}")

CONFIG = """\
state = "{root}/state"
run = "{root}/run"

[stores.main]
location = "{location}"

[issuers.loopback]
kind = "tailscale"
base_url = "{url}"
credential_file = "{root}/api-token"
timeout = "{timeout}"

[keys.web]
store = "main"
issuer = "loopback"
tags = ["tag:web"]
{more}

[[keys.web.consumers]]
to = "{root}/run/web/authkey"
"""


@dataclass
class Host:
    """Runs the command line as a user would, in a process of its own."""

    root: Path
    server: ControlServer
    location: str = ""
    timeout: str = "2s"
    more: str = ""
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        (self.root / "keys").mkdir(mode=0o700, parents=True)
        self.root.chmod(0o755)
        self.location = self.location or f"file:{self.root}/keys"
        token = self.root / "api-token"
        token.touch(mode=0o600)
        token.write_text(self.server.token)
        self.configure()

    def configure(self, more: str | None = None, timeout: str | None = None) -> None:
        """Write the config, with more lines for the key."""
        self.more = self.more if more is None else more
        self.timeout = timeout or self.timeout
        text = CONFIG.format(
            root=self.root, location=self.location, url=self.server.url, more=self.more, timeout=self.timeout
        )
        (self.root / "config.toml").write_text(text)

    def run(
        self,
        *arguments: str,
        stdin: str | None = None,
        program: Sequence[str] = (),
        env: dict[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `tskeys ARGUMENTS` and return how it ended."""
        command = [*(program or (str(BIN / "tskeys"),)), *arguments]
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root),
            "TSKEYS_CONFIG": str(self.root / "config.toml"),
            **self.env,
            **(env or {}),
        }
        return subprocess.run(
            command,
            input="" if stdin is None else stdin,
            capture_output=True,
            text=True,
            env=environment,
            timeout=60,
            check=False,
            start_new_session=True,
        )

    def ok(self, *arguments: str, stdin: str | None = None) -> str:
        """Run a command that must end with 0; return its output."""
        result = self.run(*arguments, stdin=stdin)
        assert result.returncode == 0, result
        return result.stdout

    def current(self) -> bytes:
        """Return the key that the store holds, read without tskeys."""
        return (self.root / "keys" / "web").read_bytes()

    def current_id(self) -> str:
        """Return the ID of that key."""
        return self.current().split(b"-")[2].decode()

    def delivered(self) -> bytes:
        """Return what lies ready for the service."""
        return (self.root / "run" / "web" / "authkey").read_bytes()

    def check_one_live_key(self) -> None:
        """Assert that what is current is the one key of ours that lives, and that it is delivered."""
        assert self.server.joins(self.current())
        assert self.server.live() == {self.current_id()}
        assert self.delivered() == self.current()

    def secrets_on_disk(self) -> dict[str, int]:
        """Return how many keys each file below the root holds."""
        found = {}
        for path in self.root.rglob("*"):
            if path.is_file() and (keys := KEY_FORM.findall(path.read_bytes())):
                found[str(path.relative_to(self.root))] = len(keys)
        return found
