"""Write tar archives in pax interchange format. The same entries give the same bytes.

Follows POSIX.1-2017 (pax): a plain ``ustar`` header if all fields fit it, else an extended header
before it. Times are whole seconds, as in layers of other tools. Owners have no names, because names
have no meaning in another file system.

:func:`write_tree` archives a whole tree with entries sorted by name. Sockets are left out, as in
Docker, because a tar archive cannot store them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from struct import Struct
from zlib import adler32

from jaula.storage.tar.tar_entry import (
    BLOCK,
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARD_LINK,
    REGULAR,
    SYMLINK,
    TarEntry,
)
from jaula.storage.trees import read_xattrs, walk_types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator
    from typing import TypeAlias

_RECORD = 20 * BLOCK  # tar's blocking factor
_BUFFER = 1 << 17  # bytes; shorter pieces are gathered, since a sink may wait for another thread
_MAX_8 = 0o7777777  # of a field of eight bytes
_MAX_12 = 0o77777777777  # of a field of twelve bytes
_EXTENDED = ord("x")
_HEADER = Struct("100s57s100s8s64x16s155s12x")
"""Name; mode, owner, size, time, checksum and type; link; magic; device numbers; prefix."""

Sink: TypeAlias = "Callable[[bytes | memoryview], object]"
"""Receives the bytes of the archive; a file's ``write``, for example."""


Owner: TypeAlias = "Callable[[int, int], tuple[int, int]]"
"""Translates uid and gid."""

_CAPABILITY = "security.capability"
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_REPLACED = frozenset({errno.ELOOP, errno.ENXIO})
"""A symbolic link or a socket has the name of a regular file that was listed."""
_PIECE = 1 << 20  # bytes of a file
_REVISION_MASK = 0xFF000000
_REVISION_2 = 0x02000000
_REVISION_3 = 0x03000000
"""linux/capability.h: revision 3 ends with the uid of the root that the capabilities are for."""


TAR_TYPES = {
    stat.S_IFREG: REGULAR,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFIFO: FIFO,
}
"""The tar type of each file type. Sockets have none."""


class TarWriter:
    """Writes an archive to ``sink`` in large pieces. :meth:`finish` writes the last one.

    With ``nanoseconds`` times are not cut to whole seconds.
    """

    def __init__(self, sink: Sink, *, nanoseconds: bool = False) -> None:
        self._sink = sink
        self._nanoseconds = nanoseconds
        self._written = 0
        self._gathered = bytearray()

    def _put(self, data: bytes | memoryview) -> None:
        self._written += len(data)
        if len(data) >= _BUFFER:
            self._flush()
            self._sink(data)
            return
        self._gathered += data
        if len(self._gathered) >= _BUFFER:
            self._flush()

    def _flush(self) -> None:
        if self._gathered:
            data = bytes(self._gathered)
            self._gathered.clear()
            self._sink(data)

    def add(self, entry: TarEntry, data: Iterable[bytes | memoryview] = ()) -> None:
        """Write one entry. ``data`` yields exactly ``entry.size`` bytes.

        :raises ValueError: when it yields more or fewer; then the archive is useless.
        """
        records: dict[bytes, bytes] = {}
        name = (
            entry.name + b"/"
            if entry.type == DIRECTORY and not entry.name.endswith(b"/")
            else entry.name
        )
        short_name, prefix = _split(name)
        if short_name is None:
            records[b"path"] = name
            short_name, prefix = name[:100], b""
        link = entry.link
        if len(link) > 100:
            records[b"linkpath"] = link
            link = link[:100]
        if entry.size > _MAX_12:
            records[b"size"] = b"%d" % entry.size
        if entry.uid > _MAX_8:
            records[b"uid"] = b"%d" % entry.uid
        if entry.gid > _MAX_8:
            records[b"gid"] = b"%d" % entry.gid
        seconds, fraction = divmod(entry.mtime, 1_000_000_000)
        if self._nanoseconds and fraction and seconds >= 0:
            records[b"mtime"] = b"%d.%09d" % (seconds, fraction)
        elif not 0 <= seconds <= _MAX_12:
            records[b"mtime"] = b"%d" % seconds
        if entry.xattrs:
            for attribute, content in sorted(entry.xattrs.items()):
                records[b"SCHILY.xattr." + attribute.encode()] = content
        if records:
            self._extended(records)
        self._put(_header(entry, short_name, prefix, link, seconds))
        if entry.type == REGULAR:
            self._data(entry, data)

    def _data(self, entry: TarEntry, data: Iterable[bytes | memoryview]) -> None:
        remaining = entry.size
        for chunk in data:
            remaining -= len(chunk)
            if remaining < 0:
                raise ValueError(f"more than {entry.size} bytes for {entry.name!r}")
            self._put(chunk)
        if remaining:
            raise ValueError(f"{remaining} bytes are missing of {entry.name!r}")
        self._pad(BLOCK)

    def _extended(self, records: dict[bytes, bytes]) -> None:
        data = b"".join(_record(key, value) for key, value in records.items())
        header = TarEntry()
        header.type = _EXTENDED
        header.mode = 0o644
        header.size = len(data)
        self._put(_header(header, b"././@PaxHeader", b"", b"", 0))
        self._put(data)
        self._pad(BLOCK)

    def _pad(self, unit: int) -> None:
        if missing := -self._written % unit:
            self._put(bytes(missing))

    def finish(self) -> None:
        """Write two blocks of zeros, and the padding to a whole record."""
        self._put(bytes(2 * BLOCK))
        self._pad(_RECORD)
        self._flush()


