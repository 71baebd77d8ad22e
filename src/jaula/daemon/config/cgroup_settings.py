"""The cgroup driver: ``native.cgroupdriver`` of ``exec-opts``, and the parent of containers.

Source: docker docs, "dockerd", "Options for the runtime". dockerd's default is systemd on a host
with systemd and cgroup v2. Here this is the default of an engine that serves CRI, since its client,
the kubelet, has units of systemd on such a host.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.daemon.config.setting import Setting

_OPTION = "native.cgroupdriver"
_DRIVERS = ("cgroupfs", "systemd")
_SLICE = "jaula.slice"  # parent of containers, as /jaula is with the driver cgroupfs


def normalize(settings: dict[str, object], *, has_systemd: bool, rootless: bool) -> None:
    """Convert the settings of cgroups to fields of ``EngineConfig``, in place. Pure.

    ``has_systemd`` tells whether systemd manages the host's cgroups, and these are v2.

    :raises InvalidRequest: when an option or the parent is not valid, or the host lacks the driver.
    """
    from jaula.cgroups import cgroup_path
    from jaula.errors import InvalidRequest

    values = settings.pop("exec_opt", ())
    driver = _driver(tuple(values) if isinstance(values, list | tuple) else ())
    parent = str(settings.get("cgroup_parent", ""))
    if driver == "systemd" and not has_systemd:
        raise InvalidRequest(
            f"{_OPTION}=systemd needs systemd as init, and cgroup v2",
            hint=f"use {_OPTION}=cgroupfs",
        )
    if driver == "systemd" and rootless:
        raise InvalidRequest(
            f"{_OPTION}=systemd is not supported by a rootless engine, whose containers have"
            " cgroups below its own",
            hint=f"use {_OPTION}=cgroupfs",
        )
    if not driver and settings.get("cri") and has_systemd and not rootless:
        driver = "systemd" if not parent or parent.endswith(".slice") else "cgroupfs"
    if driver == "systemd":
        settings["cgroup_parent"] = parent or _SLICE
        cgroup_path.parent_path(parent or _SLICE, systemd=True)
    if driver:
        settings["cgroup_driver"] = driver


def _driver(options: tuple[object, ...]) -> str:
    """Return the driver that the options name, '' without one.

    :raises InvalidRequest: when an option is not known, or its value is not.
    """
    from jaula.errors import InvalidRequest

    driver = ""
    for option in options:
        key, equals, value = str(option).partition("=")
        if key.strip().lower() != _OPTION or not equals:
            raise InvalidRequest(
                f"invalid exec option {str(option)[:80]!r}", hint=f"write {_OPTION}=systemd"
            )
        driver = value.strip()
        if driver not in _DRIVERS:
            raise InvalidRequest(
                f"{_OPTION} option {driver[:80]!r} not supported",
                hint=f"it must be one of {', '.join(_DRIVERS)}",
            )
    return driver


def keys() -> dict[str, Setting]:
    """Return the keys of ``daemon.json``."""
    from jaula.daemon.config import setting

    def options(key: str, value: object) -> dict[str, object]:
        return {"exec_opt": tuple(setting.read_strings(key, value))}

    return {"exec-opts": setting.Setting(("exec-opt",), options)}
