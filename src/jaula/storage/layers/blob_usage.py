"""The layers that refer to a blob: bytes that a set of layers needs, and chunks that none needs.

A reference is a hard link in the directory of a layer (:mod:`jaula.storage.erofs.chunks`), so the
kernel counts them. A blob whose own layer was removed keeps the chunks of other layers only; the
rest of it is freed as holes. The order makes a crash harmless: a layer loses its name first, then
chunks are freed, then its links are removed. The start of an engine does the last two again.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from jaula.errors import CorruptState
from jaula.storage.erofs import chunks
from jaula.storage.erofs.chunks import BLOB, OWN, Chunk, blob_name
from jaula.storage.trees import open_directory

if TYPE_CHECKING:
    from jaula.storage.erofs.layer import ErofsFiles

_log = logging.getLogger("jaula.storage")

Inode = tuple[int, int]


def free_unused(layers: Path, descriptor: int) -> None:
    """Free the chunks of a blob that no layer in ``layers`` needs.

    Nothing is done while a new layer is made that refers to the blob: its maker calls this when
    the layer has its name. Nothing is done either if no layer refers to the blob: it is removed.
    """
    status = os.fstat(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    try:
        used: list[tuple[int, int]] | None = None
        for layer in _names(layers):
            for device, inode in _blobs(layers / layer):
                if inode != (status.st_dev, status.st_ino):
                    continue
                if device == OWN:
                    return
                used = used or []
                used += [
                    (each.offset, each.size)
                    for each in _read(layers / layer)
                    if each.device == device
                ]
        if used is not None:
            chunks.punch(descriptor, used)
    except CorruptState as error:
        _log.warning("the chunks of a blob are not freed: %s", error.message)
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def free_removed(layers: Path, removed: str) -> None:
    """Free the chunks that only a layer needed which has its directory ``removed`` in ``layers``.

    The layer has lost its name, and its directory is removed afterwards.
    """
    for device, _ in _blobs(layers / removed):
        with suppress(FileNotFoundError):
            descriptor = os.open(
                layers / removed / blob_name(device), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            )
            try:
                if os.fstat(descriptor).st_nlink > 1:
                    free_unused(layers, descriptor)
            finally:
                os.close(descriptor)


class StoredSizes:
    """The sizes of some layers at one moment, for sums that count each chunk once."""

    def __init__(
        self, layers: Path, sizes: Mapping[str, int], files: Mapping[str, ErofsFiles]
    ) -> None:
        """Read the references of layers.

        ``sizes`` are the bytes of layers that do not share chunks, by name in ``layers``;
        ``files`` are the files of those that do.
        """
        self._layers = layers
        self._sizes = sizes
        self._files = files
        self._blobs = {name: tuple(_blobs(layers / name)) for name in files}
        self._chunks: dict[str, dict[int, list[tuple[int, int]]]] = {}

    def together(self, names: Iterable[str]) -> int:
        """Return the bytes of file contents that layers need together."""
        size = 0
        owned: dict[Inode, int] = {}
        references: dict[Inode, list[tuple[str, int]]] = {}
        for name in names:
            size += self._sizes.get(name, 0)
            for device, inode in self._blobs.get(name, ()):
                if device == OWN:
                    owned[inode] = self._files[name].stored or 0
                else:
                    references.setdefault(inode, []).append((name, device))
        return (
            size
            + sum(owned.values())
            + sum(self._kept(users) for inode, users in references.items() if inode not in owned)
        )

    def _kept(self, users: Collection[tuple[str, int]]) -> int:
        """Return the bytes that stay of a removed layer's blob: with fs-verity all of it."""
        extents: set[tuple[int, int]] = set()
        for name, device in users:
            if self._files[name].blob:
                with suppress(FileNotFoundError):  # removed meanwhile
                    return os.stat(self._layers / name / blob_name(device)).st_size
            extents.update(self._extents(name, device))
        return sum(size for _, size in extents)

    def _extents(self, name: str, device: int) -> list[tuple[int, int]]:
        devices = self._chunks.get(name)
        if devices is None:
            devices = self._chunks[name] = {}
            try:
                for each in _read(self._layers / name):
                    devices.setdefault(each.device, []).append((each.offset, each.size))
            except CorruptState as error:
                _log.warning("the size of layer %s is not exact: %s", name, error.message)
        return devices.get(device, [])


def _read(layer: Path) -> Iterable[Chunk]:
    """Return the chunks of a layer, none if it was removed meanwhile.

    :raises CorruptState: when its list is missing or damaged.
    """
    with suppress(FileNotFoundError), open_directory(layer) as directory:
        return chunks.read_list(directory)
    return ()


def _names(layers: Path) -> Iterator[str]:
    return (name for name in os.listdir(layers) if len(name) == 64)


def _blobs(layer: Path) -> Iterator[tuple[int, Inode]]:
    """Yield the devices of a layer and their inodes. A directory has none."""
    with suppress(FileNotFoundError):
        for name in os.listdir(layer):
            suffix = name.removeprefix(f"{BLOB}.")
            device = OWN if name == BLOB else int(suffix) if suffix.isdecimal() else 0
            if device and name == blob_name(device):
                status = os.lstat(layer / name)
                yield device, (status.st_dev, status.st_ino)
