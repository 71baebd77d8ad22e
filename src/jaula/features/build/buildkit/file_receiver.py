"""Receive the files of a client: the receiver of fsutil's protocol.

The client sends a STAT packet for each file below its directory, in the order of a walk, and an
empty one at the end. The receiver answers with REQ packets, which have the numbers of the STAT
packets whose content it wants. The content arrives in DATA packets of that number, several files at
a time, each with an empty packet at its end. FIN ends the transfer on both sides.

The client is hostile input. Every name is one component that does not exist yet, in a directory
that this transfer made: the receiver keeps the descriptors of the directories from the root to the
current one, and a walk never returns to a directory that it has left. Content is written to paths
that were made so, which are opened without following a symbolic link. Owners are root, device nodes
are refused, and numbers, bytes and the free space of the disk are limited.

A file that the previous transfer of the same directory has with the same size, time and mode is
linked, not requested. The previous tree is hostile too, so it is opened component by component.
Files of both trees are never written again.

Source: tonistiigi/fsutil ``receive.go``, ``send.go`` (the order and meaning of packets), Go's
``io/fs.FileMode`` (the bits of a mode).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from jaula.errors import InvalidRequest, Unavailable
from jaula.features.build.buildkit.proto.session_pb2 import Packet, Stat
from jaula.kernel import openat2
from jaula.storage import free_space
from jaula.storage.file_errors import file_error
from jaula.storage.trees import set_xattr

DIRECTORY, SYMLINK, DEVICE, PIPE, SOCKET = 1 << 31, 1 << 27, 1 << 26, 1 << 25, 1 << 24
SETUID, SETGID, CHARACTER, STICKY = 1 << 23, 1 << 22, 1 << 21, 1 << 20
_TYPES = DIRECTORY | SYMLINK | DEVICE | PIPE | SOCKET | CHARACTER
_SPECIAL = ((SETUID, stat.S_ISUID), (SETGID, stat.S_ISGID), (STICKY, stat.S_ISVTX))

MAX_ENTRIES = 500_000
MAX_BYTES = 64 << 30
_MAX_PATHS = 64 << 20  # bytes of all paths
_MAX_PATH, _MAX_DEPTH = 4096, 512
_MAX_OPEN = 32  # files that are written at a time
_SPACE_INTERVAL = 32 << 20  # bytes between two checks of the free space
_BENEATH = openat2.RESOLVE.BENEATH | openat2.RESOLVE.NO_SYMLINKS
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

Send = Callable[[bytes], None]
_FIN = Packet(type=Packet.PACKET_FIN).SerializeToString()


class _RequestedFile:
    """A file whose content was requested."""

    __slots__ = ("complete", "exists", "mode", "path", "premade", "size", "time")

    def __init__(self, path: bytes, entry: Stat) -> None:
        self.path = path
        self.size = entry.size
        self.mode = mode_of(entry.mode)
        self.time = entry.modTime
        self.exists = False
        self.premade = False  # with another mode
        self.complete = False


class _Level:
    """A directory of the current path, and the same one of the previous transfer (-1 without)."""

    __slots__ = ("descriptor", "last", "path", "previous")

    def __init__(self, path: bytes, descriptor: int, previous: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self.previous = previous
        self.last = b""  # the name of the last entry

    def close(self) -> None:
        os.close(self.descriptor)
        if self.previous >= 0:
            os.close(self.previous)


class FileReceiver:
    """One transfer into the empty directory ``root``, a descriptor. Runs in one thread.

    ``previous`` is the root of the previous transfer, -1 without one. ``send`` sends packets to the
    client. ``bytes`` counts the content that was received. ``done`` is true after the last packet.
    """

    def __init__(self, root: int, send: Send, previous: int = -1) -> None:
        self.bytes = 0
        self.done = False
        self._root = root
        self._send = send
        old = -1 if previous < 0 else os.dup(previous)
        self._levels = [_Level(b"", os.dup(root), old)]
        self._requested: dict[int, _RequestedFile] = {}
        self._by_path: dict[bytes, _RequestedFile] = {}
        self._parent = b"", os.dup(root)  # the directory of the last file that was opened
        self._open: dict[int, int] = {}  # descriptors of files that are written, oldest first
        self._directories: list[tuple[bytes, int]] = []  # with their times
        self._count = 0
        self._path_bytes = 0
        self._unchecked = 0
        self._hidden = _hidden_bits()
        self._all_known = False
        self._ending = False

    def close(self) -> None:
        """Close all files and directories."""
        for level in self._levels:
            level.close()
        self._levels.clear()
        if self._parent[1] >= 0:
            os.close(self._parent[1])
            self._parent = b"", -1
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()

    def take(self, messages: list[bytes]) -> None:
        """Deal with packets, in order.

        :raises InvalidRequest: when the client violates the protocol or exceeds a limit.
        :raises Unavailable: when the client failed.
        """
        packet = Packet()
        for message in messages:
            if self.done:
                return
            packet.ParseFromString(message)
            kind = packet.type
            if kind == Packet.PACKET_DATA:
                self._data(packet.ID, packet.data)
            elif kind == Packet.PACKET_STAT:
                if packet.HasField("stat"):
                    self._entry(packet.stat)
                else:
                    self._all_known = True
            elif kind == Packet.PACKET_FIN:
                self.done = True
            elif kind == Packet.PACKET_ERR:
                text = packet.data[:512].decode("utf-8", "replace")
                raise Unavailable(f"the client reports: {text}")
            else:
                raise InvalidRequest(f"the client sent an unexpected packet of type {kind}")
            if self._all_known and not self._requested and not self._ending:
                self._finish()
        if self.done and not self._ending:
            raise InvalidRequest("the client ended the transfer before all files were sent")

    # -- entries ---------------------------------------------------------------------------------

    def _entry(self, entry: Stat) -> None:
        number = self._count
        self._count += 1
        path = bytes(entry.path)
        self._path_bytes += len(path)
        if self._all_known or number >= MAX_ENTRIES or self._path_bytes > _MAX_PATHS:
            raise InvalidRequest("the client's directory has too many files")
        if len(path) > _MAX_PATH:
            raise InvalidRequest("a path in the client's directory is too long")
        level, name = self._enter(path)
        try:
            self._make(level, name, path, number, entry)
        except OSError as error:
            raise file_error(error, f"the client's file {os.fsdecode(path)!r}") from error

    def _enter(self, path: bytes) -> tuple[_Level, bytes]:
        """Return the open directory of a path, and the name in it."""
        parent, _, name = path.rpartition(b"/")
        while self._levels and self._levels[-1].path != parent:
            if len(self._levels) == 1:
                raise InvalidRequest(f"the client's file {os.fsdecode(path)!r} is out of order")
            self._levels.pop().close()
        level = self._levels[-1]
        if name in (b"", b".", b"..") or b"\0" in name or name <= level.last:
            raise InvalidRequest(
                f"the client's file {os.fsdecode(path)!r} is invalid or out of order"
            )
        level.last = name
        return level, name

    def _make(self, level: _Level, name: bytes, path: bytes, number: int, entry: Stat) -> None:
        kind, parent = entry.mode & _TYPES, level.descriptor
        if kind == DIRECTORY:
            self._make_directory(level, name, path, entry)
        elif kind == SYMLINK:
            os.symlink(bytes(entry.linkname), name, dir_fd=parent)
            os.utime(name, ns=_times(entry), dir_fd=parent, follow_symlinks=False)
        elif kind == PIPE:
            os.mkfifo(name, 0o600, dir_fd=parent)
            os.chmod(name, mode_of(entry.mode), dir_fd=parent)
        elif kind == SOCKET:
            return
        elif kind:
            raise InvalidRequest(f"the client's file {os.fsdecode(path)!r} is a device")
        elif entry.linkname:
            self._make_link(parent, name, bytes(entry.linkname))
        elif not self._reuse(level, name, entry):
            self._request(parent, name, path, number, entry)

    def _make_directory(self, level: _Level, name: bytes, path: bytes, entry: Stat) -> None:
        if len(self._levels) > _MAX_DEPTH:
            raise InvalidRequest("the client's directory is too deep")
        os.mkdir(name, 0o700, dir_fd=level.descriptor)
        descriptor = os.open(name, _OPEN_DIRECTORY, dir_fd=level.descriptor)
        previous = -1
        if level.previous >= 0:
            try:
                previous = os.open(name, _OPEN_DIRECTORY, dir_fd=level.previous)
            except OSError:
                previous = -1  # it is new, or was another kind of file
        self._levels.append(_Level(path, descriptor, previous))
        os.fchmod(descriptor, mode_of(entry.mode))
        _set_xattrs(descriptor, entry)
        self._directories.append((path, entry.modTime))

    def _make_link(self, parent: int, name: bytes, target: bytes) -> None:
        """Make a hard link to a file that the client has sent before.

        Its content may arrive later. A file that is not there yet is made now.
        """
        requested = self._by_path.get(target)
        if requested is not None and not requested.exists:
            os.close(self._create(requested))
        directory, _, last = target.rpartition(b"/")
        try:
            source = openat2.openat2(
                self._root, directory or b".", os.O_PATH | os.O_DIRECTORY, resolve=_BENEATH
            )
        except OSError as error:
            raise InvalidRequest(f"a hard link to {os.fsdecode(target)!r} is invalid") from error
        try:
            if last in (b"", b".", b".."):
                raise InvalidRequest(f"a hard link to {os.fsdecode(target)!r} is invalid")
            os.link(last, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def _reuse(self, level: _Level, name: bytes, entry: Stat) -> bool:
        """Link an unchanged file of the previous transfer; return whether there is one."""
        if level.previous < 0 or entry.xattrs:
            return False
        try:
            status = os.stat(name, dir_fd=level.previous, follow_symlinks=False)
            if (
                not stat.S_ISREG(status.st_mode)
                or status.st_size != entry.size
                or status.st_mtime_ns != entry.modTime
                or stat.S_IMODE(status.st_mode) != mode_of(entry.mode)
            ):
                return False
            os.link(
                name,
                name,
                src_dir_fd=level.previous,
                dst_dir_fd=level.descriptor,
                follow_symlinks=False,
            )
        except OSError:
            return False  # it was removed meanwhile, or has too many links: it is requested
        return True

    def _request(self, parent: int, name: bytes, path: bytes, number: int, entry: Stat) -> None:
        requested = _RequestedFile(path, entry)
        if entry.size == 0 or entry.xattrs:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(name, flags, 0o600, dir_fd=parent)
            try:
                _set_xattrs(descriptor, entry)
                if entry.size == 0:
                    _complete(descriptor, requested, 0o7777)
                    return
            finally:
                os.close(descriptor)
            requested.exists = requested.premade = True
        self._requested[number] = self._by_path[path] = requested
        self._send(Packet(type=Packet.PACKET_REQ, ID=number).SerializeToString())

    # -- content ---------------------------------------------------------------------------------

    def _data(self, number: int, data: bytes) -> None:
        requested = self._requested.get(number)
        if requested is None:
            raise InvalidRequest(f"the client sent content for the file {number}, not requested")
        self.bytes += len(data)
        if self.bytes > MAX_BYTES:
            raise InvalidRequest(f"the client's directory has more than {MAX_BYTES} bytes")
        self._unchecked -= len(data)
        try:
            if self._unchecked < 0:
                free_space.check(self._root, len(data))
                self._unchecked = _SPACE_INTERVAL
            self._write(number, requested, data)
        except OSError as error:
            raise file_error(error, f"the client's file {os.fsdecode(requested.path)!r}") from error
        if not data:
            del self._requested[number], self._by_path[requested.path]

    def _write(self, number: int, requested: _RequestedFile, data: bytes) -> None:
        """Append to a file. One that arrives in one piece is not kept open."""
        if not data and requested.complete:
            return
        descriptor = self._open.get(number)
        if descriptor is None:
            descriptor = self._create(requested)
            self._keep_open(number, descriptor)
        if data:
            _write(descriptor, data)
        if not data or len(data) == requested.size:
            _complete(descriptor, requested, 0o7777 if requested.premade else self._hidden)
            requested.complete = True
            os.close(self._open.pop(number))

    def _create(self, requested: _RequestedFile) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        if not requested.exists:
            flags |= os.O_CREAT | os.O_EXCL
            requested.exists = True
        directory, _, name = requested.path.rpartition(b"/")
        if directory != self._parent[0]:
            descriptor = openat2.openat2(
                self._root, directory or b".", os.O_PATH | os.O_DIRECTORY, resolve=_BENEATH
            )
            os.close(self._parent[1])
            self._parent = directory, descriptor
        return os.open(name, flags, requested.mode & 0o777, dir_fd=self._parent[1])

    def _keep_open(self, number: int, descriptor: int) -> None:
        if len(self._open) >= _MAX_OPEN:
            oldest = next(iter(self._open))
            os.close(self._open.pop(oldest))
        self._open[number] = descriptor

    def _finish(self) -> None:
        """Set the times of directories, which their entries have changed, and end the transfer."""
        self._ending = True
        for path, time in reversed(self._directories):
            try:
                flags = os.O_RDONLY | os.O_DIRECTORY
                descriptor = openat2.openat2(self._root, path, flags, resolve=_BENEATH)
                try:
                    os.utime(descriptor, ns=(time, time))
                finally:
                    os.close(descriptor)
            except OSError as error:
                raise file_error(error, f"the client's directory {os.fsdecode(path)!r}") from error
        self._send(_FIN)


def mode_of(mode: int) -> int:
    """Return the permission bits of a mode of Go. Pure."""
    bits = mode & 0o777
    for theirs, ours in _SPECIAL:
        if mode & theirs:
            bits |= ours
    return bits


def _times(entry: Stat) -> tuple[int, int]:
    return entry.modTime, entry.modTime


def _set_xattrs(descriptor: int, entry: Stat) -> None:
    for attribute, value in entry.xattrs.items():
        if attribute.startswith("user.") or attribute == "security.capability":
            set_xattr(descriptor, attribute, value)


def _write(descriptor: int, data: bytes) -> None:
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])


def _hidden_bits() -> int:
    """Return the bits of a mode that a new file does not get: umask(2) and special bits.

    Only a change of the umask returns it, which would concern all threads. proc(5): ``Umask``.
    """
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("Umask:"):
                return 0o7000 | int(line.split()[1], 8)
    return 0o7777


def _complete(descriptor: int, requested: _RequestedFile, hidden: int) -> None:
    if requested.mode & hidden:  # it was not created with this mode
        os.fchmod(descriptor, requested.mode)
    os.utime(descriptor, ns=(requested.time, requested.time))
