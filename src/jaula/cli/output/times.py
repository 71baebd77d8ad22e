"""Times in the notation of the command line and the API: RFC 3339, Unix seconds, or an age."""

from __future__ import annotations

from time import localtime, strftime, time

from jaula.cli.cli_errors import UsageError
from jaula.spec import units


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
        moment = units.unix_time(text)
    except ValueError:
        raise UsageError(
            f"invalid time {text!r}: must be RFC 3339, Unix seconds or a duration"
        ) from None
    return f"{moment:.9f}".rstrip("0").rstrip(".")


def _ago(text: str) -> str:
    return f"{time() - units.nanoseconds(text) / 1e9:.9f}".rstrip("0").rstrip(".")


def local(seconds: float, pattern: str = "%Y-%m-%d %H:%M:%S %z %Z") -> str:
    """Format a time in local time, as Go prints it."""
    return strftime(pattern, localtime(seconds))


def ago(seconds: float) -> str:
    """Return the age of a time in words: ``3 minutes ago``."""
    return units.human_duration(time() - seconds) + " ago"
