"""Send the files of a directory to a client: the sender of fsutil's protocol.

The packets are those of :mod:`.file_receiver`. The tree is that of a build stage, so its content is
hostile: it is walked by descriptors, and no symbolic link is followed. The client's requests are
input too: a number that was not announced, or that was requested before, ends the transfer.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator

from jaula.errors import InvalidRequest, Unavailable
from jaula.features.build.builder.build_session import FILE_MODE, ExtraFile
from jaula.features.build.buildkit.file_receiver import (
    CHARACTER,
    DEVICE,
    DIRECTORY,
    PIPE,
    SETGID,
    SETUID,
    STICKY,
    SYMLINK,
)
from jaula.features.build.buildkit.proto.session_pb2 import Packet, Stat
from jaula.kernel import openat2
from jaula.storage.trees import read_xattrs

_CHUNK = 32 * 1024  # bytes of a DATA packet
_MAX_DEPTH = 1000
_BENEATH = openat2.RESOLVE.BENEATH | openat2.RESOLVE.NO_SYMLINKS
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    stat.S_IFREG: 0,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFIFO: PIPE,
    stat.S_IFBLK: DEVICE,
    stat.S_IFCHR: DEVICE | CHARACTER,
}
_SPECIAL = ((stat.S_ISUID, SETUID), (stat.S_ISGID, SETGID), (stat.S_ISVTX, STICKY))


class FileSender:
    """The files below ``root``, a descriptor, and further ones. Runs in one thread at a time.

    All are in the directory ``prefix``, which is sent first; '' for none.
    """

    def __init__(self, root: int, prefix: bytes = b"", extra: Iterable[ExtraFile] = ()) -> None:
        self._root = root
        self._prefix = prefix
        self._extra = sorted(extra, key=lambda file: file.name)
        self._files: dict[int, bytes | ExtraFile] = {}
        self._links: dict[tuple[int, int], bytes] = {}

    def entries(self) -> Iterator[bytes]:
        """Yield the STAT packets of all files, in the order of a walk, and the empty last one."""
        for number, (entry, content) in enumerate(self._stats()):
            if content is not None:
                self._files[number] = content
            yield Packet(type=Packet.PACKET_STAT, stat=entry).SerializeToString()
        yield Packet(type=Packet.PACKET_STAT).SerializeToString()

    def _stats(self) -> Iterator[tuple[Stat, bytes | ExtraFile | None]]:
        """Yield each file, and where its content is, if it is a regular one."""
        base = self._prefix + b"/" if self._prefix else b""
        if self._prefix:
            yield Stat(path=self._prefix, mode=DIRECTORY | 0o755), None
        replaced = {file.name for file in self._extra}
        extra = list(reversed(self._extra))
        for path, parent, name, status in _walk(self._root):
            top = path.partition(b"/")[0]
            while extra and extra[-1].name <= top:
                yield _extra_entry(base, extra[-1]), extra.pop()
            if top in replaced:
                continue
            content = path if stat.S_ISREG(status.st_mode) else None
            entry = self._entry(path, parent, name, status)
            entry.path = base + path
            if entry.linkname and not stat.S_ISLNK(status.st_mode):
                entry.linkname = base + entry.linkname
            yield entry, content
        while extra:
            yield _extra_entry(base, extra[-1]), extra.pop()

    def _entry(self, path: bytes, parent: int, name: bytes, status: os.stat_result) -> Stat:
        mode = status.st_mode & 0o777 | _KINDS[stat.S_IFMT(status.st_mode)]
        for ours, theirs in _SPECIAL:
            if status.st_mode & ours:
                mode |= theirs
        entry = Stat(
            path=path,
            mode=mode,
            uid=status.st_uid,
            gid=status.st_gid,
            modTime=status.st_mtime_ns,
        )
        if mode & DIRECTORY:
            return entry
        if stat.S_ISLNK(status.st_mode):
            entry.linkname = os.readlink(name, dir_fd=parent)
            return entry
        if mode & DEVICE:
            entry.devmajor, entry.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        if status.st_nlink > 1:
            first = self._links.setdefault((status.st_dev, status.st_ino), path)
            if first != path:
                entry.linkname = first
                return entry
        if stat.S_ISREG(status.st_mode):
            entry.size = status.st_size
            for attribute, value in read_xattrs(parent, name).items():
                if attribute.startswith("user."):
                    entry.xattrs[attribute] = value
        return entry

    def content(self, message: bytes) -> Iterator[bytes] | None:
        """Return the DATA packets that a packet of the client requests; None at its FIN.

        :raises InvalidRequest: when the request is invalid.
        :raises Unavailable: when the client failed.
        """
        packet = Packet()
        packet.ParseFromString(message)
        if packet.type == Packet.PACKET_FIN:
            return None
        if packet.type == Packet.PACKET_ERR:
            text = packet.data[:512].decode("utf-8", "replace")
            raise Unavailable(f"the client reports: {text}")
        path = self._files.pop(packet.ID, None)
        if packet.type != Packet.PACKET_REQ or path is None:
            raise InvalidRequest(f"the client requests the file {packet.ID}, which does not exist")
        return self._read(packet.ID, path)

    def _read(self, number: int, path: bytes | ExtraFile) -> Iterator[bytes]:
        if isinstance(path, ExtraFile):
            for start in range(0, len(path.data), _CHUNK):
                data = path.data[start : start + _CHUNK]
                yield Packet(type=Packet.PACKET_DATA, ID=number, data=data).SerializeToString()
            yield Packet(type=Packet.PACKET_DATA, ID=number).SerializeToString()
            return
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = openat2.openat2(self._root, path, flags, resolve=_BENEATH)
        try:
            while data := os.read(descriptor, _CHUNK):
                yield Packet(type=Packet.PACKET_DATA, ID=number, data=data).SerializeToString()
        finally:
            os.close(descriptor)
        yield Packet(type=Packet.PACKET_DATA, ID=number).SerializeToString()


def _extra_entry(base: bytes, file: ExtraFile) -> Stat:
    size = len(file.data)
    return Stat(path=base + file.name, mode=FILE_MODE, size=size, modTime=file.mtime)


def fin() -> bytes:
    """Return the last packet of a transfer."""
    return Packet(type=Packet.PACKET_FIN).SerializeToString()


def _walk(root: int) -> Iterator[tuple[bytes, int, bytes, os.stat_result]]:
    """Yield path, directory, name and status of every file; the content of a directory follows it.

    :raises InvalidRequest: when the tree is too deep.
    """
    levels: list[tuple[bytes, int, Iterator[bytes]]] = [(b"", os.dup(root), _names(root))]
    try:
        while levels:
            prefix, parent, names = levels[-1]
            name = next(names, None)
            if name is None:
                os.close(levels.pop()[1])
                continue
            status = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_IFMT(status.st_mode) not in _KINDS:
                continue  # a socket
            path = prefix + name
            yield path, parent, name, status
            if stat.S_ISDIR(status.st_mode):
                if len(levels) > _MAX_DEPTH:
                    raise InvalidRequest("a directory of the result is too deep to export")
                descriptor = os.open(name, _OPEN_DIRECTORY, dir_fd=parent)
                levels.append((path + b"/", descriptor, _names(descriptor)))
    finally:
        for _, descriptor, _ in levels:
            os.close(descriptor)


def _names(directory: int) -> Iterator[bytes]:
    return iter(sorted(map(os.fsencode, os.listdir(directory))))
