"""The log drivers by name. A new one is one file and one line in the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jaula.errors import InvalidRequest
from jaula.logs import non_blocking
from jaula.logs.drivers import local
from jaula.logs.drivers.json_file import JsonFileWriter
from jaula.logs.drivers.json_file import check as check_json_file
from jaula.logs.drivers.none import NoneWriter
from jaula.logs.options import check_names
from jaula.logs.protocol import LogWriter


def _none(path: str, given: Mapping[str, str]) -> LogWriter:
    check_names("none", given, ())
    return NoneWriter()


def _journald(path: str, given: Mapping[str, str]) -> LogWriter:
    from jaula.logs.drivers import journald  # loaded by the shims that send

    return journald.open_writer(given)


def _syslog(path: str, given: Mapping[str, str]) -> LogWriter:
    from jaula.logs.drivers import syslog

    return syslog.open_writer(given)


_DRIVERS: dict[str, Callable[[str, Mapping[str, str]], LogWriter]] = {
    "json-file": JsonFileWriter.from_options,
    "local": local.open_writer,
    "journald": _journald,
    "syslog": _syslog,
    "none": _none,
}

NAMES = tuple(_DRIVERS)
READABLE = frozenset({"json-file", "local"})
"""Drivers whose logs can be read back."""
SENDING = frozenset({"journald", "syslog"})
"""Drivers that name the container in what they write (:mod:`jaula.logs.drivers.remote_base`)."""


def open_writer(driver: str, options: Mapping[str, str], path: str) -> LogWriter:
    """A writer for a container. ``path`` is a host path that the engine chose.

    Raises ``InvalidRequest`` for an unknown driver or option, ``OSError`` where ``path`` cannot be
    opened. With ``mode=non-blocking`` a driver of files forks.
    """
    factory = _factory(driver)
    if driver not in READABLE:
        return factory(path, options)
    buffer, own = non_blocking.split(options)
    if not buffer:
        return factory(path, own)
    return non_blocking.NonBlockingWriter(lambda: factory(path, own), buffer)


def validate(driver: str, options: Mapping[str, str]) -> None:
    """The checks of :func:`open_writer` without opening anything; raises ``InvalidRequest``."""
    _factory(driver)
    if driver == "json-file":
        check_json_file(non_blocking.split(options)[1])
    elif driver == "local":
        local.check(non_blocking.split(options)[1])
    elif driver == "journald":
        from jaula.logs.drivers import journald

        journald.check(options)
    elif driver == "syslog":
        from jaula.logs.drivers import syslog

        syslog.check(options)
    else:
        check_names(driver, options, ())


def _factory(driver: str) -> Callable[[str, Mapping[str, str]], LogWriter]:
    try:
        return _DRIVERS[driver]
    except KeyError:
        raise InvalidRequest(
            f"unknown log driver {driver!r}", hint=f"known are {', '.join(NAMES)}"
        ) from None
