"""Which log a container gets: the request's driver and options over the engine's defaults."""

from __future__ import annotations

import re

import msgspec

from jaula.config import EngineConfig
from jaula.errors import InvalidRequest
from jaula.logs import drivers
from jaula.logs.drivers import remote_base
from jaula.spec.api import LogConfig
from jaula.state.records import ContainerRecord


def log_options(config: EngineConfig, wanted: LogConfig) -> tuple[str, dict[str, str]]:
    """The driver's name and its options.

    :raises InvalidRequest: a driver that is not there, or an option it does not have.
    """
    driver = wanted.type or config.log_driver
    options = dict(wanted.config)
    if driver == config.log_driver:
        options = config.log_options | options
    if driver == "json-file":
        options.setdefault("max-size", str(config.log_max_size))
        options.setdefault("max-file", str(config.log_max_file))
    for name in (*remote_base.IDENTITY, "attributes"):
        if name in options:
            raise InvalidRequest(f"unknown log opt {name!r}: the engine sets it")
    for name in ("labels-regex", "env-regex"):
        if name in options:
            _pattern(name, options[name])
    if "tag" in options:
        expand(options.get("tag", ""), {})
    drivers.validate(driver, options)
    return driver, options


def check(config: EngineConfig) -> None:
    """Raises ``InvalidRequest`` where no container could have the engine's own driver."""
    try:
        log_options(config, LogConfig())
    except InvalidRequest as error:
        message = f"invalid logging driver or options: {error.message}"
        raise InvalidRequest(message, hint=error.hint) from None


def with_identity(driver: str, options: dict[str, str], record: ContainerRecord) -> dict[str, str]:
    """The options with what a driver writes of the container."""
    if driver == "json-file" and (found := attributes(options, record)):
        return options | {"attributes": msgspec.json.encode(found).decode()}
    if driver not in drivers.SENDING:
        return options
    tag = expand(options.get("tag") or "{{.ID}}", _words(record))
    return options | {
        "container-id": record.id,
        "container-name": record.name,
        "tag": tag,
    }


def attributes(options: dict[str, str], record: ContainerRecord) -> dict[str, str]:
    """The labels and variables that ``labels``, ``env`` and their patterns choose, and the tag."""
    found: dict[str, str] = {}
    variables = dict(entry.partition("=")[::2] for entry in record.body.env)
    for name, values in (("labels", record.body.labels), ("env", variables)):
        wanted = options.get(name, "").split(",")
        pattern = _pattern(name, options[f"{name}-regex"]) if f"{name}-regex" in options else None
        for key, value in values.items():
            if key in wanted or (pattern is not None and pattern.search(key)):
                found[key] = value
    if "tag" in options:
        found["tag"] = expand(options["tag"], _words(record))
    return dict(sorted(found.items()))


def details(config: EngineConfig, record: ContainerRecord) -> bytes:
    """What ``logs --details`` puts before a line."""
    from urllib.parse import quote_plus

    driver, options = log_options(config, record.resolved.log)
    found = attributes(options, record) if driver == "json-file" else {}
    pairs = ",".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in found.items())
    return pairs.encode() + b" "


def _pattern(name: str, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise InvalidRequest(f"log opt {name}: {text!r} is no pattern: {error}") from None


def _words(record: ContainerRecord) -> dict[str, str]:
    image = record.image.removeprefix("sha256:")
    return {
        ".ID": record.id[:12],
        ".FullID": record.id,
        ".Name": record.name,
        ".ImageID": image[:12],
        ".ImageFullID": image,
        ".ImageName": record.body.image,
        ".DaemonName": "jaula",
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
