"""Read podman from its storage: no process of podman is started, and no file is locked.

Sources: podman 5.4 ``libpod/sqlite_state.go`` and ``boltdb_state_internal.go``; containers/storage
``images.go``, ``layers.go``, ``containers.go``; containers/common ``libnetwork/types`` and
``pkg/secrets``. Podman has no daemon. The address of its API, if it is given, tells only where the
storage is.

The database is read into memory, so SQLite creates no file beside it. Podman before 4.8 has a file
of BoltDB, which a newer one keeps if it was updated.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import pwd
import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeVar

import msgspec

from jaula.errors import InvalidRequest, JaulaError, Unavailable
from jaula.features.migrate_from import podman_documents, read_only
from jaula.features.migrate_from.bolt import BoltFile
from jaula.features.migrate_from.docker_documents import check_digest, check_id, is_volume_name
from jaula.features.migrate_from.inventory import (
    Inventory,
    Left,
    SourceContainer,
    SourceImage,
    SourceNetwork,
    SourceSecret,
    SourceVolume,
)
from jaula.features.migrate_from.layer_archive import LayerFiles, write_archive
from jaula.features.migrate_from.owners import rootless_owner
from jaula.features.migrate_from.podman_documents import (
    ANONYMOUS,
    DEFAULT_NETWORK,
    Config,
    ContainerState,
    NetworkUse,
    Pod,
    Volume,
    familiar,
)
from jaula.features.migrate_from.read_only import ReadOnlyTree
from jaula.features.migrate_from.source_api import SourceApi, printable
from jaula.kernel import namespaces
from jaula.spec.api_networks import IPAM, IPAMPool, NetworkCreate
from jaula.storage.checkpoint_files import write_volume
from jaula.storage.trees import tree_usage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from jaula.storage.tar.tar_writer import Sink

_LIMIT = 256 << 20  # bytes of one file
_SYSTEM_ROOT = "/var/lib/containers/storage"
_SYSTEM_NETWORKS = "/etc/containers/networks"
_INFRA_IMAGE = re.compile(r"(localhost/)?podman-pause:.*", re.ASCII)
_BOLT = "bolt_state.db"
_WAL = slice(18, 20)  # file format versions in the header of SQLite (fileformat2.html)

_Type = TypeVar("_Type")


class _StoredImage(msgspec.Struct):
    id: str = ""
    names: tuple[str, ...] | None = None
    layer: str = ""


class _StoredLayer(msgspec.Struct):
    id: str = ""
    parent: str = ""
    size: int = msgspec.field(name="diff-size", default=0)


class _StoredContainer(msgspec.Struct):
    id: str = ""
    layer: str = ""


class _ImageConfig(msgspec.Struct):
    config: dict[str, Any] | None = None
    rootfs: dict[str, Any] | None = None


class _Subnet(msgspec.Struct):
    subnet: str = ""
    gateway: str = ""
    lease_range: dict[str, str] | None = None


class _Network(msgspec.Struct):
    name: str = ""
    id: str = ""
    driver: str = ""
    network_interface: str = ""
    subnets: tuple[_Subnet, ...] | None = None
    ipv6_enabled: bool = False
    internal: bool = False
    labels: dict[str, str] | None = None
    options: dict[str, str] | None = None
    ipam_options: dict[str, str] | None = None


class _Secret(msgspec.Struct):
    name: str = ""
    id: str = ""
    driver: str = ""
    labels: dict[str, str] | None = None


class _Secrets(msgspec.Struct):
    secrets: dict[str, _Secret] = {}


class _PodmanInfo(msgspec.Struct):
    store: dict[str, Any] = {}


class _State(NamedTuple):
    """The objects in podman's database."""

    configs: Sequence[tuple[str, Config]] = ()
    states: Mapping[str, ContainerState] = {}
    volumes: Sequence[tuple[str, Volume]] = ()
    pods: Mapping[str, str] = {}  # names by id


