"""What python-dotenv reads from a `.env` file, and how to change one variable of it.

python-dotenv parses (`dotenv.parser`, which keeps the text of each statement) and is the oracle: a change is
made only where it then reads the wanted value, and for every other variable what it read before. Its own
`set_key` is of no use here: it drops `export`, comments and CR LF, and replaces symlinks.
"""

import io
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_CAPITALS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_DIGITS = frozenset("0123456789")
_WORD = _CAPITALS | _DIGITS | frozenset("abcdefghijklmnopqrstuvwxyz")
# What python-dotenv, a shell and `docker --env-file`, which knows no quotes, read alike.
_BARE = _WORD | frozenset("-.:/+=@%,")
_BOM = "\ufeff"
# As in dotenv.parser; the groups are what stands before the name, its value, and what follows that.
_STATEMENT = re.compile(
    r"""(\s*(?:export[^\S\r\n]+)?)
        (?:'[^']+'|[^=\#\s]+)[^\S\r\n]*
        =(?:
            [^\S\r\n]*(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")
            |[^\S\r\n]+(?=\#)
            |.*?(?=\s+\#|[^\S\r\n]*(?:[\r\n]|\Z))
        )(.*)\Z""",
    re.VERBOSE | re.DOTALL,
)


class Unreadable(Exception):
    """python-dotenv refuses the file or would not read back what was asked for; the text shows no value."""


class Assignment:
    """One statement that python-dotenv reads: `text[start:end]` with the blank lines before it."""

    __slots__ = ("end", "name", "start", "value")

    def __init__(self, name: str, value: str | None, start: int, end: int) -> None:
        self.name = name
        self.value = value
        self.start = start
        self.end = end


def is_variable(name: str) -> bool:
    """Tell whether a shell takes this for the name of a variable."""
    return bool(name) and name[0] not in _DIGITS and _WORD.issuperset(name)


def in_capitals(name: str) -> bool:
    """Tell whether this is `[A-Z_][A-Z0-9_]*`."""
    return bool(name) and name[0] in _CAPITALS and (_CAPITALS | _DIGITS).issuperset(name)


