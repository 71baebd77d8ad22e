"""Sizes, durations and times as text: in commands, Dockerfiles, API parameters and messages. Pure.

Source: Docker's go-units (``RAMInBytes``, ``HumanSize``, ``BytesSize``, ``HumanDuration``) and Go's
``time.ParseDuration`` and ``Duration.String``. Sizes in input count in 1024 (``64mb`` is 67108864
bytes). Sizes in output count in 1000 with four significant digits, but memory counts in 1024.
Parsers raise ``ValueError``: each caller names in its own error where the text stood. The command
line imports this module, so it imports nothing before a time is read (datetime takes 0.3 ms).
"""

from __future__ import annotations

_PREFIXES = ("", "k", "m", "g", "t", "p")
_LONGEST = 40  # digits of a number
_DECIMAL_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")
_BINARY_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")


def size(text: str, base: int = 1024) -> int:
    """Return the bytes of ``100``, ``64m``, ``1.5GiB``, or -1 (no limit). Units count in ``base``.

    :raises ValueError: not a size, or more than 63 bits.
    """
    if text == "-1":
        return -1
    word = text.strip().lower()
    number = word.rstrip("bikmgtp ")
    unit = word[len(number) :].strip()
    unit = unit.removesuffix("b").removesuffix("i") if unit != "b" else ""
    known = len(unit) <= 1 and unit in _PREFIXES
    if not known or len(number) > _LONGEST or not is_decimal(number):
        raise ValueError(f"invalid size: '{text}'")
    whole, _, part = number.partition(".")
    value: int = int(whole + part) * base ** _PREFIXES.index(unit) // 10 ** len(part)
    if value >= 2**63:
        raise ValueError(f"invalid size: '{text}'")
    return value


def is_decimal(number: str) -> bool:
    """Return whether the text is like ``12`` or ``1.5``: ASCII digits and at most one point."""
    whole, _, part = number.partition(".")
    return (whole + part).isascii() and (whole + part).isdigit() and bool(whole)


def human_size(number: float, digits: int = 4) -> str:
    """Format bytes in units of 1000: ``4.27MB`` (go-units' HumanSize)."""
    return _scaled(number, 1000.0, _DECIMAL_UNITS, digits)


def bytes_size(number: float) -> str:
    """Format bytes in units of 1024: ``520KiB`` (go-units' BytesSize)."""
    return _scaled(number, 1024.0, _BINARY_UNITS, 4)


def _scaled(number: float, base: float, units: tuple[str, ...], digits: int) -> str:
    index = 0
    while abs(number) >= base and index < len(units) - 1:
        number /= base
        index += 1
    return f"{number:.{digits}g}{units[index]}"


def nanoseconds(text: str) -> int:
    """Return the nanoseconds of a Go duration (``1h30m``, ``1.5s``, ``300ms``).

    :raises ValueError: not a duration.
    """
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
    total, valid = 0, False
    while rest:
        digits = 0
        while digits < len(rest) and rest[digits] in "0123456789.":
            digits += 1
        letters = digits
        while letters < len(rest) and rest[letters] not in "0123456789.":
            letters += 1
        number, unit = rest[:digits], rest[digits:letters]
        if unit not in scale or number.count(".") > 1 or not number.strip("."):
            valid = False
            break
        whole, _, part = number.partition(".")
        total += int(whole or 0) * scale[unit]
        if part:
            total += int(part) * scale[unit] // 10 ** len(part)
        rest, valid = rest[letters:], True
    if not valid:
        raise ValueError(f'time: invalid duration "{text}"')
    return sign * total


def human_duration(seconds: float) -> str:
    """Return Docker's words for a duration (go-units ``HumanDuration``): ``About a minute``.

    A negative duration (a clock was set back) counts as zero.
    """
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(seconds / 3600) // 24 // 365} years"


def go_duration(nanoseconds: int) -> str:
    """Return a duration as Go's ``time.Duration`` prints it: ``1m30s``, ``1.5s``, ``300ms``."""
    if not nanoseconds:
        return "0s"
    sign = "-" if nanoseconds < 0 else ""
    left = abs(nanoseconds)
    for unit, size in (("ns", 1), ("µs", 10**3), ("ms", 10**6)):
        if left < size * 1000:
            return f"{sign}{_decimal(left, size)}{unit}"
    minutes, rest = divmod(left, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    text = f"{_decimal(rest, 10**9)}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{sign}{hours}h{text}" if hours else sign + text


def _decimal(value: int, size: int) -> str:
    whole, rest = divmod(value, size)
    if not rest:
        return str(whole)
    digits = str(rest).rjust(len(str(size)) - 1, "0").rstrip("0")
    return f"{whole}.{digits}"


def unix_time(text: str) -> float:
    """Return the Unix seconds of an RFC 3339 time, 0.0 for one before 1970 (Go's zero time).

    A time without a zone is local, a date alone its midnight. Digits after microseconds are cut.

    :raises ValueError: not such a time.
    """
    from datetime import datetime

    try:
        return max(0.0, datetime.fromisoformat(text).timestamp())
    except OverflowError:
        raise ValueError(f"invalid time {text!r}") from None


def integer(text: str) -> int:
    """Return a decimal, hexadecimal, octal or binary integer, as Go reads it.

    :raises ValueError: not an integer.
    """
    try:
        return int(text, 0) if not text.lstrip("+-").startswith("0") else _based(text)
    except ValueError:
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def _based(text: str) -> int:
    digits = text.lstrip("+-")
    if len(digits) > 1 and digits.isdigit():
        return int(text, 8)
    return int(text, 0)


def nano_cpus(text: str) -> int:
    """Return the billionths of a CPU in ``0.5``.

    :raises ValueError: not a decimal number, or more than nine decimals.
    """
    number = text.strip()
    if not is_decimal(number):
        raise ValueError(f"failed to parse {text} as a rational number")
    integer_part, _, fraction = number.partition(".")
    if len(fraction.rstrip("0")) > 9:
        raise ValueError("value is too precise")
    return int(integer_part) * 10**9 + int(fraction[:9].ljust(9, "0"))


def seconds(text: str) -> int:
    """Return the whole seconds of a plain number or a Go duration.

    :raises ValueError: neither.
    """
    if text.lstrip("-").isdigit():
        return int(text)
    return nanoseconds(text) // 10**9
