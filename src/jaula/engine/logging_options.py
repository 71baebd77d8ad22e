"""Which log a container gets: the request's driver and options over the engine's defaults."""

from __future__ import annotations

from jaula.config import EngineConfig
from jaula.logs import drivers
from jaula.spec.api import LogConfig


def log_options(config: EngineConfig, wanted: LogConfig) -> tuple[str, dict[str, str]]:
    """The driver's name and its options.

    :raises InvalidRequest: a driver that is not there, or an option it does not have.
    """
    driver = wanted.type or config.log_driver
    options = dict(wanted.config)
    if driver == "json-file":
        options.setdefault("max-size", str(config.log_max_size))
        options.setdefault("max-file", str(config.log_max_file))
    drivers.validate(driver, options)
    return driver, options
