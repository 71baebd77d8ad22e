"""One key of the engine's configuration file, and readers of its value. Pure."""

from __future__ import annotations

import json
from typing import NamedTuple

from jaula.errors import InvalidRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any


class Setting(NamedTuple):
    """One key: the flags that set the same, and how its value becomes settings of the engine."""

    flags: tuple[str, ...]
    read: Callable[[str, Any], dict[str, object]]


def type_error(key: str, wanted: str, value: object) -> InvalidRequest:
    """What is said of a value of another kind than is ``wanted``."""
    return InvalidRequest(f"{key}: {wanted} is wanted, not {json.dumps(value)[:80]}")


def read_string(key: str, value: object) -> str:
    """A text that is not empty."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise type_error(key, "a text", value)
    return value


def read_strings(key: str, value: object) -> list[str]:
    """A list of texts."""
    if not isinstance(value, list):
        raise type_error(key, "a list of texts", value)
    return [read_string(key, item) for item in value]


def read_integer(key: str, value: object) -> int:
    """A whole number from 0 on."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise type_error(key, "a number", value)
    return value


def read_object(key: str, value: object, known: Collection[str] | None = None) -> dict[str, Any]:
    """An object; ``known`` names the keys that it may have."""
    if not isinstance(value, dict):
        raise type_error(key, "an object", value)
    for name in value:
        if known is not None and name not in known:
            raise InvalidRequest(f"{key}: unknown key {name!r}", hint=f"known: {', '.join(known)}")
    return value
