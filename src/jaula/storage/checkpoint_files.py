"""A container's files in a checkpoint: write them as tar archives, and extract these.

The root's changes are the tar of a layer (:meth:`SnapshotDriver.write_layer`). A volume is a tar of
its tree, with an entry for its directory. Owners, modes, times in nanoseconds, hard links, devices
and extended attributes are kept, sockets are left out: CRIU binds them again. Blocks of zeros are
holes in the archive's file and after its extraction.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from jaula.errors import InvalidRequest, JaulaError, resource_error
from jaula.storage import free_space
from jaula.storage.layers.extract import Extractor
from jaula.storage.tar.sandboxed import TarParser
from jaula.storage.tar.tar_entry import DIRECTORY, REGULAR, quote_name
from jaula.storage.tar.tar_writer import TarWriter, add_tree, new_entry
from jaula.storage.trees import read_xattrs, write_sparse

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping
    from io import BufferedReader

    from jaula.storage.tar.tar_reader import Archive
    from jaula.storage.tar.tar_writer import Owner, Sink

_CHUNK = 1 << 20  # bytes
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
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


def write_volume(
    directory: int,
    sink: Sink,
    select: Container[bytes] | None = None,
    *,
    owner: Owner | None = None,
) -> None:
    """Write the tar of a volume; ``directory`` is a descriptor of it.

    With ``select`` it has the directory and the entries with these paths only. ``owner`` translates
    uid and gid.
    """
    status = os.fstat(directory)
    root = new_entry("./", DIRECTORY, mode=status.st_mode & 0o7777)
    root.uid, root.gid, root.mtime = status.st_uid, status.st_gid, status.st_mtime_ns
    if owner is not None:
        root.uid, root.gid = owner(root.uid, root.gid)
    root.xattrs = read_xattrs(directory)
    writer = TarWriter(sink, nanoseconds=True)
    writer.add(root)
    add_tree(writer, directory, select=select, owner=owner)
    writer.finish()


def write_shm(directory: int, sink: Sink) -> int:
    """Write a tar of the plain files in a /dev/shm; return their number.

    ``directory`` is a descriptor of it. A file that is removed meanwhile is left out.
    """
    writer, count = TarWriter(sink, nanoseconds=True), 0
    for name in sorted(os.listdir(directory)):
        try:
            fd = os.open(name, _READ, dir_fd=directory)
        except OSError:  # removed, or a symbolic link
            continue
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            continue
        with open(fd, "rb") as file:
            entry = new_entry(name, mode=status.st_mode & 0o7777, size=status.st_size)
            entry.uid, entry.gid, entry.mtime = status.st_uid, status.st_gid, status.st_mtime_ns
            writer.add(entry, _exactly(file, status.st_size))
            count += 1
    writer.finish()
    return count


def _exactly(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield ``size`` bytes of a file that another process may change; zeros after its end."""
    while size:
        chunk = file.read(min(size, _CHUNK)) or bytes(min(size, _CHUNK))
        size -= len(chunk)
        yield chunk


def extract_shm(file: BufferedReader, directory: int) -> dict[str, int]:
    """Create the files of a /dev/shm that do not exist in it; return their inodes by name.

    Other processes may use the directory: no name is followed or replaced.

    :raises InvalidRequest: when an entry is not valid.
    :raises OSError: when there is no space.
    """
    made = dict[str, int]()
    try:
        with TarParser("the archive of /dev/shm") as parser:
            _extract_shm(parser.stream(file), directory, made)
    except BaseException:
        remove_shm(directory, made)
        raise
    return made


def _extract_shm(archive: Archive, directory: int, made: dict[str, int]) -> None:
    for entry in archive:
        name = os.fsdecode(entry.name)
        if entry.type != REGULAR or "/" in name or name in (".", ".."):
            raise InvalidRequest(f"{quote_name(entry.name)} is not a file of /dev/shm")
        try:
            fd = os.open(name, _CREATE, 0o600, dir_fd=directory)
        except FileExistsError:
            continue
        with open(fd, "wb"):
            made[name] = os.fstat(fd).st_ino
            for chunk in archive.data():
                write_sparse(fd, chunk)
            os.ftruncate(fd, entry.size)
            os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, entry.mode & 0o7777)


def remove_shm(directory: int, made: Mapping[str, int]) -> None:
    """Remove files of :func:`extract_shm`. One that a program has put in their place stays."""
    for name, inode in made.items():
        with suppress(FileNotFoundError):
            if os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino == inode:
                os.unlink(name, dir_fd=directory)


def extract(file: BufferedReader, directory: int, *, layer: bool) -> None:
    """Extract an archive into the empty directory of a descriptor.

    With ``layer`` it is the tar of a layer: deleted files become whiteouts of overlayfs.

    :raises InvalidRequest: when an entry is not valid.
    :raises Unavailable: when the disk is full.
    """
    with TarParser("the container's files") as parser:
        Extractor(directory, whiteouts=layer, sparse=True).run(parser.stream(file))