class Podman:
    """The storage of one podman. ``root`` is its graph root."""

    def __init__(self, root: str) -> None:
        """Open the storage.

        :raises JaulaError: when it cannot be read, or is not podman's.
        """
        self._tree = ReadOnlyTree(root)
        try:
            names = self._tree.names(".")
            if "overlay-images" not in names:
                drivers = [name[:-7] for name in names if name.endswith("-images")]
                found = f"the storage driver {drivers[0]}" if drivers else "no images"
                raise InvalidRequest(
                    f"{printable(root)} has {printable(found)}: only overlay of podman is read",
                    hint="name podman's graph root with --root (podman info)",
                )
            self._owner = rootless_owner(self._tree)
            self._layers = {
                layer.id: layer
                for name in ("layers.json", "volatile-layers.json")
                for layer in self._list(f"overlay-layers/{name}", _StoredLayer)
            }
            self._containers = {
                container.id: container.layer
                for name in ("containers.json", "volatile-containers.json")
                for container in self._list(f"overlay-containers/{name}", _StoredContainer)
            }
        except BaseException:
            self._tree.close()
            raise

    def close(self) -> None:
        self._tree.close()

    def _list(self, path: str, kind: type[_Type]) -> list[_Type]:
        """Return a list in a file; none if the file does not exist."""
        try:
            data = self._tree.read(path, _LIMIT)
        except FileNotFoundError:
            return []
        return _decoded(data or b"[]", list[kind], path)  # type: ignore[valid-type]

    # -- objects ---------------------------------------------------------------------------------

    def inventory(self) -> Inventory:
        left = []
        configs, states, volumes, pods = self._state()
        for name in pods.values():
            reason = "its containers are taken over with an infra container"
            left.append(Left("pod", printable(name), reason))
        containers = tuple(
            self._container(id, config, states.get(id, ContainerState()), pods)
            for id, config in configs
        )
        for config_id, layer in self._containers.items():
            if config_id not in dict(configs) and layer:
                reason = "buildah or another program created it, not podman"
                left.append(Left("container", config_id[:12], reason))
        return Inventory(
            engine="podman",
            identity=self._tree.path,
            version="",
            root=self._tree.path,
            images=tuple(self._images({each.image for each in containers})),
            volumes=tuple(self._volume(name, volume) for name, volume in volumes),
            networks=tuple(self._networks()),
            secrets=tuple(self._secrets()),
            containers=containers,
            left=tuple(left),
        )

    def _state(self) -> _State:
        """Return the state from the database of podman 4.8 and newer, else from that of older ones.

        :raises InvalidRequest: when it is damaged, or in use by a transaction.
        """
        try:
            data = self._tree.read("db.sql", _LIMIT)
        except FileNotFoundError:
            if _BOLT not in self._tree.names("libpod"):
                return _State()
            return _bolt_state(BoltFile(self._tree.read(f"libpod/{_BOLT}", _LIMIT)))
        return _sqlite_state(bytearray(data))

    def _images(self, used: set[str]) -> Iterator[SourceImage]:
        for stored in self._list("overlay-images/images.json", _StoredImage):
            id = f"sha256:{check_id(stored.id)}"
            names = tuple(map(familiar, stored.names or ()))
            if any(_INFRA_IMAGE.fullmatch(name) for name in names) and id not in used:
                continue
            config = _decoded(self._config(stored.id), _ImageConfig, f"image {stored.id}")
            layers = tuple(map(str, (config.rootfs or {}).get("diff_ids") or ()))
            for layer in layers:
                check_digest(layer)
            labels = (config.config or {}).get("Labels") or {}
            chain = self._chain(stored.layer)
            sizes = tuple(max(self._layers[each].size, 0) for each in chain)
            yield SourceImage(
                id=id,
                source_id=id,
                tags=tuple(name for name in names if "@" not in name),
                digests=tuple(name for name in names if "@" in name),
                layers=layers,
                size=sum(sizes),
                sizes=sizes if len(sizes) == len(layers) else (),
                labels={str(key): str(value) for key, value in labels.items()},
            )

    def _chain(self, top: str) -> list[str]:
        """Return the ids of the layers of an image, base first."""
        chain: list[str] = []
        while top:
            layer = self._layers.get(top)
            if layer is None or top in chain:
                raise InvalidRequest(f"the layers of podman are damaged at {printable(top)}")
            chain.append(check_id(top))
            top = layer.parent
        return chain[::-1]

    def _config(self, hexadecimal: str) -> bytes:
        """Return the configuration of an image. Its digest is the image's id, or it is refused."""
        name = base64.b64encode(f"sha256:{hexadecimal}".encode()).decode()
        path = f"overlay-images/{hexadecimal}/={name}"
        try:
            data = self._tree.read(path, _LIMIT)
        except FileNotFoundError:
            raise InvalidRequest(f"image {hexadecimal[:12]} has no configuration") from None
        if hashlib.sha256(data).hexdigest() != hexadecimal:
            raise InvalidRequest(f"the configuration of image {hexadecimal[:12]} is damaged")
        return data

    def _volume(self, name: str, volume: Volume) -> SourceVolume:
        options = volume.volume_options or {}
        options = {key: value for key, value in options.items() if key in ("type", "o", "device")}
        size, entries, problem = 0, 0, ""
        if not options and volume.volume_driver in ("", "local"):
            try:
                with self._data(name) as directory:
                    size, entries = tree_usage(directory)
            except (JaulaError, OSError) as error:
                problem = str(getattr(error, "message", error))
        labels = dict(volume.labels or {}) | ({ANONYMOUS: ""} if volume.is_anon else {})
        return SourceVolume(
            name, volume.volume_driver or "local", volume.created_at, labels, options,
            size, entries, problem,
        )  # fmt: skip

    def _networks(self) -> Iterator[SourceNetwork]:
        names = self._tree.names("networks")
        if names or self._owner is not None or not namespaces.is_initial_userns():
            documents = [(name, self._tree.read(f"networks/{name}", _LIMIT))
                         for name in names if name.endswith(".json")]  # fmt: skip
        else:
            documents = _system_networks()
        for name, data in documents:
            network = _decoded(data, _Network, f"networks/{name}")
            if network.name != DEFAULT_NETWORK:
                yield _source_network(network)

    def _secrets(self) -> Iterator[SourceSecret]:
        try:
            stored = _decoded(self._tree.read("secrets/secrets.json", _LIMIT), _Secrets, "secrets")
        except FileNotFoundError:
            return
        for id, secret in stored.secrets.items():
            yield SourceSecret(id, secret.name, secret.labels or {}, secret.driver == "file")

    def _container(
        self, id: str, config: Config, state: ContainerState, pods: Mapping[str, str]
    ) -> SourceContainer:
        check_id(id)
        size, problem = 0, ""
        try:
            with self._upper(id) as upper:
                size = tree_usage(upper)[0]
        except (JaulaError, OSError) as error:
            problem = str(getattr(error, "message", error))
        is_alive = state.pid > 0 and os.path.exists(f"/proc/{state.pid}")
        return podman_documents.read_container(
            msgspec.structs.replace(config, id=id),
            podman_documents.status(state, is_alive=is_alive),
            pods,
            changed=size,
            no_changes=problem,
            rootless=self._owner is not None,
        )

    # -- contents --------------------------------------------------------------------------------

    def archive(self, images: Sequence[SourceImage], *, tags: bool) -> Iterator[bytes | memoryview]:
        if not tags:
            images = [msgspec.structs.replace(image, tags=()) for image in images]
        tops = {
            f"sha256:{stored.id}": stored.layer
            for stored in self._list("overlay-images/images.json", _StoredImage)
        }

        def layer(diff_id: str, image: SourceImage) -> LayerFiles:
            chain = self._chain(tops[image.id])
            if len(chain) != len(image.layers):
                raise InvalidRequest(
                    f"image {image.title} has {len(image.layers)} layers, and podman stores"
                    f" {len(chain)} of it"
                )
            name = chain[image.layers.index(diff_id)]

            def split() -> BinaryIO:
                return open(self._tree.open(f"overlay-layers/{name}.tar-split.gz"), "rb")

            return LayerFiles(split, lambda: self._tree.directory(f"overlay/{name}/diff"))

        def config(image: SourceImage) -> bytes:
            return self._config(image.id.removeprefix("sha256:"))

        return read_only.pull(lambda sink: write_archive(images, config, layer, sink))

    def volume_directory(self, volume: SourceVolume) -> AbstractContextManager[int]:
        return self._data(volume.name)

    def _data(self, name: str) -> AbstractContextManager[int]:
        if not is_volume_name(name):
            raise InvalidRequest(f"{printable(name)!r} is not the name of a volume")
        return self._tree.directory(f"volumes/{name}/_data")

    def volume(self, volume: SourceVolume) -> Iterator[bytes | memoryview]:
        def work(sink: Sink) -> None:
            with self._data(volume.name) as directory:
                write_volume(directory, sink, owner=self._owner)

        return read_only.pull(work)

    def _upper(self, id: str) -> AbstractContextManager[int]:
        layer = self._containers.get(id, "")
        if not layer:
            raise Unavailable("podman has no files of it")
        return self._tree.directory(f"overlay/{check_id(layer)}/diff")

    def changes(self, container: SourceContainer) -> Iterator[bytes | memoryview]:
        def work(sink: Sink) -> None:
            with self._upper(container.id) as upper:
                read_only.write_changes(upper, sink, self._owner or (lambda uid, gid: (uid, gid)))

        return read_only.pull(work)

    def secret(self, secret: SourceSecret) -> bytes:
        path = "secrets/filedriver/secretsdata.json"
        try:
            stored = _decoded(self._tree.read(path, _LIMIT), dict[str, str], path)
            return base64.b64decode(stored[secret.id], validate=True)
        except (FileNotFoundError, KeyError, binascii.Error):
            raise InvalidRequest(f"{path} has no content of secret {secret.name}") from None


