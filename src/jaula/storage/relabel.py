"""Set the SELinux label of a file tree (``z`` and ``Z`` on mounts).

The content of a volume is hostile: a container may rename and link files during the walk. So every
lookup starts at a directory descriptor, no symbolic link is followed, and no other mount is
entered. A label is set on an ``O_PATH`` descriptor through its entry in /proc/self/fd. That names
the inode itself, even if its name was reused meanwhile. Only directories are opened for reading, so
FIFOs, devices and sockets are labelled without side effects.

Facts about labels: ``security.selinux`` is the context with a trailing NUL. A file system without
labels returns EOPNOTSUPP. A read-only mount cannot be labelled either.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack

from jaula.errors import InvalidRequest, Unavailable
from jaula.kernel.openat2 import RESOLVE, openat2

ATTRIBUTE = "security.selinux"
DEPTH = 256  # nested directories
ENTRIES = 1 << 24  # files in total; a container may add files as fast as they are labelled
# O_NOFOLLOW opens a link itself, where NO_SYMLINKS would refuse it.
_WITHIN = RESOLVE.BENEATH | RESOLVE.NO_MAGICLINKS | RESOLVE.NO_XDEV


def relabel(top: int, label: str, *, depth: int = DEPTH, entries: int = ENTRIES) -> int:
    """Label the file of descriptor ``top``, and a directory recursively.

    Return how many labels changed. Files that are removed meanwhile are skipped.

    :raises InvalidRequest: when the tree is deeper than ``depth`` or larger than ``entries``.
    :raises Unavailable: when a label cannot be set.
    """
    value = label.encode("ascii") + b"\0"
    changed = 0
    try:
        for number, entry in enumerate(_walk(top, depth)):
            if number > entries:
                raise InvalidRequest(f"it has more than {entries} files", hint=_HINT)
            changed += _set(entry, value)
    except OSError as error:
        raise Unavailable(
            f"cannot set the label {label}: {error.strerror}",
            hint="z and Z need a writable file system that supports labels"
            if error.errno in (errno.EOPNOTSUPP, errno.EROFS)
            else None,
        ) from error
    return changed


_HINT = "leave out z and Z, and label it with chcon"


def _set(fd: int, value: bytes) -> int:
    path = f"/proc/self/fd/{fd}"
    try:
        if os.getxattr(path, ATTRIBUTE) == value:
            return 0
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
    os.setxattr(path, ATTRIBUTE, value)
    return 1


def _walk(top: int, depth: int) -> Iterator[int]:
    """Yield ``top``, then a descriptor of each file below it, a directory before its entries.

    Each is valid until the next iteration.
    """
    yield top
    stack = [_Level(top)]
    try:
        while stack:
            name = stack[-1].next()
            if name is None:
                stack.pop().close()
                continue
            try:
                fd = openat2(stack[-1].fd, name, os.O_PATH | os.O_NOFOLLOW, resolve=_WITHIN)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EXDEV):
                    continue  # removed meanwhile, or another mount
                raise
            try:
                yield fd
                child = _Level(fd)
            finally:
                os.close(fd)
            stack.append(child)
            if len(stack) > depth:
                raise InvalidRequest(
                    f"its directories are more than {depth} levels deep", hint=_HINT
                )
    finally:
        for level in stack:
            level.close()


class _Level:
    """An open directory of the walk. A file that is not a directory has no entries."""

    def __init__(self, fd: int) -> None:
        self._resources = ExitStack()
        self._entries: Iterator[os.DirEntry[str]] = iter(())
        self.fd = -1
        try:
            self.fd = openat2(fd, ".", os.O_RDONLY | os.O_DIRECTORY, resolve=_WITHIN)
        except NotADirectoryError:
            return
        self._resources.callback(os.close, self.fd)
        self._entries = self._resources.enter_context(os.scandir(self.fd))

    def next(self) -> str | None:
        """Return the name of the next entry, None at the end."""
        entry = next(self._entries, None)
        return entry.name if entry else None

    def close(self) -> None:
        self._resources.close()
