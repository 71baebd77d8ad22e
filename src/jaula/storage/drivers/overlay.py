"""The overlay driver: the layers are lower directories, each container has an upper directory.

Follows the kernel's ``filesystems/overlayfs.rst``. ``containers/<id>/upper`` and ``work`` are the
container's upper and work directory, ``containers/<id>/layers.json`` lists the lower layers.
``upper.staged`` has files that will replace those of the upper directory, which is ``upper.former``
then, until they are not needed any more.

Facts about overlayfs: the root of the mount shows the owner, mode and times of the upper directory.
An upper directory on overlayfs, NFS or FAT is refused or becomes read-only. So the driver probes
with a real mount and a real write when the engine starts. In a user namespace (Linux 5.11)
overlayfs needs the option ``userxattr`` and uses ``user.overlay.*``, and mounts of the host's file
systems cannot be id-mapped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path

import msgspec

from jaula.config import Paths
from jaula.errors import Conflict, CorruptState, InvalidRequest, NotFound, Unsupported
from jaula.kernel import mounts
from jaula.kernel.syncfs import fsync_paths
from jaula.spec.rootfs import OverlayRoot, RootSource
from jaula.storage.checkpoint_files import extract
from jaula.storage.drivers import project_quota
from jaula.storage.drivers.storage_driver import Change, ChangeFilter, SnapshotUsage, open_root
from jaula.storage.filesystem_type import filesystem_name
from jaula.storage.layer_diff import (
    has_redirects,
    overlay_differences,
    sorted_changes,
    tree_differences,
)
from jaula.storage.layers.commit_layer import write_layer
from jaula.storage.layers.layer_store import LayerStore, root_directory_layer
from jaula.storage.tar.tar_writer import Sink
from jaula.storage.trees import (
    list_with_prefix,
    open_directory,
    remove_entries,
    remove_tree,
    tree_usage,
    write_new,
)

_PROBE = ".probe-"
_ENTRIES = ("upper", "work", "layers.json")
_STAGED, _FORMER = "upper.staged", "upper.former"


class OverlayDriver:
    """A :class:`~jaula.storage.drivers.storage_driver.SnapshotDriver` on overlayfs."""

    name = "overlay"
    instant = True

    def __init__(
        self, paths: Paths, layers: LayerStore, *, rootless: bool = False, probed: bool = False
    ) -> None:
        self._paths = paths
        self._layers = layers
        self._rootless = rootless
        paths.root.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._started = time.time_ns()
        if not probed:
            probe(paths.root, user_xattr=rootless)

    @property
    def has_quotas(self) -> bool:
        return project_quota.are_enforced(self._paths.root)

    def create(self, id: str, layers: Sequence[str], *, size: int | None = None) -> None:
        if not layers:
            raise InvalidRequest("an image without a layer has no root file system to run from")
        for layer in layers:
            self._layers.path(layer)
        status = os.stat(self._layers.path(root_directory_layer(self._layers, tuple(layers))))
        container = self._paths.container(id)
        container.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open_directory(container) as parent:
            try:
                os.mkdir("upper", 0o700, dir_fd=parent)
            except FileExistsError:
                raise Conflict(f"snapshot {id} exists already") from None
            try:
                os.mkdir("work", 0o700, dir_fd=parent)
                os.chown(
                    "upper", status.st_uid, status.st_gid, dir_fd=parent, follow_symlinks=False
                )
                os.chmod("upper", status.st_mode & 0o7777, dir_fd=parent)
                os.utime("upper", ns=(status.st_mtime_ns, status.st_mtime_ns), dir_fd=parent)
                if size is not None:
                    self._set_limit(parent, size)
                write_new(parent, "layers.json", msgspec.json.encode(tuple(layers)))
            except BaseException:
                project_quota.end(parent)
                for name in _ENTRIES:
                    remove_tree(parent, name.encode())
                raise

    def _set_limit(self, parent: int, size: int) -> None:
        with (
            open_directory("upper", dir_fd=parent) as upper,
            open_directory("work", dir_fd=parent) as work,
        ):
            project_quota.begin(parent, (upper, work), self._paths.root)
        project_quota.limit(parent, size)

    def sync(self, id: str) -> None:
        container = self._paths.container(id)
        with open_directory(container) as parent:
            fsync_paths(*_ENTRIES, ".", dir_fd=parent)
        fsync_paths(container.parent, self._paths.root)

    def root(self, id: str) -> RootSource:
        container = self._paths.container(id)
        return self._source(self._layers_of(id), f"{container}/upper", f"{container}/work")

    def view(self, layers: Sequence[str]) -> RootSource:
        return self._source(layers)

    def _source(
        self, layers: Sequence[str], upper: str | None = None, work: str | None = None
    ) -> OverlayRoot:
        return OverlayRoot(
            self._lowers(layers),
            upper,
            work,
            id_mapped=not self._rootless,
            user_xattr=self._rootless,
            xino=any(self._layers.is_erofs(each) or self._layers.is_lazy(each) for each in layers),
        )

    def remove(self, id: str) -> None:
        container = self._paths.container(id)
        try:
            with open_directory(container) as parent:
                project_quota.end(parent)
        except FileNotFoundError:
            return
        remove_entries(container, (*_ENTRIES, _STAGED, _FORMER))

    def exists(self, id: str) -> bool:
        container = self._paths.container(id)
        return (container / "layers.json").exists() and (container / "upper").is_dir()

    def leftovers(self) -> list[str]:
        root = self._paths.root
        return [f"{root}/{name}" for name in list_with_prefix(root, _PROBE, before=self._started)]

    def sweep(self) -> None:
        with open_directory(self._paths.root) as parent:
            for name in list_with_prefix(self._paths.root, _PROBE, before=self._started):
                remove_tree(parent, name.encode())

    def changes(self, id: str) -> list[Change]:
        with (
            open_directory(self._upper(id)) as upper,
            open_root(self.view(self._layers_of(id))) as lower,
        ):
            return sorted_changes(overlay_differences(upper, lower))

    def write_layer(
        self, id: str, select: ChangeFilter, sink: Sink, *, exact: bool = False
    ) -> bool:
        layers = self._layers_of(id)
        upper_path = self._upper(id)
        lowers = (str(upper_path), *self._lowers(layers))
        merged_source = OverlayRoot(lowers, user_xattr=self._rootless)
        with (
            open_directory(upper_path) as upper,
            open_root(self.view(layers)) as lower,
            open_root(merged_source) as merged,
        ):
            if has_redirects(upper):
                differences = tree_differences(merged, lower, mount_points=exact)
            else:
                differences = overlay_differences(upper, lower, mount_points=exact)
            differences = select(differences)
            write_layer(merged, differences, sink, exact=exact)
        return bool(differences)

    def stage(self, id: str, layer: BufferedReader) -> None:
        self._upper(id)
        container = self._paths.container(id)
        with open_directory(container) as parent:
            remove_tree(parent, _FORMER.encode())
            remove_tree(parent, _STAGED.encode())
            os.mkdir(_STAGED, 0o700, dir_fd=parent)
            try:
                with open_directory(_STAGED, dir_fd=parent) as staged:
                    project_quota.join(parent, staged)
                    extract(layer, staged, layer=True)
            except BaseException:
                remove_tree(parent, _STAGED.encode())
                raise

    def replace(self, id: str, *, keep: bool = False) -> None:
        with open_directory(self._paths.container(id)) as parent:
            if _STAGED in os.listdir(parent):
                if "upper" in os.listdir(parent):
                    remove_tree(parent, _FORMER.encode())
                    os.rename("upper", _FORMER, src_dir_fd=parent, dst_dir_fd=parent)
                self._rename_upper(parent, _STAGED)
            if not keep:
                remove_tree(parent, _FORMER.encode())

    def put_back(self, id: str) -> None:
        with open_directory(self._paths.container(id)) as parent:
            if _FORMER in os.listdir(parent):
                if "upper" in os.listdir(parent):
                    os.rename("upper", _STAGED, src_dir_fd=parent, dst_dir_fd=parent)
                self._rename_upper(parent, _FORMER)

    def _rename_upper(self, parent: int, name: str) -> None:
        """Make a directory the upper one, with a work directory of its own."""
        remove_tree(parent, b"work")
        os.mkdir("work", 0o700, dir_fd=parent)
        with open_directory("work", dir_fd=parent) as work:
            project_quota.join(parent, work)
        os.rename(name, "upper", src_dir_fd=parent, dst_dir_fd=parent)
        fsync_paths(".", dir_fd=parent)

    def discard(self, id: str) -> None:
        if self.exists(id):
            with open_directory(self._paths.container(id)) as parent:
                remove_tree(parent, _STAGED.encode())
                remove_tree(parent, _FORMER.encode())

    def usage(self, id: str) -> SnapshotUsage:
        try:
            with open_directory(self._upper(id)) as upper:
                return SnapshotUsage(*tree_usage(upper))
        except FileNotFoundError:
            raise NotFound(f"snapshot {id} does not exist") from None

    def status(self) -> list[tuple[str, str]]:
        return [
            ("Backing Filesystem", filesystem_name(self._paths.root)),
            ("Supports d_type", "true"),
            ("Native Overlay Diff", "true"),
            ("userxattr", "true" if self._rootless else "false"),
            *self._layer_format(),
        ]

    def _layer_format(self) -> list[tuple[str, str]]:
        rows = {"erofs": [("Layers", "EROFS")], "verity": [("Layers", "EROFS with fs-verity")]}
        return rows.get(self._layers.format, [])

    def _upper(self, id: str) -> str:
        if not self.exists(id):
            raise NotFound(f"snapshot {id} does not exist")
        return f"{self._paths.container(id)}/upper"

    def _layers_of(self, id: str) -> tuple[str, ...]:
        document = self._paths.container(id) / "layers.json"
        try:
            return msgspec.json.decode(document.read_bytes(), type=tuple[str, ...])
        except FileNotFoundError:
            raise NotFound(f"snapshot {id} does not exist") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CorruptState(f"the snapshot file {document} is damaged: {error}") from error

    def _lowers(self, layers: Sequence[str]) -> tuple[str, ...]:
        # Overlayfs refuses a directory that is listed twice. Of a repeated layer the topmost one
        # hides the lower one anyway.
        return tuple(self._layers.path(layer) for layer in dict.fromkeys(reversed(layers)))


def probe(directory: Path, *, user_xattr: bool = False) -> None:
    """Mount a small overlay below ``directory`` and write to it.

    :raises Unsupported: when that fails.
    """
    name = f"{_PROBE}{os.urandom(6).hex()}"
    with open_directory(directory) as parent:
        try:
            _probe(parent, name, directory / name, user_xattr)
        except OSError as error:
            raise Unsupported(
                f"overlay does not work on {filesystem_name(directory)} at {directory}: "
                f"{error.strerror}",
                hint="use another file system for the root directory, or the vfs driver",
            ) from error
        finally:
            remove_tree(parent, name.encode())


def _probe(parent: int, name: str, top: Path, user_xattr: bool) -> None:
    os.mkdir(name, 0o700, dir_fd=parent)
    for directory in ("lower", "upper", "work"):
        (top / directory).mkdir()
    (top / "lower" / "hidden").touch()
    source = OverlayRoot((f"{top}/lower",), f"{top}/upper", f"{top}/work", user_xattr=user_xattr)
    mount = mounts.overlay(source.lowers, source.upper, source.work, options=source.options)
    try:
        os.unlink("hidden", dir_fd=mount)
    finally:
        os.close(mount)
    if not (top / "upper" / "hidden").lstat().st_mode & 0o020000:
        raise Unsupported("overlay does not write whiteouts on this file system")
