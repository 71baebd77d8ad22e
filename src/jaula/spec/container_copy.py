"""The host configuration of a disposable copy of a container. Pure.

A copy runs beside the container: it publishes no port, is not started again, and changes no file of
the host or of another container.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NO_VOLUMES: Mapping[str, str] = {}


def copied_host_config(
    host: Mapping[str, Any], volumes: Mapping[str, str] = NO_VOLUMES
) -> dict[str, Any]:
    """Return the ``HostConfig`` of a copy from that of a container's document.

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
        "Binds": binds,
        "Mounts": mounts,
        "VolumesFrom": sources,
        "PortBindings": {},
        "PublishAllPorts": False,
        "RestartPolicy": {"Name": "no"},
        "AutoRemove": False,
        "ContainerIDFile": "",
        "LogConfig": {"Type": "json-file", "Config": {}},
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
