"""Giving a tree of files an SELinux label (``z`` and ``Z`` on mounts).

The content of a volume is hostile: a container may rename and link in it while it is walked. So
every step starts at a descriptor of the directory that was opened before, no link is followed, and
no other mount is entered. A label is set on an ``O_PATH`` descriptor, through its entry in
/proc/self/fd: that names the inode which was looked at, whatever bears the name by then. Nothing is
opened for reading but directories, so that fifos, devices and sockets are labelled untouched.

Facts about labels: ``security.selinux`` holds the context with a NUL at its end. A file system that
keeps no labels answers EOPNOTSUPP; what is mounted read-only cannot be labelled either.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import ExitStack

from jaula.errors import InvalidRequest, Unavailable
from jaula.kernel.paths import RESOLVE, openat2

ATTRIBUTE = "security.selinux"
DEPTH = 256  # directories within each other
ENTRIES = 1 << 24  # in all; somebody may add some as fast as they are labelled
# O_NOFOLLOW opens a link itself, where NO_SYMLINKS would refuse it.
_WITHIN = RESOLVE.BENEATH | RESOLVE.NO_MAGICLINKS | RESOLVE.NO_XDEV


def relabel(top: int, label: str, *, depth: int = DEPTH, entries: int = ENTRIES) -> int:
    """Label what the descriptor ``top`` names and, of a directory, all below; how many changed.

    What is removed meanwhile is passed over. Raises ``InvalidRequest`` where the tree is deeper
    than ``depth`` or has more than ``entries``, ``Unavailable`` where it takes no labels.
    """
    value = label.encode("ascii") + b"\0"
    changed = 0
    try:
        for number, entry in enumerate(_walk(top, depth)):
            if number > entries:
                raise InvalidRequest(f"it holds more than {entries} files", hint=_BY_HAND)
            changed += _set(entry, value)
    except OSError as error:
        raise Unavailable(
            f"cannot set the label {label}: {error.strerror}",
            hint="z and Z need a file system that keeps labels and can be written"
            if error.errno in (errno.EOPNOTSUPP, errno.EROFS)
            else None,
        ) from error
    return changed


_BY_HAND = "leave out z and Z, and label it with chcon"


def _set(fd: int, value: bytes) -> int:
    place = f"/proc/self/fd/{fd}"
    try:
        if os.getxattr(place, ATTRIBUTE) == value:
            return 0
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
    os.setxattr(place, ATTRIBUTE, value)
    return 1


def _walk(top: int, depth: int) -> Iterator[int]:
    """``top``, then descriptors of everything below, directories before what they hold.

    Each is good until the next is asked for.
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
                found = openat2(stack[-1].fd, name, os.O_PATH | os.O_NOFOLLOW, resolve=_WITHIN)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EXDEV):
                    continue  # gone meanwhile, or another mount
                raise
            try:
                yield found
                below = _Level(found)
            finally:
                os.close(found)
            stack.append(below)
            if len(stack) > depth:
                raise InvalidRequest(
                    f"its directories are more than {depth} levels deep", hint=_BY_HAND
                )
    finally:
        for level in stack:
            level.close()


class _Level:
    """A directory that is being read; what is no directory has no entries."""

    def __init__(self, fd: int) -> None:
        self._held = ExitStack()
        self._entries: Iterator[os.DirEntry[str]] = iter(())
        self.fd = -1
        try:
            self.fd = openat2(fd, ".", os.O_RDONLY | os.O_DIRECTORY, resolve=_WITHIN)
        except NotADirectoryError:
            return
        self._held.callback(os.close, self.fd)
        self._entries = self._held.enter_context(os.scandir(self.fd))

    def next(self) -> str | None:
        """The name of the next entry."""
        entry = next(self._entries, None)
        return entry.name if entry else None

    def close(self) -> None:
        self._held.close()
