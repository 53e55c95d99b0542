"""Read tables of a TOML text with every mistake noted, each with its file, line and key."""

import difflib
import json
import os
import re
import tomllib
from collections.abc import Collection
from datetime import timedelta

from tskeys import authkey, duration
from tskeys.config.toml_lines import Path, lines
from tskeys.errors import ConfigError

HINT = "docs/config.md explains every table and key."

_KINDS = (
    (bool, "a boolean"),
    (str, "a string"),
    (int | float, "a number"),
    (dict, "a table"),
    (list, "an array"),
)
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SECRET = re.compile(
    r"(?<![\w/.-])[th]skey-[\w+/=?&.,%:~-]{8,}|[th]skey-[a-z]+-\w{6,}-[\w-]{16,}|\A[0-9a-f]{48}\Z", re.ASCII
)
_AT = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)\Z")


def nearest(word: str, known: Collection[str]) -> str:
    """Return ` (did you mean "…"?)` with the known word that is most like this one, or nothing."""
    folded = {each.lower(): each for each in known}
    found = difflib.get_close_matches(word.lower(), folded, 1)
    return f" (did you mean {quoted(folded[found[0]])}?)" if found else ""


def quoted(value: str) -> str:
    """Return a value for a message: in quotes, with nothing in it that a terminal obeys, not too long."""
    text = authkey.redact(value)
    return json.dumps(text if len(text) <= 60 else text[:60] + "…", ensure_ascii=not text.isprintable())


