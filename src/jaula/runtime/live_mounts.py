"""Change the mounts of a running container (``jaula edit``): all or nothing.

Runs in a helper of the shim. The sources are opened and id-mapped with the host's view, as at a
start (:func:`jaula.runtime.create.rootfs.prepare_mounts`). The helper then joins the container's
user and mount namespace and attaches them by the steps of a start, as the container's root user.

Facts about unmounting: a descriptor of a mount keeps it in use, and a path below the container's
root could be changed by its programs meanwhile. So the parent directory is opened once, and the
last component is unmounted from there (umount2(2), UMOUNT_NOFOLLOW). A link cannot lead into /proc
or /sys, where mounts hide files.

Facts about undoing: a mount is cloned before it is unmounted. The clone is attached again if a
later step fails, with its content also if that is in memory.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from jaula.errors import RuntimeFailure
from jaula.kernel import mounts, namespaces, process
from jaula.kernel.mounts import MNT
from jaula.kernel.namespaces import CLONE
from jaula.kernel.paths import RESOLVE, components, openat2
from jaula.runtime.create import mount_options, mount_plan
from jaula.runtime.create.id_maps import host_id
from jaula.runtime.create.process import FdStack
from jaula.runtime.create.rootfs import prepare_mounts
from jaula.runtime.exec import different_namespaces
from jaula.runtime.init import exec as init_exec
from jaula.runtime.init import lsm_labels, mount_steps, step

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.runtime.protocol import MountsRequest
    from jaula.spec.runtime import Mount

_SYSFS_MAGIC = 0x62656572  # include/uapi/linux/magic.h
_LAST = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS | RESOLVE.NO_MAGICLINKS
_NAMESPACES = CLONE.NEWUSER | CLONE.NEWNS


def change(
    request: MountsRequest, init_pid: int, init_pidfd: int, bundle: str, host_mounts: int
) -> None:
    """Unmount and mount in the namespaces of init. The calling process must exit after this.

    It closes no descriptor of the mounts that it makes.

    :raises RuntimeFailure: when a step fails; the mounts are as before then.
    """
    spec, linux = request.spec, request.spec.linux
    assert linux is not None
    label = lsm_labels.mount_label(spec)
    process.prctl(process.PR_SET_DUMPABLE, 0)
    fd_stack = FdStack()
    try:
        user_fd = None
        if linux.uid_mappings:
            user_fd = fd_stack.add(namespaces.open_namespace(init_pid, "user"))
        prepared = prepare_mounts(
            spec,
            user_fd=user_fd,
            owner=(host_id(linux.uid_mappings, 0), host_id(linux.gid_mappings, 0)),
            fd_stack=fd_stack,
            bundle=bundle,
            selinux=label is not None,
            host_mounts=host_mounts,
        )
        flags = different_namespaces(init_pid) & _NAMESPACES
        if not flags & CLONE.NEWNS:
            raise RuntimeFailure("the container is in the mount namespace of the engine")
        namespaces.setns(init_pidfd, flags)
        if flags & CLONE.NEWUSER:
            init_exec.become_root()
        root = fd_stack.add(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        _Change(step.RootfsContext(root, prepared), request, label).run()
    except RuntimeFailure as failure:
        if isinstance(failure.__cause__, OSError):
            failure.errno = failure.__cause__.errno or 0
        raise
    except OSError as error:
        raise RuntimeFailure(
            f"mounts: {error.strerror} ({error.filename})", errno=error.errno or 0
        ) from error


class _Change:
    """One change, in the container's namespaces; ``_undo`` reverts what was done so far."""

    def __init__(
        self, context: step.RootfsContext, request: MountsRequest, label: str | None
    ) -> None:
        self._context = context
        self._request = request
        self._label = label
        self._undo: list[Callable[[], None]] = []

    def run(self) -> None:
        """Do all steps; after a failure of one revert the others."""
        try:
            for destination in self._request.free:
                self._check_free(destination)
            for destination in self._request.removed:
                self._remove(destination)
            for index, mount in enumerate(self._request.spec.mounts):
                self._add(index, mount)
        except BaseException:
            for revert in reversed(self._undo):
                revert()
            raise

    def _add(self, index: int, mount: Mount) -> None:
        destination = mount.destination
        if self._request.undo and self._is_mounted(destination):
            return
        self._check_free(destination)
        options = mount_options.for_mount(mount)
        made: step.Step = mount_steps.AttachPrepared(index, destination)
        if not mount_plan.needs_preparation(mount, options):
            made = mount_plan.new_filesystem(mount, options, self._label)
        try:
            made.execute(self._context)
        except OSError as error:
            hint = None
            if error.errno == errno.EROFS:
                hint = "the root is read-only and has no mount point there"
            raise RuntimeFailure(
                f"mount {mount.source} at {destination}: {error.strerror}",
                hint=hint,
                errno=error.errno or 0,
            ) from error
        self._undo.append(lambda: self._unmount(destination, MNT.DETACH))

    def _check_free(self, destination: str) -> None:
        if self._is_mounted(destination):
            raise RuntimeFailure(
                f"a file system is mounted at {destination} already", errno=errno.EEXIST
            )

    def _remove(self, destination: str) -> None:
        if not self._is_mounted(destination):
            if self._request.undo:
                return
            raise RuntimeFailure(
                f"nothing is mounted at {destination}, or a link is in its place",
                errno=errno.ENOENT,
            )
        parent, name = self._parent(destination)
        fd = openat2(parent, name, os.O_PATH, resolve=_LAST)
        os.close(parent)
        try:
            clone = mounts.clone_tree("", recursive=True, dir_fd=fd)
        finally:
            os.close(fd)
        try:
            self._unmount(destination, MNT.DETACH if self._request.detach else MNT(0))
        except OSError as error:
            os.close(clone)
            if error.errno != errno.EBUSY:
                raise
            raise RuntimeFailure(
                f"the mount at {destination} is in use",
                hint="--detach removes it nevertheless",
                errno=errno.EBUSY,
            ) from error
        self._undo.append(lambda: self._attach(clone, destination))

    def _attach(self, tree: int, destination: str) -> None:
        parent, name = self._parent(destination)
        fd = openat2(parent, name, os.O_PATH, resolve=_LAST)
        os.close(parent)
        try:
            mounts.move_mount(tree, "", to_fd=fd)
        finally:
            os.close(fd)

    def _is_mounted(self, destination: str) -> bool:
        """Return whether a destination is a mount point."""
        try:
            parent, name = self._parent(destination)
            try:
                fd = openat2(parent, name, os.O_PATH, resolve=_LAST)
            finally:
                os.close(parent)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return False
            raise
        try:
            return mounts.is_mount_root(fd)
        finally:
            os.close(fd)

    def _unmount(self, destination: str, flags: MNT) -> None:
        """Unmount what is mounted at a destination."""
        parent, name = self._parent(destination)
        try:
            os.fchdir(parent)
        finally:
            os.close(parent)
        mounts.umount2(name, flags | MNT.NOFOLLOW)
        os.chdir("/")

    def _parent(self, destination: str) -> tuple[int, str]:
        """Return the directory that a destination is in, and its name there.

        :raises OSError: EPERM when a link leads into a proc or sysfs file system.
        """
        *parents, name = components(destination)
        path = "/".join(parents) or "."
        resolve = RESOLVE.IN_ROOT | RESOLVE.NO_MAGICLINKS
        fd = openat2(self._context.root, path, os.O_PATH | os.O_DIRECTORY, resolve=resolve)
        kernel_files = mounts.filesystem_magic(fd) in (mounts.PROC_SUPER_MAGIC, _SYSFS_MAGIC)
        if kernel_files and parents[:1] not in (["proc"], ["sys"]):
            os.close(fd)
            raise OSError(errno.EPERM, "a symbolic link leads into /proc or /sys", destination)
        return fd, name
