"""The log drivers by name. A new driver is one file and one line in the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from jaula.errors import InvalidRequest
from jaula.logs.drivers import local
from jaula.logs.drivers.json_file import JsonFileWriter
from jaula.logs.drivers.json_file import check as check_json_file
from jaula.logs.drivers.none import NoneWriter
from jaula.logs.non_blocking import NonBlockingWriter
from jaula.logs.options import check_names, split_delivery_mode
from jaula.logs.protocol import LogWriter


def _none(path: str, log_opts: Mapping[str, str]) -> LogWriter:
    check_names("none", log_opts, ())
    return NoneWriter()


def _journald(path: str, log_opts: Mapping[str, str]) -> LogWriter:
    from jaula.logs.drivers import journald  # loaded only by shims that use it

    return journald.open_writer(log_opts)


def _syslog(path: str, log_opts: Mapping[str, str]) -> LogWriter:
    from jaula.logs.drivers import syslog

    return syslog.open_writer(log_opts)


_FILE_DRIVERS: dict[str, Callable[[str, Mapping[str, str]], JsonFileWriter]] = {
    "json-file": JsonFileWriter.from_options,
    "local": local.open_writer,
}
_DRIVERS: dict[str, Callable[[str, Mapping[str, str]], LogWriter]] = {
    **_FILE_DRIVERS,
    "journald": _journald,
    "syslog": _syslog,
    "none": _none,
}

NAMES = tuple(_DRIVERS)
READABLE = frozenset(_FILE_DRIVERS)
"""Drivers whose logs can be read back."""
SENDING = frozenset({"journald", "syslog"})
"""Drivers that write the container's identity (:mod:`jaula.logs.drivers.remote_base`)."""


def open_writer(driver: str, options: Mapping[str, str], path: str) -> LogWriter:
    """Return a writer for a container. ``path`` is a host path that the engine chose.

    With ``mode=non-blocking`` a driver that writes files forks.

    :raises InvalidRequest: when the driver or an option does not exist.
    :raises OSError: when ``path`` cannot be opened.
    """
    factory = _factory(driver)
    if driver not in _FILE_DRIVERS:
        return factory(path, options)
    buffer, own = split_delivery_mode(options)
    if not buffer:
        return factory(path, own)
    return NonBlockingWriter(lambda: _FILE_DRIVERS[driver](path, own), buffer)


def validate(driver: str, options: Mapping[str, str]) -> None:
    """Run the checks of :func:`open_writer` without opening a file.

    :raises InvalidRequest: when the driver or an option does not exist.
    """
    _factory(driver)
    if driver == "json-file":
        check_json_file(split_delivery_mode(options)[1])
    elif driver == "local":
        local.check(split_delivery_mode(options)[1])
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
