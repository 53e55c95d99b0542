"""The files of the store that belong to keys: they change whole, and together with their git commit."""

import fcntl
import os

from tskeys import atomic
from tskeys.errors import BackendUnavailable, Conflict, KeyNotFound, StoreError, StoreUnavailable, UsageError
from tskeys.name import KeyName
from tskeys.store import Location
from tskeys_pass import recipients

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tskeys_pass import git


class Tree:
    """The part of a password store below one prefix, by descriptor."""

    def __init__(self, location: Location, path: str, prefix: str, gnupghome: str | None) -> None:
        """Open the store at a path; raise BackendUnavailable for a missing one."""
        try:
            self.root = os.open(path, atomic.DIRECTORY)
        except OSError as error:
            raise BackendUnavailable(
                f"{location}: {path}: {error.strerror}",
                hint=f"Is its file system mounted? To make it: PASSWORD_STORE_DIR={path} pass init GPG-ID",
            ) from None
        self._location, self._path, self._prefix, self._gnupghome = location, path, prefix, gnupghome
        self.present()

    def __del__(self) -> None:
        if hasattr(self, "root"):
            os.close(self.root)

    def folder(self, name: KeyName) -> str:
        """Return the folder of a key's entry, relative to the store's root."""
        return f"{self._prefix}/{name.parent}".strip("/")

    def shown(self, name: KeyName, leaf: str = "") -> str:
        """Return a path as pass shows it, of an entry or of a file beside it."""
        return f"{self.folder(name)}/{leaf or name.leaf}".lstrip("/")

    def turn(self) -> int:
        """Keep other runs out of the store until the descriptor is closed: git has one index for all."""
        try:
            turn = os.open(".", atomic.DIRECTORY, dir_fd=self.root)
            fcntl.flock(turn, fcntl.LOCK_EX)
        except OSError as error:
            raise StoreUnavailable(f"{self._location}: {error.strerror}") from None
        return turn

    def read(self, name: KeyName, leaf: str) -> bytes:
        """Return what a file holds; raise KeyNotFound for a missing one."""
        try:
            folder = atomic.subdirectory(self.root, self.folder(name), mode=0)
            try:
                return atomic.read_at(folder, leaf)[0]
            finally:
                os.close(folder)
        except OSError as error:
            raise self.explained(error, name) from None

    def held(self, name: KeyName) -> bytes | None:
        """Return the ciphertext of an entry, or None where there is none."""
        try:
            return self.read(name, entry(name))
        except KeyNotFound:
            return None

    def change(
        self,
        name: KeyName,
        changes: "Mapping[str, bytes | None]",
        message: str,
        held: bytes | None,
        *,
        sweep: bool = False,
    ) -> None:
        """Write and remove files of a key and commit them; where git refuses, all is as it was before.

        Without a message nothing is committed. The entry is replaced last, and only where it still is `held`.
        """

        def unchanged() -> None:
            if self.held(name) != held:
                raise Conflict(f"{self._location}: {name} was changed by somebody else meanwhile")

        mask = _umask()
        wanted = any(content is not None for content in changes.values())
        try:
            folder = atomic.subdirectory(self.root, self.folder(name), mode=0o777 & ~mask, create=wanted)
        except FileNotFoundError:
            self.present()
            return
        except OSError as error:
            raise self.explained(error, name) from None
        before: dict[str, bytes | None] = {}
        try:
            if sweep:
                atomic.sweep(folder, entry(name))
            for leaf, content in changes.items():
                before[leaf] = _content(folder, leaf)
                check = unchanged if leaf == entry(name) else None
                if content is None and check:
                    check()
                _write(folder, leaf, content, 0o666 & ~mask, check)
            if message and self._git_directory(name):
                try:
                    self._repository(name).commit([entry(name), previous(name), unread(name)], message)
                except StoreError as error:
                    for leaf, content in before.items():
                        _write(folder, leaf, content, 0o666 & ~mask, None)
                    raise type(error)(f"{self._location}: {name}: {error}", hint=error.hint) from None
        except OSError as error:
            raise self.explained(error, name) from None
        finally:
            os.close(folder)

    def _git_directory(self, name: KeyName) -> str | None:
        from tskeys_pass import git  # late: extract needs none

        return git.directory(self._path, self.folder(name))

    def _repository(self, name: KeyName) -> "git.Repository":
        from tskeys_pass import git

        return git.Repository(self._path, self.folder(name), self._gnupghome)

    def explained(self, error: OSError, name: KeyName) -> StoreError | UsageError:
        """Translate an error of the file system."""
        if isinstance(error, FileNotFoundError):
            return self._missing(name)
        if isinstance(error, NotADirectoryError | IsADirectoryError):
            return UsageError(
                f"{self._location}: {name} cannot stand beside a key whose path it begins or goes on"
            )
        return StoreUnavailable(f"{self._location}: {name}: {error.strerror}")

    def _unreadable(self, error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # a prefix that nothing is in yet
            raise StoreUnavailable(f"{self._location}: {error.strerror}")

    def present(self) -> None:
        """Raise BackendUnavailable where the store is gone or is none."""
        # A root that was removed while it was open answers ENOENT for everything; an unmounted one is empty.
        try:
            os.stat(self._path)
            said = os.environ.get("PASSWORD_STORE_KEY") or recipients.nearest(self.root, self._prefix)
        except OSError as error:
            raise BackendUnavailable(
                f"{self._location}: {self._path}: {error.strerror}", hint="Is its file system mounted?"
            ) from None
        if not said:
            raise BackendUnavailable(
                f"{self._location}: {self._path} is no password store: it has no {recipients.GPG_ID}",
                hint=f"Is its file system mounted? {recipients.HINT}",
            )

    def _missing(self, name: KeyName) -> KeyNotFound:
        self.present()
        return KeyNotFound(f"{self._location}: no key {name}", hint=f"Store one with: tskeys set {name}")

    def kept(self, name: KeyName) -> bool:
        """Tell whether an entry that nobody here can read stays to be had when it is replaced."""
        if os.path.lexists(f"{self._path}/{self.shown(name, unread(name))}"):
            return True
        return self._git_directory(name) is not None and self._repository(name).committed(entry(name))

    def names(self) -> "Iterator[KeyName]":
        """Yield every entry below the prefix whose path is a key name."""
        top = f"{self._path}/{self._prefix}".rstrip("/")
        found = []
        self.present()
        for here, folders, files in os.walk(top, onerror=self._unreadable):
            folders[:] = [folder for folder in folders if not folder.startswith(".")]
            for file in files:
                if file.endswith(".gpg"):
                    try:
                        found.append(KeyName(os.path.relpath(f"{here}/{file}", top).removesuffix(".gpg")))
                    except UsageError:
                        continue
        yield from sorted(found)

    def lock_path(self, name: KeyName) -> str:
        """Return a path in the git directory, where no commit finds it, else at the store's root."""
        entry = f"{self._prefix.replace('+', '++')}/{name}".strip("/").replace("/", "+")
        return f"{self._git_directory(name) or self._path}/.{entry}.lock"


def _umask() -> int:
    text = os.environ.get("PASSWORD_STORE_UMASK") or "077"
    try:
        return int(text, 8) & 0o777
    except ValueError:
        raise UsageError(f"PASSWORD_STORE_UMASK is an octal number, not {text!r}") from None


def _content(folder: int, leaf: str) -> bytes | None:
    try:
        return atomic.read_at(folder, leaf)[0]
    except FileNotFoundError:
        return None


def _write(
    folder: int, leaf: str, content: bytes | None, mode: int, check: "Callable[[], None] | None"
) -> None:
    if content is not None:
        atomic.write_at(folder, leaf, content, mode=mode, check=check)
        return
    try:
        atomic.remove_at(folder, leaf)
    except FileNotFoundError:
        pass


def entry(name: KeyName) -> str:
    """Return the file of a key's entry."""
    return f"{name.leaf}.gpg"


def previous(name: KeyName) -> str:
    """Return the file of its stash."""
    return f".{name.leaf}.previous.gpg"


def unread(name: KeyName) -> str:
    """Return the file that keeps an entry which was replaced unread."""
    return f".{name.leaf}.unread.gpg"
