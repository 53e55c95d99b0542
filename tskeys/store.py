"""What a store is: the interface of a backend, and the location that opens one."""

from abc import ABC, abstractmethod

from tskeys.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from typing import ClassVar, Self

    from tskeys.name import KeyName
    from tskeys.secret import Secret


class Version(str):
    """A hash of the bytes that a store holds for a name; tells whether somebody changed them."""

    __slots__ = ()

    @classmethod
    def of(cls, data: bytes) -> "Version":
        """Return the version of these bytes."""
        import hashlib  # late: extract never asks for a version

        return cls("v1:" + hashlib.sha256(data).hexdigest())


ABSENT = Version("absent")
"""What `put` expects where no key may be there yet."""


class Location:
    """Parse `scheme:PATH[?k=v&k=v]`, percent-encoded; a repeated k is a list.

    Raises UsageError.
    """

    __slots__ = ("_query", "path", "scheme", "text")

    def __init__(self, text: str) -> None:
        scheme, colon, rest = text.partition(":")
        if not colon or not scheme.isalnum() or not scheme.isascii():
            raise UsageError(
                f"{text!r} is not a location",
                hint="A location is scheme:PATH, for example file:/etc/tailscale-keys.",
            )
        path, _, query = rest.partition("?")
        self.text = text
        self.scheme = scheme.lower()
        self.path = _unquote(path)
        self._query: dict[str, list[str]] = {}
        for pair in query.split("&"):
            if pair:
                k, _, v = pair.partition("=")
                self._query.setdefault(_unquote(k), []).append(_unquote(v))

    def allow(self, *known: str) -> None:
        """Refuse any option but these."""
        for k in self._query:
            if k not in known:
                names = ", ".join(known) or "none"
                raise UsageError(
                    f"{self.text}: no option {k!r}", hint=f"Options of {self.scheme}: are {names}."
                )

    def option(self, k: str) -> str | None:
        """Return the one value of an option, or None; an option given twice is a UsageError."""
        values = self._query.get(k, [])
        if len(values) > 1:
            raise UsageError(f"{self.text}: the option {k!r} stands there {len(values)} times")
        return values[0] if values else None

    def options(self, k: str) -> list[str]:
        """Return every value of an option, in order."""
        return list(self._query.get(k, []))

    @property
    def place(self) -> str:
        """Return where the keys are, as the ledger calls it: without options on how they are read."""
        chosen = [f"{k}={_quote(v)}" for k in ("dir", "var") for v in self._query.get(k, [])]
        return f"{self.scheme}:{_quote(self.path)}{'?' if chosen else ''}{'&'.join(chosen)}"

    def absolute_path(self) -> str:
        """Return the path, which must be absolute: relative ones are for the command line alone."""
        if not self.path.startswith("/"):
            raise UsageError(
                f"{self.text}: the path is not absolute",
                hint=f"Write {self.scheme}:/… ; relative paths and ~ work on the command line only.",
            )
        return self.path

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Location({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Location) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


def _quote(text: str) -> str:
    return text.replace("%", "%25").replace("?", "%3F").replace("&", "%26")


def _unquote(text: str) -> str:
    # urllib.parse would do, and costs more than all of extract's own modules.
    if "%" not in text:
        return text
    first, *rest = text.encode().split(b"%")
    out = bytearray(first)
    for piece in rest:
        try:
            byte = bytes.fromhex(piece[:2].decode())
        except ValueError:
            byte = b""
        if byte in (b"", b"\0"):
            raise UsageError(f"{text!r}: a % in a location is followed by two hexadecimal digits, not 00")
        out += byte + piece[2:]
    return out.decode("utf-8", "surrogateescape")


class KeyStore(ABC):
    """One place where keys rest. Every method raises StoreError or one of its subclasses.

    A store whose root is missing, unmounted, conflicted or locked is unavailable, never empty.
    """

    scheme: "ClassVar[str]"
    location: Location

    @classmethod
    @abstractmethod
    def open(cls, location: Location) -> "Self":
        """Open the store; raise BackendUnavailable for a missing root, mount, library or program."""

    @abstractmethod
    def get(self, name: "KeyName") -> "Secret":
        """Return the key; raise KeyNotFound or CannotDecrypt."""

    @abstractmethod
    def put(
        self,
        name: "KeyName",
        secret: "Secret",
        *,
        expect: Version | None = None,
        expires: "datetime | None" = None,
    ) -> Version:
        """Store the key; it is atomic, durable and read back when this returns.

        `expect` is the version that must be there now, or ABSENT; else raise Conflict and change nothing.
        """

    @abstractmethod
    def delete(self, name: "KeyName") -> None:
        """Delete the key and its stash; raise KeyNotFound."""

    @abstractmethod
    def version(self, name: "KeyName") -> Version | None:
        """Return the version of what is held, or None where there is no key. Never decrypts."""

    def lock_path(self, name: "KeyName") -> str | None:
        """Return the absolute path of a key's lock file, beside the store, or None where no file can lie.

        The file stays once it was made: a store that has lost it has lost its file system.
        """
        return None


class Listable(ABC):
    """A store that can enumerate its keys."""

    @abstractmethod
    def names(self) -> "Iterator[KeyName]":
        """Yield the name of every key, sorted; never a stash, a lock or a temporary file."""


class Warns(ABC):
    """A store whose keys may be read otherwise, or seen by more people, than their owner thinks."""

    @abstractmethod
    def warnings(self, name: "KeyName") -> list[str]:
        """Say in the user's words what is odd about where a key is now."""


class Stash(ABC):
    """A store that keeps a sealed copy of the replaced key, copied without decrypting."""

    @abstractmethod
    def stash(self, name: "KeyName") -> None:
        """Copy what is held to the stash, durably; raise KeyNotFound where nothing is held."""

    @abstractmethod
    def restore(self, name: "KeyName", *, expect: Version | None = None) -> Version:
        """Make the stash current again, atomically, and keep the stash; raise KeyNotFound without one."""

    @abstractmethod
    def forget(self, name: "KeyName") -> None:
        """Remove the stash, and what a killed run left unfinished beside it; a missing one is no error."""
