"""FUSE: a file system of a few read-only files in one directory, served over ``/dev/fuse``.

Sources: ``linux/fuse.h`` (protocol 7.31 and later), ``Documentation/filesystems/fuse``. The
requests that a reader of such files can cause are answered: INIT, LOOKUP, GETATTR, OPEN, READ,
RELEASE. All others get ENOSYS, except those that have no reply.

Facts about FUSE: the connection ends when the last descriptor of ``/dev/fuse`` is closed, so the
death of the server is an error (ENOTCONN) for each reader and never a wait. A server that is
stopped makes readers wait; Linux 6.14 ends the connection after a timeout that INIT states. A file
that is opened with FOPEN_DIRECT_IO has no pages in the cache. A reader that gets a signal, SIGKILL
too, sends INTERRUPT and waits for the reply all the same, once its request has been read.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

from jaula.kernel import mounts

DEVICE = "/dev/fuse"

_ROOT = 1
_BUFFER = 1 << 17  # bytes; the largest request is an INIT or a LOOKUP
MAX_READ = 1 << 20  # bytes of one READ
_MAX_PAGES = 256
_VALID = 3600  # seconds for which the kernel may keep names and attributes

_IN = struct.Struct("<IIQQIII4x")
_OUT = struct.Struct("<IiQ")
_INIT_IN = struct.Struct("<IIII")
_INIT_OUT = struct.Struct("<IIIIHHIIHHIIH22x")
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
_ENTRY = struct.Struct("<QQQQII")
_ATTR_OUT = struct.Struct("<QII")
_OPEN_OUT = struct.Struct("<QII")
_READ_IN = struct.Struct("<QQI")
_INTERRUPT_IN = struct.Struct("<Q")

_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _RELEASE = 1, 2, 3, 14, 15, 18
_INIT, _INTERRUPT, _DESTROY, _BATCH_FORGET = 26, 36, 38, 42
_NO_REPLY = frozenset({_FORGET, _BATCH_FORGET, _INTERRUPT, _DESTROY})

_ASYNC_READ, _BIG_WRITES_PAGES, _INIT_EXT = 1 << 0, 1 << 22, 1 << 30
_REQUEST_TIMEOUT = 1 << 42
_DIRECT_IO = 1 << 0  # FOPEN_DIRECT_IO
_MINOR = 31

_CLOSED = (errno.ENODEV, errno.EBADF, errno.ECONNABORTED)

Reader = Callable[[int, int], bytes]
"""Returns the bytes of a file from an offset on, at most a number; raises OSError."""


def open_connection() -> tuple[int, int]:
    """Return a descriptor of ``/dev/fuse`` and one of its mount, which is attached nowhere.

    :raises OSError: when the kernel has no FUSE, or this process may not mount it.
    """
    device = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    try:
        options = (
            ("fd", str(device)),
            ("rootmode", "40000"),
            ("user_id", "0"),
            ("group_id", "0"),
            ("max_read", str(MAX_READ)),
        )
        attributes = mounts.MOUNT_ATTR.NODEV | mounts.MOUNT_ATTR.NOSUID
        return device, mounts.new_filesystem("fuse", options, attributes, source="jaula-lazy")
    except BaseException:
        os.close(device)
        raise


class Caller(threading.local):
    """The process whose request this thread answers. ``pid`` is 0 without one."""

    pid = 0
    unique = 0


class FuseServer:
    """The files of one mount, ``mount``. ``caller`` is that of the request of this thread."""

    def __init__(self, connection: tuple[int, int] | None = None, *, timeout: int) -> None:
        """Serve a connection, by default a new one.

        The kernel ends it after ``timeout`` seconds without a reply.

        :raises OSError: as :func:`open_connection`.
        """
        self._device, self.mount = connection or open_connection()
        self._timeout = timeout
        self.caller = Caller()
        self._answering: set[int] = set()
        self._interrupted: set[int] = set()
        self._lock = threading.Lock()
        self._files: dict[int, tuple[int, Reader]] = {}
        self._names: dict[bytes, int] = {}
        self._open: dict[int, int] = {}
        self._threads: list[threading.Thread] = []

    def add(self, name: str, size: int, read: Reader) -> None:
        """Add a file of ``size`` bytes. ``read`` is called from several threads."""
        with self._lock:
            node = _ROOT + 1 + len(self._files)
            self._files[node] = size, read
            self._names[name.encode()] = node

    def is_open(self, name: str) -> bool:
        """Return whether the kernel has the file open."""
        with self._lock:
            return self._open.get(self._names[name.encode()], 0) > 0

    def is_interrupted(self) -> bool:
        """Return whether the caller of this thread's request has got a signal meanwhile."""
        with self._lock:
            return self.caller.unique in self._interrupted

    def start(self, threads: int) -> None:
        """Answer requests in ``threads`` threads, until the file system is gone."""
        for number in range(threads):
            thread = threading.Thread(target=self._serve, name=f"fuse-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def _serve(self) -> None:
        while True:
            try:
                request = os.read(self._device, _BUFFER)
            except OSError as error:
                if error.errno in _CLOSED:
                    return
                if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                    continue  # the request was interrupted before it was read
                raise
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        length, opcode, unique, node, _, _, pid = _IN.unpack_from(request)
        if opcode == _INTERRUPT:
            (other,) = _INTERRUPT_IN.unpack_from(request, _IN.size)
            with self._lock:
                if other in self._answering:  # not one that was answered already
                    self._interrupted.add(other)
        if opcode in _NO_REPLY:
            return
        body: bytes = b""
        code = 0
        self.caller.pid, self.caller.unique = pid, unique
        with self._lock:
            self._answering.add(unique)
        try:
            body = self._reply(opcode, node, request[_IN.size : length])
        except OSError as error:
            code = error.errno or errno.EIO
        except Exception:  # noqa: BLE001 - a reader must get a reply
            code = errno.EIO
        with suppress(OSError):  # ENOENT: the request was interrupted meanwhile
            os.writev(self._device, (_OUT.pack(_OUT.size + len(body), -code, unique), body))
        with self._lock:
            self._answering.discard(unique)
            self._interrupted.discard(unique)

    def _reply(self, opcode: int, node: int, data: bytes) -> bytes:
        """Return the body of a reply."""
        if opcode == _READ:
            _, offset, size = _READ_IN.unpack_from(data)
            length, read = self._file(node)
            return read(offset, max(0, min(size, length - offset)))
        if opcode == _LOOKUP:
            found = self._names.get(data.rstrip(b"\0"))
            if node != _ROOT or found is None:
                raise OSError(errno.ENOENT, "no such file")
            return _ENTRY.pack(found, 0, _VALID, _VALID, 0, 0) + self._attributes(found)
        if opcode == _GETATTR:
            return _ATTR_OUT.pack(_VALID, 0, 0) + self._attributes(node)
        if opcode == _OPEN:
            self._file(node)
            with self._lock:
                self._open[node] = self._open.get(node, 0) + 1
            return _OPEN_OUT.pack(0, _DIRECT_IO, 0)
        if opcode == _RELEASE:
            with self._lock:
                self._open[node] = self._open.get(node, 0) - 1
            return b""
        if opcode == _INIT:
            return self._init(data)
        raise OSError(errno.ENOSYS, "not supported")

    def _init(self, data: bytes) -> bytes:
        _, minor, readahead, offered = _INIT_IN.unpack_from(data)
        high = struct.unpack_from("<I", data, _INIT_IN.size)[0] if offered & _INIT_EXT else 0
        flags = offered & (_ASYNC_READ | _BIG_WRITES_PAGES | _INIT_EXT)
        flags2 = high & (_REQUEST_TIMEOUT >> 32)
        return _INIT_OUT.pack(
            7, min(minor, 45) if minor >= _MINOR else _MINOR, readahead, flags, 64, 48, 4096, 1,
            _MAX_PAGES, 0, flags2, 0, self._timeout if flags2 else 0,
        )  # fmt: skip

    def _file(self, node: int) -> tuple[int, Reader]:
        try:
            return self._files[node]
        except KeyError:
            raise OSError(errno.EISDIR, "not a file") from None

    def _attributes(self, node: int) -> bytes:
        if node == _ROOT:
            return _ATTR.pack(node, *(0,) * 8, stat.S_IFDIR | 0o500, 2, 0, 0, 0, 4096, 0)
        size, _ = self._file(node)
        blocks = (size + 511) // 512
        mode = stat.S_IFREG | 0o400
        return _ATTR.pack(node, size, blocks, *(0,) * 6, mode, 1, 0, 0, 0, 4096, 0)

    def close(self) -> None:
        """End the connection: every read of a file fails from now on."""
        os.close(self.mount)
        os.close(self._device)
