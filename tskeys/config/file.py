"""Which file is the config, and whether anybody else could have written it."""

import errno
import os
import pwd
import shlex
import stat
from collections.abc import Mapping

from tskeys import atomic
from tskeys.errors import ConfigError

SYSTEM = "/etc/tskeys/config.toml"
_LINKS = 40  # as many as Linux follows, path_resolution(7)


def find(explicit: str | None, environ: Mapping[str, str]) -> str | None:
    """Return the path of the config: `explicit`, $TSKEYS_CONFIG, the system's, the user's; or None.

    The first two are returned whether they exist or not, and so is one that the caller may not look at:
    what was asked for and cannot be read must not look like no config at all.
    """
    if named := explicit or environ.get("TSKEYS_CONFIG"):
        return os.path.abspath(named)
    for path in (SYSTEM, f"{xdg('XDG_CONFIG_HOME', '.config', environ)}/tskeys/config.toml"):
        try:
            os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            pass
        return path
    return None


def xdg(variable: str, default: str, environ: Mapping[str, str]) -> str:
    """Return a directory of the XDG base directory specification, which ignores relative paths."""
    if (given := environ.get(variable, "")).startswith("/"):
        return given
    home = environ.get("HOME", "")
    if not home.startswith("/"):
        try:
            home = pwd.getpwuid(os.geteuid()).pw_dir
        except KeyError:
            home = "/"
    return os.path.join(home, default)


def read(path: str) -> str:
    """Return the text of a config that only root and the caller can change.

    Looks at the file, at each symlink on the way to it and at all directories above both, so that what
    NixOS makes of `/etc` passes. Raises ConfigError.
    """
    if path == os.devnull:
        return ""
    owners = {0, os.geteuid()}
    try:
        *links, real = _way(path)
        for link in links:
            if (owner := os.lstat(link).st_uid) not in owners:
                raise _distrust(path, f"{link} is owned by uid {owner}")
        for entry in (*links, real):
            if why := _unsafe(os.path.dirname(entry), owners):
                raise _distrust(path, why)
        directory = os.open(os.path.dirname(real), atomic.PASSAGE)
        try:
            data, status = atomic.read_at(directory, os.path.basename(real))
        finally:
            os.close(directory)
    except OSError as error:
        hint = "Name another config with --config or TSKEYS_CONFIG."
        if error.errno in (errno.EACCES, errno.EPERM):
            hint = f"Run as root, or let this user read it. {hint}"
        raise ConfigError(f"{path}: {error.strerror}", hint=hint) from None
    if status.st_uid not in owners:
        raise _distrust(path, f"{real} is owned by uid {status.st_uid}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise _distrust(path, f"{real} is writable for its group or others")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: is not UTF-8", hint="TOML is always written in UTF-8.") from None


def _way(path: str) -> list[str]:
    """Return every symlink on the way to a file, then the file; each in a directory without symlinks."""
    links: list[str] = []
    here, ahead = "/", path.split("/")
    while ahead:
        part = ahead.pop(0)
        if part == "..":
            here = os.path.dirname(here)
        elif part not in ("", "."):
            entry = os.path.join(here, part)
            if os.path.islink(entry):
                links.append(entry)
                if len(links) > _LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
                target = os.readlink(entry)
                here = "/" if target.startswith("/") else here
                ahead = target.split("/") + ahead
            else:
                here = entry
    return [*links, here]


def _unsafe(head: str, owners: set[int]) -> str | None:
    """Say who could replace an entry of a directory that belongs to one of `owners`, or return None."""
    # /nix/store is 1775: in a sticky directory nobody else can replace what root or the caller owns.
    while head != "/":
        status = os.stat(head)
        if not (status.st_mode & stat.S_ISVTX and status.st_uid in owners):
            break
        head = os.path.dirname(head)
    directory = os.open(head, atomic.PASSAGE)
    try:
        return atomic.unsafe(directory, owners)
    finally:
        os.close(directory)


def _distrust(path: str, why: str) -> ConfigError:
    where, _, what = why.rpartition(" is ")
    if what.startswith("owned"):
        command = f"chown {'root' if os.geteuid() == 0 else os.geteuid()} {shlex.quote(where)}"
    else:
        command = f"chmod go-w {shlex.quote(where)}"
    return ConfigError(f"{path}: somebody else could change the config: {why}", hint=f"Run: {command}")
