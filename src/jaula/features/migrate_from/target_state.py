"""Read the state of the engine that takes over, through jaula's API."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from ipaddress import ip_interface
from typing import TYPE_CHECKING, Any, Protocol

from jaula.errors import JaulaError
from jaula.features.migrate_from.migrate_plan import Target, TargetImage, TargetNetwork
from jaula.kernel.rtnetlink import Rtnetlink
from jaula.storage.compare import compare_trees
from jaula.storage.trees import open_directory

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jaula.features.migrate_from.inventory import Inventory, Source

    Query = Iterable[tuple[str, object]]


class Api(Protocol):
    """Requests to the engine that takes over. Errors of the engine are :mod:`jaula.errors`'."""

    is_local: bool
    """Whether the engine is on this host."""

    def document(self, method: str, path: str, query: Query = (), body: object = None) -> Any:
        """Send a request and return the JSON document of the answer, None without a body."""

    def pull(self, name: str) -> None:
        """Pull an image, with the user's login at its registry."""

    def upload(
        self, path: str, query: Query, chunks: Iterable[bytes | memoryview]
    ) -> Sequence[Any]:
        """POST a tar archive in chunks and return the JSON documents of the answer.

        An exception of ``chunks`` closes the connection, so the engine keeps nothing of it.
        """


def read_target(api: Api, source: Source, inventory: Inventory) -> Target:
    """Return the state of the engine behind ``api``."""
    info = api.document("GET", "/info")
    is_rootless = "name=rootless" in (info.get("SecurityOptions") or ())
    images: dict[str, TargetImage] = {}
    ids = set()
    for summary in api.document("GET", "/images/json"):
        ids.add(summary["Id"])
        layers = _layers(api, summary["Id"])
        for tag in summary.get("RepoTags") or ():
            images[tag] = TargetImage(summary["Id"], layers)
    volumes = {each["Name"]: each for each in api.document("GET", "/volumes").get("Volumes") or ()}
    networks = {each["Name"]: _network(each) for each in api.document("GET", "/networks")}
    containers = {
        each["Names"][0].removeprefix("/"): each.get("Labels") or {}
        for each in api.document("GET", "/containers/json", (("all", True),))
    }
    root = info.get("DockerRootDir", "")
    return Target(
        images=images,
        image_ids=frozenset(ids),
        volumes={name: each.get("Labels") or {} for name, each in volumes.items()},
        networks=networks,
        secrets=frozenset(each["Spec"]["Name"] for each in api.document("GET", "/secrets")),
        containers=containers,
        interfaces=_interfaces() if api.is_local and not is_rootless else {},
        log_drivers=tuple((info.get("Plugins") or {}).get("Log") or ()),
        same_volumes=_same_volumes(source, inventory, volumes) if api.is_local else frozenset(),
        free=_free(root) if api.is_local else -1,
    )


def _layers(api: Api, id: str) -> tuple[str, ...]:
    try:
        document = api.document("GET", f"/images/{id}/json")
    except JaulaError:
        return ()  # removed meanwhile
    return tuple(document["RootFS"].get("Layers") or ())


def _network(document: Mapping[str, Any]) -> TargetNetwork:
    pools = (document.get("IPAM") or {}).get("Config") or ()
    return TargetNetwork(
        document.get("Labels") or {},
        document.get("Driver", ""),
        tuple(pool["Subnet"] for pool in pools if pool.get("Subnet")),
    )


def _interfaces() -> dict[str, tuple[str, ...]]:
    """Return the links of this host with their subnets."""
    with Rtnetlink() as netlink:
        names = dict(socket.if_nameindex())
        interfaces: dict[str, tuple[str, ...]] = dict.fromkeys(names.values(), ())
        for row in netlink.addresses():
            if row.index in names:
                subnet = str(ip_interface(f"{row.address}/{row.prefix}").network)
                interfaces[names[row.index]] += (subnet,)
    return {
        name: tuple(each for each in subnets if not each.startswith(("fe80:", "127.", "::1")))
        for name, subnets in interfaces.items()
    }


def _same_volumes(
    source: Source, inventory: Inventory, existing: Mapping[str, Mapping[str, Any]]
) -> frozenset[str]:
    """Return the volumes of both engines with equal files, as far as both can be read."""
    same = set()
    for volume in inventory.volumes:
        other = existing.get(volume.name)
        if other is None or other.get("Options") or volume.options or volume.unreadable:
            continue
        with (
            suppress(OSError, JaulaError),
            source.volume_directory(volume) as expected,
            open_directory(other["Mountpoint"]) as actual,
        ):
            if not compare_trees(actual, expected, timed_directories=()):
                same.add(volume.name)
    return frozenset(same)


def _free(root: str) -> int:
    try:
        status = os.statvfs(root)
    except OSError:
        return -1
    return status.f_bavail * status.f_frsize
