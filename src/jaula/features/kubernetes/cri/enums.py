"""Values of enumerations, which a message of protobuf may have outside of the known ones."""

from __future__ import annotations

from typing import Any

from jaula.errors import InvalidRequest


def enum_name(kind: Any, number: int, what: str) -> str:
    """Return the name of a value. ``kind`` is the class that protobuf generates.

    :raises InvalidRequest: when it is unknown.
    """
    try:
        return str(kind.Name(number))
    except ValueError:
        raise InvalidRequest(f"the value {number} of {what} is unknown") from None
