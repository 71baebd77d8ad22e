"""Write tar archives in pax interchange format. The same entries give the same bytes.

Follows POSIX.1-2017 (pax): a plain ``ustar`` header if all fields fit it, else an extended header
before it. Times are whole seconds, as in layers of other tools. Owners have no names, because names
have no meaning in another file system.

:func:`write_tree` archives a whole tree with entries sorted by name. Sockets are left out, as in
Docker, because a tar archive cannot store them.
"""

from __future__ import annotations

import errno
import os
import stat

from jaula.storage.tar.entry import (
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
from jaula.storage.trees import read_xattrs, walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator
    from typing import TypeAlias

_RECORD = 20 * BLOCK  # tar's blocking factor
_BUFFER = 1 << 17  # bytes; shorter pieces are gathered, since a sink may wait for another thread
_MAX_8 = 0o7777777  # of a field of eight bytes
_MAX_12 = 0o77777777777  # of a field of twelve bytes

Sink: TypeAlias = "Callable[[bytes | memoryview], object]"
"""Receives the bytes of the archive; a file's ``write``, for example."""


Owner: TypeAlias = "Callable[[int, int], tuple[int, int]]"
"""Translates uid and gid."""

_CAPABILITY = "security.capability"
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
        for key, value, maximum in (
            (b"size", entry.size, _MAX_12),
            (b"uid", entry.uid, _MAX_8),
            (b"gid", entry.gid, _MAX_8),
        ):
            if value > maximum:
                records[key] = b"%d" % value
        seconds, fraction = divmod(entry.mtime, 1_000_000_000)
        if self._nanoseconds and fraction and seconds >= 0:
            records[b"mtime"] = b"%d.%09d" % (seconds, fraction)
        elif not 0 <= seconds <= _MAX_12:
            records[b"mtime"] = b"%d" % seconds
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
        header.type = ord("x")
        header.mode = 0o644
        header.size = len(data)
        self._put(_header(header, b"././@PaxHeader", b"", b"", 0))
        self._put(data)
        self._pad(BLOCK)

    def _pad(self, unit: int) -> None:
        missing = -self._written % unit
        if missing:
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
    device = entry.type in (CHARACTER, BLOCK_DEVICE)
    fields = (
        name.ljust(100, b"\0"),
        b"%07o\0" % entry.mode,
        b"%07o\0" % min(entry.uid, _MAX_8),
        b"%07o\0" % min(entry.gid, _MAX_8),
        b"%011o\0" % (min(entry.size, _MAX_12) if entry.type in (REGULAR, ord("x")) else 0),
        b"%011o\0" % min(max(seconds, 0), _MAX_12),
        b" " * 8,
        bytes((entry.type,)),
        link.ljust(100, b"\0"),
        b"ustar\x0000",
        bytes(64),
        b"%07o\0" % (entry.major if device else 0),
        b"%07o\0" % (entry.minor if device else 0),
        prefix.ljust(155, b"\0"),
        bytes(12),
    )
    header = b"".join(fields)
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


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
    links: dict[tuple[int, int], bytes] = {}
    for path, directory, entries in walk(root_fd):
        for name, status in entries:
            kind = TAR_TYPES.get(stat.S_IFMT(status.st_mode))
            if kind is None:
                continue
            full = path + b"/" + name if path else name
            if select is not None and full not in select:
                continue
            entry = _tree_entry(prefix + full, kind, status)
            if owner is not None:
                entry.uid, entry.gid = owner(entry.uid, entry.gid)
            if kind != DIRECTORY and status.st_nlink > 1:
                first = links.setdefault((status.st_dev, status.st_ino), entry.name)
                if first != entry.name:
                    entry.type, entry.link, entry.size = HARD_LINK, first, 0
                    writer.add(entry)
                    continue
            try:
                _add_file(writer, directory, name, entry, owner)
            except FileNotFoundError:
                continue  # removed meanwhile


def _tree_entry(path: bytes, kind: int, status: os.stat_result) -> TarEntry:
    entry = TarEntry()
    entry.name = path
    entry.type = kind
    entry.mode = stat.S_IMODE(status.st_mode)
    entry.uid, entry.gid = status.st_uid, status.st_gid
    entry.mtime = status.st_mtime_ns
    if kind in (CHARACTER, BLOCK_DEVICE):
        entry.major, entry.minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return entry


def _add_file(
    writer: TarWriter, directory: int, name: bytes, entry: TarEntry, owner: Owner | None
) -> None:
    entry.xattrs = read_xattrs(directory, name)
    if owner is not None and (value := entry.xattrs.get(_CAPABILITY)):
        entry.xattrs[_CAPABILITY] = translate_capability(value, owner)
    if entry.type == SYMLINK:
        entry.link = os.readlink(name, dir_fd=directory)
        entry.xattrs = {}
    if entry.type != REGULAR:
        writer.add(entry)
        return
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(name, flags, dir_fd=directory)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            entry.size = status.st_size
            writer.add(entry, read_padded(descriptor, entry.size))
    finally:
        os.close(descriptor)


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


def read_padded(descriptor: int, size: int) -> Iterator[bytes]:
    """Yield ``size`` bytes of a file, padded with zeros if it is shorter."""
    while size:
        data = os.read(descriptor, min(size, 1 << 20)) or bytes(min(size, 1 << 20))
        size -= len(data)
        yield data


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
