"""Read docker by its API. Contents are read from its data directory, where that is possible.

Source: Docker Engine API 1.45.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaula.errors import InvalidRequest, JaulaError, NotFound, Unavailable
from jaula.features.migrate_from import docker_changes, docker_documents, read_only
from jaula.features.migrate_from.docker_documents import (
    PREDEFINED,
    SWARM_LABEL,
    ContainerDocument,
    ContainerSummary,
    ImageDocument,
    ImageSummary,
    Info,
    Named,
    NetworkDocument,
    VolumeDocument,
    VolumeList,
)
from jaula.features.migrate_from.docker_files import DockerFiles
from jaula.features.migrate_from.inventory import (
    CONTAINER,
    NETWORK,
    Inventory,
    Left,
    SourceContainer,
    SourceImage,
    SourceNetwork,
    SourceSecret,
    SourceVolume,
)
from jaula.features.migrate_from.read_only import ReadOnlyTree
from jaula.features.migrate_from.source_api import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from jaula.features.migrate_from.source_api import SourceApi

_ALL = (("all", "1"),)


class Docker:
    """One docker engine that runs. ``root`` is its data directory, '' for the one that it names."""

    def __init__(self, api: SourceApi, root: str = "", *, from_disk: bool = True) -> None:
        """Connect. Without ``from_disk`` images are read by the API in any case.

        :raises JaulaError: when the engine does not answer.
        """
        self._api = api
        self._info = info = api.get("/info", Info)
        self._root = root or info.docker_root_dir
        if not self._root.startswith("/"):
            raise InvalidRequest(
                f"{printable(self._root)!r} is not the path of a data directory", hint="use --root"
            )
        self._tree: ReadOnlyTree | None = None
        self._files: DockerFiles | None = None
        self._no_files = ""
        driver = "" if info.has_containerd_store else info.driver
        try:
            self._tree = ReadOnlyTree(self._root)
            self._files = DockerFiles(self._tree, driver)
        except JaulaError as error:
            self._no_files = error.message
        self._from_disk = from_disk and self._has_layers

    def close(self) -> None:
        if self._tree is not None:
            self._tree.close()

    # -- objects ---------------------------------------------------------------------------------

    def inventory(self) -> Inventory:
        containers, left = [], self._left()
        size = () if self._has_layers else (("size", "1"),)
        for summary in self._api.get("/containers/json", tuple[ContainerSummary, ...], _ALL):
            id = docker_documents.check_id(summary.id)
            try:
                document = self._api.get(f"/containers/{id}/json", ContainerDocument, size)
            except NotFound:
                continue  # removed meanwhile
            name = document.name.removeprefix("/")
            if SWARM_LABEL in document.config.labels:
                left.append(Left(CONTAINER, printable(name), "it is a task of a swarm service"))
            else:
                containers.append(self._container(id, name, document))
        networks: list[SourceNetwork] = []
        for network in self._api.get("/networks", tuple[NetworkDocument, ...]):
            if network.name in PREDEFINED:
                continue
            if network.scope == "swarm" or network.driver == "overlay":
                left.append(Left(NETWORK, printable(network.name), "it is a network of a swarm"))
            else:
                networks.append(docker_documents.read_network(network))
        return Inventory(
            engine="docker",
            identity=printable(self._info.id) or self._root,
            version=printable(self._info.server_version),
            root=self._root,
            images=tuple(self._images()),
            volumes=tuple(map(self._volume, self._api.get("/volumes", VolumeList).volumes)),
            networks=tuple(networks),
            containers=tuple(containers),
            left=tuple(left),
        )

    def _images(self) -> Iterator[SourceImage]:
        for summary in self._api.get("/images/json", tuple[ImageSummary, ...]):
            id = docker_documents.check_digest(summary.id)
            try:
                document = self._api.get(f"/images/{id}/json", ImageDocument)
            except NotFound:
                continue
            layers = document.root_fs.layers
            sizes = self._files.layer_sizes(layers) if self._files else ()
            own_id = "" if self._info.has_containerd_store else id
            yield docker_documents.read_image(id, document, id=own_id, sizes=sizes)

    def _volume(self, document: VolumeDocument) -> SourceVolume:
        size, entries, problem = 0, 0, ""
        if document.driver == "local" and not document.options:
            if self._files is None:
                problem = self._no_files
            else:
                size, entries, problem = self._files.volume_usage(document.name)
        return docker_documents.read_volume(document, size, entries, problem)

    def _container(self, id: str, name: str, document: ContainerDocument) -> SourceContainer:
        size, problem = document.size_rw, ""
        if self._has_layers:
            size, problem = self._contents.changes_usage(id)
        return docker_documents.read_container(
            id, name, document, self._info, changed=size, no_changes=problem
        )

    @property
    def _has_layers(self) -> bool:
        """Whether the files that containers have changed are read from the disk."""
        return self._files is not None and self._files.has_layers

    def _left(self) -> list[Left]:
        rows = [Left("plugin", each.title, "jaula has no plugins") for each in self._list("plugin")]
        if self._info.swarm.local_node_state == "active":
            for kind, reason in (
                ("service", "jaula has no swarm"),
                ("secret", "docker does not give its content away: create it again"),
                ("config", "it belongs to the swarm: create it again"),
            ):
                rows += [Left(kind, each.title, reason) for each in self._list(kind)]
        rows.append(Left("build cache", "*", "builds fill jaula's own"))
        return rows

    def _list(self, kind: str) -> tuple[Named, ...]:
        try:
            return self._api.get(f"/{kind}s", tuple[Named, ...])
        except (NotFound, Unavailable):
            return ()  # a daemon without this part, or a worker of a swarm

    # -- contents --------------------------------------------------------------------------------

    def archive(self, images: Sequence[SourceImage], *, tags: bool) -> Iterator[bytes | memoryview]:
        if self._from_disk:
            return self._contents.archive(images, tags=tags)
        names = [name for i in images for name in (tags and i.tags) or (i.source_id,)]
        return self._api.stream("/images/get", [("names", name) for name in names])

    @property
    def _contents(self) -> DockerFiles:
        """The data directory.

        :raises Unavailable: when it cannot be read.
        """
        if self._files is None:
            raise Unavailable(self._no_files)
        return self._files

    def volume(self, volume: SourceVolume) -> Iterator[bytes | memoryview]:
        return self._contents.volume(volume)

    def volume_directory(self, volume: SourceVolume) -> AbstractContextManager[int]:
        return self._contents.volume_directory(volume)

    def changes(self, container: SourceContainer) -> Iterator[bytes | memoryview]:
        if self._has_layers:
            return self._contents.changes(container)
        host, points = container.request.host_config, [m.target for m in container.volumes]
        points += [*host.tmpfs, *(mount.target for mount in host.mounts)]
        points += [bind.split(":")[1] for bind in host.binds if ":" in bind]
        return read_only.pull(
            lambda sink: docker_changes.write_changes(self._api, container.id, points, sink)
        )

    def secret(self, secret: SourceSecret) -> bytes:
        raise Unavailable(f"docker does not give the content of secret {secret.name} away")
