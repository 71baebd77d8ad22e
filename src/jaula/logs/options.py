"""The values of ``--log-opt``, checked. Pure.

Source: docker docs "JSON File logging driver". Sizes are decimal, as Docker's are for logs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from jaula.errors import InvalidRequest

_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_UNITS: dict[str, int] = {"b": 1} | {
    letter + end: 1000**power for letter, power in _POWERS.items() for end in ("", "b", "ib")
}


_BOOLEANS = dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True) | dict.fromkeys(
    ("0", "f", "F", "FALSE", "false", "False"), False
)
"""What Go's strconv.ParseBool takes."""


class Limits(msgspec.Struct, frozen=True):
    """Bytes a file may have (0: any number), files, and whether those behind are packed."""

    max_size: int
    max_file: int
    compress: bool


def check_names(driver: str, options: Mapping[str, str], names: Collection[str]) -> None:
    """Raises ``InvalidRequest`` for an option that is not in ``names``."""
    for name in options:
        if name not in names:
            raise InvalidRequest(
                f"unknown log opt {name!r} for {driver} log driver",
                hint=f"known are {', '.join(sorted(names))}" if names else "it takes none",
            )


def parse_limits(given: Mapping[str, str], default: Limits) -> Limits:
    """``max-size``, ``max-file`` and ``compress``. Raises ``InvalidRequest``."""
    return Limits(
        parse_size("max-size", given["max-size"]) if "max-size" in given else default.max_size,
        parse_count("max-file", given["max-file"]) if "max-file" in given else default.max_file,
        parse_boolean("compress", given["compress"]) if "compress" in given else default.compress,
    )


def parse_boolean(name: str, value: str) -> bool:
    """What Go takes for one."""
    if value not in _BOOLEANS:
        raise InvalidRequest(f"invalid boolean value for {name}: {value!r}", hint="true or false")
    return _BOOLEANS[value]


def parse_size(name: str, value: str) -> int:
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


def parse_count(name: str, value: str) -> int:
    """A number from 1 to 1000."""
    if not (value.isdecimal() and value.isascii() and len(value) <= 4 and 1 <= int(value) <= 1000):
        raise InvalidRequest(f"bad {name} {value!r}", hint="a number from 1 to 1000")
    return int(value)
