"""The form of layers on the disk: ``storage-opts`` with ``erofs`` and ``verity``.

Docker's ``storage-opts`` has options of a storage driver. These two are options of the driver
overlay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaula.config import EngineConfig
    from jaula.daemon.config.setting import Setting
    from jaula.storage.drivers.storage_driver import SnapshotDriver
    from jaula.storage.layers.layer_store import LayerFormat

_OPTIONS = ("erofs", "verity")
_VALUES = {"on": True, "true": True, "off": False, "false": False}
_HINT = "write verity=on or erofs=on"


def normalize(settings: dict[str, object]) -> None:
    """Convert ``storage_opt`` to a field of ``EngineConfig``, in place. Pure.

    :raises InvalidRequest: when an option is not valid.
    """
    from jaula.errors import InvalidRequest

    values = settings.pop("storage_opt", ())
    enabled = dict.fromkeys(_OPTIONS, False)
    for option in values if isinstance(values, list | tuple) else ():
        key, equals, value = (part.strip().lower() for part in str(option).partition("="))
        key = key.removeprefix("overlay2.").removeprefix("overlay.")
        if key not in enabled or not equals or value not in _VALUES:
            raise InvalidRequest(f"invalid storage option {str(option)[:80]!r}", hint=_HINT)
        enabled[key] = _VALUES[value]
    if enabled["verity"]:
        settings["layer_format"] = "verity"
    elif enabled["erofs"]:
        settings["layer_format"] = "erofs"


def keys() -> dict[str, Setting]:
    """Return the keys of ``daemon.json``."""
    from jaula.daemon.config import setting

    def options(key: str, value: object) -> dict[str, object]:
        return {"storage_opt": tuple(setting.read_strings(key, value))}

    return {"storage-opts": setting.Setting(("storage-opt",), options)}


def layer_format(config: EngineConfig, *, rootless: bool) -> LayerFormat:
    """Return the form of new layers, after a probe that this host can have it.

    :raises Unsupported: when it cannot.
    """
    from jaula.errors import Unsupported
    from jaula.storage.erofs import layer

    if config.layer_format == "directory":
        return "directory"
    verity = config.layer_format == "verity"
    if rootless:
        raise Unsupported(
            f"{_option(config)} is not possible for a rootless engine: a user namespace cannot"
            " mount EROFS",
            hint="remove the option",
        )
    directory = config.paths.layers
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    layer.probe(directory, verity=verity)
    return "verity" if verity else "erofs"


def check_driver(config: EngineConfig, driver: SnapshotDriver) -> SnapshotDriver:
    """Return the driver, if it uses the layers where they are.

    :raises Unsupported: when it copies them, so that their form has no effect on containers.
    """
    from jaula.errors import Unsupported

    if config.layer_format != "directory" and driver.name != "overlay":
        raise Unsupported(
            f"{_option(config)} needs the storage driver overlay: {driver.name} copies the layers"
            " to the directory of each container",
            hint="start the engine with --storage-driver overlay",
        )
    return driver


def _option(config: EngineConfig) -> str:
    return f"--storage-opt {config.layer_format}=on"
