"""One key of ``daemon.json``, and functions that validate its value. Pure."""

from __future__ import annotations

import json
from typing import NamedTuple

from jaula.errors import InvalidRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any


class Setting(NamedTuple):
    """One key: the equivalent flags, and the function that converts its value to settings."""

    flags: tuple[str, ...]
    read: Callable[[str, Any], dict[str, object]]


def type_error(key: str, expected: str, value: object) -> InvalidRequest:
    """Return the error for a value of the wrong type."""
    return InvalidRequest(f"{key}: expected {expected}, not {json.dumps(value)[:80]}")


def read_string(key: str, value: object) -> str:
    """Return a non-empty string.

    :raises InvalidRequest: when the value is not one.
    """
    if not isinstance(value, str) or not value or "\0" in value:
        raise type_error(key, "a string", value)
    return value


def read_strings(key: str, value: object) -> list[str]:
    """Return a list of non-empty strings.

    :raises InvalidRequest: when the value is not one.
    """
    if not isinstance(value, list):
        raise type_error(key, "a list of strings", value)
    return [read_string(key, item) for item in value]


def read_integer(key: str, value: object) -> int:
    """Return an integer that is not negative.

    :raises InvalidRequest: when the value is not one.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise type_error(key, "a number", value)
    return value


def read_object(key: str, value: object, known: Collection[str] | None = None) -> dict[str, Any]:
    """Return an object. ``known`` are the allowed keys; None allows all.

    :raises InvalidRequest: when the value is not an object or a key is unknown.
    """
    if not isinstance(value, dict):
        raise type_error(key, "an object", value)
    for name in value:
        if known is not None and name not in known:
            raise InvalidRequest(f"{key}: unknown key {name!r}", hint=f"known: {', '.join(known)}")
    return value
