"""Log settings: their keys in ``daemon.json``, and the values of the flags.

Source: docker docs, "dockerd": ``log-driver``, ``log-opts``. They apply to containers without a log
driver of their own, or with the same one. The driver validates its options.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.daemon.config.setting import Setting


FORMATS = ("text", "json")
LEVELS = {"debug": 10, "info": 20, "warn": 30, "warning": 30, "error": 40, "fatal": 50}
"""The levels of ``--log-level``, as the module logging numbers them."""


def normalize(settings: dict[str, object]) -> None:
    """Convert the log settings to fields of ``EngineConfig``, in place.

    :raises InvalidRequest: when an option is malformed.
    """
    from jaula.errors import InvalidRequest

    log_options = {}
    values = settings.pop("log_opt", ())
    for text in values if isinstance(values, list | tuple) else ():
        key, equals, value = str(text).partition("=")
        if not key or not equals:
            raise InvalidRequest(f"invalid log option {text!r}", hint="write KEY=VALUE")
        log_options[key] = value
    if log_options:
        settings["log_options"] = log_options
    if (format := settings.get("log_format", "text")) not in FORMATS:
        raise InvalidRequest(
            f"invalid log format: {str(format)[:40]}", hint=f"must be one of {', '.join(FORMATS)}"
        )
    if (level := settings.get("log_level", "info")) not in LEVELS:
        raise InvalidRequest(
            f"invalid logging level: {str(level)[:40]}",
            hint="must be one of debug, info, warn, error, fatal",
        )


def keys() -> dict[str, Setting]:
    """Return the keys of ``daemon.json``."""
    from jaula.daemon.config import setting

    def driver(key: str, value: object) -> dict[str, object]:
        return {"log_driver": setting.read_string(key, value)}

    def text(key: str, value: object) -> dict[str, object]:
        return {key.replace("-", "_"): setting.read_string(key, value)}

    def options(key: str, value: object) -> dict[str, object]:
        rows = setting.read_object(key, value).items()
        log_options = [
            f"{name}={setting.read_string(f'{key}: {name}', text)}" for name, text in rows
        ]
        return {"log_opt": tuple(log_options)}

    return {
        "log-driver": setting.Setting(("log-driver",), driver),
        "log-format": setting.Setting(("log-format",), text),
        "log-level": setting.Setting(("log-level",), text),
        "log-opts": setting.Setting(("log-opt", "log-max-size", "log-max-file"), options),
    }
