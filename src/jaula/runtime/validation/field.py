"""Errors about a field of a spec: its name first, then the value, truncated if it is long."""

from __future__ import annotations

from jaula.errors import InvalidRequest

_MAX_VALUE = 128  # characters of a value that an error shows


def refuse(field: str, text: str) -> InvalidRequest:
    """Return the error for a field."""
    return InvalidRequest(f"{field}: {text}")


def quote(value: str) -> str:
    """Return a value for an error: quoted, on one line, of bounded length."""
    return repr(value if len(value) <= _MAX_VALUE else f"{value[:_MAX_VALUE]}...")


def absolute(field: str, path: str) -> None:
    """Require an absolute path."""
    if not path.startswith("/"):
        raise refuse(field, f"{quote(path)} is not an absolute path")


def one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
    """Require one of the allowed words, and list them in the error."""
    if value not in allowed:
        raise refuse(field, f"{quote(value)} must be one of {', '.join(allowed)}")


def between(field: str, value: int, lowest: int, highest: int) -> None:
    """Require a number in a range, both ends included."""
    if not lowest <= value <= highest:
        raise refuse(field, f"{value} is not between {lowest} and {highest}")
