"""A real systemd as PID 1 in throw-away namespaces, for tests.

Needs root, overlayfs, a mounted cgroup2, util-linux and systemd's own binary; the host may run on anything.
The host's files are seen in the box; what the box writes lives in its memory and goes with it.

    with Box() as box:
        box.unit("x.service", "[Service]\\nExecStart=/bin/true")
        box.run("systemctl", "start", "x")
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

INIT = Path(__file__).with_name("systemdbox-init.sh")
SYSTEMD = Path("/lib/systemd/systemd")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
HIDDEN = ("/tmp", "/run", "/dev", "/proc", "/sys")
"""Where the box has a file system of its own."""

_TOOLS = ("unshare", "nsenter", "pivot_root", "setpriv", "chroot", "mount", "umount")
_NAMESPACES = ("--mount", "--pid", "--ipc", "--uts", "--cgroup", "--net")
_PREFIX = "tskeys-box-"
_SCRATCH = Path("/var/tmp")


class BoxError(Exception):
    """The box did not start, or a command in it failed."""


def unsupported() -> str | None:
    """Return why no box can run here, or None."""
    if os.geteuid() != 0:
        return "a systemd of its own needs root"
    for tool in _TOOLS:
        if not shutil.which(tool, path=PATH):
            return f"a systemd of its own needs {tool}"
    if not SYSTEMD.exists():
        return f"a systemd of its own needs {SYSTEMD}"
    if "\toverlay\n" not in Path("/proc/filesystems").read_text():
        return "a systemd of its own needs overlayfs"
    if _cgroup2() is None:
        return "a systemd of its own needs a mounted cgroup2"
    return None


def needed_binds(paths: Iterable[str]) -> dict[str, str]:
    """Return target and source of those directories that the box would not see."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    apart = [*HIDDEN, *(mount for mount in mounts if mount != "/")]
    binds = {}
    for path in paths:
        real = os.path.realpath(path)
        binds.update({place: real for place in (path, real) if any(_within(place, one) for one in apart)})
    return binds


def _within(path: str, parent: str) -> bool:
    return path == parent or path.startswith(parent + "/")


def _cgroup2() -> Path | None:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        fields = line.split()
        if fields[2] == "cgroup2":
            return Path(fields[1])
    return None


