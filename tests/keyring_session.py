"""A D-Bus session with GNOME Keyring in it, of its own and headless; nothing of the user's is touched."""

import os
import shutil
import subprocess
import time
from pathlib import Path

PASSWORD = b"the keyring's password"
PROGRAMS = ("dbus-daemon", "dbus-send", "gnome-keyring-daemon", "secret-tool")


def missing() -> str | None:
    """Return what is needed and not installed, or None."""
    for program in PROGRAMS:
        if not shutil.which(program):
            return f"needs {program}"
    try:
        import keyring
        import secretstorage
    except ImportError as error:
        return f"needs the Python library {error.name}"
    assert keyring
    assert secretstorage
    return None


# The usual one would start a locked keyring of its own for whoever asks first.
BUS = """\
<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
  "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:dir=/tmp</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""


class Session:
    """`with Session(directory) as session`: its environment is `session.environment`."""

    def __init__(self, directory: Path):
        self.directory = directory
        inherited = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "PYTHONPATH")}
        self.environment = inherited | {
            "HOME": str(directory),
            "XDG_DATA_HOME": str(directory / "data"),
            "XDG_CONFIG_HOME": str(directory / "config"),
            "XDG_RUNTIME_DIR": str(directory / "run"),
        }
        self._bus: subprocess.Popen[bytes] | None = None
        self._daemon: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Session":
        (self.directory / "run").mkdir(mode=0o700)
        (self.directory / "bus.conf").write_text(BUS)
        config = f"--config-file={self.directory}/bus.conf"
        self._bus = self._start("dbus-daemon", config, "--nofork", "--print-address=1")
        assert self._bus.stdout
        self.environment["DBUS_SESSION_BUS_ADDRESS"] = self._bus.stdout.readline().decode().strip()
        try:
            self.unlock()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for child in (self._daemon, self._bus):
            if child is not None:
                child.kill()
                child.communicate()

    def unlock(self) -> None:
        """Start the keyring's daemon anew and wait until its collection is open."""
        if self._daemon is not None:
            self._daemon.terminate()
            self._daemon.communicate()
        self._daemon = self._start("gnome-keyring-daemon", "--unlock", "--components=secrets", "--foreground")
        assert self._daemon.stdin
        self._daemon.stdin.write(PASSWORD)
        self._daemon.stdin.close()
        self._daemon.stdin = None
        deadline = time.monotonic() + 20
        while b"boolean false" not in self._call(
            "/org/freedesktop/secrets/collection/login",
            "org.freedesktop.DBus.Properties.Get",
            "string:org.freedesktop.Secret.Collection",
            "string:Locked",
        ):
            if time.monotonic() > deadline:
                raise TimeoutError("the keyring daemon did not open its collection")
            time.sleep(0.05)

    def lock(self) -> None:
        """Lock the collection; there is nobody who could be asked for its password."""
        self._call(
            "/org/freedesktop/secrets",
            "org.freedesktop.Secret.Service.Lock",
            "array:objpath:/org/freedesktop/secrets/collection/login",
        )

    def run(self, *argv: str, given: bytes = b"", check: bool = True) -> bytes:
        """Run a program in the session; return what it prints."""
        done = subprocess.run(argv, input=given, env=self.environment, capture_output=True, timeout=30)
        if check and done.returncode:
            raise AssertionError(f"{argv}: {done.stdout!r} {done.stderr!r}")
        return done.stdout

    def _call(self, path: str, method: str, *arguments: str) -> bytes:
        return self.run(
            "dbus-send",
            "--session",
            "--print-reply",
            "--dest=org.freedesktop.secrets",
            path,
            method,
            *arguments,
            check=False,
        )

    def _start(self, *argv: str) -> "subprocess.Popen[bytes]":
        pipe, null = subprocess.PIPE, subprocess.DEVNULL
        return subprocess.Popen(argv, env=self.environment, stdin=pipe, stdout=pipe, stderr=null)
