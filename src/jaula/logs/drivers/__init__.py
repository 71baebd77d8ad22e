"""The log drivers by name: the writers of :mod:`jaula.spec.log_drivers`, the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType

from jaula.errors import InvalidRequest
from jaula.logs.address import LogAddress
from jaula.logs.cached_writer import CachedWriter
from jaula.logs.drivers import local
from jaula.logs.drivers.json_file import JsonFileWriter
from jaula.logs.drivers.json_file import check as check_json_file
from jaula.logs.drivers.none import NoneWriter
from jaula.logs.log_driver import LogWriter
from jaula.logs.log_opt import Limits, check_names, split_cache, split_delivery_mode
from jaula.logs.non_blocking import NonBlockingWriter
from jaula.spec.log_drivers import BY_NAME, DRIVERS, NAMES, SENDING


def _none(path: str, log_opts: Mapping[str, str]) -> LogWriter:
    check_names("none", log_opts, ())
    return NoneWriter()


def _driver_module(driver: str) -> ModuleType:
    """Return the module of a driver that few containers have; only their shims load it."""
    from importlib import import_module

    return import_module(BY_NAME[driver].module)


_FILE_DRIVERS: dict[str, Callable[[str, Mapping[str, str]], JsonFileWriter]] = {
    "json-file": JsonFileWriter.from_options,
    "local": local.open_writer,
}
POD = "cri"
"""The driver of the containers of pods. Its options name files of the host, so the engine sets
them, and a request cannot have it."""
_INSTEAD = {
    "awslogs": "fluentd with a Fluent Bit whose output is cloudwatch_logs",
    "gcplogs": "fluentd with a Fluent Bit whose output is stackdriver",
    "splunk": "fluentd with a Fluent Bit whose output is splunk",
    "logentries": "syslog with the address of the service",
    "etwlogs": "journald; ETW is Windows'",
}
"""Drivers of Docker that this engine does not have, and what replaces them."""


def open_writer(driver: str, options: Mapping[str, str], path: str) -> LogWriter:
    """Return a writer for a container. ``path`` is a host path that the engine chose.

    With ``mode=non-blocking`` a driver that writes files forks. A driver that sends also writes a
    cache, unless ``path`` is empty. The driver of pods has its path in the options.

    :raises InvalidRequest: when the driver or an option does not exist.
    :raises OSError: when the file cannot be opened.
    """
    if driver == POD:
        from jaula.logs.drivers.cri_driver import open_writer as cri_writer

        return cri_writer(options)
    _check_name(driver)
    cached, cache, options = split_cache(options)
    if driver == "none":
        return _none(path, options)
    if driver in SENDING:
        remote: LogWriter = _driver_module(driver).open_writer(options)
        return CachedWriter(remote, local.open_writer(path, cache)) if cached and path else remote
    factory = _FILE_DRIVERS[driver]
    buffer, own = split_delivery_mode(options)
    if not buffer:
        return factory(path, own)
    return NonBlockingWriter(lambda: factory(path, own), buffer)


def validate(driver: str, options: Mapping[str, str]) -> None:
    """Run the checks of :func:`open_writer` on a request, without opening a file.

    :raises InvalidRequest: when the driver or an option does not exist.
    """
    _check_name(driver)
    _, cache, options = split_cache(options)
    local.check(cache)
    if driver == "json-file":
        check_json_file(split_delivery_mode(options)[1])
    elif driver == "local":
        local.check(split_delivery_mode(options)[1])
    elif driver in SENDING:
        _driver_module(driver).check(options)
    else:
        check_names(driver, options, ())


def file_limits(driver: str, options: Mapping[str, str]) -> Limits | None:
    """Return the limits of the files that a driver writes, None if it writes none.

    :raises InvalidRequest: when an option is not valid.
    """
    cached, cache, options = split_cache(options)
    if driver == "json-file":
        return check_json_file(split_delivery_mode(options)[1])
    if driver == "local":
        return local.check(split_delivery_mode(options)[1])
    return local.check(cache) if driver in SENDING and cached else None


def readable(driver: str, options: Mapping[str, str]) -> bool:
    """Return whether the log of a container with valid options can be read back."""
    return (
        driver == POD or driver in _FILE_DRIVERS or (driver in SENDING and split_cache(options)[0])
    )


def address(driver: str, options: Mapping[str, str]) -> LogAddress | None:
    """Return the server of a log driver with these options; None for the default of syslog.

    Without the name of a driver an option of each driver counts, since the engine's own driver
    gets them.

    :raises InvalidRequest: when the address is not valid.
    """
    for each in DRIVERS:
        text = options.get(each.address, "")
        if not each.address or driver not in ("", each.name):
            continue
        if text or (each.needs_address and driver == each.name):
            found: LogAddress = _driver_module(each.name).parse_address(text)
            return found
    return None


def _check_name(driver: str) -> None:
    if driver not in NAMES:
        instead = _INSTEAD.get(driver)
        raise InvalidRequest(
            f"logger: no log driver named '{driver[:80]}' is registered",
            hint=f"use {instead}" if instead else f"known are {', '.join(NAMES)}",
        )
