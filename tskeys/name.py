"""The user's name of a key."""

from tskeys.errors import UsageError

_FIRST = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_REST = _FIRST | frozenset(".-")


class KeyName:
    """Parse a key name: segments `[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}` joined by `/`, 200 characters at most.

    Raises UsageError. A backend that is handed a KeyName never sees `../x`, a hidden file or a blank.
    """

    __slots__ = ("leaf", "parent", "text")

    def __init__(self, text: str) -> None:
        if len(text) > 200:
            raise UsageError(
                f"{text[:20]!r}… is not a key name: it has {len(text)} characters, and 200 is the most"
            )
        for segment in text.split("/"):
            if not segment or segment[0] not in _FIRST or not _REST.issuperset(segment) or len(segment) > 64:
                raise UsageError(
                    f"{text!r} is not a key name: the segment {segment!r} is not 1 to 64 of A-Z a-z 0-9 "
                    "_ . - with a letter, digit or _ first",
                    hint="Names look like container-key or web/prod.",
                )
        self.text = text
        self.parent, _, self.leaf = text.rpartition("/")

    def sibling(self, leaf: str) -> str:
        """Return the relative path of a file beside this key, as `web/.prod.previous` beside `web/prod`."""
        return f"{self.parent}/{leaf}" if self.parent else leaf

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"KeyName({self.text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyName) and self.text == other.text

    def __lt__(self, other: "KeyName") -> bool:
        return self.text < other.text

    def __hash__(self) -> int:
        return hash(self.text)
