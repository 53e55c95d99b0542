"""The extractor as ExecStartPre on a real systemd, over the backends that encrypt."""

import time
from collections.abc import Iterator

import pytest
from agekeys import needs
from boxhost import BoxHost, network_of
from systemdbox import Box

from tskeys.testing.server import ControlServer

SEES = (
    "User=daemon\nRuntimeDirectory=seen-{name}\n"
    "ExecStart=/bin/sh -c 'cat /run/tskeys/{name}/authkey > /run/seen-{name}/key; exec sleep 1000'\n"
    "{more}\n[Unit]\nStartLimitIntervalSec=0"
)
GPG = (
    "gpg --homedir {root}/gnupg --batch --pinentry-mode loopback --passphrase-file {root}/passphrase"
    " --quick-gen-key tskeys@example.org future-default default never"
)


@pytest.fixture(scope="module")
def server(box: Box) -> Iterator[ControlServer]:
    with network_of(box), ControlServer() as running:
        yield running


def start(host: BoxHost, location: str, more: str = "") -> None:
    """Mint the key and start a service that gets it from `location`."""
    host.configure('on_rotate = "restart"')
    host.ok("rotate", host.name)
    hook = f"--store {location} --to /run/tskeys/{host.name}/authkey --owner daemon"
    host.service(SEES.format(name=host.name, more=more), hook)
    host.start()
    assert host.seen() == host.current()


def agents(host: BoxHost) -> str:
    """Return the processes of the unit, and every agent of gpg in the box."""
    group = f"/sys/fs/cgroup/system.slice/{host.unit}/cgroup.procs"
    line = f"for p in $(cat {group}); do cat /proc/$p/comm; done; pgrep -a gpg-agent || true"
    return host.box.run(line).stdout.decode()


def test_age_with_the_hosts_own_ssh_key(box: Box, server: ControlServer) -> None:
    needs("ssh-keygen")
    host = BoxHost(box, server, "by-age", scheme="age:{root}/keys?identity={root}/ssh_host_ed25519_key")
    box.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{host.root}/ssh_host_ed25519_key")

    start(host, host.location)
    first = host.current()
    host.ok("rotate", host.name)

    assert host.current() != first
    assert host.seen() == host.current()
    assert host.read(f"{host.root}/keys/{host.name}.age").startswith(b"age-encryption.org/v1\n")


def test_pass_with_a_passphrase_from_a_credential(box: Box, server: ControlServer) -> None:
    needs("pass")
    store = "pass:tailscale?dir={root}/store&gnupghome={root}/gnupg"
    host = BoxHost(box, server, "by-pass", scheme=f"{store}&passphrase={{root}}/passphrase")
    host.box.write(f"{host.root}/passphrase", "open sesame\n", 0o600)
    box.run("install", "-d", "-m", "0700", f"{host.root}/gnupg", f"{host.root}/store")
    box.run(GPG.format(root=host.root))
    host.box.write(f"{host.root}/store/.gpg-id", "tskeys@example.org\n")
    box.run("gpgconf", "--homedir", f"{host.root}/gnupg", "--kill", "all")

    start(
        host,
        f"{store.format(root=host.root)}&passphrase=%d/passphrase",
        f"LoadCredential=passphrase:{host.root}/passphrase",
    )
    end_agent = ("gpgconf", "--homedir", f"{host.root}/gnupg", "--kill", "all")
    box.run(*end_agent)  # the one of whoever called tskeys by hand
    for _ in range(20):
        box.run("systemctl", "restart", host.unit)

    # An agent that was told to end says so first, and is gone a moment later.
    deadline = time.monotonic() + 5
    while (left := agents(host)) != "sleep\n" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == "sleep\n"
    assert host.seen() == host.current()
    host.ok("rotate", host.name)
    assert host.seen() == host.current()
    shown = box.run(
        *("pass", "show", f"tailscale/{host.name}"),
        env={
            "PASSWORD_STORE_DIR": f"{host.root}/store",
            "GNUPGHOME": f"{host.root}/gnupg",
            "PASSWORD_STORE_GPG_OPTS": f"--pinentry-mode=loopback --passphrase-file={host.root}/passphrase",
        },
    )
    assert shown.stdout == host.current() + b"\n"
