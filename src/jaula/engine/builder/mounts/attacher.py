"""The mounts of one start of a step: made, shown with its owners, attached. Synchronous.

Facts: an overlay cannot be id-mapped, its layers can (:mod:`jaula.runtime.create.rootfs`). Linux before
6.15 clones no part of a detached mount, so a root is attached before a directory of it is taken.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from jaula.engine.builder.mounts.kinds import (
    BindMount,
    CacheMount,
    SecretMount,
    SshMount,
    TmpfsMount,
)
from jaula.engine.oci_spec import security
from jaula.engine.threads import in_unshared_thread
from jaula.engine.volumes import mount_spec
from jaula.errors import InvalidRequest, JaulaError
from jaula.kernel import mounts, paths
from jaula.kernel.mounts import MOUNT_ATTR
from jaula.runtime.create import id_maps, rootfs
from jaula.security.lsm import selinux
from jaula.spec.rootfs import OverlayRoot
from jaula.state.records import MountRecord
from jaula.storage.relabel import relabel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jaula.engine.builder.mounts.kinds import StepMount
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.engine.userns.id_ranges import IdMaps

_OPTIONS = ("bind", "rprivate", "nosuid", "nodev")
_SECRET_PLACE = 1 << 20  # bytes of the file system that holds one secret
_NAME = "content"


class MountAttacher:
    """Makes the mounts of one start; in a thread of its own."""

    def __init__(
        self,
        parts: Services,
        container: Container,
        maps: IdMaps,
        user_fd: int | None,
        place: Path,
    ) -> None:
        self._maps = maps
        self._user_fd = user_fd
        self._owner = (id_maps.host_id(maps[0], 0), id_maps.host_id(maps[1], 0))
        self._run = place
        self._kept = parts.config.paths.container(container.id)
        record = container.record
        label = security.selinux_labels(record.resolved, parts.host, record.level).mount
        self._label = (label or None) if parts.host.selinux else None
        self._shared_label = ""
        if self._label:
            shared = parts.host.selinux_types.file._replace(level=selinux.SHARED_LEVEL)
            self._shared_label = str(shared)
        self._attached: list[str] = []
        self.bundle = ""  # in memory, where variables are secret

    def all(self, wanted: Sequence[StepMount], attached: list[str]) -> tuple[MountRecord, ...]:
        """Make all; ``attached`` grows by each place, so that whatever fails can be undone."""
        self._attached = attached
        self._run.mkdir(mode=0o700, parents=True, exist_ok=True)
        found: dict[str, MountRecord] = {}
        if any(isinstance(mount, SecretMount) and mount.variable for mount in wanted):
            self.bundle = self._memory("bundle")
        for index, mount in enumerate(wanted):
            try:
                record = self._one(index, mount)
            except OSError as error:
                where = mount.target or getattr(mount, "variable", "")
                raise InvalidRequest(
                    f"the mount at {where} cannot be made: {error.strerror or error}"
                ) from error
            if record is not None:
                found[record.destination] = record
        return tuple(found.values())

    def _one(self, index: int, mount: StepMount) -> MountRecord | None:
        if isinstance(mount, TmpfsMount):
            size = (f"size={mount.size}",) if mount.size else ()
            options = ("nosuid", "nodev", "mode=1777", *size)
            return MountRecord("tmpfs", mount_spec.destination(mount.target), options=options)
        if isinstance(mount, SecretMount) and not mount.target:
            return None
        match mount:
            case BindMount():
                place, read_only = self._bound(index, mount), not mount.writable
            case CacheMount():
                place, read_only = self._kept_tree(index, mount), not mount.writable
            case SecretMount():
                place, read_only = self._secret(index, mount), True
            case SshMount():
                place, read_only = self._socket(index, mount), False
        return MountRecord(
            "bind",
            mount_spec.destination(mount.target),
            source=place,
            read_only=read_only,
            propagation="rprivate",
            options=_OPTIONS,
            mapped=True,
        )

    # -- trees -------------------------------------------------------------------------------

    def _bound(self, index: int, mount: BindMount) -> str:
        tree = self._root(index, mount)
        try:
            if mount.source.strip("/") in ("", "."):
                return self._attach(tree, self._folder(index))
            whole = self._attach(tree, self._folder(f"{index}-whole"))
        finally:
            os.close(tree)
        with _opened(whole) as root:
            try:
                found = paths.open_in_root(root, mount.source, os.O_PATH)
            except OSError as error:
                raise InvalidRequest(
                    f"{mount.source!r} is not in {mount.about or 'the context'}: {error.strerror}"
                ) from error
        try:
            part = mounts.clone_tree("", dir_fd=found)
            try:
                return self._attach(part, self._like(index, found))
            finally:
                os.close(part)
        finally:
            os.close(found)

    def _root(self, index: int, mount: BindMount) -> int:
        upper = work = None
        if mount.writable:
            top = self._kept / f"mount-{index}"
            upper, work = str(top / "upper"), str(top / "work")
            for place in (top, top / "upper", top / "work"):
                place.mkdir(mode=0o755)
        lowers = mount.lowers
        if self._label and len(lowers) == 1:  # only an overlay shows another label than the files'
            lowers = (*lowers, str(self._folder(f"{index}-empty")))
        root = OverlayRoot(
            lowers,
            upper,
            work,
            id_mapped=self._user_fd is not None,
            user_xattr=self._user_fd is None and bool(self._maps[0]),
            volatile=True,
        )
        if upper is None and len(root.lowers) == 1:
            return self._mapped(mounts.clone_tree(root.lowers[0]), read_only=True)
        return in_unshared_thread(
            lambda: rootfs.mount_root(root, self._user_fd, self._owner, context=self._label)
        )

    def _kept_tree(self, index: int, mount: CacheMount) -> str:
        if self._label:
            with _opened(mount.path) as found:
                relabel(found, self._shared_label)
        tree = self._mapped(mounts.clone_tree(mount.path), read_only=not mount.writable)
        try:
            with _opened(mount.path) as found:
                return self._attach(tree, self._like(index, found))
        finally:
            os.close(tree)

    def _mapped(self, tree: int, *, read_only: bool) -> int:
        try:
            if self._user_fd is not None:
                mounts.idmap(tree, self._user_fd)
            attributes = MOUNT_ATTR.NOSUID | MOUNT_ATTR.NODEV
            mounts.mount_setattr(tree, set=attributes | (MOUNT_ATTR.RDONLY if read_only else 0))
        except BaseException:
            os.close(tree)
            raise
        return tree

    # -- single files ------------------------------------------------------------------------

    def _secret(self, index: int, mount: SecretMount) -> str:
        folder = self._memory(index, executable=mount.mode & 0o111 != 0)
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC
        with _opened(folder) as parent:
            descriptor = os.open(_NAME, flags, 0o600, dir_fd=parent)
            with open(descriptor, "wb", buffering=0) as file:
                file.write(mount.content)
                os.fchown(descriptor, *self._ids(mount.uid, mount.gid))
                os.fchmod(descriptor, mount.mode)
        return f"{folder}/{_NAME}"

    def _socket(self, index: int, mount: SshMount) -> str:
        folder = self._memory(index)
        path = f"{folder}/{_NAME}"
        mount.listen(path)
        os.chown(path, *self._ids(mount.uid, mount.gid))
        os.chmod(path, mount.mode)
        return path

    def _memory(self, name: int | str, *, executable: bool = False) -> str:
        options: tuple[tuple[str, str | None], ...] = (
            ("mode", "0755"),
            ("size", str(_SECRET_PLACE)),
        )
        if self._label:
            options = (*options, ("context", self._label))
        attributes = MOUNT_ATTR.NOSUID | MOUNT_ATTR.NODEV
        attributes |= MOUNT_ATTR(0) if executable else MOUNT_ATTR.NOEXEC
        try:  # Linux 6.4: what is in it never reaches a swap
            tree = mounts.new_filesystem("tmpfs", (*options, ("noswap", None)), attributes)
        except OSError:
            tree = mounts.new_filesystem("tmpfs", options, attributes)
        try:
            return self._attach(tree, self._folder(name))
        finally:
            os.close(tree)

    def _ids(self, uid: int, gid: int) -> tuple[int, int]:
        try:
            return id_maps.host_id(self._maps[0], uid), id_maps.host_id(self._maps[1], gid)
        except JaulaError as error:
            raise InvalidRequest(error.message, hint=error.hint) from None

    # -- places ------------------------------------------------------------------------------

    def _folder(self, name: int | str) -> Path:
        place = self._run / str(name)
        place.mkdir(mode=0o700)
        return place

    def _like(self, index: int, found: int) -> Path:
        """A directory or a file to attach ``found`` to."""
        if stat.S_ISDIR(os.fstat(found).st_mode):
            return self._folder(index)
        place = self._run / str(index)
        place.touch(mode=0o600)
        return place

    def _attach(self, tree: int, place: Path) -> str:
        mounts.move_mount(tree, str(place))
        self._attached.append(str(place))
        return str(place)


class _opened:
    """An ``O_PATH`` descriptor of a place of the engine's own."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> int:
        self._fd = os.open(self._path, os.O_PATH | os.O_CLOEXEC)
        return self._fd

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
