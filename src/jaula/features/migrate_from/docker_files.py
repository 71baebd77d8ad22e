"""Read the contents of docker's data directory: images, volumes, and files of containers.

Sources: moby ``image/fs.go``, ``layer/filestore.go``, ``volume/local`` and
``daemon/graphdriver/overlay2``. The directory is a :class:`ReadOnlyTree`. Paths in it are formed
here of checked names; a path in a document of the source is never opened.
"""

from __future__ import annotations

import hashlib
import os
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, BinaryIO

import msgspec

from jaula.errors import InvalidRequest, JaulaError, Unavailable
from jaula.features.migrate_from import read_only
from jaula.features.migrate_from.docker_documents import is_volume_name
from jaula.features.migrate_from.layer_archive import LayerFiles, write_archive
from jaula.features.migrate_from.owners import remapped_owner, rootless_owner
from jaula.features.migrate_from.source_api import printable
from jaula.storage.checkpoint_files import write_volume
from jaula.storage.trees import tree_usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from contextlib import AbstractContextManager

    from jaula.features.migrate_from.inventory import SourceContainer, SourceImage, SourceVolume
    from jaula.features.migrate_from.read_only import ReadOnlyTree
    from jaula.storage.tar.tar_writer import Sink

_MOUNT_ID = re.compile(r"[0-9a-f]{64}(-init)?", re.ASCII)
_CONFIG_LIMIT = 16 << 20  # bytes


class DockerFiles:
    """The contents of one data directory. ``driver`` is the storage driver, or ''."""

    def __init__(self, tree: ReadOnlyTree, driver: str) -> None:
        """Check the directory.

        :raises InvalidRequest: when it is not docker's.
        """
        if not {"containers", "volumes"} <= set(tree.names(".")):
            raise InvalidRequest(
                f"{printable(tree.path)} is not a data directory of docker: it has no containers"
                " and volumes",
                hint="name it with --root",
            )
        self.tree = tree
        self._driver = driver
        self._owner = rootless_owner(tree) or remapped_owner(tree.path)

    @property
    def has_layers(self) -> bool:
        """Whether layers and files of containers can be read."""
        return self._driver == "overlay2"

    def layer_sizes(self, layers: Sequence[str]) -> tuple[int, ...]:
        """Return the bytes of each layer, or nothing if they are not known."""
        if not self.has_layers:
            return ()
        try:
            return tuple(
                int(self.tree.read(f"{_layer_directory(layers[: i + 1])}/size", 32))
                for i in range(len(layers))
            )
        except (OSError, ValueError, InvalidRequest):
            return ()

    def volume_usage(self, name: str) -> tuple[int, int, str]:
        """Return the bytes and files of a volume, and why it cannot be read, '' if it can."""
        try:
            with self._volume(name) as directory:
                return *tree_usage(directory), ""
        except (JaulaError, OSError) as error:
            return 0, 0, str(getattr(error, "message", error))

    def created(self, path: str) -> str:
        """Return the time of the last change of a directory's inode, RFC 3339 (moby does so)."""
        with self.tree.directory(path) as directory:
            seconds = int(os.fstat(directory).st_ctime)
        return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")

    def changes_usage(self, id: str) -> tuple[int, str]:
        """Return the bytes of a container's own files, and why they cannot be read."""
        try:
            with self._upper(id) as upper:
                return tree_usage(upper)[0], ""
        except (JaulaError, OSError) as error:
            return 0, str(getattr(error, "message", error))

    def archive(self, images: Sequence[SourceImage], *, tags: bool) -> Iterator[bytes | memoryview]:
        if not tags:
            images = [msgspec.structs.replace(image, tags=()) for image in images]
        return read_only.pull(lambda sink: write_archive(images, self.config, self._layer, sink))

    def config(self, image: SourceImage) -> bytes:
        """Return the configuration of an image; its digest is the id of the image.

        :raises InvalidRequest: when the file is damaged.
        """
        hexadecimal = image.id.removeprefix("sha256:")
        data = self.tree.read(f"image/overlay2/imagedb/content/sha256/{hexadecimal}", _CONFIG_LIMIT)
        if hashlib.sha256(data).hexdigest() != hexadecimal:
            raise InvalidRequest(f"the configuration of image {image.title} is damaged")
        return data

    def _layer(self, diff_id: str, image: SourceImage) -> LayerFiles:
        chain = image.layers[: image.layers.index(diff_id) + 1]
        directory = _layer_directory(chain)
        cache_id = self.tree.read(f"{directory}/cache-id", 128).decode("ascii", "replace").strip()
        if not _MOUNT_ID.fullmatch(cache_id):
            raise InvalidRequest(f"{directory}/cache-id is not valid")

        def split() -> BinaryIO:
            return open(self.tree.open(f"{directory}/tar-split.json.gz"), "rb")

        return LayerFiles(split, lambda: self.tree.directory(f"overlay2/{cache_id}/diff"))

    def volume_directory(self, volume: SourceVolume) -> AbstractContextManager[int]:
        return self._volume(volume.name)

    def _volume(self, name: str) -> AbstractContextManager[int]:
        if not is_volume_name(name):
            raise InvalidRequest(f"{printable(name)!r} is not the name of a volume")
        return self.tree.directory(f"volumes/{name}/_data")

    def volume(self, volume: SourceVolume) -> Iterator[bytes | memoryview]:
        def work(sink: Sink) -> None:
            with self._volume(volume.name) as directory:
                write_volume(directory, sink, owner=self._owner)

        return read_only.pull(work)

    def _upper(self, id: str) -> AbstractContextManager[int]:
        if not self.has_layers:
            driver = printable(self._driver) or "of containerd"
            raise Unavailable(f"storage driver {driver} keeps them elsewhere")
        path = f"image/overlay2/layerdb/mounts/{id}/mount-id"
        try:
            mount_id = self.tree.read(path, 128).decode("ascii", "replace").strip()
        except OSError as error:
            raise Unavailable(f"cannot read {path}: {error.strerror}") from None
        if not _MOUNT_ID.fullmatch(mount_id):
            raise InvalidRequest(f"{path} is not valid")
        return self.tree.directory(f"overlay2/{mount_id}/diff")

    def changes(self, container: SourceContainer) -> Iterator[bytes | memoryview]:
        def work(sink: Sink) -> None:
            with self._upper(container.id) as upper:
                read_only.write_changes(upper, sink, self._owner)

        return read_only.pull(work)


def chain_id(layers: Sequence[str]) -> str:
    """Return the chain id of a stack of diff ids (OCI image-spec, ``config.md``). Pure."""
    chain = layers[0]
    for layer in layers[1:]:
        chain = "sha256:" + hashlib.sha256(f"{chain} {layer}".encode()).hexdigest()
    return chain


def _layer_directory(layers: Sequence[str]) -> str:
    return f"image/overlay2/layerdb/sha256/{chain_id(layers).removeprefix('sha256:')}"
