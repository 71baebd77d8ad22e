"""Read docker: objects by its API, files from its data directory.

Sources: Docker Engine API 1.45; moby ``image``, ``layer`` and ``volume/service`` for the directory.
The data directory is :class:`ReadOnlyTree`, and the paths in it are formed here of checked names. A
path in an answer of the API is never opened.
"""

from __future__ import annotations

import hashlib
import re
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec

from jaula.errors import InvalidRequest, JaulaError, NotFound, Unavailable
from jaula.migrate_from import read_only
from jaula.migrate_from.inventory import (
    CONTAINER,
    NETWORK,
    Inventory,
    Left,
    SourceContainer,
    SourceImage,
    SourceMount,
    SourceNetwork,
    SourceSecret,
    SourceVolume,
)
from jaula.migrate_from.layer_archive import LayerFiles, write_archive
from jaula.migrate_from.read_only import ReadOnlyTree
from jaula.migrate_from.source_api import printable
from jaula.spec.api import ContainerCreate, HostConfig
from jaula.spec.api_networks import IPAM, EndpointSettings, NetworkCreate
from jaula.spec.decode import Document, Int64
from jaula.storage.checkpoint_files import write_volume
from jaula.storage.trees import tree_usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from jaula.migrate_from.source_api import SourceApi
    from jaula.storage.tar.writer import Owner, Sink

_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}", re.ASCII)
_MOUNT_ID = re.compile(r"[0-9a-f]{64}(-init)?", re.ASCII)
_CONFIG_LIMIT = 16 << 20  # bytes
_PREDEFINED = ("bridge", "host", "none")
_SWARM_LABEL = "com.docker.swarm.task.id"
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


