"""Times in the notation of the command line and the API: RFC 3339, Unix seconds, or an age."""

from __future__ import annotations

from time import localtime, mktime, strftime, time

from jaula.cli.errors import UsageError

# Days before each month of a common year.
DAYS = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)


def epoch(text: str) -> float:
    """Return the Unix seconds of an RFC 3339 time, or 0.0 for Go's zero time.

    :raises ValueError: when the text is not a time.
    """
    date, _, clock = text.replace(" ", "T", 1).partition("T")
    year, month, day = (int(part) for part in date.split("-"))
    zone = 0.0
    if clock.endswith(("Z", "z")):
        clock = clock[:-1]
    else:
        at = max(clock.rfind("+"), clock.rfind("-"))
        if at > 0:
            hours, _, minutes = clock[at + 1 :].partition(":")
            zone = (int(hours) * 60 + int(minutes or 0)) * (60 if clock[at] == "+" else -60)
            clock = clock[:at]
    parts = [float(part) for part in clock.split(":")] if clock else [0.0]
    parts += [0.0] * (3 - len(parts))
    if year < 1970:
        return 0.0
    years = year - 1
    days = years * 365 + years // 4 - years // 100 + years // 400 - 719162
    days += DAYS[month - 1] + day - 1
    if month > 2 and (year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)):
        days += 1
    return days * 86400 + parts[0] * 3600 + parts[1] * 60 + parts[2] - zone


def timestamp(text: str) -> str:
    """Convert ``--since`` and ``--until`` to Unix seconds for the API.

    A duration counts back from now.

    :raises UsageError: when the text is not a time.
    """
    if not text:
        return ""
    try:
        return _ago(text)
    except ValueError:
        pass
    if text.replace(".", "", 1).isdigit():
        return text
    try:
        moment = epoch(text)
    except (ValueError, IndexError):
        raise UsageError(
            f"invalid time {text!r}: must be RFC 3339, Unix seconds or a duration"
        ) from None
    clock = text.replace(" ", "T", 1).partition("T")[2]
    if not clock.endswith(("Z", "z")) and "+" not in clock and "-" not in clock:
        moment += _offset(moment)
    return f"{moment:.9f}".rstrip("0").rstrip(".")


def _ago(text: str) -> str:
    from jaula.cli import units

    return f"{time() - units.nanoseconds(text) / 1e9:.9f}".rstrip("0").rstrip(".")


def _offset(moment: float) -> float:
    """Return the seconds that local time is behind UTC at ``moment``."""
    parts = localtime(moment)
    return mktime(parts) - epoch(strftime("%Y-%m-%dT%H:%M:%SZ", parts))


def local(seconds: float, pattern: str = "%Y-%m-%d %H:%M:%S %z %Z") -> str:
    """Format a time in local time, as Go prints it."""
    return strftime(pattern, localtime(seconds))


def ago(seconds: float) -> str:
    """Return the age of a time in words: ``3 minutes ago``."""
    from jaula.spec.durations import human

    return human(time() - seconds) + " ago"