class Box:
    """One running systemd; `start` and `stop`, or a `with` block.

    `binds` are further directories, target and source, read-only in the box. The interpreter, its virtual
    environment and the repository are always seen.
    """

    def __init__(
        self, binds: Mapping[str, str] | None = None, boot_timeout: float = 60, stop_timeout: float = 15
    ):
        repository = str(Path(__file__).parents[1])
        self.binds = {**needed_binds((sys.base_prefix, sys.prefix, repository)), **(binds or {})}
        self.boot_timeout = boot_timeout
        self.stop_timeout = stop_timeout
        self.state = "stopped"
        self.pid = 0  # of systemd, as the host sees it
        self._child: subprocess.Popen[bytes] | None = None
        self._cgroup: Path | None = None
        self._directory: Path | None = None

    def __enter__(self) -> "Box":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> "Box":
        """Boot; raise BoxError with the console's end where it does not come up in time."""
        why, mounted = unsupported(), _cgroup2()
        if why or mounted is None:
            raise BoxError(why)
        sweep()
        deadline = time.monotonic() + self.boot_timeout
        self._directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}.", dir=_SCRATCH))
        # A cgroup of its own, entered before the cgroup namespace is made: else the box's root is the host's.
        self._cgroup = mounted / self._directory.name
        try:
            (self._directory / "work").mkdir()
            self._cgroup.mkdir()
            self._child = self._spawn()
            self._wait_for_systemd(deadline)
            self.run("ip", "link", "set", "lo", "up", check=False)
            while self.state not in ("running", "degraded"):
                self._alive(deadline)
                time.sleep(0.05)
                self.state = self.run("systemctl", "is-system-running", check=False).stdout.decode().strip()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Halt, or kill PID 1 when it takes too long: the kernel takes everything in the box along."""
        try:
            if self._child is not None and self._child.poll() is None:
                self._halt(self._child)
        finally:
            self.state, self.pid = "stopped", 0
            if self._cgroup is not None:
                _remove_cgroup(self._cgroup)
            if self._directory is not None:
                shutil.rmtree(self._directory, ignore_errors=True)

    def run(
        self,
        *command: str,
        check: bool = True,
        timeout: float = 60,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command in the box; a single word with blanks in it is a line for sh."""
        argv = ("/bin/sh", "-c", command[0]) if len(command) == 1 else command
        variables = {"HOME": "/root", "LANG": "C.UTF-8", "PATH": PATH, "SYSTEMD_COLORS": "0", **(env or {})}
        # --wd without a value: with one it would be opened outside.
        enter = [
            "nsenter",
            "--target",
            str(self.pid),
            *_NAMESPACES,
            "--root",
            "--wd",
            "--",
            "/usr/bin/env",
            "-i",
        ]
        done = subprocess.run(
            [*enter, *(f"{k}={v}" for k, v in variables.items()), *argv],
            capture_output=True,
            timeout=timeout,
            input=stdin,
        )
        if check and done.returncode:
            said = (done.stdout + done.stderr).decode(errors="replace")
            raise BoxError(f"{' '.join(command)}: exit {done.returncode}\n{said}")
        return done

    def path(self, inside: str) -> Path:
        """Return where the host finds a file of the box."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def write(self, inside: str, data: str | bytes, mode: int = 0o644) -> None:
        """Write a file in the box, and the directories above it."""
        path = self.path(inside)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        path.chmod(mode)

    def unit(self, name: str, text: str) -> None:
        """Write a unit, or `x.service.d/y.conf`, and make systemd read it."""
        self.write(f"/etc/systemd/system/{name}", text)
        self.run("systemctl", "daemon-reload")

    def show(self, unit: str, prop: str) -> str:
        """Return one property of a unit."""
        return self.run("systemctl", "show", "--value", "-p", prop, unit).stdout.decode().rstrip("\n")

    def journal(self, unit: str, lines: int = 100) -> str:
        """Return the end of a unit's journal."""
        self.run("journalctl", "--sync", check=False)
        argv = ("journalctl", "--no-pager", "-o", "cat", "-n", str(lines), "-u", unit)
        return self.run(*argv, check=False).stdout.decode(errors="replace")

    def wait_for(self, *command: str, timeout: float = 20) -> None:
        """Run a command until it succeeds; raise BoxError when the time is over."""
        deadline = time.monotonic() + timeout
        while self.run(*command, check=False).returncode:
            if time.monotonic() > deadline:
                raise BoxError(f"{' '.join(command)}: did not succeed in {timeout} s")
            time.sleep(0.1)

    def console(self) -> str:
        """Return the end of what systemd said while it booted."""
        assert self._directory
        try:
            return (self._directory / "console").read_text(errors="replace")[-6000:]
        except OSError:
            return ""

    def _spawn(self) -> subprocess.Popen[bytes]:
        # Killed with this process at any moment: setpriv ties the first child to it, unshare the others.
        enter = 'echo $$ >"$0/cgroup.procs" && exec unshare "$@"'
        unshare = (*_NAMESPACES, "--fork", "--kill-child=SIGKILL", "--", "/bin/sh", str(INIT))
        binds = [word for target in sorted(self.binds) for word in (self.binds[target], target)]
        assert self._directory
        arguments = [str(self._cgroup), *unshare, str(self._directory / "work"), *binds]
        with (self._directory / "console").open("wb") as console:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "/bin/sh", "-c", enter, *arguments],
                env={"PATH": PATH},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )

    def _wait_for_systemd(self, deadline: float) -> None:
        assert self._child
        children = Path(f"/proc/{self._child.pid}/task/{self._child.pid}/children")
        while not self.pid:
            self._alive(deadline)
            try:
                first = children.read_text().split()[0]
                if Path(f"/proc/{first}/comm").read_text().strip() == "systemd":
                    self.pid = int(first)
            except (OSError, IndexError):
                pass
            time.sleep(0.02)

    def _alive(self, deadline: float) -> None:
        assert self._child
        if self._child.poll() is not None:
            raise BoxError(f"the box ended at once, exit {self._child.returncode}:\n{self.console()}")
        if time.monotonic() > deadline:
            raise BoxError(f"the box did not come up in {self.boot_timeout} s:\n{self.console()}")

    def _halt(self, child: "subprocess.Popen[bytes]") -> None:
        try:
            if self.pid:
                os.kill(self.pid, signal.SIGRTMIN + 3)
                child.wait(self.stop_timeout)
        except subprocess.TimeoutExpired:
            os.kill(self.pid, signal.SIGKILL)
        else:
            if not self.pid:
                child.kill()
        child.wait(10)


def sweep() -> None:
    """Remove what the boxes of killed runs left: empty cgroups and a directory each."""
    mounted = _cgroup2()
    for place, remove in ((mounted, _remove_cgroup), (_SCRATCH, shutil.rmtree)):
        for left in place.glob(f"{_PREFIX}*.*") if place else ():
            if not Path("/proc", left.name.removeprefix(_PREFIX).partition(".")[0]).exists():
                remove(left)


def _remove_cgroup(cgroup: Path) -> None:
    deadline = time.monotonic() + 5
    while cgroup.exists():
        try:
            for here, _, _ in os.walk(cgroup, topdown=False):
                Path(here).rmdir()
        except OSError:  # the last of its processes is still on its way out
            if time.monotonic() > deadline:
                return
            time.sleep(0.05)
