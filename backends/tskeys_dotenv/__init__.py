"""`dotenv:FILE`: keys as variables of a `.env` file, read as python-dotenv reads it.

The variable is the option `var`, else NAME where it is a variable's name in capitals, else TS_AUTHKEY. The
file records no name, so two names on one variable are refused as soon as one opened store is asked for both.
A key is written without quotes where python-dotenv, a POSIX shell and `docker --env-file` read it alike, else
in single ones, which docker keeps. `warnings` tells who reads a file differently, and whether git takes it
along.
"""

import errno
import os

from tskeys import atomic, sharedfile
from tskeys.errors import BackendUnavailable, Conflict, KeyNotFound, StoreError, StoreUnavailable, UsageError
from tskeys.name import KeyName
from tskeys.secret import Secret
from tskeys.store import ABSENT, KeyStore, Listable, Location, Stash, Version, Warns
from tskeys_dotenv import git, syntax

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

VARIABLE = "TS_AUTHKEY"


class DotenvStore(KeyStore, Listable, Stash, Warns):
    """Keys in one `.env` file; a replaced one rests bare in `.FILE.VAR.previous` beside it."""

    scheme = "dotenv"

    def __init__(self, location: Location, path: str, variable: str, root: int) -> None:
        self.location = location
        self._path, self._leaf = os.path.split(path)
        self._file = path
        self._fixed = variable
        self._root = root
        self._names: dict[str, KeyName] = {}

    def __del__(self) -> None:
        os.close(self._root)

    @classmethod
    def open(cls, location: Location) -> "DotenvStore":
        """Open the directory around the file; raise BackendUnavailable where that is missing."""
        location.allow("var")
        variable = location.option("var") or ""
        if location.options("var") and not syntax.is_variable(variable):
            raise UsageError(f"{location}: {variable!r} is no name of a variable")
        path = location.absolute_path()
        if path.endswith("/") or os.path.isdir(path):
            raise UsageError(
                f"{location}: is a directory", hint=f"Name the file: dotenv:{path.rstrip('/')}/.env"
            )
        try:
            import dotenv  # noqa: F401  # late: only who opens such a store needs it
        except ImportError:
            raise BackendUnavailable(
                "dotenv: needs the Python library python-dotenv",
                hint="Install it with: pip install 'tskeys[dotenv]'",
            ) from None
        directory = os.path.dirname(path)
        try:
            root = os.open(directory, atomic.DIRECTORY)
        except OSError as error:
            raise BackendUnavailable(
                f"{location}: {directory}: {error.strerror}",
                hint=f"Is its file system mounted? To make it: install -d -m 0700 {directory}",
            ) from None
        store = cls(location, path, variable, root)
        sharedfile.refuse_unsafe(root)
        return store

    def get(self, name: KeyName) -> Secret:
        """Return exactly what python-dotenv reads."""
        variable = self._variable(name)
        value = self._lookup(variable, self._read(name))
        if value is None:
            raise self._missing(name)
        if syntax.interpolated(value):
            raise StoreError(
                f"{self._file}: {variable} has a ${{…}}, which depends on the environment of who reads it",
                hint="Write the key itself there.",
            )
        return Secret(value.encode())

    def put(
        self,
        name: KeyName,
        secret: Secret,
        *,
        expect: Version | None = None,
        expires: "datetime | None" = None,
    ) -> Version:
        """Replace the assignment, or add one; everything else in the file stays as it is, byte for byte."""
        key = secret.reveal()
        self._edit(name, lambda text: syntax.replace(text, self._variable(name), key), expect)
        if self.get(name) != secret:
            raise StoreError(f"{self.location}: {name} did not read back as it was written")
        return Version.of(key)

    def delete(self, name: KeyName) -> None:
        """Remove the stash and then the assignment; the file stays, since others read it."""
        if self.version(name) is None:
            raise self._missing(name)
        self.forget(name)
        self._edit(name, lambda text: syntax.remove(text, self._variable(name)), None)

    def version(self, name: KeyName) -> Version | None:
        """Return the version of the variable's value: other lines of the file are no part of the key."""
        try:
            value = self._lookup(self._variable(name), self._read(name))
        except KeyNotFound:
            return None
        return None if value is None else Version.of(value.encode())

    def lock_path(self, name: KeyName) -> str:
        """Return `.FILE.VAR.lock` beside the file."""
        return f"{self._path}/.{self._leaf}.{self._variable(name)}.lock"

    def names(self) -> "Iterator[KeyName]":
        """Yield the names of all variables in capitals, whatever they hold; with `var` that one's."""
        try:
            held = syntax.variables(self._text(self._leaf))
        except FileNotFoundError:
            self._present()
            return
        except OSError as error:
            raise self._explained(error, "") from None
        except syntax.Unreadable as error:
            raise StoreError(f"{self._file}: {error}") from None
        wanted = [v for v in held if (v == self._fixed if self._fixed else syntax.in_capitals(v))]
        yield from sorted(self._names.get(v) or KeyName(v) for v in wanted if len(v) <= 64)

    def stash(self, name: KeyName) -> None:
        """Copy the bare key, unless git would take the copy along."""
        key = self.get(name).reveal()
        self._refuse_in_git(self._previous(name))
        try:
            uid, gid = sharedfile.owner(self._root)
            atomic.write_at(self._root, self._previous(name), key, uid=uid, gid=gid)
        except OSError as error:
            raise self._explained(error, f" {name}") from None

    def restore(self, name: KeyName, *, expect: Version | None = None) -> Version:
        """Put the stashed key back into its line."""
        return self.put(name, Secret(self._read(name, self._previous(name)).encode()), expect=expect)

    def forget(self, name: KeyName) -> None:
        """Remove the stash, and temporary files of a killed run."""
        try:
            atomic.sweep(self._root, self._leaf)
            atomic.remove_at(self._root, self._previous(name))
        except FileNotFoundError:
            self._present()
        except OSError as error:
            raise self._explained(error, f" {name}") from None

    def warnings(self, name: KeyName) -> list[str]:
        """Say in the user's words who reads the file differently, and whether git takes it along."""
        text, variable = self._read(name), self._variable(name)
        value = self._lookup(variable, text)
        readers = (
            ("`docker --env-file`", syntax.docker_differs(text, variable, value)),
            ("a shell", syntax.shell_differs(text, variable)),
        )
        warnings = [f"{self._file}: {who} {what}" for who, what in readers if what]
        state = git.state(self._path, self._leaf)
        ignore = "add these lines to .gitignore: " + " ".join(git.ignored_by(self._leaf))
        if state == git.TRACKED:
            warnings.append(
                f"{self._file} is tracked by git, so that every commit of it publishes the key: "
                f"git rm --cached {self._leaf}, {ignore}, and rotate the key"
            )
        elif state == git.EXPOSED:
            warnings.append(f"{self._file} would be taken along by git add: {ignore}")
        return warnings

    def _variable(self, name: KeyName) -> str:
        variable = self._fixed or (name.text if syntax.in_capitals(name.text) else VARIABLE)
        other = self._names.setdefault(variable, name)
        if other != name:
            raise UsageError(
                f"{self.location}: {name} and {other} would both be the variable {variable}",
                hint="Give each its own file, or its own location with ?var=…",
            )
        return variable

    def _previous(self, name: KeyName) -> str:
        return f".{self._leaf}.{self._variable(name)}.previous"

    def _refuse_in_git(self, leaf: str) -> None:
        state = git.state(self._path, leaf)
        if state in (git.OUTSIDE, git.IGNORED):
            return
        reason = "git does not ignore it" if state in (git.TRACKED, git.EXPOSED) else state
        raise StoreError(
            f"{self._path}/{leaf}: the replaced key may not be kept in a git tree: {reason}",
            hint="Add these lines to .gitignore: " + " ".join(git.ignored_by(self._leaf)),
        )

    def _lookup(self, variable: str, text: str) -> str | None:
        try:
            return syntax.lookup(text, variable)
        except syntax.Unreadable as error:
            raise StoreError(f"{self._file}: {error}") from None

    def _text(self, leaf: str) -> str:
        data, status = atomic.read_at(self._root, leaf)
        sharedfile.refuse_readable(status, f"{self._path}/{leaf}")
        return syntax.decode(data)

    def _read(self, name: KeyName, leaf: str = "") -> str:
        self._variable(name)
        try:
            return self._text(leaf or self._leaf)
        except FileNotFoundError:
            raise self._missing(name) from None
        except OSError as error:
            raise self._explained(error, f" {name}") from None
        except syntax.Unreadable as error:
            raise StoreError(f"{self._path}/{leaf or self._leaf}: {error}") from None

    def _edit(self, name: KeyName, change: "Callable[[str], str]", expect: Version | None) -> None:
        def checked(data: bytes) -> bytes:
            try:
                text = syntax.decode(data)
                held = syntax.lookup(text, self._variable(name))
                if expect is not None and (ABSENT if held is None else Version.of(held.encode())) != expect:
                    raise Conflict(f"{self.location}: {name} was changed by somebody else meanwhile")
                return change(text).encode()
            except syntax.Unreadable as error:
                raise StoreError(f"{self._file}: {error}") from None

        try:
            self._read(name)  # refuses a file that others may read
        except KeyNotFound:
            pass
        try:
            sharedfile.rewrite(self._root, self._leaf, checked)
        except OSError as error:
            raise self._explained(error, f" {name}") from None

    def _explained(self, error: OSError, what: str) -> StoreError:
        if isinstance(error, FileNotFoundError):
            self._present()
        reason = error.strerror
        if error.errno == errno.ELOOP:
            reason = "is a symlink, which is not followed: give the location of what it points to"
        return StoreUnavailable(f"{self.location}:{what} {reason}")

    def _present(self) -> None:
        # A directory that was removed while it was open answers ENOENT for everything.
        if not os.path.isdir(self._path):
            raise StoreUnavailable(f"{self.location}: is gone", hint="Is its file system mounted?")

    def _missing(self, name: KeyName) -> KeyNotFound:
        self._present()
        return KeyNotFound(f"{self.location}: no key {name}", hint=f"Store one with: tskeys set {name}")
