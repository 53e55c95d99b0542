"""Durations as people write them: `90d`, `1h30m`."""

import re
from datetime import timedelta

_UNITS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
_FORM = re.compile("".join(f"(?:([0-9]+){unit})?" for unit in _UNITS))


def parse(text: str) -> timedelta:
    """Return the duration that a text such as `90d`, `0s` or `1h30m` means.

    Numbers of weeks, days, hours, minutes and seconds, largest unit first, without blanks. Raises ValueError.
    """
    match = _FORM.fullmatch(text)
    if not match or not text:
        raise ValueError("is no duration: write numbers with w, d, h, m or s, as 90d, 12h or 1h30m")
    amounts = zip(match.groups(default="0"), _UNITS.values(), strict=True)
    try:
        return timedelta(seconds=sum(int(number) * seconds for number, seconds in amounts))
    except (OverflowError, ValueError):  # the latter from int(), for thousands of digits
        raise ValueError("is longer than any key lives") from None


def show(duration: timedelta) -> str:
    """Return a duration for people, cut to its largest unit: `29 d`, `36 h`, `-5 min`, `0 s`.

    A unit is used from two of it on, or where it fits exactly, so that 36 hours are not one day.
    """
    seconds = int(abs(duration).total_seconds())
    sign = "-" if duration < timedelta(0) and seconds else ""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size or seconds == size:
            return f"{sign}{seconds // size} {unit}"
    return f"{sign}{seconds} s"