def find_root(host: str) -> str:
    """Return the graph root that podman's API at ``host`` names; '' for that of this user.

    :raises JaulaError: when the API does not answer.
    """
    if host:
        store = SourceApi(host).get("/libpod/info", _PodmanInfo).store
        root = str(store.get("graphRoot", ""))
        if not root.startswith("/"):
            raise InvalidRequest(f"podman at {host} names no graph root", hint="use --root")
        return root
    if os.geteuid() == 0:
        return _SYSTEM_ROOT
    home = os.environ.get("XDG_DATA_HOME") or f"{pwd.getpwuid(os.getuid()).pw_dir}/.local/share"
    return f"{home}/containers/storage"


def _system_networks() -> list[tuple[str, bytes]]:
    with suppress(JaulaError):
        tree = ReadOnlyTree(_SYSTEM_NETWORKS)
        try:
            names = [name for name in tree.names(".") if name.endswith(".json")]
            return [(name, tree.read(name, _LIMIT)) for name in names]
        finally:
            tree.close()
    return []


def _source_network(network: _Network) -> SourceNetwork:
    pools = tuple(
        IPAMPool(subnet=each.subnet, gateway=each.gateway) for each in network.subnets or ()
    )
    options = dict(network.options or {})
    names = {
        "mtu": "com.docker.network.driver.mtu",
        "isolate": "",
        "mode": f"{network.driver}_mode",
    }
    options = {names.get(key, key): value for key, value in options.items() if names.get(key, key)}
    if network.driver in ("macvlan", "ipvlan") and network.network_interface:
        options["parent"] = network.network_interface
    ipam = (network.ipam_options or {}).get("driver", "")
    request = NetworkCreate(
        name=network.name,
        driver=network.driver,
        internal=network.internal,
        enable_ipv6=network.ipv6_enabled,
        options=options,
        labels=network.labels or {},
        ipam=IPAM(driver="" if ipam in ("host-local", "none") else ipam, config=pools),
    )
    bridge = network.network_interface if network.driver == "bridge" else ""
    return SourceNetwork(network.id, request, bridge)


