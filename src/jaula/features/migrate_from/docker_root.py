"""Read a docker that is stopped: all objects from its data directory.

Sources: moby ``container/container.go`` (``config.v2.json``, ``hostconfig.json``),
``reference/store.go``, ``volume/service/db.go`` and ``libnetwork/network.go``.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from jaula.errors import InvalidRequest, Unavailable
from jaula.features.migrate_from import docker_documents
from jaula.features.migrate_from.bolt import BoltFile
from jaula.features.migrate_from.docker_documents import (
    PREDEFINED,
    SWARM_LABEL,
    ContainerDocument,
    ImageConfig,
    ImageDocument,
    Info,
    MountPoint,
    NetworkDocument,
    NetworkSettings,
    RootFs,
    State,
    VolumeDocument,
)
from jaula.features.migrate_from.docker_files import DockerFiles
from jaula.features.migrate_from.inventory import (
    CONTAINER,
    NETWORK,
    Inventory,
    Left,
    SourceImage,
    SourceSecret,
    SourceVolume,
)
from jaula.features.migrate_from.read_only import ReadOnlyTree
from jaula.features.migrate_from.source_api import printable
from jaula.spec.api_documents import ContainerCreate, HostConfig
from jaula.spec.api_networks import IPAM, ConfigReference, IPAMPool
from jaula.spec.decode import Document, Int64, decode

if TYPE_CHECKING:
    from collections.abc import Iterator

_LIMIT = 64 << 20  # bytes of one file
_NETWORK_KEY = re.compile(rb"docker/network/v1\.0/network/[0-9a-f]{64}/")
_INDEX = 8  # bytes before a value of libkv
_CGROUP2 = "/sys/fs/cgroup/cgroup.controllers"

_Type = TypeVar("_Type")


class _DiskState(Document, frozen=True, kw_only=True):
    running: bool = False
    paused: bool = False
    pid: Int64 = 0


class _DiskContainer(Document, frozen=True, kw_only=True):
    id: str = msgspec.field(name="ID", default="")
    name: str = ""
    created: str = ""
    image: str = ""
    state: _DiskState = _DiskState()
    config: ContainerCreate = ContainerCreate()
    network_settings: NetworkSettings = NetworkSettings()
    mount_points: dict[str, MountPoint] = {}
    has_been_started_before: bool = False


class _ImageFile(msgspec.Struct):
    """An image's configuration, of which the labels and the layers are read."""

    config: dict[str, Any] | None = None
    rootfs: dict[str, Any] | None = None


class _Repositories(Document, frozen=True, kw_only=True):
    repositories: dict[str, dict[str, str]] = {}


class _Pool(Document, frozen=True, kw_only=True):
    preferred_pool: str = ""
    sub_pool: str = ""
    gateway: str = ""
    aux_addresses: dict[str, str] = {}


class _PoolInfo(Document, frozen=True, kw_only=True):
    ipam_data: str = msgspec.field(name="IPAMData", default="")


class _PoolData(Document, frozen=True, kw_only=True):
    pool: str = ""
    gateway: str = ""


class _DiskNetwork(msgspec.Struct, frozen=True, rename="camel"):
    """A network in the database; its pools are JSON in texts."""

    id: str = ""
    name: str = ""
    scope: str = ""
    network_type: str = ""
    enable_ipv6: bool = msgspec.field(name="enableIPv6", default=False)
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: str = ""
    in_delete: bool = False
    labels: dict[str, str] | None = None
    generic: dict[str, Any] | None = None
    ipam_type: str = ""
    ipam_options: dict[str, str] | None = None
    ipam_v4_config: str = msgspec.field(name="ipamV4Config", default="")
    ipam_v4_info: str = msgspec.field(name="ipamV4Info", default="")
    ipam_v6_config: str = msgspec.field(name="ipamV6Config", default="")
    ipam_v6_info: str = msgspec.field(name="ipamV6Info", default="")


