from datetime import timedelta

import pytest

from tskeys import duration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90d", timedelta(days=90)),
        ("12h", timedelta(hours=12)),
        ("30m", timedelta(minutes=30)),
        ("45s", timedelta(seconds=45)),
        ("2w", timedelta(weeks=2)),
        ("0s", timedelta(0)),
        ("1h30m", timedelta(minutes=90)),
        ("1w1d1h1m1s", timedelta(weeks=1, days=1, hours=1, minutes=1, seconds=1)),
        ("090d", timedelta(days=90)),
    ],
)
def test_parse(text: str, expected: timedelta) -> None:
    assert duration.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "90", "d", "90 d", "-1d", "1.5h", "1m1h", "1d1d", "90D", "1y", "1d\n", "٣d", " 1d", "1h30"]
)
def test_parse_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="write numbers with w, d, h, m or s, as 90d"):
        duration.parse(text)


@pytest.mark.parametrize("text", ["1000000000d", f"{'9' * 400}d", f"{'9' * 5000}d"])
def test_parse_refuses_what_no_timedelta_holds(text: str) -> None:
    with pytest.raises(ValueError, match="is longer than any key lives"):
        duration.parse(text)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (timedelta(days=29, hours=23), "29 d"),
        (timedelta(days=2), "2 d"),
        (timedelta(days=1), "1 d"),
        (timedelta(hours=36), "36 h"),
        (timedelta(hours=3, minutes=59), "3 h"),
        (timedelta(hours=1), "1 h"),
        (timedelta(minutes=90), "90 min"),
        (timedelta(minutes=1), "1 min"),
        (timedelta(seconds=119), "119 s"),
        (timedelta(microseconds=999_999), "0 s"),
        (timedelta(0), "0 s"),
        (timedelta(minutes=-5), "-5 min"),
        (timedelta(microseconds=-1), "0 s"),
    ],
)
def test_show(given: timedelta, expected: str) -> None:
    assert duration.show(given) == expected
