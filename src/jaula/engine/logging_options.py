"""Which log a container gets: the request's driver and options over the engine's defaults."""

from __future__ import annotations

import re

from jaula.config import EngineConfig
from jaula.errors import InvalidRequest
from jaula.logs import drivers, remote
from jaula.spec.api import LogConfig
from jaula.state.records import ContainerRecord


def log_options(config: EngineConfig, wanted: LogConfig) -> tuple[str, dict[str, str]]:
    """The driver's name and its options.

    :raises InvalidRequest: a driver that is not there, or an option it does not have.
    """
    driver = wanted.type or config.log_driver
    options = dict(wanted.config)
    if driver == "json-file":
        options.setdefault("max-size", str(config.log_max_size))
        options.setdefault("max-file", str(config.log_max_file))
    for name in remote.IDENTITY:
        if name in options:
            raise InvalidRequest(f"unknown log opt {name!r}: the engine sets it")
    if driver in drivers.SENDING:
        expand(options.get("tag", ""), {})
    drivers.validate(driver, options)
    return driver, options


def identified(driver: str, options: dict[str, str], record: ContainerRecord) -> dict[str, str]:
    """The options with what a driver that sends has to know of the container."""
    if driver not in drivers.SENDING:
        return options
    image = record.image.removeprefix("sha256:")
    words = {
        ".ID": record.id[:12],
        ".FullID": record.id,
        ".Name": record.name,
        ".ImageID": image[:12],
        ".ImageFullID": image,
        ".ImageName": record.body.image,
        ".DaemonName": "jaula",
    }
    return options | {
        "container-id": record.id,
        "container-name": record.name,
        "tag": expand(options.get("tag") or "{{.ID}}", words),
    }


_FIELDS = (".ID", ".FullID", ".Name", ".ImageID", ".ImageFullID", ".ImageName", ".DaemonName")


def expand(template: str, words: dict[str, str]) -> str:
    """A tag from its template (docker docs, "Customize log driver output").

    :raises InvalidRequest: something else than the known fields in braces.
    """

    def word(match: re.Match[str]) -> str:
        field = match[1].strip()
        if field not in _FIELDS:
            raise InvalidRequest(
                f"log opt tag: {{{{{field}}}}} is not known", hint=", ".join(_FIELDS)
            )
        return words.get(field, "")

    return re.sub(r"\{\{(.*?)\}\}", word, template)
