"""The values of ``--log-opt``, checked. Pure.

Source: docker docs "JSON File logging driver". Sizes are decimal, as Docker's are for logs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from jaula.errors import InvalidRequest

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}


def known(driver: str, options: Mapping[str, str], names: Collection[str]) -> None:
    """Raises ``InvalidRequest`` for an option that is not in ``names``."""
    for name in options:
        if name not in names:
            raise InvalidRequest(
                f"unknown log opt {name!r} for {driver} log driver",
                hint=f"known are {', '.join(sorted(names))}" if names else "it takes none",
            )


def size(name: str, value: str) -> int:
    """Bytes of ``10m``, ``1.5g``, ``4096``, ``20MB``; -1 and 0 are no limit and give 0."""
    if value in ("-1", "0"):
        return 0
    number, unit = value.strip().lower(), ""
    number = (
        number.removesuffix("b").removesuffix("i")
        if number[-2:-1].isalpha()
        else (number.removesuffix("b"))
    )
    if number[-1:].isalpha():
        number, unit = number[:-1], number[-1]
    number = number.rstrip(" ")
    whole, _, fraction = number.partition(".")
    digits = whole + fraction
    if unit not in _UNITS or not whole or not (digits.isdecimal() and digits.isascii()):
        raise InvalidRequest(f"bad {name} {value!r}", hint="a number and k, m or g, as 10m")
    if len(digits) > 18:
        raise InvalidRequest(f"bad {name} {value!r}", hint="that is too large")
    result = int(digits) * _UNITS[unit] // 10 ** len(fraction)
    if result < 1:
        raise InvalidRequest(f"bad {name} {value!r}", hint="at least one byte")
    return result


def count(name: str, value: str) -> int:
    """A number from 1 to 1000."""
    if not (value.isdecimal() and value.isascii() and len(value) <= 4 and 1 <= int(value) <= 1000):
        raise InvalidRequest(f"bad {name} {value!r}", hint="a number from 1 to 1000")
    return int(value)
