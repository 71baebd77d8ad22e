"""Further properties of a container's unit, from annotations of its spec. Pure.

``org.systemd.property.NAME`` holds a value in GVariant's text format, as in runc: ``true``, ``5``,
``uint64 5``, ``1.5``, ``'text'`` or ``['one', 'two']``. A name that ends in ``Sec`` is in seconds
and is sent to systemd as ``...USec`` in microseconds. Source: GLib "GVariant Text Format".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaula.cgroups.systemd.properties import UnitProperty
from jaula.errors import InvalidRequest

PREFIX = "org.systemd.property."
_TYPES = {
    "byte": "y",
    "int16": "n",
    "uint16": "q",
    "int32": "i",
    "uint32": "u",
    "int64": "x",
    "uint64": "t",
    "double": "d",
    "string": "s",
    "boolean": "b",
}
_RANGES = {
    "y": (0, 2**8 - 1),
    "n": (-(2**15), 2**15 - 1),
    "q": (0, 2**16 - 1),
    "i": (-(2**31), 2**31 - 1),
    "u": (0, 2**32 - 1),
    "x": (-(2**63), 2**63 - 1),
    "t": (0, 2**64 - 1),
}
_ESCAPES = {"n": "\n", "t": "\t", "\\": "\\", "'": "'", '"': '"'}


def properties(annotations: Mapping[str, str]) -> tuple[UnitProperty, ...]:
    """Return the unit properties of the annotations.

    :raises InvalidRequest: when a name or value is not valid; the error names the annotation.
    """
    return tuple(
        _property(key, value) for key, value in annotations.items() if key.startswith(PREFIX)
    )


def _property(key: str, text: str) -> UnitProperty:
    name = key.removeprefix(PREFIX)
    if len(name) < 2 or not name.isascii() or not name.isalpha() or not name[0].isupper():
        raise InvalidRequest(f"annotation {key!r} does not name a property of systemd")
    try:
        signature, value = _value(text.strip())
    except ValueError as error:
        raise InvalidRequest(
            f"annotation {key} has the value {text!r}: {error}",
            hint="for example true, uint64 5, 'text' or ['one', 'two']",
        ) from error
    if name.endswith("Sec") and not name.endswith("USec") and signature in "ynqiuxtd":
        if value < 0:
            raise InvalidRequest(f"annotation {key} has the value {text!r}: negative")
        return UnitProperty(name.removesuffix("Sec") + "USec", "t", int(value * 1_000_000))
    return UnitProperty(name, signature, value)


def _value(text: str) -> tuple[str, Any]:
    """Return (signature, value).

    :raises ValueError: when the text is not a value.
    """
    if text in ("true", "false"):
        return "b", text == "true"
    if text[:1] in ("'", '"'):
        value, rest = _string(text)
        if rest.strip():
            raise ValueError(f"{rest.strip()!r} after the string")
        return "s", value
    if text.startswith("["):
        return "as", _strings(text)
    if text.startswith("@"):
        signature, _, rest = text[1:].partition(" ")
        return _typed(signature, rest.strip())
    word, _, rest = text.partition(" ")
    if word in _TYPES:
        return _typed(_TYPES[word], rest.strip())
    if "." in text or ("e" in text.lower() and "x" not in text.lower()):
        return "d", float(text)
    return _typed("i", text)


def _typed(signature: str, text: str) -> tuple[str, Any]:
    if signature == "as" and text.replace(" ", "") == "[]":
        return "as", []
    if signature == "d":
        return "d", float(text)
    if signature in _RANGES:
        value = int(text, 0)
        low, high = _RANGES[signature]
        if not low <= value <= high:
            raise ValueError(f"not from {low} to {high}")
        return signature, value
    actual, value = _value(text)
    if actual != signature:
        raise ValueError(f"not of the type {signature!r}")
    return actual, value


def _string(text: str) -> tuple[str, str]:
    """Return (the quoted string at the start, the rest)."""
    quote, out, position = text[0], "", 1
    while position < len(text):
        if text[position] == quote:
            return out, text[position + 1 :]
        if text[position] == "\\":
            position += 1
            if text[position : position + 1] not in _ESCAPES:
                raise ValueError("unknown escape")
            out += _ESCAPES[text[position]]
        else:
            out += text[position]
        position += 1
    raise ValueError("missing closing quote")


def _strings(text: str) -> list[str]:
    strings: list[str] = []
    rest = text[1:].strip()
    while not rest.startswith("]"):
        if rest[:1] not in ("'", '"'):
            raise ValueError("only lists of strings are supported")
        value, rest = _string(rest)
        strings.append(value)
        rest = rest.strip()
        if rest.startswith(","):
            rest = rest[1:].strip()
        elif not rest.startswith("]"):
            raise ValueError("missing comma or ]")
    if rest[1:].strip():
        raise ValueError("text after the list")
    return strings
