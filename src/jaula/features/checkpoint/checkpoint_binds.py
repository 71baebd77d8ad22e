"""The sources of bind mounts at a checkpoint, and at a restore from it.

A checkpoint holds no files of the host. A container keeps the file that was mounted, also if an
editor has replaced it since by another one with its name (rename(2)). A restore would mount the
new one. CRIU refuses an open file that has another size than in the dump, when the container that
is rolled back has ended already. So both are found before.

Sources are opened where a start opens them (:func:`jaula.engine.oci_spec.start_spec.host_binds`):
the host's mounts of now are not those in the engine's mount namespace.
"""

from __future__ import annotations

import os
import posixpath
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from jaula.errors import InvalidRequest
from jaula.features.checkpoint.runtime import criu_images
from jaula.features.checkpoint.runtime.proto import images_pb2
from jaula.kernel import namespaces
from jaula.kernel.namespace_threads import in_unshared_thread
from jaula.kernel.openat2 import open_in_root

_APPEND = os.O_APPEND | os.O_WRONLY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from jaula.state.container_records import MountRecord

Result = TypeVar("Result")


def check_unchanged(mounts: Iterable[MountRecord], pid: int, host_mounts: int = -1) -> None:
    """Check that the sources of a running container's bind mounts are what it has mounted. Blocks.

    ``pid`` is that of its init, and ``host_mounts`` a descriptor of the host's mount namespace, -1
    if it is the own.

    :raises InvalidRequest: when one was replaced or removed.
    """
    binds = [mount for mount in mounts if mount.type == "bind"]
    sources = _where_opened(binds, host_mounts, lambda mount: os.stat(mount.source))
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for mount in binds:
            if not _is_same(root, mount, sources.get(mount.destination)):
                raise InvalidRequest(
                    f"the source {mount.source} of the mount at {mount.destination} was replaced or"
                    " removed since the container was started, so a restore would not have the"
                    " file that is mounted now",
                    hint="restart the container, or mount the directory of the source",
                )
    finally:
        os.close(root)


def _is_same(root: int, mount: MountRecord, source: os.stat_result | None) -> bool:
    if source is None:
        return False
    try:
        fd = open_in_root(root, mount.destination, os.O_PATH)
    except OSError:
        return True  # a program of the container has hidden it; CRIU decides
    try:
        return os.path.samestat(source, os.fstat(fd))
    finally:
        os.close(fd)


def _where_opened(
    binds: Iterable[MountRecord], host_mounts: int, work: Callable[[MountRecord], Result]
) -> dict[str, Result]:
    """Return the results of ``work`` by destination, without those of sources that are absent.

    It runs in the mount namespace in which a start opens the source: in one thread for all those of
    the host.
    """
    results: dict[str, Result] = {}

    def work_on(chosen: Iterable[MountRecord]) -> None:
        for mount in chosen:
            with suppress(FileNotFoundError, NotADirectoryError):
                results[mount.destination] = work(mount)

    def enter() -> None:
        namespaces.unshare(namespaces.CLONE.FS)  # setns(2) refuses a shared root directory
        namespaces.setns(host_mounts, namespaces.CLONE.NEWNS)
        work_on(of_host)

    of_host: list[MountRecord] = []
    own: list[MountRecord] = []
    for mount in binds:
        (own if host_mounts < 0 or mount.mapped else of_host).append(mount)
    work_on(own)
    if of_host:
        in_unshared_thread(enter)
    return results


def check_sizes(mounts: Iterable[MountRecord], images: Path, host_mounts: int = -1) -> None:
    """Check that files of bind mounts which were open have the size that a restore expects. Blocks.

    ``images`` is the directory of the images, and ``host_mounts`` a descriptor of the host's mount
    namespace, -1 if it is the own.

    :raises InvalidRequest: when one has another size, or is gone.
    """
    data = (images / criu_images.FILES).read_bytes()
    files = criu_images.decode(data, criu_images.FILES, images_pb2.File)
    binds = {mount.destination.rstrip("/"): mount for mount in mounts if mount.type == "bind"}
    sources = {destination: mount.source for destination, mount in binds.items()}
    open_files: list[_OpenFile] = []
    for file in files:
        if not (file.HasField("reg") and file.reg.HasField("size")):
            continue
        if file.reg.flags & _APPEND == _APPEND:
            continue  # CRIU expects that a log grows
        path = os.fsdecode(file.reg.name)
        if (source := find_source(path, sources)) is not None:
            mount = binds[path.removesuffix(source[1])]
            open_files.append(_OpenFile(mount, source[1], file.reg.size))
    used = {each.mount.destination: each.mount for each in open_files}
    with ExitStack() as opened:

        def open_source(mount: MountRecord) -> int:
            fd = os.open(mount.source, os.O_PATH | os.O_CLOEXEC)
            opened.callback(os.close, fd)
            return fd

        tops = _where_opened(used.values(), host_mounts, open_source)
        for each in open_files:
            _check_size(each, tops.get(each.mount.destination, -1))


class _OpenFile(NamedTuple):
    """A file of a bind mount that was open in a dump; ``below`` is its path in the mount."""

    mount: MountRecord
    below: str
    size: int


def _check_size(file: _OpenFile, source: int) -> None:
    """Check the size of a file. ``source`` is a descriptor of that of its mount, -1 if absent.

    :raises InvalidRequest: when it has another one, or the file is gone.
    """
    size = _size(source, file.below)
    if size < 0 and file.below:
        return  # CRIU may create it: it may have been open without a name
    if size != file.size:
        found = "is gone" if size < 0 else f"has {size} bytes"
        raise InvalidRequest(
            f"{file.mount.source}{file.below} was open with {file.size} bytes in the checkpoint,"
            f" and {found} now; a checkpoint holds no files of bind mounts",
            hint="put back the file of that time first",
        )


def _size(source: int, below: str) -> int:
    """Return the size of a file of a bind mount; -1 if it is gone."""
    if source < 0:
        return -1
    if not below:
        return os.fstat(source).st_size
    try:
        fd = open_in_root(source, below, os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        return -1
    try:
        return os.fstat(fd).st_size
    finally:
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
