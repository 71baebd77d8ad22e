"""A container's files in a checkpoint: write them as tar archives, and extract these.

The root's changes are the tar of a layer (:meth:`SnapshotDriver.write_layer`). A volume is a tar of
its tree, with an entry for its directory. Owners, modes, times in nanoseconds, hard links, devices
and extended attributes are kept, sockets are left out: CRIU binds them again. Blocks of zeros are
holes in the archive's file and after its extraction.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO

from jaula.errors import JaulaError, resource_error
from jaula.storage import free_space
from jaula.storage.layers.extract import Extractor
from jaula.storage.tar.entry import DIRECTORY
from jaula.storage.tar.reader import TarReader
from jaula.storage.tar.writer import TarWriter, add_tree, new_entry
from jaula.storage.trees import read_xattrs, write_sparse

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedReader

    from jaula.storage.tar.writer import Sink

_CHECK = 64 << 20  # bytes that are written between two checks of the free space


class _SparseSink:
    """Writes to a file, with holes for blocks of zeros."""

    def __init__(self, file: BinaryIO) -> None:
        self._fd = file.fileno()
        self._unchecked = 0

    def __call__(self, data: bytes | memoryview) -> None:
        self._unchecked -= len(data)
        if self._unchecked < 0:
            free_space.check(self._fd, _CHECK)
            self._unchecked = _CHECK
        write_sparse(self._fd, memoryview(data))


@contextmanager
def sparse_sink(file: BinaryIO) -> Iterator[Sink]:
    """Yield a sink that writes to a new file; the file has its size at the end.

    :raises Unavailable: when the disk is full.
    """
    try:
        yield _SparseSink(file)
        fd = file.fileno()
        os.ftruncate(fd, os.lseek(fd, 0, os.SEEK_CUR))
    except OSError as error:
        what = "cannot write the container's files"
        raise resource_error(error, what) or JaulaError(f"{what}: {error}") from error


def write_volume(directory: int, sink: Sink) -> None:
    """Write the tar of a volume; ``directory`` is a descriptor of it."""
    status = os.fstat(directory)
    root = new_entry("./", DIRECTORY, mode=status.st_mode & 0o7777)
    root.uid, root.gid, root.mtime = status.st_uid, status.st_gid, status.st_mtime_ns
    root.xattrs = read_xattrs(directory)
    writer = TarWriter(sink, nanoseconds=True)
    writer.add(root)
    add_tree(writer, directory)
    writer.finish()


def extract(file: BufferedReader, directory: int, *, layer: bool) -> None:
    """Extract an archive into the empty directory of a descriptor.

    With ``layer`` it is the tar of a layer: deleted files become whiteouts of overlayfs.

    :raises InvalidRequest: when an entry is not valid.
    :raises Unavailable: when the disk is full.
    """
    reader = TarReader(file)
    try:
        Extractor(directory, whiteouts=layer, sparse=True).run(reader)
    finally:
        reader.close()
