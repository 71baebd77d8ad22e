"""Quantities in the words of commands, Dockerfiles and API parameters: sizes and durations.

Source: Docker's go-units (``RAMInBytes``) and Go's ``time.ParseDuration``. Everybody who reads them
says in an error of his own where they stood, so these raise ``ValueError``.
"""

from __future__ import annotations

_BINARY = "kmgtp"


def size(text: str) -> int:
    """Bytes from ``100``, ``64m``, ``1.5GiB``; -1 (without limit) passes. Units count in 1024."""
    if text == "-1":
        return -1
    word = text.strip().lower()
    number = word.rstrip("bikmgtp ")
    unit = word[len(number) :].strip()
    unit = unit.removesuffix("b").removesuffix("i") if unit != "b" else ""
    if len(unit) > 1 or (unit and unit not in _BINARY) or not is_decimal(number):
        raise ValueError(f"invalid size: '{text}'")
    factor = 1024 ** (_BINARY.index(unit) + 1) if unit else 1
    value = float(number) * factor
    if value >= 2**63:
        raise ValueError(f"invalid size: '{text}'")
    return int(value)


def is_decimal(number: str) -> bool:
    """``12`` or ``1.5``: ASCII digits, at most one point, nothing else."""
    whole, _, part = number.partition(".")
    return (whole + part).isascii() and (whole + part).isdigit() and bool(whole)


def nanoseconds(text: str) -> int:
    """A Go duration (``1h30m``, ``1.5s``, ``300ms``) in nanoseconds."""
    scale = {
        "ns": 1,
        "us": 10**3,
        "µs": 10**3,
        "ms": 10**6,
        "s": 10**9,
        "m": 60 * 10**9,
        "h": 3600 * 10**9,
    }
    rest, sign = text, 1
    if rest[:1] in ("+", "-"):
        sign = -1 if rest[0] == "-" else 1
        rest = rest[1:]
    if rest == "0":
        return 0
    total, found = 0, False
    while rest:
        digits = 0
        while digits < len(rest) and rest[digits] in "0123456789.":
            digits += 1
        letters = digits
        while letters < len(rest) and rest[letters] not in "0123456789.":
            letters += 1
        number, unit = rest[:digits], rest[digits:letters]
        if unit not in scale or number.count(".") > 1 or not number.strip("."):
            found = False
            break
        whole, _, part = number.partition(".")
        total += int(whole or 0) * scale[unit]
        if part:
            total += int(part) * scale[unit] // 10 ** len(part)
        rest, found = rest[letters:], True
    if not found:
        raise ValueError(f'time: invalid duration "{text}"')
    return sign * total
