"""The file under `/run` that a consumer reads, and the stamp beside it that tells which key it holds.

Its directories are root's, so that a service cannot feed an environment file to root's own hook. Part of
extract's start-up path: imports next to nothing.
"""

import os

from tskeys import atomic, authkey
from tskeys.errors import TskeysError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tskeys.name import KeyName
    from tskeys.secret import Secret

ROOT = "/run/tskeys"
KEY, ENV = "key", "env"
_MEMORY = ("tmpfs", "ramfs")


class DeliveryError(TskeysError):
    """A delivery could not be written where it was asked for."""


class Stamp:
    """What the last delivery to a path was: a fingerprint, the unit's invocation, and the file's form."""

    __slots__ = ("fingerprint", "form", "invocation")

    def __init__(self, fingerprint: str, invocation: str, form: str) -> None:
        self.fingerprint = fingerprint
        self.invocation = invocation
        self.form = form


def default_path(name: "KeyName", *, unit: str | None = None, form: str = KEY, root: str = ROOT) -> str:
    """Return `/run/tskeys/NAME/authkey`, or `/run/tskeys/NAME@UNIT/authkey` for one consumer of several."""
    return f"{root}/{name}{f'@{unit}' if unit else ''}/{'authkey' if form == KEY else 'env'}"


def content(secret: "Secret", form: str) -> bytes:
    """Return the bytes of a delivery: the key alone, or one line of a systemd EnvironmentFile.

    Raises DeliveryError for a key that no service may get: an implausible one, or an API token.
    """
    key = secret.reveal()
    if not authkey.plausible(key):
        raise DeliveryError(
            "the store holds something that cannot be a key (8 to 4096 printable characters without blanks)",
            hint="Look at what stands there, then store a key with: tskeys set NAME",
        )
    if authkey.kind(key) == authkey.API:
        raise DeliveryError(
            "the store holds an API access token, which could do anything to the tailnet",
            hint="Revoke it if a service has seen it, then store an auth key with: tskeys set NAME",
        )
    if form == KEY:
        return key
    # systemd, podman and docker read such a value alike as long as nothing in it is theirs (env-file.c).
    if b"\\" in key or key[:1] in (b'"', b"'"):
        raise DeliveryError("this key has a quote or backslash that an environment file cannot hold safely")
    return b"TS_AUTHKEY=" + key + b"\n"


def write(
    to: str,
    secret: "Secret",
    *,
    form: str = KEY,
    uid: int = -1,
    gid: int = -1,
    mode: int = 0o400,
    invocation: str = "",
    allow_disk: bool = False,
    root: str = ROOT,
    stamped: bool = True,
) -> None:
    """Write a delivery atomically, then its stamp.

    Below `root` the missing directories are made, 0711. The stamp says what a service was handed as it
    started, so what is delivered at another time is not `stamped`. Raises DeliveryError for a target outside
    tmpfs or ramfs, for one that others could swap, and for a symlink, and UsageError for an environment file
    that another than root or the caller could write to.
    """
    data = content(secret, form)
    if form == ENV and (uid not in (-1, 0, os.geteuid()) or mode & 0o022):
        raise UsageError(
            f"{to}: an environment file stays root's, or its user could give variables to root's hooks",
            hint="Leave --owner out, and let nobody write: systemd reads the file as root.",
        )
    head, leaf = os.path.split(os.path.abspath(to))
    try:
        directory = _open(head, root)
    except OSError as error:
        raise DeliveryError(f"{head}: {error.strerror}", hint=f"Make it: install -d -m 0711 {head}") from None
    try:
        owners = {0, os.geteuid(), uid if uid >= 0 else 0}
        if why := atomic.unsafe(directory, owners):
            raise DeliveryError(
                f"{to}: {why}, who could swap the key",
                hint=f"Deliver below {ROOT}, whose directories tskeys makes itself.",
            )
        if not allow_disk and (kind := atomic.filesystem(directory)) not in _MEMORY:
            raise DeliveryError(
                f"{to}: is on {kind}, where a deleted key can still be found",
                hint=f"Deliver below {ROOT}, or allow it with --allow-disk.",
            )
        atomic.write_at(directory, leaf, data, mode=mode, uid=uid, gid=gid)
        if stamped:
            stamp = f"{authkey.fingerprint(secret.reveal())}\n{invocation}\n{form}\n"
            atomic.write_at(directory, _stamp(leaf), stamp.encode(), mode=0o600)
    except OSError as error:
        raise DeliveryError(f"{to}: {error.strerror}") from None
    finally:
        os.close(directory)


def stamp(to: str) -> Stamp | None:
    """Read the stamp of a delivery, or None where there is none that root or the caller wrote."""
    head, leaf = os.path.split(to)
    try:
        directory = os.open(head, atomic.DIRECTORY)
        try:
            data, status = atomic.read_at(directory, _stamp(leaf))
        finally:
            os.close(directory)
        fingerprint, invocation, form = data.decode().splitlines()
    except (OSError, ValueError):
        return None
    return Stamp(fingerprint, invocation, form) if status.st_uid in (0, os.geteuid()) else None


def account(owner: str | None, group: str | None) -> tuple[int, int]:
    """Return the uid and gid of names or numbers, -1 for what is not given; raise UsageError."""
    uid = gid = -1
    if owner is not None:
        if owner.isdecimal():
            uid = int(owner)
        else:
            import pwd

            try:
                entry = pwd.getpwnam(owner)
            except KeyError:
                raise UsageError(f"no user {owner!r} here") from None
            uid, gid = entry.pw_uid, entry.pw_gid
    if group is not None:
        if group.isdecimal():
            gid = int(group)
        else:
            import grp

            try:
                gid = grp.getgrnam(group).gr_gid
            except KeyError:
                raise UsageError(f"no group {group!r} here") from None
    return uid, gid


def _open(head: str, root: str) -> int:
    if head != root and not head.startswith(f"{root}/"):
        return os.open(head, atomic.DIRECTORY)
    above, leaf = os.path.split(root)
    parent = os.open(above, atomic.DIRECTORY)
    try:
        return atomic.subdirectory(parent, f"{leaf}{head[len(root) :]}", mode=0o711, create=True)
    finally:
        os.close(parent)


def _stamp(leaf: str) -> str:
    return f".{leaf}.stamp"
