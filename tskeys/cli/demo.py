"""`demo`: the life of a key on an embedded control server, without an account, and nothing left behind."""

import os
import shutil
import tempfile
from pathlib import Path

import click

from tskeys import extract
from tskeys.authkey import shown
from tskeys.cli.app import App
from tskeys.errors import TskeysError
from tskeys.name import KeyName
from tskeys.testing.server import ControlServer

NAME = KeyName("container-key")

_CONFIG = """\
state = "{root}/state"
run = "{root}/run"

[stores.demo]
location = "file:{root}/keys"

[issuers.loopback]
kind = "tailscale"
base_url = "{url}"
credential_file = "{root}/api-token"

[keys."container-key"]
store = "demo"
issuer = "loopback"
tags = ["tag:container"]
reusable = true
preauthorized = true

[[keys."container-key".consumers]]
to = "{root}/run/container-key/authkey"
"""

_STEPS = {
    "intent": "the ledger knows what is about to happen",
    "mint": "a new key is minted",
    "check": "the issuer knows it, and it is valid",
    "stash": "the old key is put aside, sealed as it is",
    "put": "the new key is in the store, safe from a power cut and read back",
    "deliver": "every consumer has it",
    "committed": "the ledger knows that there is no way back",
    "revoke": "the old key is revoked, last of all",
}


@click.command()
def demo() -> None:
    """Mint, store, deliver, rotate and revoke a key on a control server of its own, then clean up.

    Needs no account, no root and no network.

    \b
    Example: tskeys demo
    """
    # Where /dev/shm is missing, the demo's keys open nothing, so a disk will do.
    memory = "/dev/shm"  # noqa: S108  # mkdtemp makes the directory private
    root = Path(tempfile.mkdtemp(prefix="tskeys-demo.", dir=memory if os.access(memory, os.W_OK) else None))
    try:
        with ControlServer() as server:
            _act(root, server)
            keys = server.keys()
    finally:
        shutil.rmtree(root)
    minted, revoked = len(keys), sum(key["state"] == "revoked" for key in keys)
    if minted != revoked or root.exists():
        raise TskeysError(f"demo: {minted} keys minted, {revoked} revoked, something is left behind")
    click.echo(f"demo: {minted} keys minted, {revoked} revoked, nothing left behind")


def _act(root: Path, server: ControlServer) -> None:
    (root / "keys").mkdir(mode=0o700)
    (root / "config.toml").write_text(_CONFIG.format(root=root, url=server.url))
    (root / "api-token").touch(mode=0o600)
    (root / "api-token").write_text(server.token)
    app = App(str(root / "config.toml"), None)
    say = click.echo

    say(f"A control server listens on {server.url} and speaks Tailscale's API.")
    say("\n$ tskeys rotate container-key            # there is none yet: the first rotation mints it")
    first = _rotate(app)
    say(f"  {first} is in file:…/keys/{NAME}, mode 0600, and nowhere else on a disk")

    say("\n$ tskeys-extract container-key --to …    # a service starts: ExecStartPre hands it the key")
    to = str(root / "run/container-key/authkey")
    store = app.location(NAME).text
    extract.extract(NAME, {"--to": to, "--store": store, "--allow-disk": ""})
    _show_delivery(to, server)

    say("\n$ tskeys rotate container-key            # two thirds of its life later")
    second = _rotate(app)
    _show_delivery(to, server)
    keys = server.keys()
    states = {key["id"]: key["state"] for key in keys}
    for key_id, what in ((first, "replaced"), (second, "current")):
        say(f"  {key_id} is {what} and {states[key_id]} at the server")

    say("\n$ tskeys delete container-key; tskeys revoke …    # the demo cleans up")
    app.open(NAME).delete(NAME)
    app.issuer("loopback").revoke(second)
    app.ledger.close()


def _rotate(app: App) -> str:
    outcome = app.rotation(NAME, step=_say_step).rotate()
    if outcome.exit_code or outcome.key_id is None:
        raise TskeysError(f"demo: the rotation ended with {outcome.exit_code}: {outcome.overdue}")
    return outcome.key_id


def _say_step(step: str) -> None:
    if told := _STEPS.get(step.partition(" ")[0]):
        click.echo(f"  · {told}")


def _show_delivery(to: str, server: ControlServer) -> None:
    key = Path(to).read_bytes()
    status = os.stat(to)
    joins = "a node joins with it" if server.joins(key) else "NO NODE JOINS WITH IT"
    click.echo(f"  {shown(key)} is delivered, mode {status.st_mode & 0o7777:04o}: {joins}")
