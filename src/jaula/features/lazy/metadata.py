"""The EROFS metadata image of a layer, from its TOC.

The files of the image have their contents in the blob device: uncompressed, in the order of the
TOC, each from a new block on (:class:`Extent`). What a layer is on disk follows
:mod:`jaula.storage.layers.extract`: whiteouts are character devices 0:0, opaque directories have an
attribute of overlayfs, attributes of overlayfs and of security modules are dropped, and directories
without an entry are made.
"""

from __future__ import annotations

import os
import stat
from typing import BinaryIO, NamedTuple

from jaula.errors import InvalidRequest
from jaula.images.registry.toc import Chunk, EntryType, File, Toc
from jaula.storage.erofs.erofs_image import BLOCK_SIZE, Entry, write
from jaula.storage.layers.extract import DROPPED_XATTRS, OPAQUE_NAME, WHITEOUT_PREFIX
from jaula.storage.trees import opaque_xattr

_AUFS_PREFIX = b".wh..wh."
_XATTR_PREFIXES = ("user.", "trusted.", "security.", "system.posix_acl_")
_DIRECTORY_MODE = 0o755  # of a directory without an entry, as the extractor makes it

_KINDS = {
    EntryType.DIRECTORY: stat.S_IFDIR,
    EntryType.REGULAR: stat.S_IFREG,
    EntryType.SYMLINK: stat.S_IFLNK,
    EntryType.CHARACTER: stat.S_IFCHR,
    EntryType.BLOCK: stat.S_IFBLK,
    EntryType.FIFO: stat.S_IFIFO,
}


class Extent(NamedTuple):
    """A chunk at an offset (bytes) of the blob device."""

    offset: int
    chunk: Chunk
    path: bytes


class LayerMetadata(NamedTuple):
    """The content of a layer's metadata image. ``size`` is that of all regular files, in bytes.

    ``extents`` are in the order of their offsets. ``device_size`` is the size of the blob device.
    """

    entries: list[Entry]
    extents: list[Extent]
    device_size: int
    size: int
    states_root: bool


def layout(toc: Toc) -> LayerMetadata:
    """Return the tree of a layer and the places of its contents. Pure.

    :raises InvalidRequest: if the entries do not make a tree.
    """
    entries: dict[bytes, Entry] = {}
    whiteouts: list[bytes] = []
    opaque: set[bytes] = set()
    extents: list[Extent] = []
    position = size = 0
    for file in toc.files:
        parent, _, name = file.path.rpartition(b"/")
        if name.startswith(WHITEOUT_PREFIX):
            if name == OPAQUE_NAME:
                opaque.add(parent)
            elif not name.startswith(_AUFS_PREFIX):
                whiteouts.append(_hidden(file.path))
            continue
        entry = _entry(file)
        if file.size:
            entry.chunks, entry.size = (position,), file.size
            offset = position
            for chunk in file.chunks:
                extents.append(Extent(offset, chunk, file.path))
                offset += chunk.size
            position += -(-file.size // BLOCK_SIZE) * BLOCK_SIZE
            size += file.size
        entries[file.path] = entry
    states_root = b"" in entries
    for path in whiteouts:
        existing = entries.get(path)
        if existing is None:
            entries[path] = Entry(path, stat.S_IFCHR)
        elif stat.S_ISDIR(existing.mode) and existing.hard_link is None:
            opaque.add(path)
    _add_directories(entries)
    for path in opaque:
        directory = entries.get(path)
        if directory is None or not stat.S_ISDIR(directory.mode):
            raise InvalidRequest(f"{path[:200]!r} of a TOC is opaque and is not a directory")
        directory.xattrs = {**directory.xattrs, opaque_xattr(): b"y"}
    return LayerMetadata(list(entries.values()), extents, position, size, states_root)


def write_image(metadata: LayerMetadata, file: BinaryIO) -> None:
    """Write the EROFS image of a layer.

    :raises InvalidRequest: if the tree is not valid or exceeds the format.
    """
    try:
        write(metadata.entries, file, blob_size=metadata.device_size)
    except ValueError as error:
        raise InvalidRequest(f"the TOC of a layer is not valid: {error}") from None


def _hidden(path: bytes) -> bytes:
    parent, _, name = path.rpartition(b"/")
    hidden = name.removeprefix(WHITEOUT_PREFIX)
    if hidden in (b"", b".", b".."):
        raise InvalidRequest(f"whiteout {path[:200]!r} of a TOC does not name a file")
    return parent + b"/" + hidden if parent else hidden


def _entry(file: File) -> Entry:
    if file.type is EntryType.HARD_LINK:
        return Entry(file.path, 0, hard_link=file.link)
    xattrs = {}
    for name, value in file.xattrs.items():
        if name.startswith(_XATTR_PREFIXES) and not name.startswith(DROPPED_XATTRS):
            xattrs[name] = value
    mode = 0o777 if file.type is EntryType.SYMLINK else file.mode
    return Entry(
        file.path,
        _KINDS[file.type] | mode,
        file.uid,
        file.gid,
        max(file.mtime, 0),
        xattrs,
        link=file.link,
        rdev=os.makedev(*file.device),
    )


def _add_directories(entries: dict[bytes, Entry]) -> None:
    """Add the directories that have no entry, and resolve chains of hard links."""
    for path in [*entries, b""]:
        parent = path.rpartition(b"/")[0]
        while parent not in entries:
            entries[parent] = Entry(parent, stat.S_IFDIR | _DIRECTORY_MODE)
            parent = parent.rpartition(b"/")[0]
    for entry in entries.values():
        seen = 0
        while entry.hard_link is not None:
            target = entries.get(entry.hard_link)
            if target is None or target.hard_link is None:
                break
            seen += 1
            if seen > 64:
                raise InvalidRequest(f"hard link {entry.path[:200]!r} of a TOC has no target")
            entry.hard_link = target.hard_link
