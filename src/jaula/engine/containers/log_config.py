"""The log driver of a container and its options: the request's, over the engine's defaults."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from jaula.config import EngineConfig
from jaula.errors import InvalidRequest
from jaula.logs import drivers, timestamp
from jaula.logs.drivers import cri_driver, remote_base
from jaula.logs.log_opt import OUTSIDE, Limits
from jaula.logs.pod_log import PodLog
from jaula.spec.api_documents import LogConfig
from jaula.spec.log_drivers import BY_NAME, SENDING
from jaula.state.container_records import ContainerRecord

_MAX_TAG = 1024  # characters of a tag's template
_MAX_PATTERN_MEMORY = 1 << 20  # bytes of a compiled expression


def log_options(config: EngineConfig, log: LogConfig) -> tuple[str, dict[str, str]]:
    """Return the name and the options of the log driver of a resolved request.

    :raises InvalidRequest: when the driver does not exist or does not have an option.
    """
    if pod_log(log) is not None:
        return log.type, log.config
    return requested_options(config, log)


def pod_log_config(directory: str, path: str) -> LogConfig:
    """Return the log of a pod's container: the file ``path`` below the absolute ``directory``.

    It takes the place of the log in the body.

    :raises InvalidRequest: when one of them is not valid.
    """
    config = {"directory": directory, "path": path}
    cri_driver.parse_options(config)
    return LogConfig(type=drivers.POD, config=config)


def pod_log(log: LogConfig) -> PodLog | None:
    """Return the file of a pod's container, None if it is not one."""
    return cri_driver.parse_options(log.config) if log.type == drivers.POD else None


def requested_options(config: EngineConfig, requested: LogConfig) -> tuple[str, dict[str, str]]:
    """Return the name and the options of the log driver that a client asks for.

    :raises InvalidRequest: when the driver does not exist or does not have an option.
    """
    driver = requested.type or config.log_driver
    options = dict(requested.config)
    if driver == config.log_driver:
        options = config.log_options | options
    if driver == "json-file":
        options.setdefault("max-size", str(config.log_max_size))
        options.setdefault("max-file", str(config.log_max_file))
    for name in (*remote_base.IDENTITY, OUTSIDE, "attributes"):
        if name in options:
            raise InvalidRequest(f"unknown log opt {name!r}: the engine sets it")
    for name in ("labels-regex", "env-regex"):
        if name in options:
            _pattern(name, options[name])
    if (tag := options.get("tag")) is not None:
        if len(tag) > _MAX_TAG:
            raise InvalidRequest(
                f"log opt tag: {len(tag)} characters; at most {_MAX_TAG} are allowed"
            )
        expand(tag, {})
    drivers.validate(driver, options)
    return driver, options


def requested_files(config: EngineConfig, requested: LogConfig) -> Limits | None:
    """Return the limits of the files of a log, None if the request chooses none.

    A log of the engine's own driver with the engine's own options is the operator's choice.

    :raises InvalidRequest: when the driver does not exist or does not have an option.
    """
    own = requested.type in ("", config.log_driver) and not requested.config
    if own or requested.type == drivers.POD:
        return None
    return drivers.file_limits(*requested_options(config, requested))


def check(config: EngineConfig) -> None:
    """Check the engine's own log driver and options.

    :raises InvalidRequest: when no container could have them.
    """
    try:
        requested_options(config, LogConfig())
    except InvalidRequest as error:
        message = f"invalid logging driver or options: {error.message}"
        raise InvalidRequest(message, hint=error.hint) from None


def with_identity(driver: str, options: dict[str, str], record: ContainerRecord) -> dict[str, str]:
    """Return the options with the container's identity, as far as the driver writes it.

    They say too whether the log's server may be the host.
    """
    if driver == "json-file" and (attached := attributes(options, record)):
        return options | {"attributes": msgspec.json.encode(attached).decode()}
    if driver not in SENDING:
        return options
    tag = expand(options.get("tag") or "{{.ID}}", _words(record))
    identity = {"container-id": record.id, "container-name": record.name, "tag": tag}
    if record.outside_log and BY_NAME[driver].address:
        identity[OUTSIDE] = "true"
    if attached := _remote_attributes(driver, options, record):
        identity["attributes"] = msgspec.json.encode(attached).decode()
    return options | identity


def _remote_attributes(
    driver: str, options: dict[str, str], record: ContainerRecord
) -> dict[str, str]:
    """Return the labels and variables for a log server, and the container's origin."""
    if not BY_NAME[driver].labels:
        return {}
    selected = attributes({k: v for k, v in options.items() if k != "tag"}, record)
    if not BY_NAME[driver].origin:
        return selected
    return {
        "image_id": record.image,
        "image_name": record.body.image,
        "command": " ".join(record.args),
        "created": timestamp.format_time(record.created),
        **selected,
    }


def attributes(options: dict[str, str], record: ContainerRecord) -> dict[str, str]:
    """Return the labels and variables that the options select, and the tag."""
    attached: dict[str, str] = {}
    variables = dict(entry.partition("=")[::2] for entry in record.body.env)
    for name, values in (("labels", record.body.labels), ("env", variables)):
        selected = frozenset(options.get(name, "").split(","))
        option = f"{name}-regex"
        matches = _pattern(option, options[option]) if option in options else None
        for key, value in values.items():
            if key in selected or (matches is not None and matches(key)):
                attached[key] = value
    if "tag" in options:
        attached["tag"] = expand(options["tag"], _words(record))
    return dict(sorted(attached.items()))


def details(config: EngineConfig, record: ContainerRecord) -> bytes:
    """Return the prefix of a line for ``logs --details``."""
    from urllib.parse import quote_plus

    driver, options = log_options(config, record.log)
    attached = attributes(options, record) if driver == "json-file" else {}
    pairs = ",".join(f"{quote_plus(key)}={quote_plus(value)}" for key, value in attached.items())
    return pairs.encode() + b" "


def _pattern(name: str, text: str) -> Callable[[str], bool]:
    """Return a function that tells whether a name matches a regular expression of the client.

    RE2 has Docker's syntax. Its time grows with the length of the name, not with the power of it.

    :raises InvalidRequest: when the expression is not valid, or too large.
    """
    import re2

    options = re2.Options()
    options.max_mem = _MAX_PATTERN_MEMORY
    options.log_errors = False
    try:
        pattern = re2.compile(text.encode(errors="surrogateescape"), options)
    except re2.error as error:
        reason = error.args[0].decode(errors="replace") if error.args else "unknown error"
        raise InvalidRequest(
            f"log opt {name}: {text[:200]!r} is not a valid regular expression: {reason}"
        ) from None
    return lambda key: pattern.search(key.encode(errors="surrogateescape")) is not None


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
    """Return a tag from its template (docker docs, "Customize log driver output").

    :raises InvalidRequest: when braces contain anything but a known field.
    """

    parts: list[str] = []
    position = 0
    while (start := template.find("{{", position)) >= 0:
        end = template.find("}}", start + 2)
        if end < 0:
            break
        field = template[start + 2 : end].strip()
        if field not in _FIELDS:
            raise InvalidRequest(
                f"log opt tag: {{{{{field[:80]}}}}} is not known", hint=", ".join(_FIELDS)
            )
        parts += template[position:start], words.get(field, "")
        position = end + 2
    return "".join((*parts, template[position:]))


def log_path(config: EngineConfig, container_id: str) -> str:
    """Return the path of the json-file log, which has the name that Docker gives it."""
    return str(config.paths.container(container_id) / f"{container_id}-json.log")
