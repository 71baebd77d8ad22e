"""The sources of bind mounts at a checkpoint, and at a restore from it.

A checkpoint holds no files of the host. A container keeps the file that was mounted, also if an
editor has replaced it since by another one with its name (rename(2)). A restore would mount the
new one. CRIU refuses an open file that has another size than in the dump, when the container that
is rolled back has ended already. So both are found before.
"""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING

from jaula.errors import InvalidRequest
from jaula.kernel.paths import open_in_root

_APPEND = os.O_APPEND | os.O_WRONLY

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from jaula.state.records import MountRecord


def check_unchanged(mounts: Iterable[MountRecord], pid: int) -> None:
    """Check that the sources of a running container's bind mounts are what it has mounted. Blocks.

    ``pid`` is that of its init.

    :raises InvalidRequest: when one was replaced or removed.
    """
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for mount in mounts:
            if mount.type == "bind" and not _is_same(root, mount):
                raise InvalidRequest(
                    f"the source {mount.source} of the mount at {mount.destination} was replaced or"
                    " removed since the container was started, so a restore would not have the"
                    " file that is mounted now",
                    hint="restart the container, or mount the directory of the source",
                )
    finally:
        os.close(root)


def _is_same(root: int, mount: MountRecord) -> bool:
    try:
        source = os.stat(mount.source)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fd = open_in_root(root, mount.destination, os.O_PATH)
    except OSError:
        return True  # a program of the container has hidden it; CRIU decides
    try:
        return os.path.samestat(source, os.fstat(fd))
    finally:
        os.close(fd)


def check_sizes(mounts: Iterable[MountRecord], images: Path) -> None:
    """Check that files of bind mounts which were open have the size that a restore expects. Blocks.

    ``images`` is the directory of the images.

    :raises InvalidRequest: when one has another size, or is gone.
    """
    from jaula.runtime.checkpoint import images as criu_images
    from jaula.runtime.checkpoint.proto import images_pb2

    data = (images / criu_images.FILES).read_bytes()
    files = criu_images.decode(data, criu_images.FILES, images_pb2.File)
    sources = {
        mount.destination.rstrip("/"): mount.source for mount in mounts if mount.type == "bind"
    }
    for file in files:
        if not (file.HasField("reg") and file.reg.HasField("size")):
            continue
        if file.reg.flags & _APPEND == _APPEND:
            continue  # CRIU expects that a log grows
        path = os.fsdecode(file.reg.name)
        if (source := find_source(path, sources)) is None:
            continue
        size = _size(*source)
        if size < 0 and source[1]:
            continue  # CRIU may create it: it may have been open without a name
        if size != file.reg.size:
            found = "is gone" if size < 0 else f"has {size} bytes"
            raise InvalidRequest(
                f"{''.join(source)} was open with {file.reg.size} bytes in the checkpoint, and"
                f" {found} now; a checkpoint holds no files of bind mounts",
                hint="put back the file of that time first",
            )


def _size(source: str, below: str) -> int:
    """Return the size of a file of a bind mount; -1 if it is gone."""
    try:
        fd = os.open(source, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return -1
    try:
        if below:
            top, fd = fd, -1
            try:
                fd = open_in_root(top, below, os.O_PATH | os.O_NOFOLLOW)
            except OSError:
                return -1
            finally:
                os.close(top)
        return os.fstat(fd).st_size
    finally:
        if fd >= 0:
            os.close(fd)


def find_source(path: str, sources: dict[str, str]) -> tuple[str, str] | None:
    """Return the source of the bind mount in which a path is, and the path below it. Pure.

    None: it is in no bind mount.

    ``sources`` are those of bind mounts by destination. The innermost mount has the path.
    """
    if posixpath.normpath(path) != path or not path.startswith("/"):
        return None
    above = path
    while above != "/":
        if above in sources:
            return sources[above], path.removeprefix(above)
        above = posixpath.dirname(above)
    return None
