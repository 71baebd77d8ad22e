"""Send the changes of a container's root, and its volumes, in two passes, and apply them.

The first pass is sent while the container runs, the second when it is stopped: only what has
changed since. A file is unchanged if its inode, type, size and time of change (ctime) are. The
first pass begins with syncfs(2): a page that a program has mapped and written is write-protected
then, so the next write by the mapping changes the ctime. Files of a file system that may not do so,
such as tmpfs, are all sent in the second pass.

A pass is a tar of what is new, and then the paths to remove. The target applies both to the mounted
root, or to the directory of the volume, without following links.
"""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from jaula.engine.threads import consume, produce
from jaula.engine.userns import join
from jaula.errors import Conflict, InvalidRequest
from jaula.kernel import mountinfo
from jaula.kernel.openat2 import RESOLVE, make_directory_in_root, open_in_root, openat2
from jaula.kernel.syncfs import syncfs
from jaula.spec.migration import MAX_REMOVED, MountPoint, Removed, Transfer, TransferKind
from jaula.storage.checkpoint_files import extract, write_volume
from jaula.storage.drivers.storage_driver import ChangeKind, open_root
from jaula.storage.filesystem_type import dates_all_writes
from jaula.storage.layers.extract import clean_path
from jaula.storage.trees import RECENT, Fingerprint, open_directory, remove_tree, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.features.migration.migration_channel import Channel
    from jaula.storage.tar.tar_writer import Sink

_BUFFER = 1 << 18  # bytes of one data frame
_BENEATH = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS

Write = Callable[["Sink"], Iterable[bytes]]
"""Writes the tar of one pass; returns the paths that the target removes."""


def fingerprint(status: os.stat_result, now: int) -> Fingerprint:
    """Return the fingerprint of a file at the time ``now``, in nanoseconds. Pure.

    A file that had just changed has the ctime 0, and counts as changed again.
    """
    found = Fingerprint.of(status)
    return found._replace(ctime=0) if now - found.ctime < RECENT else found


class Selection:
    """The files that the target has, by their relative path. Pure."""

    def __init__(self) -> None:
        self._known: dict[bytes, Fingerprint] = {}
        self._removed: set[bytes] = set()

    def select(
        self, present: dict[bytes, Fingerprint], deleted: Iterable[bytes] = ()
    ) -> tuple[set[bytes], set[bytes]]:
        """Return the paths that have changed since the last pass, and those to remove.

        ``deleted`` are files of the image that the container has removed.
        """
        changed = {
            path
            for path, each in present.items()
            if not each.ctime or self._known.get(path) != each
        }
        gone = (set(self._known) | set(deleted)) - set(present) - self._removed
        self._known, self._removed = present, (self._removed | gone) - set(present)
        return changed, gone


class ContainerSender:
    """Sends the root and the volumes of a container, a pass at a time."""

    def __init__(self, services: Services, container: Container, channel: Channel) -> None:
        self._services = services
        self._container = container
        self._channel = channel
        self._selections: dict[str, Selection] = {}  # by destination; '' is the root

    async def send(
        self, *, volumes: bool, last: bool, without: frozenset[str] = frozenset()
    ) -> None:
        """Send a pass of everything. In the ``last`` one the container must be stopped.

        ``without`` are names of volumes that are not sent.
        """
        root = self._services.config.paths.container(self._container.id)
        if last or dates_all_writes(root):
            await self._send(TransferKind.ROOT, "", lambda sink: self._write_root(sink, last))
        for mount in self._container.record.mounts if volumes else ():
            if mount.type != "volume" or mount.name in without:
                continue
            path = self._services.volumes.get(mount.name).path
            if last or dates_all_writes(Path(path)):
                writer = _VolumeWriter(path, self._selection(mount.destination), sync=not last)
                await self._send(TransferKind.VOLUME, mount.destination, writer.write)

    def _selection(self, name: str) -> Selection:
        return self._selections.setdefault(name, Selection())

    async def _send(self, kind: TransferKind, name: str, write: Write) -> None:
        removed: list[str] = []

        def work(emit: Callable[[bytes], None]) -> None:
            buffer = bytearray()

            def sink(data: bytes | memoryview) -> None:
                buffer.extend(data)
                if len(buffer) >= _BUFFER:
                    emit(bytes(buffer))
                    buffer.clear()

            removed.extend(path.decode("latin-1") for path in sorted(write(sink)))
            emit(bytes(buffer))

        await self._channel.send(Transfer(kind, name))
        async for data in produce(work):
            for start in range(0, len(data), _BUFFER):
                await self._channel.send_data(data[start : start + _BUFFER])
        await self._channel.end_data()
        for start in range(0, len(removed), MAX_REMOVED):
            paths = tuple(removed[start : start + MAX_REMOVED])
            await self._channel.send(Removed(kind, name, paths))

    def _write_root(self, sink: Sink, last: bool) -> set[bytes]:
        """Write the changes of the root. The statuses are those that the container sees."""
        if not self._container.live:
            return self._write_stopped_root(sink)
        root = join.open_root(self._container)
        try:
            if not last:
                directory = self._services.config.paths.container(self._container.id)
                with open_directory(directory) as fd:
                    syncfs(fd)
            selection, gone = self._selection(""), set[bytes]()

            def select(differences: dict[bytes, ChangeKind]) -> dict[bytes, ChangeKind]:
                nonlocal gone
                deleted = {p for p, kind in differences.items() if kind is ChangeKind.DELETED}
                present = {}
                for path in differences.keys() - deleted:
                    if (status := _status(root, path)) is not None:
                        present[path] = fingerprint(status, time.time_ns())
                changed, gone = selection.select(present, deleted)
                return {path: differences[path] for path in changed}

            self._services.snapshots.write_layer(self._container.id, select, sink, exact=True)
            return gone
        finally:
            os.close(root)

    def _write_stopped_root(self, sink: Sink) -> set[bytes]:
        """Write all changes of the root of a container that does not run."""
        deleted = set[bytes]()

        def select(differences: dict[bytes, ChangeKind]) -> dict[bytes, ChangeKind]:
            deleted.update(p for p, kind in differences.items() if kind is ChangeKind.DELETED)
            return {path: kind for path, kind in differences.items() if path not in deleted}

        self._services.snapshots.write_layer(self._container.id, select, sink, exact=True)
        return deleted


