"""Read the files of a source engine through a read-only mount.

The directory is cloned as a detached mount with the attributes read-only, noatime and nosymfollow
(open_tree(2), mount_setattr(2)). So the kernel refuses each change and each symbolic link, whatever
this program does. Paths in it are opened with openat2(2), beneath the directory.

A user without the right to mount reads the directory itself, with ``RESOLVE_NO_SYMLINKS``.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from contextlib import contextmanager, suppress
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING

from jaula.errors import InvalidRequest, NotFound, Unavailable
from jaula.features.migrate_from.source_api import printable
from jaula.kernel import mounts
from jaula.kernel.mounts import MOUNT_ATTR, MOUNT_ATTR__ATIME
from jaula.kernel.openat2 import RESOLVE, openat2
from jaula.storage.cp.create_archive import ArchiveWriter
from jaula.storage.layer_diff import has_redirects
from jaula.storage.tar.tar_writer import new_entry
from jaula.storage.trees import is_whiteout, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jaula.storage.tar.tar_writer import Owner, Sink

_RESOLVE = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS
_CHUNK = 1 << 20  # bytes
_QUEUE = 4  # chunks between reader and sender
_OPAQUE_XATTRS = ("trusted.overlay.opaque", "user.overlay.opaque")


class ReadOnlyTree:
    """The data directory of a source."""

    def __init__(self, path: str) -> None:
        """Open the directory.

        :raises NotFound: when it does not exist.
        :raises Unavailable: when it cannot be read.
        """
        self.path = path
        self.is_mount = True
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            directory = os.open(path, flags)
        except FileNotFoundError:
            raise NotFound(
                f"the source has no directory {printable(path)} on this host",
                hint="name it with --root",
            ) from None
        except OSError as error:
            raise Unavailable(
                f"cannot read {printable(path)}: {error.strerror}",
                hint="run the command as root, or as the user of a rootless engine",
            ) from None
        self._mount = -1
        try:
            self._mount = _clone(directory)
            self._fd = os.open(".", flags, dir_fd=self._mount)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOSYS, errno.EINVAL):
                raise
            self._fd, self.is_mount = os.dup(directory), False
        finally:
            os.close(directory)

    def close(self) -> None:
        """Release the mount."""
        os.close(self._fd)
        if self._mount >= 0:
            os.close(self._mount)

    def open(self, path: str, flags: int = os.O_RDONLY) -> int:
        """Open a relative path. No component may be a symbolic link.

        :raises OSError: when it cannot be opened.
        """
        flags |= os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        return openat2(self._fd, path, flags, resolve=_RESOLVE)

    @contextmanager
    def directory(self, path: str) -> Iterator[int]:
        """Yield a descriptor of a directory.

        :raises InvalidRequest: when it is a symbolic link, or no directory.
        :raises Unavailable: when it cannot be opened.
        """
        try:
            fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            what = f"{printable(self.path)}/{printable(path)}"
            if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EXDEV):
                raise InvalidRequest(f"{what} is a symbolic link or not a directory") from None
            raise Unavailable(f"cannot read {what}: {error.strerror}") from None
        try:
            yield fd
        finally:
            os.close(fd)

    def read(self, path: str, limit: int) -> bytes:
        """Return the content of a regular file.

        :raises FileNotFoundError: when it does not exist.
        :raises InvalidRequest: when it is not a regular file, or longer than ``limit`` bytes.
        """
        try:
            fd = self.open(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise InvalidRequest(f"cannot read {printable(path)}: {error.strerror}") from None
        with open(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise InvalidRequest(f"{printable(path)} is not a regular file")
            data = file.read(limit + 1)
        if len(data) > limit:
            raise InvalidRequest(f"{printable(path)} is larger than {limit} bytes")
        return data

    def names(self, path: str) -> list[str]:
        """Return the names in a directory, sorted; none if it does not exist."""
        try:
            fd = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return []
        try:
            return sorted(os.listdir(fd))
        finally:
            os.close(fd)


def _clone(directory: int) -> int:
    """Return a read-only clone of the mounts at and below a directory, detached."""
    clone = mounts.open_tree("", dir_fd=directory, recursive=True)
    try:
        attributes = MOUNT_ATTR.RDONLY | MOUNT_ATTR.NOATIME | MOUNT_ATTR.NOSYMFOLLOW
        mounts.mount_setattr(clone, set=attributes, clear=MOUNT_ATTR__ATIME, recursive=True)
    except OSError:
        os.close(clone)
        raise
    return clone


def write_changes(upper: int, sink: Sink, owner: Owner) -> None:
    """Write an upper directory of overlayfs as the tar of a layer. It is not changed.

    Sockets are left out.

    :raises Unavailable: when the directory is incomplete without the lower ones.
    """
    if has_redirects(upper):
        raise Unavailable(
            "its upper directory has redirects or metadata copies of overlayfs",
            hint="commit the container to an image, or use --no-changes",
        )
    archive = ArchiveWriter(sink, owner, exact=True)
    archive.add_file(upper, b".", os.fstat(upper))
    for path, directory, entries in walk(upper):
        if path and _is_opaque(directory):
            archive.add(new_entry(path + b"/.wh..wh..opq", mode=0))
        for name, status in entries:
            full = path + b"/" + name if path else name
            if is_whiteout(status):
                hidden = b".wh." + name
                archive.add(new_entry(path + b"/" + hidden if path else hidden, mode=0))
                continue
            with suppress(FileNotFoundError):  # removed meanwhile
                fd = openat2(directory, name, os.O_PATH | os.O_NOFOLLOW, resolve=_RESOLVE)
                try:
                    archive.add_file(fd, full, os.fstat(fd))
                finally:
                    os.close(fd)
    archive.finish()


def _is_opaque(descriptor: int) -> bool:
    for attribute in _OPAQUE_XATTRS:
        try:
            if os.getxattr(descriptor, attribute) == b"y":
                return True
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
                raise
    return False


def pull(work: Callable[[Sink], None]) -> Iterator[bytes]:
    """Run ``work``, which writes to a sink, in a thread; yield what it writes in large chunks.

    Its exception is raised at the end. A consumer that stops ends the thread.
    """
    queue: Queue[bytes | BaseException | None] = Queue(_QUEUE)
    stopped = threading.Event()
    buffer = bytearray()

    def put(item: bytes | BaseException | None) -> None:
        while not stopped.is_set():
            with suppress(Full):
                queue.put(item, timeout=0.1)
                return
        raise _StoppedError

    def sink(data: bytes | memoryview) -> None:
        buffer.extend(data)
        if len(buffer) >= _CHUNK:
            put(bytes(buffer))
            buffer.clear()

    def run() -> None:
        try:
            work(sink)
            put(bytes(buffer))
            put(None)
        except _StoppedError:
            return
        except BaseException as error:  # noqa: BLE001 - raised by the consumer
            with suppress(_StoppedError):
                put(error)

    thread = threading.Thread(target=run, name="source-reader", daemon=True)
    thread.start()
    try:
        while (item := queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stopped.set()
        with suppress(Empty):
            queue.get_nowait()
        thread.join()


class _StoppedError(Exception):
    """The consumer has stopped."""
