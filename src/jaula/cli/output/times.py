"""Moments as people and the API write them: RFC 3339, Unix seconds, or a time ago."""

from __future__ import annotations

from time import localtime, strftime, time

from jaula.cli.errors import UsageError
from jaula.spec import units


def timestamp(text: str) -> str:
    """``--since`` and ``--until`` for the API: Unix seconds. A duration is that long ago.

    Raises UsageError for what is no time.
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
            f"invalid time {text!r}: RFC 3339, Unix seconds or a duration is wanted"
        ) from None
    return f"{moment:.9f}".rstrip("0").rstrip(".")


def _ago(text: str) -> str:
    return f"{time() - units.nanoseconds(text) / 1e9:.9f}".rstrip("0").rstrip(".")


def local(seconds: float, form: str = "%Y-%m-%d %H:%M:%S %z %Z") -> str:
    """A moment in local time, as Go prints one."""
    return strftime(form, localtime(seconds))


def ago(seconds: float) -> str:
    """How long before now, in words: ``3 minutes ago``."""
    return units.human_duration(time() - seconds) + " ago"