class _VolumeWriter:
    """Writes a pass of one volume. With ``sync`` the container runs."""

    def __init__(self, path: str, selection: Selection, *, sync: bool) -> None:
        self._path = path
        self._selection = selection
        self._sync = sync

    def write(self, sink: Sink) -> set[bytes]:
        """Write the tar of what has changed; return the paths to remove."""
        with open_directory(self._path) as directory:
            if self._sync:
                syncfs(directory)
            present = {}
            for path, _, entries in walk(directory):
                now = time.time_ns()
                for name, status in entries:
                    present[path + b"/" + name if path else name] = fingerprint(status, now)
            changed, gone = self._selection.select(present)
            write_volume(directory, sink, select=changed)
            return gone


def _status(root: int, path: bytes) -> os.stat_result | None:
    """Return the status of a file of the root; None if it is gone, or a mount covers it."""
    try:
        fd = openat2(root, path, os.O_PATH | os.O_NOFOLLOW, resolve=_BENEATH | RESOLVE.NO_XDEV)
    except OSError:
        return None
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


# -- target -----------------------------------------------------------------------------------


class ContainerReceiver:
    """Applies the passes of a container that does not run."""

    def __init__(
        self, services: Services, container: Container, channel: Channel, transaction: str
    ) -> None:
        """Only volumes that ``transaction`` has created are changed."""
        self._services = services
        self._container = container
        self._channel = channel
        self._transaction = transaction

    async def receive(self, transfer: Transfer) -> None:
        """Apply the tar of a transfer.

        :raises InvalidRequest: when an entry is not valid, or there is no such volume.
        """

        def work(file: BinaryIO, _emit: Callable[[object], None]) -> None:
            with self._open(transfer.kind, transfer.name) as directory:
                _extract(file, directory)

        async for _ in consume(self._channel.data(), work):
            pass

    def remove(self, removed: Removed) -> None:
        """Remove files."""
        with self._open(removed.kind, removed.name) as directory:
            for name in removed.paths:
                _remove(directory, clean_path(name.encode("latin-1")))

    def make_mount_points(self, points: Iterable[MountPoint]) -> None:
        """Create the files and directories of the root at which something is mounted.

        The engine creates them at a first start; CRIU expects them.
        """
        with self._open(TransferKind.ROOT, "") as root:
            for point in points:
                _make_mount_point(root, os.fsencode(point.path), directory=point.directory)

    @contextlib.contextmanager
    def _open(self, kind: TransferKind, name: str) -> Iterator[int]:
        """Yield a descriptor of a tree."""
        if kind is TransferKind.ROOT:
            with open_root(self._services.snapshots.root(self._container.id)) as root:
                yield root
            return
        volume = self._services.volumes.get(self._volume(name))
        if volume.transaction != self._transaction:
            raise Conflict(
                f"volume {volume.name} keeps its files: it was not created by this migration",
                hint="remove it at the target, or use --volumes shared",
            )
        with open_directory(volume.path) as directory:
            yield directory

    def _volume(self, destination: str) -> str:
        for mount in self._container.record.mounts:
            if mount.type == "volume" and mount.destination == destination:
                return mount.name
        raise InvalidRequest(f"the container has no volume at {destination[:80]!r}")


def _extract(file: BinaryIO, directory: int) -> None:
    extract(file, directory, layer=False)  # type: ignore[arg-type]
    while file.read(1 << 16):
        pass  # padding after the end of the archive


def _remove(root: int, path: bytes) -> None:
    parent_path, _, name = path.rpartition(b"/")
    if not name:
        return
    try:
        parent = openat2(root, parent_path or b".", os.O_PATH | os.O_DIRECTORY, resolve=_BENEATH)
    except OSError:  # gone with its parent, or the parent is no directory now
        return
    try:
        with open_directory(f"/proc/self/fd/{parent}/.") as directory:
            remove_tree(directory, name)
    except FileNotFoundError:
        return
    finally:
        os.close(parent)


def _make_mount_point(root: int, path: bytes, *, directory: bool) -> None:
    parent_path, _, name = path.strip(b"/").rpartition(b"/")
    parent = make_directory_in_root(root, os.fsdecode(parent_path))
    try:
        with contextlib.suppress(FileExistsError):
            if directory:
                os.mkdir(name, 0o755, dir_fd=parent)
            else:
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(name, flags, 0o644, dir_fd=parent))
    finally:
        os.close(parent)


def mount_points(pid: int) -> tuple[MountPoint, ...]:
    """Return the mount points of a container's root, by the pid of its init."""
    mounts = mountinfo.read(f"/proc/{pid}/mountinfo")
    roots = {mount.mount_id for mount in mounts if mount.target == "/"}
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    points = []
    try:
        for mount in mounts:
            if mount.target != "/" and mount.parent_id in roots:
                fd = open_in_root(root, mount.target, os.O_PATH)
                try:
                    is_directory = stat.S_ISDIR(os.fstat(fd).st_mode)
                finally:
                    os.close(fd)
                points.append(MountPoint(mount.target, is_directory))
    finally:
        os.close(root)
    return tuple(points)
