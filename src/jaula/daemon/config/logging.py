"""Log settings of the daemon: keys of ``daemon.json``, and the values of the flags.

Source: docker docs, "dockerd": ``log-driver``, ``log-opts``. They are for containers that name no
driver or the same one. Whether a driver has an option is the driver's to say.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.daemon.config.setting import Setting


def normalize(settings: dict[str, object]) -> None:
    """Bring what is about logs into the form of ``EngineConfig``. Raises ``InvalidRequest``."""
    from jaula.errors import InvalidRequest

    found = {}
    given = settings.pop("log_opt", ())
    for text in given if isinstance(given, list | tuple) else ():
        key, equals, value = str(text).partition("=")
        if not key or not equals:
            raise InvalidRequest(f"invalid log option {text!r}", hint="write KEY=VALUE")
        found[key] = value
    if found:
        settings["log_options"] = found


def keys() -> dict[str, Setting]:
    """The keys of the configuration file."""
    from jaula.daemon.config import setting as file

    def driver(key: str, value: object) -> dict[str, object]:
        return {"log_driver": file.read_string(key, value)}

    def options(key: str, value: object) -> dict[str, object]:
        rows = file.read_object(key, value).items()
        found = [f"{name}={file.read_string(f'{key}: {name}', text)}" for name, text in rows]
        return {"log_opt": tuple(found)}

    return {
        "log-driver": file.Setting(("log-driver",), driver),
        "log-opts": file.Setting(("log-opt", "log-max-size", "log-max-file"), options),
    }