def _sqlite_state(data: bytearray) -> _State:
    """Return the state in a database of SQLite, which is read in memory.

    :raises InvalidRequest: when it is damaged.
    """
    data[_WAL] = b"\x01\x01"  # a database in memory has no write-ahead log
    database = sqlite3.connect(":memory:")
    try:
        database.deserialize(bytes(data))
        return _State(
            _rows(database, "SELECT ID, JSON FROM ContainerConfig", Config),
            dict(_rows(database, "SELECT ID, JSON FROM ContainerState", ContainerState)),
            _rows(database, "SELECT Name, JSON FROM VolumeConfig", Volume),
            {id: pod.name for id, pod in _rows(database, "SELECT ID, JSON FROM PodConfig", Pod)},
        )
    except sqlite3.Error as error:
        raise InvalidRequest(
            f"podman's database db.sql cannot be read: {error}", hint="try again"
        ) from None
    finally:
        database.close()


def _rows(database: sqlite3.Connection, query: str, kind: type[_Type]) -> list[tuple[str, _Type]]:
    """Return the keys and documents of a table; none if the database is empty."""
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    if query.rpartition(" ")[2] not in tables:
        return []
    return [(str(key), _decoded(data, kind, str(key))) for key, data in database.execute(query)]


def _bolt_state(file: BoltFile) -> _State:
    """Return the state in a file of BoltDB, in which each object has a bucket.

    The networks of a container are in a bucket of its own, not in its configuration.
    """

    def documents(bucket: bytes, key: bytes, kind: type[_Type]) -> list[tuple[str, _Type]]:
        found = []
        for name in file.buckets(bucket):
            text = name.decode("utf-8", "replace")
            for each, data in file.items(bucket, name):
                if each == key:
                    found.append((text, _decoded(data, kind, text)))
        return found

    configs = [
        (id, msgspec.structs.replace(config, networks=_bolt_networks(file, id) or config.networks))
        for id, config in documents(b"ctr", b"config", Config)
    ]
    return _State(
        configs,
        dict(documents(b"ctr", b"state", ContainerState)),
        documents(b"vol", b"config", Volume),
        {id: pod.name for id, pod in documents(b"pod", b"config", Pod)},
    )


def _bolt_networks(file: BoltFile, id: str) -> dict[str, NetworkUse]:
    return {
        (name := key.decode("utf-8", "replace")): _decoded(data, NetworkUse, f"network {name}")
        for key, data in file.items(b"ctr", id.encode(), b"networks")
    }


def _decoded(data: bytes | str, kind: type[_Type], what: str) -> _Type:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeError, TypeError) as error:
        raise InvalidRequest(f"{printable(what)} of podman is not valid: {error}") from None
