"""Numbers in the notation of the command line: sizes and durations.

Input sizes count in 1024 (``64mb`` is 67108864 bytes). Output sizes count in 1000 with four
significant digits, and memory in ``stats`` counts in 1024 again. Source: Docker's go-units.
"""

from __future__ import annotations

from jaula.spec.units import is_decimal
from jaula.spec.units import nanoseconds as nanoseconds
from jaula.spec.units import size as size

DECIMAL_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def integer(text: str) -> int:
    """Parse a decimal, hexadecimal, octal or binary integer, as Go does."""
    try:
        return int(text, 0) if not text.lstrip("+-").startswith("0") else _based(text)
    except ValueError:
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def _based(text: str) -> int:
    digits = text.lstrip("+-")
    if len(digits) > 1 and digits.isdigit():
        return int(text, 8)
    return int(text, 0)


def nano(text: str) -> int:
    """Return billionths of a CPU for ``0.5``; at most nine decimals are allowed."""
    number = text.strip()
    if not is_decimal(number):
        raise ValueError(f"failed to parse {text} as a rational number")
    integer_part, _, fraction = number.partition(".")
    if len(fraction.rstrip("0")) > 9:
        raise ValueError("value is too precise")
    return int(integer_part) * 10**9 + int(fraction[:9].ljust(9, "0"))


def seconds(text: str) -> int:
    """Return whole seconds for a plain number or a Go duration."""
    if text.lstrip("-").isdigit():
        return int(text)
    return nanoseconds(text) // 10**9


def human_size(number: float, digits: int = 4) -> str:
    """Format bytes in units of 1000: ``4.27MB`` (go-units' HumanSize)."""
    return _scaled(number, 1000.0, DECIMAL_UNITS, digits)


def bytes_size(number: float) -> str:
    """Format bytes in units of 1024: ``520KiB`` (go-units' BytesSize)."""
    return _scaled(number, 1024.0, BINARY_UNITS, 4)


def _scaled(number: float, base: float, units: tuple[str, ...], digits: int) -> str:
    index = 0
    while abs(number) >= base and index < len(units) - 1:
        number /= base
        index += 1
    return f"{number:.{digits}g}{units[index]}"
