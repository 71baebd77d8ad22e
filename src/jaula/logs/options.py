"""The values of ``--log-opt``, checked. Pure.

Source: docker docs "JSON File logging driver". Sizes are decimal, as Docker's are for logs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from jaula.errors import InvalidRequest

_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_UNITS: dict[str, int] = {"b": 1} | {
    letter + end: 1000**power for letter, power in _POWERS.items() for end in ("", "b", "ib")
}


def known(driver: str, options: Mapping[str, str], names: Collection[str]) -> None:
    """Raises ``InvalidRequest`` for an option that is not in ``names``."""
    for name in options:
        if name not in names:
            raise InvalidRequest(
                f"unknown log opt {name!r} for {driver} log driver",
                hint=f"known are {', '.join(sorted(names))}" if names else "it takes none",
            )


def plain(driver: str, given: Mapping[str, str]) -> None:
    """Raises ``InvalidRequest`` where rotated files were to be compressed."""
    if given.get("compress", "false") not in ("false", "0"):
        raise InvalidRequest(f"the {driver} log driver does not compress", hint="compress=false")


def size(name: str, value: str) -> int:
    """Bytes of ``10m``, ``1.5g``, ``4096``, ``20MB``; -1 and 0 are no limit and give 0."""
    if value in ("-1", "0"):
        return 0
    bad = InvalidRequest(f"bad {name} {value!r}", hint="a number and k, m or g, as 10m")
    digits = value.rstrip("kKmMgGtTpPiIbB")
    unit = value[len(digits) :].lower()
    whole, _, fraction = digits.rstrip(" ").partition(".")
    if unit not in _UNITS or not whole or len(whole) > 15 or len(fraction) > 9:
        raise bad
    if not ((whole + fraction).isdecimal() and (whole + fraction).isascii()):
        raise bad
    result: int = int(whole + fraction) * _UNITS[unit] // 10 ** len(fraction)
    if result < 1:
        raise bad
    return result


def count(name: str, value: str) -> int:
    """A number from 1 to 1000."""
    if not (value.isdecimal() and value.isascii() and len(value) <= 4 and 1 <= int(value) <= 1000):
        raise InvalidRequest(f"bad {name} {value!r}", hint="a number from 1 to 1000")
    return int(value)
