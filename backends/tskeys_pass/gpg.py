"""Run gpg itself: a child, descriptors in memory, status lines.

Every service start comes here, so posix_spawn does it: importing `subprocess` or python-gnupg costs more
than gpg takes.
"""

import fcntl
import os

from tskeys.errors import BackendUnavailable, CannotDecrypt, StoreError, UsageError
from tskeys_pass.outcome import Damaged, Outcome

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin"
"""Where root's gpg is looked for; a caller's PATH is not trusted then."""
PATIENCE = 60.0
"""Seconds that gpg gets where nobody is asked for anything."""

_PASSED_ON = (
    "HOME", "USER", "LOGNAME", "TERM", "TZ", "GPG_TTY", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY",
    "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS", "PINENTRY_USER_DATA",
)  # fmt: skip
_LARGEST = 1 << 20  # bytes of an entry; a few hundred of ciphertext may inflate to gigabytes
_KILL, _PIPE = 9, 13  # the module `signal` costs more than the rest of this one


class Gpg:
    """The gpg of this host, with its home and the file that holds its passphrase."""

    __slots__ = ("_passphrase", "environment", "home", "program")

    def __init__(self, home: str | None, passphrase: str | None) -> None:
        """Find gpg and its home; raise BackendUnavailable where either is missing."""
        self.program = find("gpg2") or find("gpg")
        if not self.program:
            raise BackendUnavailable("pass: needs the program gpg", hint="Install it with: apt install gnupg")
        self.environment = _environment()
        named = home or os.environ.get("GNUPGHOME")
        if named:
            self.environment["GNUPGHOME"] = named
        self.home = named or self.environment.get("HOME", "") + "/.gnupg"
        if not named and not self.environment.get("HOME"):
            raise BackendUnavailable(
                "pass: neither HOME nor GNUPGHOME is set, so where gpg's keys are is unknown",
                hint="Add gnupghome=/… to the location, in a unit a directory under its StateDirectory=.",
            )
        if not os.path.isdir(self.home):
            raise BackendUnavailable(
                f"pass: gpg's home {self.home} is missing",
                hint="Is its file system mounted? To make it: "
                f"install -d -m 0700 {self.home}, then gpg --import a secret key there.",
            )
        self._passphrase = passphrase

    def decrypt(self, sealed: bytes, *, ask: bool = True) -> bytes:
        """Return the plaintext; without `ask` no person is asked for a passphrase. Raises CannotDecrypt."""
        arguments, secret = ["--decrypt"], -1
        if self._passphrase is not None:
            secret = _pipe(_passphrase(self._passphrase))
            arguments[:0] = ["--pinentry-mode", "loopback", "--passphrase-fd", str(secret)]
        elif not ask:
            arguments[:0] = ["--pinentry-mode", "error"]
        try:
            done = self.run(arguments, sealed, pass_on=[secret] if secret >= 0 else [], wait=ask)
        finally:
            if secret >= 0:
                os.close(secret)
        if not done.decrypted():
            raise done.explained(self.home, self._passphrase)
        return done.output

    def recipients(self, sealed: bytes) -> "list[str]":
        """Return the key IDs that a message is encrypted to, without opening it; hidden ones are zeros."""
        done = self.run(["--pinentry-mode", "error", "--list-only", "--decrypt"], sealed)
        return [line[0] for line in done.of("ENC_TO")]

    def run(
        self, arguments: "Sequence[str]", stdin: bytes, *, pass_on: "Sequence[int]" = (), wait: bool = False
    ) -> Outcome:
        """Run gpg to its end; an agent that it started in a service does not stay there.

        `wait` lets it take as long as a person needs. systemd would find the agent as a left-over process in
        the unit. Runs of ours take turns, so that none loses the agent to another.
        """
        # Not --quiet: gpg would then keep the reason of a failure to itself.
        argv = [self.program, "--batch", "--no-tty"]
        argv += os.environ.get("PASSWORD_STORE_GPG_OPTS", "").split()
        if "GPG_TTY" in self.environment or "INVOCATION_ID" not in os.environ:
            return self._spawn([*argv, *arguments], stdin, pass_on, wait)
        try:
            turn = os.open(self.home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise BackendUnavailable(f"pass: gpg's home {self.home}: {error.strerror}") from None
        errors = os.memfd_create("errors")
        try:
            fcntl.flock(turn, fcntl.LOCK_EX)
            return self._spawn([*argv, "--verbose", *arguments], stdin, pass_on, wait, errors)
        finally:
            if b"no running gpg-agent" in _content(errors) and (gpgconf := find("gpgconf")):
                self._spawn([gpgconf, "--kill", "gpg-agent"], b"", (), False)
            os.close(errors)
            os.close(turn)

    def _spawn(
        self, argv: "list[str]", stdin: bytes, pass_on: "Sequence[int]", wait: bool, errors: int = -1
    ) -> Outcome:
        own = [os.memfd_create("input"), os.memfd_create("status"), os.memfd_create("errors"), *os.pipe()]
        given, status, told, output, end = own
        told = errors if errors >= 0 else told
        if argv[0] == self.program:
            argv[1:1] = ["--status-fd", str(status)]
        pid = 0
        try:
            with open(given, "wb", closefd=False) as file:
                file.write(stdin)
            os.lseek(given, 0, os.SEEK_SET)
            moves = [(given, 0), (end, 1), (told, 2), (status, status), *((fd, fd) for fd in pass_on)]
            pid = os.posix_spawn(
                argv[0],
                argv,
                self.environment,
                file_actions=[(os.POSIX_SPAWN_DUP2, *move) for move in moves],  # onto itself: inherited
                setsigdef=[_PIPE],
            )
            os.close(own.pop())
            written = _read(output, None if wait else PATIENCE)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            pid = 0
            return Outcome(code, written, _content(status), _content(told))
        except OSError as error:
            raise BackendUnavailable(f"{argv[0]}: cannot be run: {error.strerror}") from None
        finally:
            if pid:  # extract's deadline raises anywhere in here
                _end(pid)
            for fd in own:
                os.close(fd)


def find(program: str) -> str:
    """Return the absolute path of a program, or an empty string."""
    path = PATH if os.geteuid() == 0 else os.environ.get("PATH", PATH)
    for directory in path.split(":"):
        found = f"{directory}/{program}"
        if directory.startswith("/") and os.access(found, os.X_OK):
            return found
    return ""


def _environment() -> "dict[str, str]":
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    path = PATH if os.geteuid() == 0 else os.environ.get("PATH", PATH)
    if "GPG_TTY" not in passed:  # our child's standard input is none, so that gpg would find no terminal
        for fd in (0, 1, 2):
            try:
                passed["GPG_TTY"] = os.ttyname(fd)
                break
            except OSError:
                continue
    return {"PATH": path, "LC_ALL": "C.UTF-8", **passed}


def _passphrase(path: str) -> bytes:
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(4097)
    except OSError as error:
        raise CannotDecrypt(
            f"the passphrase file {path} cannot be read: {error.strerror}",
            hint="In a unit it comes from LoadCredential= and is %d/NAME.",
        ) from None
    if mode & 0o007:
        raise StoreError(
            f"the passphrase file {path}: others may read it (mode {mode & 0o7777:04o})",
            hint=f"Run: chmod 0600 {path}",
        )
    text = text.removesuffix(b"\n").removesuffix(b"\r")
    if not text or b"\n" in text or len(text) > 4096:
        raise UsageError(f"the passphrase file {path} does not hold one line of at most 4096 bytes")
    return text + b"\n"


def _pipe(content: bytes) -> int:
    reading, writing = os.pipe()
    try:
        os.write(writing, content)  # far less than a pipe holds
    finally:
        os.close(writing)
    return reading


def _read(fd: int, seconds: float | None) -> bytes:
    data = b""
    until = None
    if seconds is not None:
        import select
        import time

        until = time.monotonic() + seconds
    while True:
        if until is not None and not select.select([fd], [], [], max(0.0, until - time.monotonic()))[0]:
            raise StoreError(f"gpg did not end within {seconds:g} s and was killed")
        piece = os.read(fd, _LARGEST)
        if not piece:
            return data
        data += piece
        if len(data) > _LARGEST:
            raise Damaged(f"the entry holds more than {_LARGEST} bytes, which no key does")


def _content(fd: int) -> bytes:
    return os.pread(fd, _LARGEST, 0)


def _end(pid: int) -> None:
    try:
        os.kill(pid, _KILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass
