"""Documents of the Docker Engine API, and what they say about the objects. Pure.

Source: Docker Engine API 1.45. All documents are untrusted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import msgspec

from jaula.errors import InvalidRequest
from jaula.features.migrate_from.inventory import (
    SourceContainer,
    SourceImage,
    SourceMount,
    SourceNetwork,
    SourceVolume,
)
from jaula.features.migrate_from.source_api import printable
from jaula.spec.api_documents import ContainerCreate, HostConfig
from jaula.spec.api_networks import IPAM, EndpointSettings, NetworkCreate
from jaula.spec.decode import Document, Int64

PREDEFINED = ("bridge", "host", "none")
SWARM_LABEL = "com.docker.swarm.task.id"

_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}", re.ASCII)
_BRIDGE_NAME = "com.docker.network.bridge.name"


class Swarm(Document, frozen=True, kw_only=True):
    local_node_state: str = ""


class Info(Document, frozen=True, kw_only=True):
    id: str = msgspec.field(name="ID", default="")
    driver: str = ""
    driver_status: tuple[tuple[str, str], ...] = ()
    docker_root_dir: str = ""
    cgroup_version: str = ""
    default_runtime: str = ""
    security_options: tuple[str, ...] = ()
    server_version: str = ""
    name: str = ""
    swarm: Swarm = Swarm()

    @property
    def has_containerd_store(self) -> bool:
        return ("driver-type", "io.containerd.snapshotter.v1") in self.driver_status


class ImageSummary(Document, frozen=True, kw_only=True):
    id: str = ""


class RootFs(Document, frozen=True, kw_only=True):
    layers: tuple[str, ...] = ()


class ImageConfig(Document, frozen=True, kw_only=True):
    labels: dict[str, str] = {}


class ImageDocument(Document, frozen=True, kw_only=True):
    id: str = ""
    repo_tags: tuple[str, ...] = ()
    repo_digests: tuple[str, ...] = ()
    size: Int64 = 0
    config: ImageConfig = ImageConfig()
    root_fs: RootFs = msgspec.field(name="RootFS", default=RootFs())


class VolumeDocument(Document, frozen=True, kw_only=True):
    name: str = ""
    driver: str = ""
    created_at: str = ""
    labels: dict[str, str] = {}
    options: dict[str, str] = {}


class VolumeList(Document, frozen=True, kw_only=True):
    volumes: tuple[VolumeDocument, ...] = ()


class NetworkDocument(NetworkCreate, frozen=True, kw_only=True):
    id: str = ""


class State(Document, frozen=True, kw_only=True):
    status: str = ""


class MountPoint(Document, frozen=True, kw_only=True):
    type: str = ""
    name: str = ""
    destination: str = ""
    rw: bool = msgspec.field(name="RW", default=True)


class NetworkSettings(Document, frozen=True, kw_only=True):
    networks: dict[str, EndpointSettings] = {}


class GraphDriver(Document, frozen=True, kw_only=True):
    name: str = ""
    data: dict[str, str] = {}


class ContainerSummary(Document, frozen=True, kw_only=True):
    id: str = ""


class ContainerDocument(Document, frozen=True, kw_only=True):
    id: str = ""
    name: str = ""
    created: str = ""
    image: str = ""
    driver: str = ""
    size_rw: Int64 = 0  # bytes of its own files, if they were asked for
    state: State = State()
    config: ContainerCreate = ContainerCreate()
    host_config: HostConfig = HostConfig()
    graph_driver: GraphDriver = GraphDriver()
    mounts: tuple[MountPoint, ...] = ()
    network_settings: NetworkSettings = NetworkSettings()


class Named(Document, frozen=True, kw_only=True):
    """A service, secret, config or plugin of docker."""

    id: str = msgspec.field(name="ID", default="")
    name: str = ""
    spec: dict[str, Any] = {}

    @property
    def title(self) -> str:
        return printable(self.name or self.spec.get("Name") or self.id)


def check_id(text: str) -> str:
    """Return an id of 64 digits.

    :raises InvalidRequest: when it is not one.
    """
    if not _HEX.fullmatch(text):
        raise InvalidRequest(f"{printable(text)!r} is not an id: the source is not valid")
    return text


def check_digest(text: str) -> str:
    """Return a digest.

    :raises InvalidRequest: when it is not one.
    """
    if not _DIGEST.fullmatch(text):
        raise InvalidRequest(f"{printable(text)!r} is not a digest: the source is not valid")
    return text


def is_volume_name(text: str) -> bool:
    """Return whether a text is a name of a volume, which is a directory."""
    return bool(_NAME.fullmatch(text))


def read_image(
    source_id: str, document: ImageDocument, *, id: str, sizes: Sequence[int] = ()
) -> SourceImage:
    """Return an image; ``id`` is the digest of its configuration, '' if it is not known.

    :raises InvalidRequest: when a layer is not a digest.
    """
    return SourceImage(
        id=id,
        source_id=source_id,
        tags=tuple(tag for tag in document.repo_tags if tag != "<none>:<none>"),
        digests=tuple(d for d in document.repo_digests if d != "<none>@<none>"),
        layers=tuple(map(check_digest, document.root_fs.layers)),
        size=max(document.size, 0),
        sizes=tuple(sizes),
        labels=document.config.labels,
    )


def read_volume(document: VolumeDocument, size: int, entries: int, problem: str) -> SourceVolume:
    """Return a volume. ``problem`` is the reason for which its files cannot be read. Pure."""
    if not is_volume_name(document.name):
        problem = "its name is not valid"
    return SourceVolume(
        document.name,
        document.driver,
        document.created_at,
        document.labels,
        document.options,
        size,
        entries,
        problem,
    )


def read_network(document: NetworkDocument) -> SourceNetwork:
    """Return a network with the request that makes it. Pure."""
    fields = {name: getattr(document, name) for name in NetworkCreate.__struct_fields__}
    request = NetworkCreate(**fields)
    pools = tuple(
        msgspec.structs.replace(pool, gateway=pool.gateway.partition("/")[0])
        for pool in (request.ipam or IPAM()).config
        if pool.subnet
    )
    ipam = msgspec.structs.replace(request.ipam or IPAM(), config=pools)
    config_from = (
        request.config_from if request.config_from and request.config_from.network else None
    )
    bridge = ""
    if document.driver in ("", "bridge") and not document.config_only:
        bridge = document.options.get(_BRIDGE_NAME) or f"br-{document.id[:12]}"
    request = msgspec.structs.replace(request, ipam=ipam, config_from=config_from, scope="")
    if config_from is not None:
        request = msgspec.structs.replace(request, ipam=None, options={}, enable_ipv6=None)
    return SourceNetwork(document.id, request, bridge)


def read_container(
    id: str,
    name: str,
    document: ContainerDocument,
    info: Info,
    *,
    changed: int = 0,
    no_changes: str = "",
) -> SourceContainer:
    """Return a container with the request that it was created with. Pure.

    Defaults that docker has filled in are removed, so that jaula's own apply.
    """
    host, config = document.host_config, document.config
    changes: dict[str, Any] = {
        "container_id_file": "",
        "links": tuple(map(_link, host.links)),
        "isolation": "" if host.isolation == "default" else host.isolation,
    }
    if host.runtime in (info.default_runtime, "runc", "io.containerd.runc.v2"):
        changes["runtime"] = ""
    if host.cgroupns_mode == ("host" if info.cgroup_version == "1" else "private"):
        changes["cgroupns_mode"] = ""
    if host.ipc_mode == "private":
        changes["ipc_mode"] = ""
    if host.network_mode == "default":
        changes["network_mode"] = "bridge"
    unmasked = host.masked_paths == () and host.readonly_paths == () and not host.privileged
    changes["masked_paths"] = changes["readonly_paths"] = () if unmasked else None
    if host.memory and host.memory_swap == 2 * host.memory:
        changes["memory_swap"] = 0
    own = host.network_mode.partition(":")[0] not in ("host", "container")
    if not own or host.uts_mode:
        config = msgspec.structs.replace(config, hostname="", domainname="")
    if config.entrypoint is None:
        config = msgspec.structs.replace(config, entrypoint=("",))  # not the image's
    explicit = {m.target for m in host.mounts} | {_target(bind) for bind in host.binds}
    volumes = tuple(
        SourceMount(mount.name, mount.destination, not mount.rw)
        for mount in document.mounts
        if mount.type == "volume"
    )
    missing = [mount for mount in volumes if mount.target not in explicit]
    changes["binds"] = (*host.binds, *map(_bind, missing))
    changes["mounts"] = tuple(
        msgspec.structs.replace(mount, source=_volume_at(volumes, mount.target))
        if mount.type == "volume" and not mount.source else mount
        for mount in host.mounts
    )  # fmt: skip
    request = msgspec.structs.replace(config, host_config=msgspec.structs.replace(host, **changes))
    return SourceContainer(
        id=id,
        name=name,
        image=document.image,
        request=request,
        endpoints={
            network: _endpoint(endpoint, id)
            for network, endpoint in document.network_settings.networks.items()
        },
        created=seconds(document.created),
        status=document.state.status,
        volumes=volumes,
        changed=changed,
        no_changes=no_changes,
    )


def _target(bind: str) -> str:
    parts = bind.split(":")
    return parts[1] if len(parts) > 1 else parts[0]


def _bind(mount: SourceMount) -> str:
    return f"{mount.name}:{mount.target}{':ro' if mount.read_only else ''}"


def _volume_at(volumes: Sequence[SourceMount], target: str) -> str:
    return next((volume.name for volume in volumes if volume.target == target), "")


def _link(text: str) -> str:
    """Return ``db:alias`` for docker's ``/db:/web/alias``."""
    source, _, alias = text.partition(":")
    return f"{source.removeprefix('/')}:{alias.rpartition('/')[2]}"


def _endpoint(settings: EndpointSettings, id: str) -> EndpointSettings:
    """Return what the user has requested: no allocated MAC address, no alias of the old id."""
    ipam = settings.ipam_config
    return msgspec.structs.replace(
        settings,
        mac_address="",
        ipam_config=ipam if ipam and (ipam.ipv4_address or ipam.ipv6_address) else None,
        links=tuple(map(_link, settings.links)),
        aliases=tuple(alias for alias in settings.aliases if alias != id[:12]),
    )


def seconds(text: str) -> str:
    """Return a time of RFC 3339 as seconds since 1970 with decimals, '' if it is not valid."""
    match = re.fullmatch(r"([0-9T:-]{19})(\.[0-9]{1,9})?(Z|[+-][0-9:]{5})", text, re.ASCII)
    if match is None:
        return ""
    whole, fraction, zone = match.groups()
    with suppress(ValueError, OverflowError):
        moment = datetime.fromisoformat(whole + zone.replace("Z", "+00:00"))
        if moment.year >= 1970:
            return f"{int(moment.timestamp())}{fraction or ''}"
    return ""