class Docker:
    """One docker engine: ``api`` and ``root``, its data directory, '' for the one that it names."""

    def __init__(self, api: SourceApi, root: str = "", *, from_disk: bool = True) -> None:
        """Connect.

        Without ``from_disk`` images are read by the API although their files can be read.

        :raises JaulaError: when the engine does not answer.
        """
        self.api = api
        self.info = api.get("/info", Info)
        self.root = root or self.info.docker_root_dir
        if not self.root.startswith("/"):
            raise InvalidRequest(
                f"{printable(self.root)!r} is not the path of a data directory", hint="use --root"
            )
        self._tree: ReadOnlyTree | None = None
        self._no_tree = ""
        try:
            self._tree = ReadOnlyTree(self.root)
            _check_root(self._tree)
        except JaulaError as error:
            self._no_tree = error.message
        self._from_disk = (
            from_disk and self._tree is not None and self.info.driver == "overlay2"
            and not self.info.has_containerd_store
        )  # fmt: skip
        self._owner = _owner(self.root, self.info)

    def close(self) -> None:
        if self._tree is not None:
            self._tree.close()

    # -- objects ---------------------------------------------------------------------------------

    def inventory(self) -> Inventory:
        images = self._images()
        containers, left = [], self._left()
        for summary in self.api.get("/containers/json", tuple[ContainerSummary, ...], _ALL):
            if not _HEX.fullmatch(summary.id):
                raise InvalidRequest(f"{printable(summary.id)!r} is not the id of a container")
            try:
                document = self.api.get(f"/containers/{summary.id}/json", ContainerDocument)
            except NotFound:
                continue  # removed meanwhile
            name = document.name.removeprefix("/")
            if _SWARM_LABEL in document.config.labels:
                left.append(Left(CONTAINER, printable(name), "it is a task of a swarm service"))
            else:
                containers.append(self._container(summary.id, name, document))
        networks = []
        for network in self.api.get("/networks", tuple[NetworkDocument, ...]):
            if network.name in _PREDEFINED:
                continue
            if network.scope == "swarm" or network.driver == "overlay":
                left.append(Left(NETWORK, printable(network.name), "it is a network of a swarm"))
            else:
                networks.append(read_network(network))
        return Inventory(
            engine="docker",
            identity=printable(self.info.id) or self.root,
            version=printable(self.info.server_version),
            root=self.root,
            images=tuple(images),
            volumes=tuple(self._volumes()),
            networks=tuple(networks),
            containers=tuple(containers),
            left=tuple(left),
        )

    def _images(self) -> Iterator[SourceImage]:
        for summary in self.api.get("/images/json", tuple[ImageSummary, ...]):
            _check_digest(summary.id)
            try:
                document = self.api.get(f"/images/{summary.id}/json", ImageDocument)
            except NotFound:
                continue
            yield self._image(summary.id, document)

    def _image(self, id: str, document: ImageDocument) -> SourceImage:
        layers = document.root_fs.layers
        for layer in layers:
            _check_digest(layer)
        config_id = "" if self.info.has_containerd_store else id
        return SourceImage(
            id=config_id,
            source_id=id,
            tags=tuple(tag for tag in document.repo_tags if tag != "<none>:<none>"),
            digests=tuple(d for d in document.repo_digests if d != "<none>@<none>"),
            layers=layers,
            size=max(document.size, 0),
            sizes=self._layer_sizes(layers),
            labels=document.config.labels,
        )

    def _layer_sizes(self, layers: Sequence[str]) -> tuple[int, ...]:
        """Return the size of each layer, or nothing if it is not known."""
        if not self._from_disk or self._tree is None:
            return ()
        try:
            return tuple(
                int(self._tree.read(f"{_layer_directory(layers[: i + 1])}/size", 32))
                for i in range(len(layers))
            )
        except (OSError, ValueError, InvalidRequest):
            return ()

    def _volumes(self) -> Iterator[SourceVolume]:
        for document in self.api.get("/volumes", VolumeList).volumes:
            size = entries = 0
            unreadable = "" if _NAME.fullmatch(document.name) else "its name is not valid"
            if not unreadable and document.driver == "local" and not document.options:
                try:
                    with self._data(document.name) as directory:
                        size, entries = tree_usage(directory)
                except (JaulaError, OSError) as error:
                    unreadable = str(getattr(error, "message", error))
            yield SourceVolume(
                document.name,
                document.driver,
                document.created_at,
                document.labels,
                document.options,
                size,
                entries,
                unreadable,
            )

    def _container(self, id: str, name: str, document: ContainerDocument) -> SourceContainer:
        size, problem = 0, ""
        try:
            with self._upper(id) as upper:
                size = tree_usage(upper)[0]
        except (JaulaError, OSError) as error:
            problem = str(getattr(error, "message", error))
        return read_container(id, name, document, self.info, changed=size, no_changes=problem)

    def _left(self) -> list[Left]:
        rows = []
        plugins = self._named("/plugins")
        rows += [Left("plugin", each.title, "jaula has no plugins") for each in plugins]
        if self.info.swarm.local_node_state == "active":
            for kind, reason in (
                ("service", "jaula has no swarm"),
                ("secret", "docker does not give its content away: create it again"),
                ("config", "it belongs to the swarm: create it again"),
            ):
                rows += [Left(kind, each.title, reason) for each in self._named(f"/{kind}s")]
        rows.append(Left("build cache", "*", "builds fill jaula's own"))
        return rows

    def _named(self, path: str) -> tuple[Named, ...]:
        try:
            return self.api.get(path, tuple[Named, ...])
        except (NotFound, Unavailable):
            return ()  # a daemon without this part, or a worker of a swarm

    # -- contents --------------------------------------------------------------------------------

    def archive(self, images: Sequence[SourceImage], *, tags: bool) -> Iterator[bytes | memoryview]:
        if self._from_disk:
            if not tags:
                images = [msgspec.structs.replace(image, tags=()) for image in images]
            return read_only.pull(
                lambda sink: write_archive(images, self._config, self._layer, sink)
            )
        names = [name for i in images for name in (tags and i.tags) or (i.source_id,)]
        return self.api.stream("/images/get", [("names", name) for name in names])

    def _config(self, image: SourceImage) -> bytes:
        """Return the configuration of an image; its digest is the id of the image.

        :raises InvalidRequest: when the file is damaged.
        """
        hexadecimal = image.id.removeprefix("sha256:")
        data = self._files.read(
            f"image/overlay2/imagedb/content/sha256/{hexadecimal}", _CONFIG_LIMIT
        )
        if hashlib.sha256(data).hexdigest() != hexadecimal:
            raise InvalidRequest(f"the configuration of image {image.title} is damaged")
        return data

    def _layer(self, diff_id: str, image: SourceImage) -> LayerFiles:
        chain = image.layers[: image.layers.index(diff_id) + 1]
        directory = _layer_directory(chain)
        cache_id = self._files.read(f"{directory}/cache-id", 128).decode("ascii", "replace").strip()
        if not _MOUNT_ID.fullmatch(cache_id):
            raise InvalidRequest(f"{directory}/cache-id is not valid")

        def split() -> BinaryIO:
            return open(self._files.open(f"{directory}/tar-split.json.gz"), "rb")

        return LayerFiles(split, lambda: self._files.directory(f"overlay2/{cache_id}/diff"))

    @property
    def _files(self) -> ReadOnlyTree:
        """The data directory.

        :raises Unavailable: when it cannot be read.
        """
        if self._tree is None:
            raise Unavailable(self._no_tree)
        return self._tree

    def volume_directory(self, volume: SourceVolume) -> AbstractContextManager[int]:
        return self._data(volume.name)

    def _data(self, name: str) -> AbstractContextManager[int]:
        if not _NAME.fullmatch(name):
            raise InvalidRequest(f"{printable(name)!r} is not the name of a volume")
        return self._files.directory(f"volumes/{name}/_data")

    def volume(self, volume: SourceVolume) -> Iterator[bytes | memoryview]:
        def work(sink: Sink) -> None:
            with self._data(volume.name) as directory:
                write_volume(directory, sink, owner=self._owner)

        return read_only.pull(work)

    def _upper(self, id: str) -> AbstractContextManager[int]:
        if self.info.driver != "overlay2" or self.info.has_containerd_store:
            raise Unavailable(
                f"the storage driver {printable(self.info.driver)} keeps no directory of its own"
                " files",
                hint="commit it to an image",
            )
        path = f"image/overlay2/layerdb/mounts/{id}/mount-id"
        try:
            mount_id = self._files.read(path, 128).decode("ascii", "replace").strip()
        except OSError as error:
            raise Unavailable(f"cannot read {path}: {error.strerror}") from None
        if not _MOUNT_ID.fullmatch(mount_id):
            raise InvalidRequest(f"{path} is not valid")
        return self._files.directory(f"overlay2/{mount_id}/diff")

    def changes(self, container: SourceContainer) -> Iterator[bytes | memoryview]:
        def work(sink: Sink) -> None:
            with self._upper(container.id) as upper:
                read_only.write_changes(upper, sink, self._owner)

        return read_only.pull(work)

    def secret(self, secret: SourceSecret) -> bytes:
        raise Unavailable(f"docker does not give the content of secret {secret.name} away")


