"""Where each key of a TOML text stands; tomllib does not say."""

import re
import tomllib

Path = tuple[str | int, ...]
"""The way to a value: names of tables and keys, and the index in an array."""

# What may hold a newline, a bracket or a # that means nothing; the longest form of a string comes first.
_PIECE = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|[\[\]{}\n]",
    re.DOTALL,
)


def lines(text: str) -> dict[Path, int]:
    """Return the line, from 1, on which each key and table of a valid TOML text begins.

    What stands in an inline table or an array has the line of its key. Takes time in proportion to the
    text. A text that tomllib refuses raises its TOMLDecodeError, or gives an answer without meaning.
    """
    found: dict[Path, int] = {(): 1}
    arrays: dict[Path, int] = {}
    table: Path = ()
    for line, statement in _statements(text.replace("\r\n", "\n")):
        parsed = tomllib.loads(statement)
        if statement.lstrip().startswith("["):
            table = _header(parsed, arrays)
            for end in range(1, len(table) + 1):
                found.setdefault(table[:end], line)
        else:
            _note(found, table, parsed, line)
    return found


def _statements(text: str) -> list[tuple[int, str]]:
    found = []
    begin = depth = 0
    line = first = 1
    for match in _PIECE.finditer(text + "\n"):
        piece = match.group()
        depth += (piece in ("[", "{")) - (piece in ("]", "}"))
        line += piece.count("\n")
        if piece == "\n" and depth == 0:
            statement = text[begin : match.start()].strip()
            if statement and not statement.startswith("#"):
                found.append((first, statement))
            begin, first = match.end(), line
    return found


def _header(parsed: dict[str, object], arrays: dict[Path, int]) -> Path:
    """Return the path of the table that a header opens, and count it if it is one of an array."""
    path: Path = ()
    here: object = parsed
    while isinstance(here, dict) and here:
        ((name, here),) = here.items()
        path = (*path, name)
        if isinstance(here, list):
            arrays[path] = arrays.get(path, 0) + 1
            here = None
        if path in arrays:
            path = (*path, arrays[path] - 1)
    return path


def _note(found: dict[Path, int], path: Path, value: object, line: int) -> None:
    found.setdefault(path, line)
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for name, child in children:
        _note(found, (*path, name), child, line)
