"""The sources of bind mounts at a checkpoint, and at a restore from it.

A checkpoint holds no files of the host. A container keeps the file that was mounted, also if an
editor has replaced it since by another one with its name (rename(2)). A restore would mount the
new one. CRIU refuses an open file that has another size than in the dump, when the container that
is rolled back has ended already. So both are found before.

Sources are opened where a start opens them (:func:`jaula.engine.oci_spec.spec.host_binds`): the
host's mounts of now are not those in the engine's mount namespace.
"""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING, TypeVar

from jaula.errors import InvalidRequest
from jaula.kernel import namespaces
from jaula.kernel.namespace_threads import in_unshared_thread
from jaula.kernel.paths import open_in_root

_APPEND = os.O_APPEND | os.O_WRONLY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from jaula.state.records import MountRecord

Result = TypeVar("Result")


def check_unchanged(mounts: Iterable[MountRecord], pid: int, host_mounts: int = -1) -> None:
    """Check that the sources of a running container's bind mounts are what it has mounted. Blocks.

    ``pid`` is that of its init, and ``host_mounts`` a descriptor of the host's mount namespace, -1
    if it is the own.

    :raises InvalidRequest: when one was replaced or removed.
    """
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for mount in mounts:
            if mount.type == "bind" and not _is_same(root, mount, host_mounts):
                raise InvalidRequest(
                    f"the source {mount.source} of the mount at {mount.destination} was replaced or"
                    " removed since the container was started, so a restore would not have the"
                    " file that is mounted now",
                    hint="restart the container, or mount the directory of the source",
                )
    finally:
        os.close(root)


def _is_same(root: int, mount: MountRecord, host_mounts: int) -> bool:
    try:
        source = _where_opened(mount, host_mounts, lambda: os.stat(mount.source))
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


def _where_opened(mount: MountRecord, host_mounts: int, work: Callable[[], Result]) -> Result:
    """Return the result of ``work`` in the mount namespace in which a start opens the source."""
    if host_mounts < 0 or mount.mapped:
        return work()

    def enter() -> Result:
        namespaces.unshare(namespaces.CLONE.FS)  # setns(2) refuses a shared root directory
        namespaces.setns(host_mounts, namespaces.CLONE.NEWNS)
        return work()

    return in_unshared_thread(enter)


def check_sizes(mounts: Iterable[MountRecord], images: Path, host_mounts: int = -1) -> None:
    """Check that files of bind mounts which were open have the size that a restore expects. Blocks.

    ``images`` is the directory of the images, and ``host_mounts`` a descriptor of the host's mount
    namespace, -1 if it is the own.

    :raises InvalidRequest: when one has another size, or is gone.
    """
    from jaula.runtime.checkpoint import images as criu_images
    from jaula.runtime.checkpoint.proto import images_pb2

    data = (images / criu_images.FILES).read_bytes()
    files = criu_images.decode(data, criu_images.FILES, images_pb2.File)
    binds = {mount.destination.rstrip("/"): mount for mount in mounts if mount.type == "bind"}
    sources = {destination: mount.source for destination, mount in binds.items()}
    for file in files:
        if not (file.HasField("reg") and file.reg.HasField("size")):
            continue
        if file.reg.flags & _APPEND == _APPEND:
            continue  # CRIU expects that a log grows
        path = os.fsdecode(file.reg.name)
        if (source := find_source(path, sources)) is None:
            continue
        below = source[1]
        size = _size(binds[path.removesuffix(below)], below, host_mounts)
        if size < 0 and below:
            continue  # CRIU may create it: it may have been open without a name
        if size != file.reg.size:
            found = "is gone" if size < 0 else f"has {size} bytes"
            raise InvalidRequest(
                f"{''.join(source)} was open with {file.reg.size} bytes in the checkpoint, and"
                f" {found} now; a checkpoint holds no files of bind mounts",
                hint="put back the file of that time first",
            )


def _size(mount: MountRecord, below: str, host_mounts: int) -> int:
    """Return the size of a file of a bind mount; -1 if it is gone."""
    flags = os.O_PATH | os.O_CLOEXEC
    try:
        fd = _where_opened(mount, host_mounts, lambda: os.open(mount.source, flags))
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
