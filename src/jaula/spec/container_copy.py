"""The host configuration of a copy of a container. Pure.

A copy runs beside the container, so it publishes no port. There are three kinds:

* A clone lives on. It has all else of the container.
* A disposable copy is not started again, and changes no file of the host or of another container.
  ``verify --probe``, ``why`` and ``harden check`` run in one.
* A debug session has the confinement of the container, and nothing else of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from jaula.spec import run_options

if TYPE_CHECKING:
    from jaula.spec.api_documents import HostConfig

NO_VOLUMES: Mapping[str, str] = {}

_OWN: dict[str, Any] = {"ContainerIDFile": "", "PortBindings": {}, "PublishAllPorts": False}
"""Members that no copy has of the container."""

_DISPOSABLE: dict[str, Any] = _OWN | {
    "AutoRemove": False,
    "LogConfig": {"Type": "json-file", "Config": {}},
    "RestartPolicy": {"Name": "no"},
}

_CONFINEMENT = frozenset(
    option.place.split(".")[1]
    for option in run_options.OPTIONS
    if option.place.startswith("HostConfig.")
    and (
        option.group in (run_options.SECURITY, run_options.LIMITS)
        or option.name in ("runtime", "sysctl", "userns")
    )
    # Devices are of the host. The members have what a preset filled in.
    and option.name not in ("device", "device-cgroup-rule", "gpus", "profile")
) | {"MaskedPaths", "ReadonlyPaths"}
"""Members that say how a container is confined and limited."""


def clone_members(host: HostConfig) -> dict[str, Any]:
    """Return the members of a clone that differ from those of its container, by attribute."""
    default = type(host)()
    return {name: getattr(default, name) for name in _attributes(host, _OWN)}


def confinement(host: HostConfig) -> dict[str, Any]:
    """Return the members of a container that its debug session has too, by attribute."""
    return {name: getattr(host, name) for name in _attributes(host, _CONFINEMENT)}


def _attributes(host: HostConfig, members: Collection[str]) -> list[str]:
    fields = zip(host.__struct_fields__, host.__struct_encode_fields__, strict=True)
    return [attribute for attribute, member in fields if member in members]


def copied_host_config(
    host: Mapping[str, Any], volumes: Mapping[str, str] = NO_VOLUMES
) -> dict[str, Any]:
    """Return the ``HostConfig`` of a disposable copy from that of a container's document.

    ``volumes`` are the names of copies of its volumes, by destination. Every other volume and bind
    is read-only, also those of ``--volumes-from``.
    """
    binds = [_bind(bind, volumes) for bind in host.get("Binds") or ()]
    mounts = [_mount(mount, volumes) for mount in host.get("Mounts") or ()]
    placed = {bind.split(":")[1] for bind in binds} | {mount.get("Target") for mount in mounts}
    mounts += [
        {"Type": "volume", "Source": name, "Target": path}
        for path, name in volumes.items()
        if path not in placed
    ]
    sources = [
        f"{source.removesuffix(':rw').removesuffix(':ro')}:ro"
        for source in host.get("VolumesFrom") or ()
    ]
    return {
        **host,
        **_DISPOSABLE,
        "Binds": binds,
        "Mounts": mounts,
        "VolumesFrom": sources,
    }


def _bind(bind: str, volumes: Mapping[str, str]) -> str:
    path = bind.split(":")[1]
    return f"{volumes[path]}{bind[bind.index(':') :]}" if path in volumes else readonly(bind)


def _mount(mount: Mapping[str, Any], volumes: Mapping[str, str]) -> dict[str, Any]:
    if (target := mount.get("Target")) in volumes:
        return {**mount, "Source": volumes[str(target)]}
    return {**mount, "ReadOnly": mount.get("Type") != "tmpfs"}


def readonly(bind: str) -> str:
    """Return a bind with ``ro``, and without options that change the source."""
    source, _, rest = bind.partition(":")
    target, _, options = rest.partition(":")
    kept = [word for word in options.split(",") if word not in ("", "rw", "ro", "z", "Z", "U")]
    return f"{source}:{target}:{','.join(['ro', *kept])}"
