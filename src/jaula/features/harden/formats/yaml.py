"""Documents as YAML in block style. Pure.

Source: YAML 1.2, which 1.1 parsers read alike. Every text is a double-quoted scalar.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from jaula.spec.quoted_string import quoted

# Words that YAML 1.1 reads as a truth value or as null.
_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))

Value = str | bool | int | float | None | Mapping[str, "Value"] | Sequence["Value"]


def block(value: Value, indent: str = "") -> list[str]:
    """Return the lines of a document, or of a part of one."""
    lines: list[str] = []
    if isinstance(value, Mapping):
        for key, each in value.items():
            name = key if _is_plain(key) else quoted(key)
            if _is_nested(each):
                lines.append(f"{indent}{name}:")
                lines += block(each, indent + "  ")
            else:
                lines.append(f"{indent}{name}: {_flow(each)}")
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for each in value:
            if _is_nested(each):
                first, *rest = block(each, indent + "  ")
                lines += [f"{indent}- {first[len(indent) + 2 :]}", *rest]
            else:
                lines.append(f"{indent}- {_flow(each)}")
    return lines


def _is_plain(key: str) -> bool:
    """Return whether every parser reads a key without quotes as a text."""
    return key.isidentifier() and key.isascii() and key.lower() not in _WORDS


def _is_nested(value: Value) -> bool:
    return isinstance(value, Mapping | Sequence) and not isinstance(value, str) and bool(value)


def _flow(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a number of YAML")
        return f"{value:.9f}".rstrip("0").rstrip(".")
    if isinstance(value, Mapping):
        return "{}"
    return "null" if value is None else "[]"
