"""A host with a real systemd: tskeys and the control server in the box, seen from outside."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

from systemdbox import Box

from tskeys.testing.server import ControlServer

BIN = Path(sys.prefix) / "bin"
HOOK = f"ExecStartPre=+{BIN}/python -I {BIN}/tskeys-extract"

_CLONE_NEWNET = 0x40000000  # sched.h; os.setns is there from Python 3.12 on


@contextmanager
def network_of(box: Box) -> Iterator[None]:
    """Let this thread, and what it starts, see the network of a box."""
    libc = ctypes.CDLL(None, use_errno=True)

    def enter(namespace: int) -> None:
        if libc.setns(namespace, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
        os.close(namespace)

    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    enter(os.open(f"/proc/{box.pid}/ns/net", os.O_RDONLY))
    try:
        yield
    finally:
        enter(here)


@dataclass
class BoxHost:
    """A key `NAME` with its store, config and ledger below `/srv/NAME` in the box."""

    box: Box
    server: ControlServer
    name: str
    scheme: str = "file:{root}/keys"
    consumer: str = ""
    more: str = ""

    def __post_init__(self) -> None:
        self.root = f"/srv/{self.name}"
        self.location = self.scheme.format(root=self.root)
        self.unit = f"{self.name}.service"
        self.box.run("install", "-d", "-m", "0700", f"{self.root}/keys")
        self.box.write(f"{self.root}/api-token", self.server.token, 0o600)
        self.configure()

    def configure(self, consumer: str | None = None) -> None:
        """Write the config; `consumer` are lines of the one consumer's table."""
        self.consumer = self.consumer if consumer is None else consumer
        self.box.write(
            f"{self.root}/config.toml",
            f'''
            state = "{self.root}/state"
            [stores.main]
            location = "{self.location}"
            [issuers.loopback]
            kind = "tailscale"
            base_url = "{self.server.url}"
            credential_file = "{self.root}/api-token"
            [keys.{self.name}]
            store = "main"
            issuer = "loopback"
            {self.more}
            [[keys.{self.name}.consumers]]
            unit = "{self.unit}"
            stable = "1s"
            deadline = "10s"
            {self.consumer}
            ''',
        )

    def tskeys(self, *arguments: str, stdin: bytes = b"") -> "CompletedProcess[bytes]":
        """Run `tskeys ARGUMENTS` in the box."""
        return self.python(str(BIN / "tskeys"), *arguments, stdin=stdin)

    def python(self, *arguments: str, stdin: bytes = b"") -> "CompletedProcess[bytes]":
        """Run Python in the box, with the config of this host."""
        env = {"TSKEYS_CONFIG": f"{self.root}/config.toml"}
        return self.box.run(str(BIN / "python"), *arguments, check=False, env=env, stdin=stdin)

    def ok(self, *arguments: str, stdin: bytes = b"") -> str:
        """Run `tskeys ARGUMENTS`, which must end with 0; return its output."""
        result = self.tskeys(*arguments, stdin=stdin)
        assert result.returncode == 0, result
        return result.stdout.decode()

    def service(self, text: str, hook: str = "") -> None:
        """Write the unit and, with a hook's arguments, the drop-in that runs the extractor."""
        self.box.unit(self.unit, f"[Service]\n{text}\n")
        if hook:
            self.box.unit(f"{self.unit}.d/10-tskeys.conf", f"[Service]\n{HOOK} {self.name} {hook}\n")

    def current(self) -> bytes:
        """Return what the store holds."""
        return self.ok("get", self.name).encode().rstrip(b"\n")

    def current_id(self) -> str:
        """Return the ID of the key that the store holds."""
        return self.current().split(b"-")[2].decode()

    def start(self) -> None:
        """Start the unit; an error tells the end of its journal."""
        if self.box.run("systemctl", "start", self.unit, check=False).returncode:
            raise AssertionError(self.box.journal(self.unit))

    def read(self, inside: str) -> bytes:
        """Return a file of the box."""
        return self.box.path(inside).read_bytes()

    def seen(self) -> bytes:
        """Return the key that the service says it read as it started."""
        self.box.wait_for("test", "-s", f"/run/seen-{self.name}/key")
        return self.read(f"/run/seen-{self.name}/key")

    def stat(self, inside: str) -> str:
        """Return mode and owner of a file of the box, `0400 web`."""
        return self.box.run("stat", "-c", "%04a %U", inside).stdout.decode().strip()

    def active(self) -> str:
        """Return the state of the unit."""
        return self.box.show(self.unit, "ActiveState")
