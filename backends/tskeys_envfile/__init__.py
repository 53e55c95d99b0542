"""`envfile:DIR/` and `envfile:FILE`: keys as variables of files that systemd reads (EnvironmentFile=).

`envfile:DIR/` (or a directory that is there) keeps `DIR/NAME.env` with TS_AUTHKEY. `envfile:FILE` keeps a
variable of one file, which may hold other settings: the option `var`, else NAME where it is a variable's name
in capitals, else TS_AUTHKEY. The file records no name, so two names on one variable are refused as soon as
one opened store is asked for both.
"""

import errno
import os

from tskeys import atomic, sharedfile
from tskeys.errors import BackendUnavailable, Conflict, KeyNotFound, StoreError, StoreUnavailable, UsageError
from tskeys.name import KeyName
from tskeys.secret import Secret
from tskeys.store import ABSENT, KeyStore, Listable, Location, Stash, Version
from tskeys_envfile import syntax

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

VARIABLE = "TS_AUTHKEY"
_CAPITALS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_DIGITS = frozenset("0123456789")


class EnvFileStore(KeyStore, Listable, Stash):
    """Keys in EnvironmentFiles; a replaced one rests bare in `.web.env.previous`, `.FILE.VAR.previous`."""

    scheme = "envfile"

    def __init__(self, location: Location, path: str, leaf: str, variable: str, root: int) -> None:
        self.location = location
        self._path = path
        self._leaf = leaf  # empty: a directory of files
        self._fixed = variable
        self._root = root
        self._names: dict[str, KeyName] = {}

    def __del__(self) -> None:
        os.close(self._root)

    @classmethod
    def open(cls, location: Location) -> "EnvFileStore":
        """Open the directory, or the one around the file; raise BackendUnavailable where it is missing."""
        location.allow("var")
        variable = location.option("var") or ""
        if location.options("var") and not syntax.is_variable(variable.encode("utf-8", "surrogateescape")):
            raise UsageError(f"{location}: {variable!r} is no name of a variable")
        path, leaf = location.absolute_path(), ""
        if not path.endswith("/") and not os.path.isdir(path):
            path, leaf = os.path.split(path)
        path = path.rstrip("/") or "/"
        try:
            root = os.open(path, atomic.DIRECTORY)
        except OSError as error:
            raise BackendUnavailable(
                f"{location}: {path}: {error.strerror}",
                hint=f"Is its file system mounted? To make it: install -d -m 0700 {path}",
            ) from None
        store = cls(location, path, leaf, variable, root)
        sharedfile.refuse_unsafe(root)
        return store

    def get(self, name: KeyName) -> Secret:
        """Return exactly what systemd hands to a unit."""
        data = self._read(name)
        value = self._lookup(name, data)
        if value is None:
            raise self._missing(name, data)
        return Secret(value)

    def put(
        self,
        name: KeyName,
        secret: Secret,
        *,
        expect: Version | None = None,
        expires: "datetime | None" = None,
    ) -> Version:
        """Replace the assignment, or add one; everything else in the file stays as it is, byte for byte."""
        value = secret.reveal()
        self._edit(name, lambda data: syntax.replace(data, self._variable(name), value), expect)
        if self.get(name) != secret:
            raise StoreError(f"{self.location}: {name} did not read back as it was written")
        return Version.of(value)

    def delete(self, name: KeyName) -> None:
        """Remove the stash and then the assignment; a file of our own that is empty then goes too."""
        if self.version(name) is None:
            raise self._missing(name)
        self.forget(name)
        self._edit(name, lambda data: syntax.remove(data, self._variable(name)), None)

    def version(self, name: KeyName) -> Version | None:
        """Return the version of the variable's value: other lines of the file are no part of the key."""
        try:
            return Version.of(self.get(name).reveal())
        except KeyNotFound:
            return None

    def lock_path(self, name: KeyName) -> str:
        """Return `DIR/.web+prod.lock`, or `.FILE.VAR.lock` beside the file."""
        if self._leaf:
            return f"{self._path}/.{self._leaf}.{self._variable(name).decode()}.lock"
        return f"{self._path}/.{name.text.replace('/', '+')}.lock"

    def names(self) -> "Iterator[KeyName]":
        """Yield every name that get() would answer; a file that cannot be read counts, it hides no key.

        Of one FILE without `var` these are all its variables in capitals, whatever they hold.
        """
        found = self._names_of_file() if self._leaf else self._names_below()
        yield from sorted(found)

    def stash(self, name: KeyName) -> None:
        """Copy the bare key."""
        key = self.get(name).reveal()
        try:
            directory = self._directory(name)
            try:
                uid, gid = sharedfile.owner(directory)
                atomic.write_at(directory, self._previous(name), key, uid=uid, gid=gid)
            finally:
                os.close(directory)
        except OSError as error:
            raise self._explained(error, name) from None

    def restore(self, name: KeyName, *, expect: Version | None = None) -> Version:
        """Put the stashed key back into its line."""
        data = self._read(name, self._previous(name))
        return self.put(name, Secret(data), expect=expect)

    def forget(self, name: KeyName) -> None:
        """Remove the stash, and temporary files of a killed run."""
        try:
            directory = self._directory(name)
            try:
                atomic.sweep(directory, self._file(name))
                atomic.remove_at(directory, self._previous(name))
            finally:
                os.close(directory)
        except FileNotFoundError:
            self._present()
        except OSError as error:
            raise self._explained(error, name) from None

    def _variable(self, name: KeyName) -> bytes:
        variable = self._fixed or VARIABLE
        if self._leaf:
            if not self._fixed and _in_capitals(name.text):
                variable = name.text
            other = self._names.setdefault(variable, name)
            if other != name:
                raise UsageError(
                    f"{self.location}: {name} and {other} would both be the variable {variable}",
                    hint="Give each its own file, or its own location with ?var=…",
                )
        return variable.encode()

    def _file(self, name: KeyName) -> str:
        return self._leaf or f"{name.leaf}.env"

    def _previous(self, name: KeyName) -> str:
        variable = self._variable(name).decode()
        return f".{self._leaf}.{variable}.previous" if self._leaf else f".{name.leaf}.env.previous"

    def _shown(self, name: KeyName, leaf: str) -> str:
        return f"{self._path}/{leaf if self._leaf else name.sibling(leaf)}"

    def _lookup(self, name: KeyName, data: bytes) -> bytes | None:
        try:
            return syntax.lookup(data, self._variable(name))
        except syntax.Unreadable as error:
            raise StoreError(f"{self._shown(name, self._file(name))}: {error}") from None

    def _names_of_file(self) -> "list[KeyName]":
        try:
            data, status = atomic.read_at(self._root, self._leaf)
            sharedfile.refuse_readable(status, f"{self._path}/{self._leaf}")
            held = [variable.decode() for variable in syntax.variables(data)]
        except FileNotFoundError:
            self._present()
            return []
        except OSError as error:
            raise self._explained(error, None) from None
        except syntax.Unreadable as error:
            raise StoreError(f"{self._path}/{self._leaf}: {error}") from None
        wanted = [v for v in held if (v == self._fixed if self._fixed else _in_capitals(v))]
        return [self._names.get(v) or KeyName(v) for v in wanted if len(v) <= 64]  # as long as a KeyName is

    def _names_below(self) -> "Iterator[KeyName]":
        for here, directories, entries in os.walk(self._path, onerror=self._unreadable):
            directories[:] = [entry for entry in directories if not entry.startswith(".")]
            for entry in entries:
                stem = entry.removesuffix(".env")
                if stem == entry:
                    continue
                try:
                    name = KeyName(os.path.relpath(f"{here}/{stem}", self._path))
                    self.get(name)
                except (UsageError, KeyNotFound):
                    continue
                except StoreError:
                    pass
                yield name

    def _read(self, name: KeyName, leaf: str = "") -> bytes:
        leaf = leaf or self._file(name)
        self._variable(name)
        try:
            directory = self._directory(name)
            try:
                data, status = atomic.read_at(directory, leaf)
            finally:
                os.close(directory)
        except FileNotFoundError:
            raise self._missing(name) from None
        except OSError as error:
            raise self._explained(error, name) from None
        sharedfile.refuse_readable(status, self._shown(name, leaf))
        return data

    def _edit(self, name: KeyName, change: "Callable[[bytes], bytes]", expect: Version | None) -> None:
        def checked(data: bytes) -> bytes:
            held = self._lookup(name, data)
            if expect is not None and (ABSENT if held is None else Version.of(held)) != expect:
                raise Conflict(f"{self.location}: {name} was changed by somebody else meanwhile")
            try:
                return change(data)
            except syntax.Unreadable as error:
                raise StoreError(f"{self._shown(name, self._file(name))}: {error}") from None

        try:
            self._read(name)  # refuses a file that others may read
        except KeyNotFound:
            pass
        try:
            directory = self._directory(name, create=True)
            try:
                # A FILE is named in units, which need not start without it; NAME.env is tskeys' own.
                sharedfile.rewrite(directory, self._file(name), checked, remove_empty=not self._leaf)
            finally:
                os.close(directory)
        except OSError as error:
            raise self._explained(error, name) from None

    def _directory(self, name: KeyName, *, create: bool = False) -> int:
        parent = "" if self._leaf else name.parent
        directory = atomic.subdirectory(self._root, parent, mode=0o700, create=create)
        try:
            sharedfile.refuse_unsafe(directory)
        except BaseException:
            os.close(directory)
            raise
        return directory

    def _explained(self, error: OSError, name: KeyName | None) -> StoreError | UsageError:
        what = f"{self.location}: {name}" if name else str(self.location)
        if isinstance(error, FileNotFoundError) and name:
            return self._missing(name)
        if isinstance(error, NotADirectoryError | IsADirectoryError):
            return UsageError(f"{what} cannot stand beside a key whose path it begins or goes on")
        reason = "is a symlink, which is not followed" if error.errno == errno.ELOOP else error.strerror
        return StoreUnavailable(f"{what}: {reason}")

    def _unreadable(self, error: OSError) -> None:
        raise self._explained(error, None)

    def _present(self) -> None:
        # A directory that was removed while it was open answers ENOENT for everything.
        if not os.path.isdir(self._path):
            raise StoreUnavailable(f"{self.location}: is gone", hint="Is its file system mounted?")

    def _missing(self, name: KeyName, data: bytes = b"") -> KeyNotFound:
        self._present()
        variable = self._variable(name)
        hint = f"Store one with: tskeys set {name}"
        if syntax.exported(data, variable):
            hint = f"systemd ignores `export {variable.decode()}=`: remove the word export."
        return KeyNotFound(f"{self.location}: no key {name}", hint=hint)


def _in_capitals(word: str) -> bool:
    return word[0] in _CAPITALS and (_CAPITALS | _DIGITS).issuperset(word)