class DockerRoot(DockerFiles):
    """The data directory of a docker that is stopped."""

    def __init__(self, root: str) -> None:
        """Open the directory.

        :raises JaulaError: when it cannot be read, or is not docker's.
        """
        tree = ReadOnlyTree(root)
        try:
            driver = "overlay2" if tree.names("image/overlay2/layerdb") else ""
            super().__init__(tree, driver)
        except BaseException:
            tree.close()
            raise
        version = "2" if os.path.exists(_CGROUP2) else "1"
        self._info = Info(driver=driver, cgroup_version=version, default_runtime="runc")

    def close(self) -> None:
        self.tree.close()

    def inventory(self) -> Inventory:
        left = [Left("build cache", "*", "builds fill jaula's own")]
        if not self.has_layers:
            reason = "only overlay2 is read from the disk: start docker, and omit --root"
            left.append(Left("image", "*", reason))
        elif self.tree.names("swarm"):
            left.append(Left("swarm", "*", "jaula has no swarm"))
        containers = []
        for id in self.tree.names("containers"):
            document = self._container_document(docker_documents.check_id(id))
            if document is None:
                continue
            name = document.name.removeprefix("/")
            if SWARM_LABEL in document.config.labels:
                left.append(Left(CONTAINER, printable(name), "it is a task of a swarm service"))
                continue
            size, problem = self.changes_usage(id)
            containers.append(
                docker_documents.read_container(
                    id, name, document, self._info, changed=size, no_changes=problem
                )
            )
        networks = []
        for network in self._networks():
            if network.scope == "swarm" or network.driver == "overlay":
                left.append(Left(NETWORK, printable(network.name), "it is a network of a swarm"))
            else:
                networks.append(docker_documents.read_network(network))
        return Inventory(
            engine="docker",
            identity=self._identity(),
            version="(stopped)",
            root=self.tree.path,
            images=tuple(self._images()) if self.has_layers else (),
            volumes=tuple(self._volumes()),
            networks=tuple(networks),
            containers=tuple(containers),
            left=tuple(left),
        )

    def _identity(self) -> str:
        """Return the id that the API shows, or the directory of an old version."""
        try:
            return printable(self.tree.read("engine-id", 128).decode("utf-8", "replace").strip())
        except FileNotFoundError:
            return self.tree.path

    def _document(self, path: str, kind: type[_Type]) -> _Type:
        """Return the document in a file.

        :raises FileNotFoundError: when the file does not exist.
        :raises InvalidRequest: when it is not such a document.
        """
        return _decoded(self.tree.read(path, _LIMIT), kind, path)

    def secret(self, secret: SourceSecret) -> bytes:
        raise Unavailable(f"docker does not give the content of secret {secret.name} away")

    # -- images ----------------------------------------------------------------------------------

    def _images(self) -> Iterator[SourceImage]:
        names: dict[str, list[str]] = {}
        try:
            stored = self._document("image/overlay2/repositories.json", _Repositories)
        except FileNotFoundError:
            stored = _Repositories()
        for repository in stored.repositories.values():
            for name, digest in repository.items():
                names.setdefault(docker_documents.check_digest(digest), []).append(name)
        parents = set()
        found = []
        for hexadecimal in self.tree.names("image/overlay2/imagedb/content/sha256"):
            id = f"sha256:{docker_documents.check_id(hexadecimal)}"
            image = self._image(id, names.get(id, []))
            found.append(image)
            parent = f"image/overlay2/imagedb/metadata/sha256/{hexadecimal}/parent"
            try:
                parents.add(self.tree.read(parent, 128).decode("ascii", "replace").strip())
            except FileNotFoundError:
                continue
        yield from (i for i in found if i.tags or i.digests or i.id not in parents)

    def _image(self, id: str, names: list[str]) -> SourceImage:
        data = self.config(SourceImage(id, id, ()))
        try:
            file = msgspec.json.decode(data, type=_ImageFile)
            layers = tuple(map(str, (file.rootfs or {}).get("diff_ids") or ()))
            labels = (file.config or {}).get("Labels") or {}
            config = msgspec.convert({"Labels": labels}, ImageConfig)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequest(f"the configuration of image {id} is not valid: {error}") from None
        for layer in layers:
            docker_documents.check_digest(layer)
        sizes = self.layer_sizes(layers)
        document = ImageDocument(
            id=id,
            repo_tags=tuple(sorted(name for name in names if "@" not in name)),
            repo_digests=tuple(sorted(name for name in names if "@" in name)),
            size=sum(sizes),
            config=config,
            root_fs=RootFs(layers=layers),
        )
        return docker_documents.read_image(id, document, id=id, sizes=sizes)

    # -- containers ------------------------------------------------------------------------------

    def _container_document(self, id: str) -> ContainerDocument | None:
        try:
            disk = self._document(f"containers/{id}/config.v2.json", _DiskContainer)
            host = self._document(f"containers/{id}/hostconfig.json", HostConfig)
        except FileNotFoundError:
            return None  # its removal was interrupted
        status = "exited" if disk.has_been_started_before else "created"
        if disk.state.running and disk.state.pid > 0 and os.path.exists(f"/proc/{disk.state.pid}"):
            status = "paused" if disk.state.paused else "running"
        return ContainerDocument(
            id=id,
            name=disk.name,
            created=disk.created,
            image=disk.image,
            state=State(status=status),
            config=disk.config,
            host_config=host,
            mounts=tuple(
                msgspec.structs.replace(point, destination=point.destination or target)
                for target, point in disk.mount_points.items()
            ),
            network_settings=disk.network_settings,
        )

    # -- volumes ---------------------------------------------------------------------------------

    def _volumes(self) -> Iterator[SourceVolume]:
        stored = dict(self._items("volumes/metadata.db", b"volumes"))
        for name in self.tree.names("volumes"):
            data = stored.pop(os.fsencode(name), b"")
            if "_data" not in self._names_in(f"volumes/{name}"):
                continue
            document = _decoded(data, VolumeDocument, f"volume {printable(name)}")
            document = msgspec.structs.replace(
                document, name=name, driver="local", created_at=self.created(f"volumes/{name}")
            )
            try:
                options = self._document(f"volumes/{name}/opts.json", _VolumeOptions)
                document = msgspec.structs.replace(document, options=options.driver_options())
            except FileNotFoundError:
                document = msgspec.structs.replace(document, options={})
            size, entries, problem = 0, 0, ""
            if not document.options:
                size, entries, problem = self.volume_usage(name)
            yield docker_documents.read_volume(document, size, entries, problem)
        for key, data in stored.items():
            document = _decoded(data, VolumeDocument, "volumes/metadata.db")
            if document.driver not in ("", "local"):
                name = key.decode("utf-8", "replace")
                yield SourceVolume(name, document.driver)

    def _names_in(self, path: str) -> list[str]:
        try:
            return self.tree.names(path)
        except OSError:
            return []  # a file beside the volumes

    def _items(self, path: str, bucket: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield the items of a database; nothing if it does not exist."""
        try:
            data = self.tree.read(path, _LIMIT)
        except FileNotFoundError:
            return
        yield from BoltFile(data).items(bucket)

    # -- networks --------------------------------------------------------------------------------

    def _networks(self) -> Iterator[NetworkDocument]:
        for key, value in self._items("network/files/local-kv.db", b"libnetwork"):
            if not _NETWORK_KEY.fullmatch(key):
                continue
            data = value if value.startswith(b"{") else value[_INDEX:]
            try:
                network = msgspec.json.decode(data, type=_DiskNetwork)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise InvalidRequest(f"network/files/local-kv.db is not valid: {error}") from None
            if network.name not in PREDEFINED and not network.in_delete:
                yield _network_document(network)


class _VolumeOptions(Document, frozen=True, kw_only=True):
    """``opts.json`` of a volume (moby ``volume/local``, ``optsConfig``)."""

    mount_type: str = ""
    mount_opts: str = ""
    mount_device: str = ""

    def driver_options(self) -> dict[str, str]:
        """Return the options as ``docker volume create -o`` takes them."""
        pairs = (("type", self.mount_type), ("o", self.mount_opts), ("device", self.mount_device))
        return {name: value for name, value in pairs if value}


def _decoded(data: bytes, kind: type[_Type], what: str) -> _Type:
    try:
        return decode(data, kind)
    except (msgspec.DecodeError, RecursionError, UnicodeError, TypeError) as error:
        raise InvalidRequest(f"{printable(what)} is not valid: {error}") from None


def _network_document(network: _DiskNetwork) -> NetworkDocument:
    """Return the document that the API would show."""
    generic = network.generic or {}
    options = generic.get("com.docker.network.generic") or {}
    pools = _pools(network.ipam_v4_config, network.ipam_v4_info)
    if network.enable_ipv6:
        pools += _pools(network.ipam_v6_config, network.ipam_v6_info)
    return NetworkDocument(
        id=docker_documents.check_id(network.id),
        name=network.name,
        driver=network.network_type,
        scope=network.scope,
        enable_ipv6=network.enable_ipv6,
        internal=network.internal,
        attachable=network.attachable,
        ingress=network.ingress,
        config_only=network.config_only,
        config_from=ConfigReference(network=network.config_from) if network.config_from else None,
        options={str(name): str(value) for name, value in options.items()},
        labels=network.labels or {},
        ipam=IPAM(
            driver=network.ipam_type,
            options=network.ipam_options or None,
            config=tuple(pools),
        ),
    )


def _pools(config: str, info: str) -> list[IPAMPool]:
    """Return the subnets of one family: requested ones, or those that docker has chosen."""
    requested = _decoded(config.encode(), tuple[_Pool, ...], "a subnet") if config else ()
    chosen = _decoded(info.encode(), tuple[_PoolInfo, ...], "a subnet") if info else ()
    pools = []
    for index, pool in enumerate(requested or (_Pool(),) * len(chosen)):
        data = _PoolData()
        if index < len(chosen) and chosen[index].ipam_data:
            data = _decoded(chosen[index].ipam_data.encode(), _PoolData, "a subnet")
        pools.append(
            IPAMPool(
                subnet=pool.preferred_pool or data.pool,
                ip_range=pool.sub_pool,
                gateway=pool.gateway or ("" if pool.preferred_pool else data.gateway),
                auxiliary_addresses=pool.aux_addresses,
            )
        )
    return pools
