"""Parse and check the values of ``--log-opt``. Pure.

Source: docker docs "JSON File logging driver" and "Configure logging drivers", "Configure the
delivery mode". Sizes are decimal, as Docker's are for logs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from jaula.errors import InvalidRequest
from jaula.spec import units

_BOOLEANS = dict.fromkeys(("1", "t", "T", "TRUE", "true", "True"), True) | dict.fromkeys(
    ("0", "f", "F", "FALSE", "false", "False"), False
)
"""The spellings that Go's strconv.ParseBool accepts."""

BUFFER = 1_000_000
"""Default of ``max-buffer-size`` in bytes, as Docker's."""

TLS_FILES = ("syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key")
"""Options of the syslog driver whose values are paths on the host."""

ADDRESS = "syslog-address"
ATTRIBUTES = (
    *("labels", "labels-regex", "env", "env-regex"),
    "attributes",  # set by the engine: a JSON object made from the container and these options
)
"""Options of drivers that add labels and variables of the container."""
OUTSIDE = "outside-only"
"""Set by the engine: the server's name may not resolve to an address of the host."""


class Limits(msgspec.Struct, frozen=True):
    """Rotation limits.

    ``max_size`` is the bytes of one file, 0 for no limit. ``max_file`` is the number of files.
    ``compress`` says whether rotated files are compressed.
    """

    max_size: int
    max_file: int
    compress: bool


def check_names(driver: str, log_opts: Mapping[str, str], names: Collection[str]) -> None:
    """Check that ``driver`` has each of the options.

    :raises InvalidRequest: when an option is not in ``names``.
    """
    for name in log_opts:
        if name not in names:
            raise InvalidRequest(
                f"unknown log opt {name!r} for {driver} log driver",
                hint=f"known are {', '.join(sorted(names))}" if names else "it has no options",
            )


def host_files(log_opts: Mapping[str, str]) -> tuple[str, ...]:
    """Return the files of the host that a driver reads for these options."""
    return tuple(log_opts[name] for name in TLS_FILES if log_opts.get(name))


CACHE = ("cache-disabled", "cache-max-size", "cache-max-file", "cache-compress")
"""Options of the files that the engine keeps for ``logs`` where the driver cannot be read."""


def split_cache(log_opts: Mapping[str, str]) -> tuple[bool, dict[str, str], dict[str, str]]:
    """Return whether lines are cached, the options of the cache, and those of the driver.

    Source: docker docs "Use docker logs with remote logging drivers". The options of the cache have
    the names of the driver ``local``.

    :raises InvalidRequest: when ``cache-disabled`` is not a boolean.
    """
    cache = {name.removeprefix("cache-"): text for name, text in log_opts.items() if name in CACHE}
    rest = {name: text for name, text in log_opts.items() if name not in CACHE}
    disabled = parse_boolean("cache-disabled", cache.pop("disabled", "false"))
    return not disabled, cache, rest


def split_delivery_mode(log_opts: Mapping[str, str]) -> tuple[int, dict[str, str]]:
    """Return the buffer size of the delivery mode, and the remaining options of the driver.

    The size is in bytes, 0 if the mode is blocking.

    :raises InvalidRequest: when ``mode`` or ``max-buffer-size`` is not valid.
    """
    rest = dict(log_opts)
    mode = rest.pop("mode", "blocking")
    size = rest.pop("max-buffer-size", None)
    if mode not in ("blocking", "non-blocking"):
        raise InvalidRequest(f"logger: logging mode not supported: {mode}")
    if mode == "blocking":
        if size is not None:
            raise InvalidRequest(
                "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
            )
        return 0, rest
    return (parse_size("max-buffer-size", size) if size else 0) or BUFFER, rest


def parse_limits(log_opts: Mapping[str, str], default: Limits) -> Limits:
    """Parse ``max-size``, ``max-file`` and ``compress``; take absent ones from ``default``.

    :raises InvalidRequest: when a value is not valid.
    """
    return Limits(
        parse_size("max-size", log_opts["max-size"])
        if "max-size" in log_opts
        else default.max_size,
        parse_count("max-file", log_opts["max-file"])
        if "max-file" in log_opts
        else default.max_file,
        parse_boolean("compress", log_opts["compress"])
        if "compress" in log_opts
        else default.compress,
    )


def parse_boolean(name: str, value: str) -> bool:
    """Parse a boolean as Go does.

    :raises InvalidRequest: when ``value`` is not a boolean.
    """
    if value not in _BOOLEANS:
        raise InvalidRequest(f"invalid boolean value for {name}: {value!r}", hint="true or false")
    return _BOOLEANS[value]


def parse_size(name: str, value: str) -> int:
    """Parse ``10m``, ``1.5g``, ``4096`` or ``20MB`` into bytes; -1 and 0 give 0, no limit.

    Units count in 1000, as in moby's json-file driver (go-units ``FromHumanSize``).

    :raises InvalidRequest: when ``value`` is not a size, or is less than a byte.
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


def parse_count(name: str, value: str) -> int:
    """Parse a number from 1 to 1000.

    :raises InvalidRequest: when ``value`` is anything else.
    """
    if not (value.isdecimal() and value.isascii() and len(value) <= 4 and 1 <= int(value) <= 1000):
        raise InvalidRequest(f"bad {name} {value!r}", hint="a number from 1 to 1000")
    return int(value)
