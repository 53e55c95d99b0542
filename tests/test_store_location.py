import pytest

from tskeys.errors import UsageError
from tskeys.store import ABSENT, KeyStore, Location, Version


def test_a_location_has_a_scheme_a_path_and_options() -> None:
    where = Location("age:/etc/tskeys?recipient=a&recipient=b&identity=/root/id&flag")

    assert (where.scheme, where.path) == ("age", "/etc/tskeys")
    assert where.options("recipient") == ["a", "b"]
    assert where.option("identity") == "/root/id"
    assert where.option("flag") == ""
    assert where.option("none") is None
    assert where.options("none") == []
    assert str(where) == where.text
    where.allow("recipient", "identity", "flag")


def test_it_is_percent_encoded() -> None:
    where = Location("file:/a%20b%3fc/%C3%A9%ff?k%3d=v%26w")

    assert where.path == "/a b?c/é\udcff"
    assert where.option("k=") == "v&w"
    assert Location("file:/a+b").path == "/a+b"
    assert Location("file:/?a=b=c").option("a") == "b=c"


@pytest.mark.parametrize(
    "text", ["file:/a%", "file:/a%2", "file:/a%zz", "file:/a%  b", "file:/a%+1", "file:/a%00b", "f:?a=%"]
)
def test_a_wrong_percent_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="hexadecimal"):
        Location(text)


@pytest.mark.parametrize(
    "text", ["", "web", "/etc/keys", ":/etc", "a b:/etc", "fi-le:/etc", "é:/etc", "../x:y"]
)
def test_what_is_no_location_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a location"):
        Location(text)


def test_an_unknown_option_names_the_known() -> None:
    with pytest.raises(UsageError, match="no option 'identiy'") as refused:
        Location("age:/x?identiy=y").allow("identity", "recipient")
    assert "identity, recipient" in refused.value.hint


def test_an_option_is_not_given_twice() -> None:
    with pytest.raises(UsageError, match="2 times"):
        Location("envfile:/x?var=A&var=B").option("var")


@pytest.mark.parametrize("text", ["file:", "file:keys", "file:./keys", "file:~/keys", "file:?a=b"])
def test_a_relative_path_is_for_the_command_line(text: str) -> None:
    with pytest.raises(UsageError, match="not absolute"):
        Location(text).absolute_path()


def test_locations_compare_by_their_text() -> None:
    assert Location("file:/a") == Location("file:/a") != Location("file:/b")
    assert Location("file:/a") != "file:/a"
    assert len({Location("file:/a"), Location("file:/a")}) == 1
    assert Location("FILE:/a").scheme == "file"
    assert repr(Location("file:/a")) == "Location('file:/a')"


def test_a_version_tells_bytes_apart() -> None:
    assert Version.of(b"a") == Version.of(b"a") != Version.of(b"b")
    assert ABSENT not in (Version.of(b""), Version.of(b"absent"))
    assert b"a" * 8 not in Version.of(b"a" * 8).encode()


def test_a_half_written_backend_fails_when_it_is_made() -> None:
    class Half(KeyStore):
        scheme = "half"

        @classmethod
        def open(cls, location: Location) -> "Half":
            return cls()

    with pytest.raises(TypeError, match="abstract"):
        Half.open(Location("half:"))
