"""Functions and values of ``--format`` templates: Go's functions and those that Docker adds."""

from __future__ import annotations

from jaula.spec import fast_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class MissingKey:
    """The value of a missing key."""

    def __str__(self) -> str:
        return "<no value>"

    def __bool__(self) -> bool:
        return False


MISSING = MissingKey()


def format_value(value: Any) -> str:
    """Format a value as Go prints it."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{format_value(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(format_value(item) for item in value) + "]"
    return str(value)


def _and(*values: Any) -> Any:
    return next((value for value in values if not value), values[-1])


def _or(*values: Any) -> Any:
    return next((value for value in values if value), values[-1])


def _equal(first: Any, *candidates: Any) -> bool:
    return any(first == other for other in candidates)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key, "")
        elif value is None or value is MISSING:
            return MISSING
        else:
            if not 0 <= key < len(value):
                raise IndexError(f"index out of range: {key}")
            value = value[key]
    return value


def _slice(value: Any, start: int = 0, end: int | None = None) -> Any:
    return value[start:end]


def _print(*values: Any) -> str:
    return "".join(
        (" " if at and not isinstance(value, str) and not isinstance(values[at - 1], str) else "")
        + format_value(value)
        for at, value in enumerate(values)
    )


def _printf(format_string: str, *values: Any) -> str:
    out, position, left = "", 0, list(values)
    while position < len(format_string):
        letter = format_string[position]
        position += 1
        if letter != "%":
            out += letter
            continue
        start = position
        while position < len(format_string) and format_string[position] in "+-# 0123456789.":
            position += 1
        flags, verb = format_string[start:position], format_string[position : position + 1]
        position += 1
        if verb == "%":
            out += "%"
            continue
        if not left:
            out += f"%!{verb}(MISSING)"
            continue
        out += _verb(flags, verb, left.pop(0))
    return out


def _verb(flags: str, verb: str, value: Any) -> str:
    if verb in "vs":
        return f"%{flags}s" % format_value(value)
    if verb == "q":
        return f"%{flags}s" % fast_json.encode(format_value(value))
    if verb == "t":
        return format_value(value)
    if verb in "dxXocfeEgG":
        return str(f"%{flags}{verb}" % value)
    raise ValueError(f"unknown verb %{verb}")


def _json(value: Any) -> str:
    return fast_json.encode(_plain(value))


def _plain(value: Any) -> Any:
    if callable(value):
        value = value()
    if value is MISSING:
        return None
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if key not in HIDDEN}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


HIDDEN = ("Label",)  # a function with an argument: it has no value of its own


def _pad(text: str, before: int, after: int) -> str:
    return " " * before + text + " " * after if text else text


def _truncate(text: str, length: int) -> str:
    return text[:length]


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "and": _and,
    "or": _or,
    "not": lambda value: not value,
    "eq": _equal,
    "ne": lambda first, second: first != second,
    "lt": lambda first, second: first < second,
    "le": lambda first, second: first <= second,
    "gt": lambda first, second: first > second,
    "ge": lambda first, second: first >= second,
    "index": _index,
    "len": len,
    "slice": _slice,
    "print": _print,
    "printf": _printf,
    "println": lambda *values: " ".join(format_value(value) for value in values) + "\n",
    "json": _json,
    "split": lambda text, separator: text.split(separator),
    "join": lambda words, separator: separator.join(format_value(word) for word in words or ()),
    "title": lambda text: text.title(),
    "lower": lambda text: text.lower(),
    "upper": lambda text: text.upper(),
    "pad": _pad,
    "truncate": _truncate,
}
