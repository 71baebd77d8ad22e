"""The files of an image, read from its layers: the reference for executed files.

Layers are directories of the engine, topmost first, with the whiteouts and opaque directories of
overlayfs. A path is walked through directory descriptors, and no symbolic link is followed: the
paths that are looked up come from the kernel, which has resolved them.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Sequence

from jaula.errors import Unsupported

MAX_DIGEST = 1 << 30  # bytes of a file that is hashed
_CHUNK = 1 << 20  # bytes
_CACHED = 4096  # digests
_SETTLED = 1_000_000_000  # nanoseconds after which a change has another time
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_OPAQUE = ("trusted.overlay.opaque", "user.overlay.opaque")


class ImageFiles:
    """The files of the layers of one image."""

    def __init__(self, layers: Sequence[str]) -> None:
        """Open the directories ``layers``, topmost first.

        :raises Unsupported: when one cannot be opened.
        """
        self._digests = Digests()
        self._layers: list[int] = []
        for layer in layers:
            try:
                fd = os.open(layer, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError as error:
                self.close()
                raise Unsupported(
                    f"the image's layer {layer} cannot be read: {error.strerror}",
                    hint="run the command as root on the engine's host",
                ) from error
            self._layers.append(fd)

    def find(self, path: bytes) -> int | None:
        """Return a descriptor of the image's regular file at ``path``, which the caller closes.

        :raises OSError: when a layer cannot be read.
        """
        names = [name for name in path.split(b"/") if name]
        if not names or b".." in names or b"." in names:
            return None
        for layer in self._layers:
            fd, hidden = _find(layer, names)
            if fd is not None:
                return fd
            if hidden:
                return None
        return None

    def digest(self, fd: int) -> str:
        """Return the SHA-256 of a file that :meth:`find` returned."""
        return self._digests.of(fd) or ""

    def close(self) -> None:
        """Close the layers."""
        for fd in self._layers:
            os.close(fd)
        self._layers.clear()


def _find(layer: int, names: Sequence[bytes]) -> tuple[int | None, bool]:
    """Look a path up in one layer; return a descriptor, and whether it hides the lower ones."""
    hidden = False
    current = os.dup(layer)
    try:
        for name in names[:-1]:
            try:
                status = os.stat(name, dir_fd=current, follow_symlinks=False)
            except FileNotFoundError:
                return None, hidden
            if not stat.S_ISDIR(status.st_mode):
                return None, True
            below = os.open(name, _OPEN | os.O_DIRECTORY, dir_fd=current)
            os.close(current)
            current = below
            hidden = hidden or _is_opaque(current)
        try:
            status = os.stat(names[-1], dir_fd=current, follow_symlinks=False)
        except FileNotFoundError:
            return None, hidden
        if not stat.S_ISREG(status.st_mode):
            return None, True
        return os.open(names[-1], _OPEN, dir_fd=current), True
    finally:
        os.close(current)


def _is_opaque(fd: int) -> bool:
    for name in _OPAQUE:
        try:
            if os.getxattr(fd, name) == b"y":
                return True
        except OSError:
            continue
    return False


class Digests:
    """SHA-256 of files, cached by inode and times."""

    def __init__(self) -> None:
        self._cache: OrderedDict[tuple[int, ...], str] = OrderedDict()

    def of(self, fd: int) -> str | None:
        """Return the SHA-256 of an open file in hex.

        None: it has more than :data:`MAX_DIGEST` bytes, or it was changed while it was read. That a
        name of it was removed is no change.
        """
        status = os.fstat(fd)
        before, links = _identity(status), status.st_nlink
        known = self._cache.get(before)
        if known is not None:
            self._cache.move_to_end(before)
            return known
        if before[2] > MAX_DIGEST:
            return None
        digest = hashlib.sha256()
        offset = 0
        while chunk := os.pread(fd, _CHUNK, offset):
            digest.update(chunk)
            offset += len(chunk)
            if offset > MAX_DIGEST:
                return None
        status = os.fstat(fd)
        text = digest.hexdigest()
        if _identity(status) != before:
            unlinked = status.st_nlink < links and _identity(status)[:4] == before[:4]
            return text if unlinked else None
        if time.time_ns() - status.st_ctime_ns > _SETTLED:
            self._cache[before] = text
            if len(self._cache) > _CACHED:
                self._cache.popitem(last=False)
        return text


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