def decode(data: bytes) -> str:
    """Return the text of a file. Raises Unreadable."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Unreadable(f"line {line}: is not UTF-8, so that python-dotenv refuses the file") from None


def lookup(text: str, variable: str) -> str | None:
    """Return what python-dotenv reads, with no `${…}` filled in, or None where it is not set.

    Raises Unreadable, also where a statement about this variable cannot be parsed.
    """
    values = [a.value for a in _assignments(text, variable) if a.name == variable]
    return values[-1] if values else None


def variables(text: str) -> list[str]:
    """Return the names of the variables that are set, each once, in order. Raises Unreadable."""
    values = {a.name: a.value for a in _assignments(text)}
    return [name for name, value in values.items() if value is not None]


def interpolated(value: str) -> bool:
    """Tell whether python-dotenv fills in a part of this value from the environment, quoted or not."""
    return "}" in value.partition("${")[2]


def replace(text: str, variable: str, key: bytes) -> str:
    """Return the file with this value, and with every other byte as it was.

    The last assignment, which is the one that counts, is replaced; earlier ones are removed with their
    lines, so that no old key is left. Without one a line is added at the end. Raises Unreadable.
    """
    value = decode(key)
    line = f"{variable}={quoted(value)}"
    found = [a for a in _assignments(text, variable) if a.name == variable]
    if any(a.value is None for a in found):
        raise Unreadable(
            f"{variable} stands there without a value, so that python-dotenv does not set it; write "
            f"`export {variable}=…` in one line"
        )
    if found:
        last = found.pop()
        match = _STATEMENT.match(text[last.start : last.end])
        if match is None:
            raise Unreadable(f"line {_line(text, last.start)}: {variable} cannot be replaced")
        before, after = match.groups()
        # What follows is a comment, the line's end, or blanks that docker would take for a part of the key.
        after = f" {after}" if after.startswith("#") else after
        after = after if "#" in after else re.sub(r"\A[^\S\r\n]+", "", after)
        changed = _without(text[: last.start] + before + line + after + text[last.end :], found)
    else:
        eol = "\r\n" if text.endswith("\r\n") or ("\r\n" in text and text[-1:] != "\n") else "\n"
        changed = text + ("" if not text or text[-1] in "\r\n" else eol) + line + eol
    _check(text, changed, variable, [value])
    return changed


def remove(text: str, variable: str) -> str:
    """Return the file without the lines of this variable. Raises Unreadable."""
    found = [a for a in _assignments(text, variable) if a.name == variable]
    changed = _without(text, found)
    _check(text, changed, variable, [])
    return changed


def quoted(value: str) -> str:
    """Write a value so that python-dotenv and a shell read it back. Raises Unreadable where they cannot."""
    if _BARE.issuperset(value):
        return value
    if "\0" not in value and "\r" not in value and not interpolated(value):
        if "'" not in value and "\\" not in value:
            return f"'{value}'"
        if "$" not in value and "`" not in value:
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    raise Unreadable("there is no way to write such a value that python-dotenv and a shell read alike")


def shell_differs(text: str, variable: str) -> str:
    """Say what a shell does with the assignment that python-dotenv does not, or return nothing."""
    last = [a for a in _assignments(text, variable) if a.name == variable][-1:]
    if last and "\r" in text[last[0].start : last[0].end].lstrip():
        return f"takes the CR at the line's end for a part of {variable}"
    if last and last[0].start == len(_BOM) and text.startswith(_BOM):
        return f"takes the byte order mark for a part of the name {variable}"
    return ""


def docker_differs(text: str, variable: str, value: str | None) -> str:
    """Say what `docker --env-file` does with the file that python-dotenv does not, or return nothing.

    docker/cli, pkg/kvfile: a comment only where a line begins with #, a value is all that follows the =.
    """
    held = None
    for line in text.removeprefix(_BOM).split("\n"):
        name, equals, rest = line.removesuffix("\r").lstrip().partition("=")
        if not name or name.startswith("#"):
            if equals and not name:
                return "refuses it: a line begins with ="
            continue
        if " " in name or "\t" in name:
            return "refuses it: there is a blank before a =, as in `export A=b`"
        if equals and name == variable:
            held = rest
    if held == value:
        return ""
    if held is not None and held[:1] in ("'", '"'):
        return f"keeps the quotes around {variable}"
    return f"reads another {variable}: it takes comments and blanks after a value for a part of it"


def _assignments(text: str, variable: str = "") -> "Iterator[Assignment]":
    # A file is read with all line ends as \n, which may stand inside of quotes, so that the text as it is
    # gives the places and the text as it is read the values.
    read = iter(_parsed(text.replace("\r\n", "\n").replace("\r", "\n"), ""))
    for name, _, start, end in _parsed(text, variable):
        same, value, *_ = next(read, (None, None, 0, 0))
        if same != name:
            raise Unreadable("python-dotenv reads its line ends in two ways")
        yield Assignment(name, value, start, end)


def _parsed(text: str, variable: str) -> "Iterator[tuple[str, str | None, int, int]]":
    from dotenv.parser import parse_stream

    at = len(_BOM) if text.startswith(_BOM) else 0
    for binding in parse_stream(io.StringIO(text[at:], newline="")):
        start, at = at, at + len(binding.original.string)
        if binding.key is not None:
            yield binding.key, binding.value, start, at
        elif binding.error and variable and _about(text[start:at], variable):
            line = _line(text, at - len(text[start:at].lstrip()))
            raise Unreadable(
                f"line {line}: python-dotenv cannot parse it, and it is about {variable}; is there a quote "
                "that is never closed, or text after one?"
            )


def _about(statement: str, variable: str) -> bool:
    return re.match(rf"\s*(?:export\s+)?'?{re.escape(variable)}'?\s*(?:=|$)", statement) is not None


def _without(text: str, assignments: list[Assignment]) -> str:
    for assignment in reversed(assignments):
        statement = text[assignment.start : assignment.end]
        # The blank lines before it are not its own.
        blank = statement[: len(statement) - len(statement.lstrip())]
        start = assignment.start + max(blank.rfind("\n"), blank.rfind("\r")) + 1
        text = text[:start] + text[assignment.end :]
    return text


def _check(before: str, after: str, variable: str, wanted: list[str]) -> None:
    was = [(a.name, a.value) for a in _assignments(before) if a.name != variable]
    now = list(_assignments(after))
    if [a.value for a in now if a.name == variable] != wanted or was != [
        (a.name, a.value) for a in now if a.name != variable
    ]:
        raise Unreadable(
            f"python-dotenv would not read {variable} back; is there a quote that is never closed?"
        )


def _line(text: str, at: int) -> int:
    return text.replace("\r\n", "\n").replace("\r", "\n").count("\n", 0, at) + 1
