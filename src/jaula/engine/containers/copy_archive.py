"""``docker cp``: a path of a container as a tar archive, and an archive into a directory."""

from __future__ import annotations

import errno
import os
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, BinaryIO, cast

from jaula.engine.containers import container_rootfs
from jaula.engine.containers.container_rootfs import RootfsView
from jaula.engine.threads import consume, in_own_thread, produce, shielded
from jaula.errors import NotAuthorized, NotFound
from jaula.storage import path_resolve
from jaula.storage.path_resolve import DirectoryListing, PathRequest, PathStat

if TYPE_CHECKING:
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.engine.userns.id_ranges import IdRange
    from jaula.spec.runtime_spec import IDMapping
    from jaula.state.container_records import ContainerRecord

_CHUNK = 1 << 18  # bytes that cross threads at once


class ContainerCopy:
    """Copies files out of and into containers. ``ids_of`` returns the id range of a running one."""

    def __init__(self, services: Services, ids_of: Callable[[Container], IdRange | None]) -> None:
        self._services = services
        self._ids_of = ids_of

    def ids(self, container: Container) -> tuple[IDMapping, ...]:
        """Return the id map of a running container; empty if it has the host's ids."""
        ids = self._ids_of(container)
        return self._services.id_ranges.mappings(ids) if ids else ()

    def _emit(self, container: Container, action: str) -> None:
        attributes = container.record.event_attributes
        self._services.events.emit("container", action, container.id, attributes)

    async def stat(self, container: Container, path: str) -> PathStat:
        """Return the status of a path.

        :raises NotFound: when there is no such path.
        """
        request = path_resolve.parse_path(path)

        def work(view: RootfsView) -> PathStat:
            return _open(view, request, container.name)[1]

        def run() -> PathStat:
            return container_rootfs.with_rootfs(self._services, record, running, work, write=False)

        running = await container_rootfs.open_running(container, self.ids, container.live)
        record = container.record
        return await shielded(in_own_thread(run))

    async def list(self, container: Container, path: str) -> DirectoryListing:
        """Return the files in a directory, without those below a kernel file system.

        :raises NotFound: when there is no such directory.
        """
        request = path_resolve.parse_path(path.rstrip("/") + "/.")

        def work(view: RootfsView) -> DirectoryListing:
            fd, _ = _open(view, request, container.name, keep=True)
            try:
                return path_resolve.list_directory(fd, view.inside)
            finally:
                os.close(fd)

        def run() -> DirectoryListing:
            return container_rootfs.with_rootfs(self._services, record, running, work, write=False)

        running = await container_rootfs.open_running(container, self.ids, container.live)
        record = container.record
        return await shielded(in_own_thread(run))

    async def out(self, container: Container, path: str) -> tuple[PathStat, AsyncIterator[bytes]]:
        """Return the status of a path and an iterator over its archive, which the caller closes.

        :raises NotFound: when there is no such path.
        """
        from jaula.storage.cp.create_archive import ArchiveWriter

        request = path_resolve.parse_path(path)
        running = await container_rootfs.open_running(container, self.ids, container.live)
        record = container.record

        def run(emit: Callable[[PathStat | bytes], None]) -> None:
            def work(view: RootfsView) -> None:
                fd, stat = _open(view, request, container.name, keep=True)
                try:
                    emit(stat)
                    chunks = _ChunkBuffer(emit)
                    copy = ArchiveWriter(chunks.add, view.inside)
                    copy.write(fd, request.name, without=(view.dev, *view.secret))
                    chunks.flush()
                finally:
                    os.close(fd)

            container_rootfs.with_rootfs(self._services, record, running, work, write=False)

        items = produce(run)
        stat = cast("PathStat", await anext(items))
        self._emit(container, "archive-path")
        return stat, cast("AsyncIterator[bytes]", items)

    async def into(
        self,
        container: Container,
        path: str,
        stream: AsyncIterator[bytes],
        *,
        keep_kinds: bool,
        as_user: bool,
    ) -> None:
        """Extract a tar archive, compressed or not, into the directory at ``path``.

        ``keep_kinds`` refuses to replace a directory with another file and the reverse. ``as_user``
        gives every file to the container's user. Other changes of the container wait.
        """
        request = path_resolve.parse_path(path)
        was_running = container.live
        user = container.record.body.user if as_user else ""
        async with container.lock:
            if container.id not in self._services.container_store:
                raise NotFound(f"No such container: {container.name}")
            running = await container_rootfs.open_running(container, self.ids, was_running)
            record = container.record

            def run(file: BinaryIO, emit: Callable[[None], None]) -> None:
                def work(view: RootfsView) -> None:
                    _check_target(view, request, record)
                    _extract(view, request, file, user, keep_kinds=keep_kinds)

                container_rootfs.with_rootfs(self._services, record, running, work, write=True)

            async for _ in consume(stream, run):
                pass  # an extraction emits nothing
        self._emit(container, "extract-to-dir")


class _ChunkBuffer:
    """Collects the output of a tar writer, so that few large chunks cross threads."""

    def __init__(self, emit: Callable[[bytes], None]) -> None:
        self._emit = emit
        self._buffer = bytearray()

    def add(self, data: bytes | memoryview) -> None:
        self._buffer += data
        if len(self._buffer) >= _CHUNK:
            self.flush()

    def flush(self) -> None:
        if self._buffer:
            self._emit(bytes(self._buffer))
            self._buffer.clear()


def _open(
    view: RootfsView, request: PathRequest, name: str, *, keep: bool = False
) -> tuple[int, PathStat]:
    fd = path_resolve.open_for_client(view.root, request, name)
    try:
        stat = path_resolve.stat_path(view.root, fd, request)
        path_resolve.refuse_kernel_filesystem(fd, request.path)
        if os.fstat(fd).st_dev in view.secret:
            raise NotAuthorized(f"{request.path} is a secret or a config, which cannot be copied")
    except BaseException:
        os.close(fd)
        raise
    if not keep:
        os.close(fd)
        fd = -1
    return fd, stat


def _extract(
    view: RootfsView,
    request: PathRequest,
    file: BinaryIO,
    user: str,
    *,
    keep_kinds: bool,
) -> None:
    from jaula.storage.cp.extract_archive import ArchiveExtractor
    from jaula.storage.tar.sandboxed import open_archive

    owner = view.outside
    if user:
        from jaula.engine.containers.user_lookup import resolve_user

        resolved = resolve_user(view.root, user, ())
        fixed = view.outside(resolved.uid, resolved.gid)
        owner = lambda uid, gid: fixed  # noqa: E731
    extraction = ArchiveExtractor(
        view.root, request.path, owner=owner, parents=view.outside(0, 0), keep_kinds=keep_kinds
    )
    with open_archive(file) as archive:
        extraction.run(archive)
        archive.drain()


def _check_target(view: RootfsView, request: PathRequest, record: ContainerRecord) -> None:
    """Refuse a kernel file system, or one that is mounted read-only.

    An overlay is read-only without a request for it if the disk below it is.
    """
    fd = path_resolve.open_for_client(view.root, PathRequest(request.path, "/."), record.name)
    try:
        path_resolve.refuse_kernel_filesystem(fd, request.path)
        if os.fstatvfs(fd).f_flag & os.ST_RDONLY:
            if os.fstat(fd).st_dev != os.fstat(view.root).st_dev:
                raise NotAuthorized("mounted volume is marked read-only")
            if record.resolved.security.readonly_rootfs:
                raise NotAuthorized("container rootfs is marked read-only")
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), request.path)
    finally:
        os.close(fd)
