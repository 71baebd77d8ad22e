"""RFC 3339 times with nine digits of nanoseconds, in UTC, made and compared cheaply.

All have one width, so that their order is the order of their text.
"""

from __future__ import annotations

import time

WIDTH = len("2006-01-02T15:04:05.999999999Z")


class Clock:
    """The current time as text; the calendar part is made once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def now(self) -> str:
        second, fraction = divmod(time.time_ns(), 1_000_000_000)
        if second != self._second:
            self._second, self._text = second, _calendar(second)
        return f"{self._text}.{fraction:09d}Z"


def format_time(nanoseconds: int) -> str:
    """Nanoseconds since 1970 as text; times that RFC 3339 cannot say become the nearest it can."""
    second, fraction = divmod(nanoseconds, 1_000_000_000)
    if second < 0:
        second, fraction = 0, 0
    elif second > 253402300799:  # the end of the year 9999
        second, fraction = 253402300799, 999_999_999
    return f"{_calendar(second)}.{fraction:09d}Z"


def pad_fraction(stamp: str) -> str:
    """``stamp`` with all nine digits: other writers leave out zeros at the end."""
    if len(stamp) == WIDTH or not stamp.endswith("Z"):
        return stamp
    calendar, _, fraction = stamp[:-1].partition(".")
    return f"{calendar}.{fraction:0<9}Z"


def _calendar(second: int) -> str:
    year, month, day, hour, minute, sec, *_ = time.gmtime(second)
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{sec:02d}"
