"""What systemd reads from an EnvironmentFile=, and how to change one variable of it.

The rules are those of systemd's src/basic/env-file.c and env-util.c, which are no shell's: a lone CR ends a
line, `export A=b` names a variable with a blank in it and is dropped, `$` and `#` inside a value are
ordinary, quotes count only before the first bare character of a value, a backslash outside of single quotes
is an escape, and one value that is not UTF-8 makes systemd refuse the whole file.

systemd 254 changed one of them: up to 253 a comment that ends in a backslash goes on in the next line. Both
ways are read; where they disagree on what was asked for, the file is refused.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_NEWLINE = b"\n\r"
_BLANK = b" \t"
_SPACE = _NEWLINE + _BLANK
_ESCAPED = b'"\\`$'
_WORD = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
_DIGITS = frozenset(b"0123456789")
# What systemd, a shell and `docker --env-file`, which knows no quotes, read alike.
_BARE = _WORD | frozenset(b"-.:/+=@%,?")


class Unreadable(Exception):
    """systemd refuses the file or would not read back what was asked for; the text shows no value."""


class Assignment:
    """One assignment: `data[start:end]` without its line end. `closed` is False for an open quote."""

    __slots__ = ("closed", "end", "name", "start", "value")

    def __init__(self, name: bytes, value: bytes, start: int, end: int, closed: bool) -> None:
        self.name = name
        self.value = value
        self.start = start
        self.end = end
        self.closed = closed


def is_variable(name: bytes) -> bool:
    """Tell whether systemd takes this for the name of a variable."""
    return bool(name) and name[0] not in _DIGITS and _WORD.issuperset(name)


def lookup(data: bytes, variable: bytes) -> bytes | None:
    """Return what a unit gets as this variable, or None where it is not set. Raises Unreadable."""
    old, new = ([a.value for a in found if a.name == variable][-1:] for found in _both(data))
    if old != new:
        raise _ambiguous(data)
    return old[0] if old else None


def variables(data: bytes) -> list[bytes]:
    """Return the names of the variables that are set, each once, in order. Raises Unreadable."""
    old, new = (list(dict.fromkeys(a.name for a in found)) for found in _both(data))
    if old != new:
        raise _ambiguous(data)
    return old


def exported(data: bytes, variable: bytes) -> bool:
    """Tell whether there is an `export VARIABLE=`, which a shell reads and systemd drops."""
    return any(line.split(b"=")[0].split() == [b"export", variable] for line in data.splitlines())


def replace(data: bytes, variable: bytes, value: bytes) -> bytes:
    """Return the file with this value, and with every other byte as it was.

    The last assignment, which is the one that counts, is replaced; earlier ones are removed with their
    lines, so that no old key is left. Without one a line is added at the end. Raises Unreadable.
    """
    line = variable + b"=" + quoted(value)
    found = _own(data, variable)
    if found:
        last = found.pop()
        changed = _without(data[: last.start] + line + data[last.end :], found)
        if _holds(data, changed, variable, [value]):
            return changed
    else:
        eol = b"\r\n" if data.endswith(b"\r\n") or (b"\r\n" in data and data[-1:] != b"\n") else b"\n"
        # A last line without an end, or one with a backslash before it, would swallow what follows.
        start = b"" if not data or data[-1] in _NEWLINE else eol
        for separator in (start, start + eol):
            changed = data + separator + line + eol
            if _holds(data, changed, variable, [value]):
                return changed
    raise _ambiguous(data)


def remove(data: bytes, variable: bytes) -> bytes:
    """Return the file without the lines of this variable. Raises Unreadable."""
    changed = _without(data, _own(data, variable))
    if not _holds(data, changed, variable, []):
        raise _ambiguous(data)
    return changed


def quoted(value: bytes) -> bytes:
    """Write a value so that systemd and a shell read it back. Raises Unreadable where systemd cannot."""
    if b"\0" in value or not _is_text(value):
        raise Unreadable(
            "systemd passes on no value that is not UTF-8, or that holds a NUL or a noncharacter"
        )
    if _BARE.issuperset(value):
        return value
    if b"'" not in value:
        return b"'" + value + b"'"
    for special in (b"\\", b'"', b"`", b"$"):
        value = value.replace(special, b"\\" + special)
    return b'"' + value + b'"'


def _own(data: bytes, variable: bytes) -> list[Assignment]:
    found = list(assignments(data, joined=True))
    if found and not found[-1].closed:
        raise Unreadable(
            f"line {_line(data, found[-1].start)}: a quote is never closed, so that systemd takes the "
            "rest of the file for its value; close it first"
        )
    return [assignment for assignment in found if assignment.name == variable]


def _holds(before: bytes, after: bytes, variable: bytes, wanted: list[bytes]) -> bool:
    # Whether after the change this variable is there as wanted, and all others are as they were.
    for old, new in zip(_both(before), _both(after), strict=True):
        if [a.value for a in new if a.name == variable] != wanted:
            return False
        kept, now = ([(a.name, a.value) for a in each if a.name != variable] for each in (old, new))
        if kept != now:
            return False
    return True


def _without(data: bytes, assignments: list[Assignment]) -> bytes:
    for assignment in reversed(assignments):
        start, end = assignment.start, assignment.end
        while start and data[start - 1] in _BLANK:
            start -= 1
        end += 2 if data[end : end + 2] == b"\r\n" else 1
        data = data[:start] + data[end:]
    return data


def _both(data: bytes) -> tuple[list[Assignment], list[Assignment]]:
    old = list(assignments(data, joined=True))
    if b"\\\n" in data or b"\\\r" in data:
        return old, list(assignments(data, joined=False))
    return old, old


def assignments(data: bytes, *, joined: bool) -> "Iterator[Assignment]":
    """Yield each valid assignment; `joined` is how comments were read before systemd 254."""
    if b"\0" in data:
        raise Unreadable(
            f"line {_line(data, data.index(0))}: holds a NUL byte, so that systemd refuses the file"
        )
    at, size = 0, len(data)
    while at < size:
        if data[at] in _SPACE:
            at += 1
        elif data[at] in b"#;":
            at = _comment_end(data, at, joined)
        else:
            start, end = at, _line_end(data, at)
            # The first character belongs to the name even where it is a =.
            equals = data.find(b"=", start + 1, end)
            if equals < 0:
                at = end
                continue
            name = data[start:equals].rstrip(_BLANK)
            value, at, closed = _value(data, equals + 1)
            if not (_is_text(name) and _is_text(value)):
                raise Unreadable(f"line {_line(data, start)}: is not UTF-8, so that systemd refuses the file")
            if is_variable(name):
                yield Assignment(name, value, start, at, closed)


def _value(data: bytes, at: int) -> tuple[bytes, int, bool]:
    """Return the value that begins here, where it ends, and whether its last quote was closed."""
    out = bytearray()
    size = len(data)
    while at < size and data[at] in b" \t\"'":
        mark = data[at]
        at += 1
        if mark in _BLANK:
            continue
        at = _single(data, at, out) if mark == 0x27 else _double(data, at, out)
        if at > size:
            return bytes(out), size, False
    solid = len(out)  # blanks up to here were quoted or escaped, those after it may end the value
    while at < size and data[at] not in _NEWLINE:
        if data[at] == 0x5C:
            at += 1
            if at < size and data[at] not in _NEWLINE:
                out.append(data[at])
            solid = len(out)
        else:
            out.append(data[at])
            if data[at] not in _BLANK:
                solid = len(out)
        at += 1
    return bytes(out[:solid]), min(at, size), True


def _single(data: bytes, at: int, out: bytearray) -> int:
    # Like _double: returns where the quote ended, or more than the size where it did not.
    end = data.find(b"'", at)
    out += data[at:] if end < 0 else data[at:end]
    return len(data) + 1 if end < 0 else end + 1


def _double(data: bytes, at: int, out: bytearray) -> int:
    while at < len(data):
        if data[at] == 0x22:
            return at + 1
        if data[at] == 0x5C and at + 1 < len(data):
            at += 1
            if data[at] == 0x0A:
                at += 1
                continue
            if data[at] not in _ESCAPED:
                out.append(0x5C)
        elif data[at] == 0x5C:
            break
        out.append(data[at])
        at += 1
    return len(data) + 1


def _comment_end(data: bytes, at: int, joined: bool) -> int:
    while at < len(data) and data[at] not in _NEWLINE:
        at += 2 if joined and data[at] == 0x5C else 1
    return at


def _line_end(data: bytes, at: int) -> int:
    while at < len(data) and data[at] not in _NEWLINE:
        at += 1
    return at


def _is_text(data: bytes) -> bool:
    # systemd's utf8_is_valid refuses noncharacters too, and agrees with Python on everything else.
    if data.isascii():
        return True
    try:
        points = [ord(character) for character in data.decode()]
    except UnicodeDecodeError:
        return False
    return not any(0xFDD0 <= point <= 0xFDEF or point & 0xFFFE == 0xFFFE for point in points)


def _line(data: bytes, at: int) -> int:
    return data.count(b"\n", 0, at) + 1


def _ambiguous(data: bytes) -> Unreadable:
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.lstrip()[:1] in (b"#", b";") and line.rstrip(b"\r").endswith(b"\\"):
            return Unreadable(
                f"line {number}: a comment ends in a backslash, and systemd before 254 takes the next line "
                "for a part of it while later ones do not; remove the backslash"
            )
    return Unreadable("systemd would not read the variable back; is there a quote that is never closed?")