def dotted(path: Path) -> str:
    """Return a path as TOML writes it, `keys."web/prod".consumers[0].unit`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (authkey.redact(part) if _BARE.fullmatch(part) else quoted(part))
    return text


def kind(value: object) -> str:
    """Return what a TOML value is, in words."""
    return next((words for types, words in _KINDS if isinstance(value, types)), "a date or time")


class Mistakes:
    """All that is wrong with one config."""

    def __init__(self, file: str, text: str) -> None:
        self.file = file
        self._text = text
        self._found: list[tuple[Path, str]] = []
        self._secrets: set[Path] = set()

    def add(self, path: Path, what: str) -> None:
        """Note what is wrong at a path; nothing more is said of one that holds a secret."""
        if not any(path[:end] in self._secrets for end in range(1, len(path) + 1)):
            self._found.append((path, what))

    def forbid_secrets(self, value: object, path: Path = ()) -> None:
        """Note each key or token that stands in a value or as a name; to be called before anything else."""
        if isinstance(value, str) and _SECRET.search(value):
            self.add(
                path,
                "what looks like an auth key or a token stands here, and whoever reads the config has it: "
                "revoke it, and keep the new one in a store or in a file (credential_file)",
            )
            self._secrets.add(path)
        children = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for part, child in children:
            self.forbid_secrets(part, (*path, part))
            self.forbid_secrets(child, (*path, part))

    def report(self) -> None:
        """Raise ConfigError with one line for each mistake, in the order of the file, if there is any."""
        if not self._found:
            return
        where = lines(self._text)
        found = []
        for path, what in self._found:
            line = next(where[path[:end]] for end in range(len(path), -1, -1) if path[:end] in where)
            found.append((line, f"{self.file}:{line}: " + authkey.redact(f"{dotted(path)}: {what}")))
        found.sort(key=lambda each: each[0])
        raise ConfigError("\n".join(dict.fromkeys(text for _, text in found)), hint=HINT)


class Table:
    """One table of a config.

    Each method that reads a value notes a mistake where it is wrong and returns the default instead, so
    that reading goes on; `Mistakes.report` then ends it.
    """

    def __init__(
        self, values: dict[str, object], path: Path, known: Collection[str], mistakes: Mistakes
    ) -> None:
        self.values = values
        self.path = path
        self.mistakes = mistakes
        self._meant: set[str] = set()
        for key in values:
            if key not in known:
                close = nearest(key, known)
                self._meant |= {each for each in known if close == f" (did you mean {quoted(each)}?)"}
                self.wrong(key, f"is not known here{close or '; known are ' + ', '.join(known)}")

    def given(self, key: str) -> bool:
        """Tell whether a key is there, or an unknown one was meant to be it."""
        return key in self.values or key in self._meant

    def wrong(self, key: str, what: str) -> None:
        """Note what is wrong with a key of this table."""
        self.mistakes.add((*self.path, key), what)

    def need(self, key: str, example: str) -> None:
        """Note that a key is missing, unless it is given."""
        if not self.given(key):
            self.wrong(key, f"is missing; write {key} = {example}")

    def text(self, key: str, default: str = "", *, example: str = '"…"') -> str:
        """Return a string, which is not empty if it is there."""
        value = self.values.get(key, default)
        if not isinstance(value, str):
            self.wrong(key, f"is {kind(value)} and must be a string, as {example}")
        elif key in self.values and not value.strip():
            self.wrong(key, "is empty")
        elif not value.isprintable():
            self.wrong(key, "holds a line break or another character that cannot be printed")
        else:
            return value
        return default

    def flag(self, key: str) -> bool:
        """Return a boolean, by default false."""
        value = self.values.get(key, False)
        if isinstance(value, bool):
            return value
        self.wrong(key, f"is {kind(value)}; write true or false")
        return False

    def texts(self, key: str, *, example: str) -> tuple[str, ...]:
        """Return an array of strings."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            what = (
                f"holds {kind(next(v for v in value if not isinstance(v, str)))}"
                if isinstance(value, list)
                else ""
            )
            self.wrong(
                key, f"{what or 'is ' + kind(value)} and must be an array of strings; write {key} = {example}"
            )
            return ()
        return tuple(value)

    def choice(self, key: str, words: Collection[str], default: str) -> str:
        """Return one of some words."""
        value = self.text(key, default)
        if value not in words and value != default:
            self.wrong(key, f"{quoted(value)} is none of {', '.join(words)}{nearest(value, words)}")
            return default
        return value

    def duration(self, key: str, default: timedelta, *, positive: bool = False) -> timedelta:
        """Return a duration."""
        value = self.text(key, example='"90d" or "30s"')
        try:
            found = duration.parse(value) if value else default
        except ValueError as error:
            self.wrong(key, f"{quoted(value)} {error}")
            return default
        if positive and not found:
            self.wrong(key, "must be longer than 0s")
            return default
        return found

    def file(self, key: str, default: str = "") -> str:
        """Return an absolute path without `.`, `..`, a double slash or one at the end."""
        value = self.text(key, default)
        if value and not value.startswith("/"):
            self.wrong(
                key, f"{quoted(value)} is no absolute path; ~ and relative ones work on the command line only"
            )
        elif value and (value != os.path.normpath(value) or value == "/"):
            self.wrong(
                key,
                f"{quoted(value)} is no plain path of a file; write it without //, . , .. and a / at its end",
            )
        else:
            return value
        return default

    def table(self, key: str, known: Collection[str]) -> "Table | None":
        """Return a table below this one, or None."""
        value = self.values.get(key)
        if isinstance(value, dict):
            return Table(value, (*self.path, key), known, self.mistakes)
        if value is not None:
            self.wrong(key, f"is {kind(value)} and must be a table, [{dotted((*self.path, key))}]")
        return None

    def named(self, key: str, known: Collection[str]) -> "dict[str, Table]":
        """Return the tables of a table, `[stores.NAME]`, by their names."""
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            self.wrong(key, f"is {kind(value)}; write [{key}.NAME] for each")
            return {}
        found = {}
        for name, each in value.items():
            if isinstance(each, dict):
                found[name] = Table(each, (*self.path, key, name), known, self.mistakes)
            else:
                path = (*self.path, key, name)
                self.mistakes.add(path, f"is {kind(each)} and must be a table; write [{key}.NAME] for each")
        return found

    def tables(self, key: str, known: Collection[str]) -> "list[Table]":
        """Return an array of tables, `[[…]]`."""
        value = self.values.get(key, [])
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            self.wrong(key, f"must be an array of tables; write [[{dotted((*self.path, key))}]] for each")
            return []
        return [Table(each, (*self.path, key, at), known, self.mistakes) for at, each in enumerate(value)]


def parse(file: str, text: str, known: Collection[str]) -> Table:
    """Return the top of a config; raise ConfigError with line and column where it is not TOML."""
    try:
        values = tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{file}: is nested too deeply", hint=HINT) from None
    except ValueError as error:
        what = authkey.redact(str(error))
        at = _AT.search(what)
        end = (text.count("\n") + 1, len(text) - text.rfind("\n"))
        line, column = at.groups() if at and at[1] else end
        what = _AT.sub("", what)
        raise ConfigError(
            f"{file}:{line}:{column}: is not TOML: {what[:1].lower()}{what[1:]}", hint=HINT
        ) from None
    mistakes = Mistakes(file, text)
    mistakes.forbid_secrets(values)
    return Table(values, (), known, mistakes)
