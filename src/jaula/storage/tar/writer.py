"""Writing tar archives: pax interchange format, the same bytes for the same entries.

Follows POSIX.1-2017 (pax): a plain ``ustar`` header where everything fits it, an extended header
before it where something does not. Times are whole seconds, as in layers that other tools make;
owners have no names, since names mean nothing in another file system.
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
    from collections.abc import Callable, Iterable, Iterator
    from typing import TypeAlias

_RECORD = 20 * BLOCK  # tar's blocking factor
_EIGHT = 0o7777777
_ELEVEN = 0o77777777777

Sink: TypeAlias = "Callable[[bytes | memoryview], object]"
"""Takes the archive's bytes as they come; a file's ``write``, for one."""


TAR_TYPES = {
    stat.S_IFREG: REGULAR,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK_DEVICE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFIFO: FIFO,
}
"""What becomes of a kind of file; sockets are not among them."""


class TarWriter:
    """An archive that is being written to ``sink``; :meth:`finish` ends it."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._written = 0

    def _put(self, data: bytes | memoryview) -> None:
        self._sink(data)
        self._written += len(data)

    def add(self, entry: TarEntry, data: Iterable[bytes | memoryview] = ()) -> None:
        """One entry; ``data`` yields exactly ``entry.size`` bytes.

        Raises :class:`ValueError` where there are more or fewer: the archive is useless then.
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
        for key, value, most in (
            (b"size", entry.size, _ELEVEN),
            (b"uid", entry.uid, _EIGHT),
            (b"gid", entry.gid, _EIGHT),
        ):
            if value > most:
                records[key] = b"%d" % value
        seconds = entry.mtime // 1_000_000_000
        if not 0 <= seconds <= _ELEVEN:
            records[b"mtime"] = b"%d" % seconds
        for attribute, content in sorted(entry.xattrs.items()):
            records[b"SCHILY.xattr." + attribute.encode()] = content
        if records:
            self._extended(records)
        self._put(_header(entry, short_name, prefix, link, seconds))
        if entry.type == REGULAR:
            self._data(entry, data)

    def _data(self, entry: TarEntry, data: Iterable[bytes | memoryview]) -> None:
        left = entry.size
        for piece in data:
            left -= len(piece)
            if left < 0:
                raise ValueError(f"more than {entry.size} bytes for {entry.name!r}")
            self._put(piece)
        if left:
            raise ValueError(f"{left} bytes are missing of {entry.name!r}")
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
        """Two blocks of zeros, and padding to a whole record."""
        self._put(bytes(2 * BLOCK))
        self._pad(_RECORD)


def new_entry(
    name: str | bytes,
    kind: int = REGULAR,
    *,
    mode: int = 0o644,
    size: int = 0,
    link: str | bytes = b"",
    mtime: int = 0,
) -> TarEntry:
    """An entry of root's; ``mtime`` in seconds."""
    made = TarEntry()
    made.name = name.encode() if isinstance(name, str) else name
    made.link = link.encode() if isinstance(link, str) else link
    made.type, made.mode, made.size, made.mtime = kind, mode, size, mtime * 1_000_000_000
    return made


def _split(name: bytes) -> tuple[bytes | None, bytes]:
    """A long name over the ``name`` and ``prefix`` fields; None where it does not fit."""
    if len(name) <= 100:
        return name, b""
    slash = name.find(b"/", max(len(name) - 101, 1))
    if 0 < slash <= 155 and slash < len(name) - 1:
        return name[slash + 1 :], name[:slash]
    return None, b""


def _record(key: bytes, value: bytes) -> bytes:
    """``LENGTH KEY=VALUE\\n``, where LENGTH counts itself."""
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
        b"%07o\0" % min(entry.uid, _EIGHT),
        b"%07o\0" % min(entry.gid, _EIGHT),
        b"%011o\0" % (min(entry.size, _ELEVEN) if entry.type in (REGULAR, ord("x")) else 0),
        b"%011o\0" % min(max(seconds, 0), _ELEVEN),
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
