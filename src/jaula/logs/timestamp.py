"""RFC 3339 times in UTC with nine digits of nanoseconds.

All have the same width, so they compare as text.
"""

from __future__ import annotations

import time

WIDTH = len("2006-01-02T15:04:05.999999999Z")


class Clock:
    """The current time as text. The calendar part is formatted once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def now(self) -> str:
        second, fraction = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._second, self._text = second, _calendar(second)
        return f"{self._text}.{fraction:09d}Z"


def format_time(nanoseconds: int) -> str:
    """Format nanoseconds since 1970. A time out of RFC 3339's range becomes the nearest in it."""
    second, fraction = divmod(nanoseconds, 1_000_000_000)
    if second < 0:
        second, fraction = 0, 0
    elif second > 253402300799:  # the end of the year 9999
        second, fraction = 253402300799, 999_999_999
    return f"{_calendar(second)}.{fraction:09d}Z"


def pad_fraction(stamp: str) -> str:
    """Return ``stamp`` with all nine digits. Other writers omit trailing zeros."""
    if len(stamp) == WIDTH or not stamp.endswith("Z"):
        return stamp
    calendar, _, fraction = stamp[:-1].partition(".")
    return f"{calendar}.{fraction:0<9}Z"


def _calendar(second: int) -> str:
    year, month, day, hour, minute, sec, *_ = time.gmtime(second)
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{sec:02d}"
