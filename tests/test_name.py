import copy

import pytest

from tskeys.errors import UsageError
from tskeys.name import KeyName


@pytest.mark.parametrize(
    "text",
    [
        "web",
        "container-key",
        "web/prod",
        "a.b",
        "_x",
        "0",
        "A" * 64,
        "/".join("abc"),
        "x..y",
        "web-",
        "a/b.c_d-e",
    ],
)
def test_a_name_is_taken_as_it_is(text: str) -> None:
    assert str(KeyName(text)) == text
    assert repr(KeyName(text)) == f"KeyName({text!r})"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "/web",
        "web/",
        "web//prod",
        ".",
        "..",
        "../web",
        "web/../db",
        "web/./prod",
        ".web",
        "web/.prod.previous",
        "-web",
        "web/-x",
        "a b",
        "web\n",
        "\nweb",
        "web\0",
        "web\\prod",
        "wéb",
        "web٣",
        "web:x",
        "web+x",
        "web@unit",
        "~web",
        "*",
        "$(id)",
        "web\ud800",
        "A" * 65,
        "web/" + "A" * 65,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        KeyName(text)
    assert refused.value.exit_code == 2
    assert "container-key" in refused.value.hint
    str(refused.value).encode()  # what a terminal gets can be written to it


def test_parts() -> None:
    top, deep = KeyName("web"), KeyName("a/b/web")
    assert (top.parent, top.leaf, top.sibling(".x")) == ("", "web", ".x")
    assert (deep.parent, deep.leaf, deep.sibling(".x")) == ("a/b", "web", "a/b/.x")


def test_names_compare_by_their_text() -> None:
    assert KeyName("web") == KeyName("web") != KeyName("db")
    assert KeyName("web") != "web"
    assert sorted(map(KeyName, ["b", "a/b", "a"])) == [KeyName("a"), KeyName("a/b"), KeyName("b")]
    assert len({KeyName("web"), KeyName("web"), copy.deepcopy(KeyName("web"))}) == 1
