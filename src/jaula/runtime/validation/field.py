"""A field of a spec in an error: its name first, what was found, cut where it is long."""

from __future__ import annotations

from jaula.errors import InvalidRequest

_KEPT = 128  # characters of a value that are shown


def refuse(field: str, text: str) -> InvalidRequest:
    """The error for a field."""
    return InvalidRequest(f"{field}: {text}")


def shown(value: str) -> str:
    """A value as it is quoted: on one line, of bounded length."""
    return repr(value if len(value) <= _KEPT else f"{value[:_KEPT]}...")


def absolute(field: str, path: str) -> None:
    """Refuse a path that is not absolute."""
    if not path.startswith("/"):
        raise refuse(field, f"{shown(path)} is not an absolute path")


def one_of(field: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a word that is not known, and name those that are."""
    if value not in known:
        raise refuse(field, f"{shown(value)} is none of {', '.join(known)}")


def between(field: str, value: int, lowest: int, highest: int) -> None:
    """Refuse a number out of its range; both ends belong to it."""
    if not lowest <= value <= highest:
        raise refuse(field, f"{value} is not between {lowest} and {highest}")
