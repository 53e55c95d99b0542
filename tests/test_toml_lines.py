import time
import tomllib

import pytest

from tskeys.config.toml_lines import Path, lines

CASES: list[tuple[str, dict[Path, int]]] = [
    ("", {(): 1}),
    ("# only a comment", {(): 1}),
    ("\n\na = 1\n", {(): 1, ("a",): 3}),
    ("a = 1\nb = 2", {(): 1, ("a",): 1, ("b",): 2}),
    ("[t]\na = 1\n", {(): 1, ("t",): 1, ("t", "a"): 2}),
    ("  [ t . u ]  # why\n  a = 1\n", {(): 1, ("t",): 1, ("t", "u"): 1, ("t", "u", "a"): 2}),
    ("a.b = 1\na.c = 2\n", {(): 1, ("a",): 1, ("a", "b"): 1, ("a", "c"): 2}),
    ("\"a.b\".'c d' = 1\n", {(): 1, ("a.b",): 1, ("a.b", "c d"): 1}),
    (
        '[keys."web/[prod]"]\na = 1\n',
        {(): 1, ("keys",): 1, ("keys", "web/[prod]"): 1, ("keys", "web/[prod]", "a"): 2},
    ),
    ("a = {b = 1, c = {d = 2}}\n", {(): 1, ("a",): 1, ("a", "b"): 1, ("a", "c"): 1, ("a", "c", "d"): 1}),
    ('a = [\n  1, # ]\n  "]",\n]\nb = 1\n', {(): 1, ("a",): 1, ("a", 0): 1, ("a", 1): 1, ("b",): 5}),
    ('a = """\n[no]\nb = 1\n\\"""" # c\nd = 1\n', {(): 1, ("a",): 1, ("d",): 5}),
    ("a = '''\n[no]\nb = \"'''\nd = 1\n", {(): 1, ("a",): 1, ("d",): 4}),
    (
        'a = """x"""""\nb = """"""\nc = \'\'\'\'x\'\'\'\'\'\nd = ""\ne = 1',
        {(): 1} | {(k,): n for n, k in enumerate("abcde", 1)},
    ),
    ('a = "#\\"[" # "\nb = \'\\\' # \'\nc = 1\n', {(): 1, ("a",): 1, ("b",): 2, ("c",): 3}),
    ("a = \"\"\"x\"\"\"\" # \"[\nb = ''''x'''' # '[\nc = 1", {(): 1, ("a",): 1, ("b",): 2, ("c",): 3}),
    ("a = 1\r\nb = [\r\n1]\r\nc = 2\r\n", {(): 1, ("a",): 1, ("b",): 2, ("b", 0): 2, ("c",): 4}),
    (
        "[[a]]\nx = 1\n[[a.b]]\ny = 1\n[[a.b]]\n[a.b.c]\nz = 1\n[[a]]\nx = 2\n",
        {
            (): 1,
            ("a",): 1,
            ("a", 0): 1,
            ("a", 0, "x"): 2,
            ("a", 0, "b"): 3,
            ("a", 0, "b", 0): 3,
            ("a", 0, "b", 0, "y"): 4,
            ("a", 0, "b", 1): 5,
            ("a", 0, "b", 1, "c"): 6,
            ("a", 0, "b", 1, "c", "z"): 7,
            ("a", 1): 8,
            ("a", 1, "x"): 9,
        },
    ),
    ("[t.u]\n[t]\na = 1\n", {(): 1, ("t",): 1, ("t", "u"): 1, ("t", "a"): 3}),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_lines(text: str, expected: dict[Path, int]) -> None:
    assert lines(text) == expected


@pytest.mark.parametrize("text", [text for text, _ in CASES])
def test_every_value_has_a_line(text: str) -> None:
    def paths(value: object, path: Path = ()) -> set[Path]:
        found = {path}
        children = (
            value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        )
        for name, child in children:
            found |= paths(child, (*path, name))
        return found

    assert set(lines(text)) == paths(tomllib.loads(text))


def test_takes_no_longer_than_the_text_is_long() -> None:
    for text in ("a = [\n" + "1,\n" * 30_000 + "]\n", 'a = """\n' + '"\n' * 100_000 + '"""\n'):
        began = time.monotonic()
        lines(text)

        assert time.monotonic() - began < 5
