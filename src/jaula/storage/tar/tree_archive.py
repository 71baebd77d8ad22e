"""A tree of files as a tar archive: what ``export`` gives, and what a new layer is made of.

The same tree gives the same bytes: entries in order of name, times in whole seconds, no names of
owners. Sockets have no place in an archive and are left out, as Docker does.
"""

from __future__ import annotations

import errno
import os
import stat

from jaula.storage.tar.entry import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    TarEntry,
)
from jaula.storage.tar.writer import Sink, TarWriter
from jaula.storage.trees import read_xattrs, walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

TAR_TYPES = {
    stat.S_IFREG: REGULAR,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFIFO: FIFO,
}
"""What becomes of a kind of file; sockets are not among them."""


def write_tree(root_fd: int, sink: Sink) -> None:
    """Write the tree below ``root_fd`` as a whole archive.

    A file that shrinks while it is read is padded with zeros, one that grows is cut at the size it
    had, so that a running container cannot break the archive.
    """
    writer = TarWriter(sink)
    links: dict[tuple[int, int], bytes] = {}
    for path, folder, entries in walk(root_fd):
        for name, facts in entries:
            kind = TAR_TYPES.get(stat.S_IFMT(facts.st_mode))
            if kind is None:
                continue
            entry = _describe(path + b"/" + name if path else name, kind, facts)
            if kind != DIRECTORY and facts.st_nlink > 1:
                first = links.setdefault((facts.st_dev, facts.st_ino), entry.name)
                if first != entry.name:
                    entry.type, entry.link, entry.size = HARD_LINK, first, 0
                    writer.add(entry)
                    continue
            try:
                _add(writer, folder, name, entry)
            except FileNotFoundError:
                continue  # it went away meanwhile
    writer.finish()


def _describe(path: bytes, kind: int, facts: os.stat_result) -> TarEntry:
    entry = TarEntry()
    entry.name = path
    entry.type = kind
    entry.mode = stat.S_IMODE(facts.st_mode)
    entry.uid, entry.gid = facts.st_uid, facts.st_gid
    entry.mtime = facts.st_mtime_ns
    if kind in (CHARACTER, BLOCK_DEVICE):
        entry.major, entry.minor = os.major(facts.st_rdev), os.minor(facts.st_rdev)
    return entry


def _add(writer: TarWriter, folder: int, name: bytes, entry: TarEntry) -> None:
    entry.xattrs = read_xattrs(folder, name)
    if entry.type == SYMLINK:
        entry.link = os.readlink(name, dir_fd=folder)
        entry.xattrs = {}
    if entry.type != REGULAR:
        writer.add(entry)
        return
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=folder)
    try:
        facts = os.fstat(descriptor)
        if stat.S_ISREG(facts.st_mode):
            entry.size = facts.st_size
            writer.add(entry, read_padded(descriptor, entry.size))
    finally:
        os.close(descriptor)


def read_padded(descriptor: int, size: int) -> Iterator[bytes]:
    """``size`` bytes of a file, padded with zeros where it is shorter by now."""
    while size:
        data = os.read(descriptor, min(size, 1 << 20)) or bytes(min(size, 1 << 20))
        size -= len(data)
        yield data


def portable_xattrs(place: int) -> dict[str, bytes]:
    """File capabilities and attributes of users; labels belong to the host that set them."""
    where = b"/proc/self/fd/%d" % place
    found: dict[str, bytes] = {}
    try:
        for attribute in os.listxattr(where):
            users = attribute.startswith("user.") and not attribute.startswith("user.overlay.")
            if users or attribute == "security.capability":
                found[attribute] = os.getxattr(where, attribute)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENODATA, errno.ENOENT):
            raise
    return found