_ALL = (("all", "1"),)


def _check_digest(text: str) -> None:
    if not _DIGEST.fullmatch(text):
        raise InvalidRequest(
            f"{printable(text)!r} is not a digest: the source's answer is not valid"
        )


def _check_root(tree: ReadOnlyTree) -> None:
    """Check that a directory is docker's.

    :raises InvalidRequest: when it is not.
    """
    if not {"image", "volumes"} <= set(tree.names(".")):
        raise InvalidRequest(
            f"{printable(tree.path)} is not a data directory of docker: it has no image and volumes"
        )


def _owner(root: str, info: Info) -> Owner:
    """Return the map of ids on the disk to those inside containers.

    With ``userns-remap`` the data directory ends with the first uid and gid of the range, and
    owners on the disk are shifted by these.
    """
    match = re.fullmatch(r".*/([0-9]{1,10})\.([0-9]{1,10})", root.rstrip("/"), re.ASCII | re.DOTALL)
    if match is None or "name=userns" not in info.security_options:
        return lambda uid, gid: (uid, gid)
    first_uid, first_gid = map(int, match.groups())
    return lambda uid, gid: (
        uid - first_uid if uid >= first_uid else uid,
        gid - first_gid if gid >= first_gid else gid,
    )


def chain_id(layers: Sequence[str]) -> str:
    """Return the chain id of a stack of diff ids (OCI image-spec, ``config.md``). Pure."""
    chain = layers[0]
    for layer in layers[1:]:
        chain = "sha256:" + hashlib.sha256(f"{chain} {layer}".encode()).hexdigest()
    return chain


def _layer_directory(layers: Sequence[str]) -> str:
    return f"image/overlay2/layerdb/sha256/{chain_id(layers).removeprefix('sha256:')}"


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
        created=_seconds(document.created),
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


def _seconds(text: str) -> str:
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