def new_entry(
    name: str | bytes,
    kind: int = REGULAR,
    *,
    mode: int = 0o644,
    size: int = 0,
    link: str | bytes = b"",
    mtime: int = 0,
) -> TarEntry:
    """Return an entry that is owned by root. ``mtime`` is in seconds."""
    new = TarEntry()
    new.name = name.encode() if isinstance(name, str) else name
    new.link = link.encode() if isinstance(link, str) else link
    new.type, new.mode, new.size, new.mtime = kind, mode, size, mtime * 1_000_000_000
    return new


def tar_entry(path: bytes, kind: int, status: os.stat_result) -> TarEntry:
    """Return the tar entry for the result of a stat call, device numbers included."""
    entry = TarEntry()
    entry.name, entry.type = path, kind
    entry.mode = stat.S_IMODE(status.st_mode)
    entry.uid, entry.gid, entry.mtime = status.st_uid, status.st_gid, status.st_mtime_ns
    if kind in (CHARACTER, BLOCK_DEVICE):
        entry.major, entry.minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return entry


class HardLinks:
    """Further names of the files that an archive has already."""

    def __init__(self) -> None:
        self._names: dict[tuple[int, int], bytes] = {}  # the first one, by device and inode

    def link(self, entry: TarEntry, status: os.stat_result) -> bool:
        """Make an entry a hard link if the archive has its file by another name; return whether."""
        if entry.type == DIRECTORY or status.st_nlink < 2:
            return False
        first = self._names.setdefault((status.st_dev, status.st_ino), entry.name)
        if first == entry.name:
            return False
        entry.type, entry.link = HARD_LINK, first
        return True


def _split(name: bytes) -> tuple[bytes | None, bytes]:
    """Split a long name into the ``name`` and ``prefix`` fields. The name is None if too long."""
    if len(name) <= 100:
        return name, b""
    slash = name.find(b"/", max(len(name) - 101, 1))
    if 0 < slash <= 155 and slash < len(name) - 1:
        return name[slash + 1 :], name[:slash]
    return None, b""


def _record(key: bytes, value: bytes) -> bytes:
    """Format ``LENGTH KEY=VALUE\\n``, where LENGTH includes itself."""
    rest = len(key) + len(value) + 3
    length = rest + len(b"%d" % rest)
    if len(b"%d" % length) != len(b"%d" % rest):
        length = rest + len(b"%d" % length)
    return b"%d %s=%s\n" % (length, key, value)


def _header(entry: TarEntry, name: bytes, prefix: bytes, link: bytes, seconds: int) -> bytes:
    kind = entry.type
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0        %c" % (
        entry.mode,
        min(entry.uid, _MAX_8),
        min(entry.gid, _MAX_8),
        min(entry.size, _MAX_12) if kind in (REGULAR, _EXTENDED) else 0,
        min(max(seconds, 0), _MAX_12),
        kind,
    )
    device = b"0000000\x000000000\0"
    if kind in (CHARACTER, BLOCK_DEVICE):
        device = b"%07o\0%07o\0" % (entry.major, entry.minor)
    header = _HEADER.pack(name, numbers, link, b"ustar\x0000", device, prefix)
    # The low half of Adler-32 is 1 and the sum of the bytes, modulo 65521. Half a header has less.
    halves = adler32(header[:256]) & 0xFFFF, adler32(header[256:]) & 0xFFFF
    return header[:148] + b"%06o\0 " % (halves[0] + halves[1] - 2) + header[156:]


def write_tree(root_fd: int, sink: Sink, *, owner: Owner | None = None) -> None:
    """Write the tree below ``root_fd`` as a complete archive; ``owner`` translates uid and gid."""
    writer = TarWriter(sink)
    add_tree(writer, root_fd, owner=owner)
    writer.finish()


