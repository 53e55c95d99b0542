"""The only subprocess outside a backend's library: argument list, deadline, clean environment.

Secrets go in by standard input or a file descriptor, never by an argument.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tskeys.authkey import redact
from tskeys.errors import ProcessError
from tskeys.secret import Secret

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin"
"""What children are found in when tskeys runs as root; a caller's PATH is not trusted then."""

_PASSED_ON = ("HOME", "USER", "LOGNAME", "TERM", "TZ", "XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS")


@dataclass(frozen=True, slots=True)
class Result:
    """What a finished program left; its output may be a secret, so it does not print."""

    status: int
    output: Secret
    errors: str


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a child: a fixed PATH for root, a few listed variables, and `extra`."""
    path = PATH if os.geteuid() == 0 else os.environ.get("PATH", PATH)
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {"PATH": path, "LC_ALL": "C.UTF-8", **passed, **(extra or {})}


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    stdin: Secret | bytes = b"",
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
) -> Result:
    """Run a program to its end and return its status, whatever it is.

    `timeout` is in seconds; when it is over, the program and its children are killed. Raises ProcessError
    for a missing program and for one that takes too long.
    """
    name = os.path.basename(argv[0])
    try:
        child = subprocess.Popen(
            list(argv),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(env),
            pass_fds=pass_fds,
            start_new_session=True,
        )
    except OSError as error:
        raise ProcessError(
            f"{name}: cannot be run: {error.strerror}", hint=f"Is {name} installed and in the PATH?"
        ) from None
    try:
        output, errors = child.communicate(
            stdin.reveal() if isinstance(stdin, Secret) else stdin, timeout=timeout
        )
    except BaseException as error:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        _close(child)  # a daemon of the child's may hold the other ends for ever
        if isinstance(error, subprocess.TimeoutExpired):
            raise ProcessError(f"{name}: did not end within {timeout:g} s and was killed") from None
        raise
    return Result(child.returncode, Secret(output), redact(errors.decode(errors="replace")).strip())


def _close(child: "subprocess.Popen[bytes]") -> None:
    for pipe in (child.stdin, child.stdout, child.stderr):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:
                pass
