"""The values of ``--log-opt``, checked. Pure.

Source: docker docs "JSON File logging driver". Sizes are decimal, as Docker's are for logs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from jaula.errors import InvalidRequest
from jaula.spec import units

_BOOLEANS = dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True) | dict.fromkeys(
    ("0", "f", "F", "FALSE", "false", "False"), False
)
"""What Go's strconv.ParseBool takes."""


class Limits(msgspec.Struct, frozen=True):
    """Bytes a file may have (0: any number), files, and whether those behind are packed."""

    max_size: int
    max_file: int
    compress: bool


def known(driver: str, options: Mapping[str, str], names: Collection[str]) -> None:
    """Raises ``InvalidRequest`` for an option that is not in ``names``."""
    for name in options:
        if name not in names:
            raise InvalidRequest(
                f"unknown log opt {name!r} for {driver} log driver",
                hint=f"known are {', '.join(sorted(names))}" if names else "it takes none",
            )


def limits(given: Mapping[str, str], default: Limits) -> Limits:
    """``max-size``, ``max-file`` and ``compress``. Raises ``InvalidRequest``."""
    return Limits(
        size("max-size", given["max-size"]) if "max-size" in given else default.max_size,
        count("max-file", given["max-file"]) if "max-file" in given else default.max_file,
        boolean("compress", given["compress"]) if "compress" in given else default.compress,
    )


def boolean(name: str, value: str) -> bool:
    """What Go takes for one."""
    if value not in _BOOLEANS:
        raise InvalidRequest(f"invalid boolean value for {name}: {value!r}", hint="true or false")
    return _BOOLEANS[value]


def size(name: str, value: str) -> int:
    """Return the bytes of ``10m``, ``1.5g``, ``4096``, ``20MB``; -1 and 0 are no limit and give 0.

    Units count in 1000, as moby's json-file driver has it (go-units ``FromHumanSize``).

    :raises InvalidRequest: not a size, or less than a byte.
    """
    if value in ("-1", "0"):
        return 0
    try:
        result = units.size(value, base=1000)
    except ValueError:
        result = 0
    if result < 1:
        raise InvalidRequest(f"bad {name} {value!r}", hint="a number and k, m or g, as 10m")
    return result


def count(name: str, value: str) -> int:
    """A number from 1 to 1000."""
    if not (value.isdecimal() and value.isascii() and len(value) <= 4 and 1 <= int(value) <= 1000):
        raise InvalidRequest(f"bad {name} {value!r}", hint="a number from 1 to 1000")
    return int(value)