def add_tree(
    writer: TarWriter,
    root_fd: int,
    *,
    owner: Owner | None = None,
    prefix: bytes = b"",
    select: Container[bytes] | None = None,
) -> None:
    """Write the entries of the tree below ``root_fd``, their names after ``prefix``.

    With ``select`` only entries with one of these paths are written.

    A file that shrinks while it is read is padded with zeros. A file that grows is cut at its
    initial size. So a running container cannot break the archive.
    """
    tree = _Tree(writer, owner)
    for path, directory, entries in walk_types(root_fd):
        for name, kind in entries:
            full = path + b"/" + name if path else name
            if select is None or full in select:
                with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                    tree.add(directory, name, prefix + full, regular=kind == stat.S_IFREG)


class _Tree:
    """Writes the files of a tree; ``owner`` translates uid and gid."""

    def __init__(self, writer: TarWriter, owner: Owner | None) -> None:
        self._writer = writer
        self._owner = owner
        self._links = HardLinks()

    def add(self, directory: int, name: bytes, path: bytes, *, regular: bool) -> None:
        """Write a file of a directory as ``path``. One that is replaced meanwhile is left out.

        A file that is ``regular`` is looked up once, by open(2).

        :raises FileNotFoundError: it is removed meanwhile.
        """
        if not regular:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                self._add_other(directory, name, path, status)
                return
        try:
            descriptor = os.open(name, _FILE_FLAGS, dir_fd=directory)
        except OSError as error:
            if error.errno in _REPLACED:
                return
            raise
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return
            entry = self._entry(path, REGULAR, status)
            if self._links.link(entry, status):
                self._writer.add(entry)
                return
            entry.xattrs = self._translated(read_xattrs(descriptor))
            entry.size = status.st_size
            self._writer.add(entry, read_padded(descriptor, entry.size))
        finally:
            os.close(descriptor)

    def _add_other(self, directory: int, name: bytes, path: bytes, status: os.stat_result) -> None:
        kind = TAR_TYPES.get(stat.S_IFMT(status.st_mode))
        if kind is None:
            return
        entry = self._entry(path, kind, status)
        if self._links.link(entry, status):
            pass
        elif kind == SYMLINK:
            entry.link = os.readlink(name, dir_fd=directory)
        else:
            entry.xattrs = self._translated(read_xattrs(directory, name))
        self._writer.add(entry)

    def _entry(self, path: bytes, kind: int, status: os.stat_result) -> TarEntry:
        entry = tar_entry(path, kind, status)
        if self._owner is not None:
            entry.uid, entry.gid = self._owner(entry.uid, entry.gid)
        return entry

    def _translated(self, xattrs: dict[str, bytes]) -> dict[str, bytes]:
        """Return extended attributes with the root uid of the file capabilities translated."""
        if self._owner is not None and (value := xattrs.get(_CAPABILITY)):
            xattrs[_CAPABILITY] = translate_capability(value, self._owner)
        return xattrs


def translate_capability(value: bytes, owner: Owner) -> bytes:
    """Return file capabilities with their root uid translated; those of uid 0 are of revision 2.

    The kernel shows the capabilities of a file of another user namespace in revision 3, with the
    uid that the root of that namespace has in the reader's (capabilities(7)).
    """
    magic = int.from_bytes(value[:4], "little")
    if magic & _REVISION_MASK != _REVISION_3 or len(value) != 24:
        return value
    root = owner(int.from_bytes(value[20:], "little"), 0)[0]
    if root:
        return value[:20] + root.to_bytes(4, "little")
    return (magic & ~_REVISION_MASK | _REVISION_2).to_bytes(4, "little") + value[4:20]


def read_padded(descriptor: int, size: int) -> Iterable[bytes]:
    """Return ``size`` bytes of a file in pieces, padded with zeros if it is shorter."""
    if 0 < size <= _PIECE:
        data = _read(descriptor, size)
        if len(data) == size:
            return (data,)
        return (data, *_pieces(descriptor, size - len(data)))
    return _pieces(descriptor, size)


def _pieces(descriptor: int, size: int) -> Iterator[bytes]:
    while size:
        data = _read(descriptor, min(size, _PIECE))
        size -= len(data)
        yield data


def _read(descriptor: int, size: int) -> bytes:
    """Return up to ``size`` bytes of a file, or that many zeros at its end."""
    return os.read(descriptor, size) or bytes(size)


def portable_xattrs(fd: int, *, acl: bool = False) -> dict[str, bytes]:
    """Return file capabilities and ``user.`` attributes, with ``acl`` also access control lists.

    Labels belong to the host.
    """
    file = b"/proc/self/fd/%d" % fd
    xattrs: dict[str, bytes] = {}
    try:
        for attribute in os.listxattr(file):
            user_xattr = attribute.startswith("user.") and not attribute.startswith("user.overlay.")
            is_acl = acl and attribute.startswith("system.posix_acl_")
            if user_xattr or is_acl or attribute == "security.capability":
                xattrs[attribute] = os.getxattr(file, attribute)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.ENODATA, errno.ENOENT):
            raise
    return xattrs
