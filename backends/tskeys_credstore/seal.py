"""Seal and open a credential with systemd-creds (systemd 250 or later).

Its messages tell what its exit status, always 1, does not; they are those of src/shared/creds-util.c in
systemd 252. extract comes here, so nothing dear is imported: posix_spawn, and memory for all three streams.
"""

import os
import select

from tskeys.errors import BackendUnavailable, CannotDecrypt, StoreUnavailable
from tskeys.secret import Secret

TYPE_CHECKING = False
if TYPE_CHECKING:
    from datetime import datetime

KEYS = ("auto", "host", "tpm2", "host+tpm2")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin"
"""Where the program is looked for; a caller's PATH is not trusted."""
TIMEOUT = 30.0  # seconds; a TPM2 takes a few

_HOST_KEY = "SYSTEMD_CREDENTIAL_SECRET"  # systemd's own override of /var/lib/systemd/credential.secret
_SIGKILL, _SIGPIPE = 9, 13

# What the last line of an error holds, what that means, and what to do.
_OPENING = (
    (
        "Embedded credential name",
        "is sealed for another name",
        "The name in `systemd-creds encrypt --name=` must be the last part of the key's. "
        "Store the key again with: tskeys set",
    ),
    (
        "time passed",
        "its seal has expired together with the key",
        "Renew it with: tskeys rotate. Locations without seal-expiry=on seal no expiry.",
    ),
    (
        "credential key: No such file",
        "is sealed with a host key, and this machine has none (/var/lib/systemd/credential.secret)",
        "Was it sealed on another machine, or is /var/lib/systemd not mounted? Then store it again here.",
    ),
    (
        "Permission denied",
        "is sealed with the host key, which only root may read",
        "Run it as root, or let a unit read it with LoadCredentialEncrypted=.",
    ),
    (
        "TPM2",
        "is sealed with a TPM2, and this machine's cannot open it",
        "Was it sealed on another machine, or has its firmware changed? Then store it again here.",
    ),
    (
        "incorrect key",
        "was changed, or sealed on another machine",
        "Store the key again with: tskeys set",
    ),
)
_BROKEN = ("was changed or is no sealed credential", "Store the key again with: tskeys set")
_SEALING = (
    ("Permission denied", "the host key, which only root may read", "Run it as root."),
    (
        "TPM2",
        "this machine has no TPM2 that systemd-creds could use",
        "Seal with ?key=host, or see: systemd-creds has-tpm2",
    ),
    (
        "before it is valid",
        "the key has expired, so that its seal would never open",
        "Store one that is valid, or leave out seal-expiry=on.",
    ),
)


def encrypt(secret: Secret, name: str, *, key: str, not_after: "datetime | None", where: str) -> bytes:
    """Return the secret, sealed for a credential's name. Raises StoreError."""
    argv = ["encrypt", f"--name={name}", f"--with-key={key}"]
    if not_after is not None:
        from datetime import UTC

        argv.append(f"--not-after={not_after.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC")
    status, sealed, said = _run([*argv, "-", "-"], secret.reveal(), where)
    if status == 0:
        return sealed
    for sign, meaning, hint in _SEALING:
        if sign in said:
            raise StoreUnavailable(f"{where}: cannot be sealed: {meaning}", hint=hint)
    raise StoreUnavailable(f"{where}: cannot be sealed: systemd-creds: {said or f'exit {status}'}")


def decrypt(sealed: bytes, name: str, *, where: str) -> Secret:
    """Return what was sealed for a credential's name. Raises CannotDecrypt."""
    status, opened, said = _run(["decrypt", f"--name={name}", "-", "-"], sealed, where)
    if status == 0:
        return Secret(opened)
    for sign, meaning, hint in _OPENING:
        if sign in said:
            raise CannotDecrypt(f"{where} {meaning}", hint=hint)
    raise CannotDecrypt(f"{where} {_BROKEN[0]}: systemd-creds: {said or f'exit {status}'}", hint=_BROKEN[1])


def program() -> str:
    """Return where systemd-creds is; raise BackendUnavailable without it."""
    for directory in PATH.split(":"):
        path = f"{directory}/systemd-creds"
        if os.access(path, os.X_OK):
            return path
    raise BackendUnavailable(
        "credstore: needs the program systemd-creds",
        hint="It comes with systemd 250 or later: apt install systemd",
    )


def _run(arguments: list[str], given: bytes, where: str) -> tuple[int, bytes, str]:
    """Run systemd-creds; return its status, its output and the last line it said."""
    streams: list[int] = []
    try:
        for stream in ("in", "out", "err"):
            streams.append(os.memfd_create(f"systemd-creds {stream}"))  # closed when a program is executed
        with open(streams[0], "wb", closefd=False) as file:
            file.write(given)
        os.lseek(streams[0], 0, os.SEEK_SET)
        path = program()
        child = os.posix_spawn(
            path,
            [path, *arguments],
            _environment(),
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(streams)],
            setsigdef=[_SIGPIPE],
        )
        status = _wait(child, where)
        said = _content(streams[2]).decode(errors="replace").strip().rpartition("\n")[2]
        return status, _content(streams[1]), said
    except OSError as error:
        raise StoreUnavailable(f"{where}: systemd-creds cannot be run: {error.strerror}") from None
    finally:
        for fd in streams:
            os.close(fd)


def _wait(child: int, where: str) -> int:
    try:
        ended = os.pidfd_open(child)
        try:
            waiting = select.poll()
            waiting.register(ended, select.POLLIN)
            if not waiting.poll(TIMEOUT * 1000):
                raise StoreUnavailable(f"{where}: systemd-creds did not end within {TIMEOUT:g} s")
        finally:
            os.close(ended)
    except BaseException:  # extract's deadline comes as one out of a signal
        os.kill(child, _SIGKILL)
        os.waitpid(child, 0)
        raise
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def _environment() -> dict[str, str]:
    passed = {_HOST_KEY: os.environ[_HOST_KEY]} if _HOST_KEY in os.environ else {}
    return {"PATH": PATH, "LC_ALL": "C.UTF-8", **passed}
