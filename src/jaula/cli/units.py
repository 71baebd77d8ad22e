"""Numbers as people write and read them: sizes and durations.

Sizes that are read count in 1024 (``64mb`` is 67108864 bytes), sizes that are shown count in 1000
with four significant digits, and memory in ``stats`` counts in 1024 again: Docker's go-units.
"""

from __future__ import annotations

BINARY = "kmgtp"
SHOWN = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
SHOWN_BINARY = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def integer(text: str) -> int:
    """A decimal, hexadecimal, octal or binary integer, as Go reads it."""
    try:
        return int(text, 0) if not text.lstrip("+-").startswith("0") else _based(text)
    except ValueError:
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def _based(text: str) -> int:
    digits = text.lstrip("+-")
    if len(digits) > 1 and digits.isdigit():
        return int(text, 8)
    return int(text, 0)


def size(text: str) -> int:
    """Bytes from ``100``, ``64m``, ``1.5GiB``; -1 (without limit) passes. Units count in 1024."""
    if text == "-1":
        return -1
    word = text.strip().lower()
    number = word.rstrip("bikmgtp ")
    unit = word[len(number) :].strip()
    unit = unit.removesuffix("b").removesuffix("i") if unit != "b" else ""
    if len(unit) > 1 or (unit and unit not in BINARY) or not _plain(number):
        raise ValueError(f"invalid size: '{text}'")
    factor = 1024 ** (BINARY.index(unit) + 1) if unit else 1
    value = float(number) * factor
    if value >= 2**63:
        raise ValueError(f"invalid size: '{text}'")
    return int(value)


def _plain(number: str) -> bool:
    whole, _, part = number.partition(".")
    return (whole + part).isascii() and (whole + part).isdigit() and bool(whole)


def nano(text: str) -> int:
    """Billionths of a CPU from ``0.5``; at most nine decimals are kept."""
    number = text.strip()
    if not _plain(number):
        raise ValueError(f"failed to parse {text} as a rational number")
    whole, _, part = number.partition(".")
    if len(part.rstrip("0")) > 9:
        raise ValueError("value is too precise")
    return int(whole) * 10**9 + int(part[:9].ljust(9, "0"))


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


def seconds(text: str) -> int:
    """Whole seconds from a plain number or a Go duration."""
    if text.lstrip("-").isdigit():
        return int(text)
    return nanoseconds(text) // 10**9


def shown(number: float, digits: int = 4) -> str:
    """Bytes for people, in 1000: ``4.27MB``."""
    return _scaled(number, 1000.0, SHOWN, digits)


def shown_binary(number: float) -> str:
    """Bytes for people, in 1024: ``520KiB``."""
    return _scaled(number, 1024.0, SHOWN_BINARY, 4)


def _scaled(number: float, base: float, units: tuple[str, ...], digits: int) -> str:
    index = 0
    while abs(number) >= base and index < len(units) - 1:
        number /= base
        index += 1
    return f"{number:.{digits}g}{units[index]}"
