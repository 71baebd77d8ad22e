"""Change the mounts of a running container (``jaula edit``): all or nothing.

Runs in a helper of the shim. The sources are opened and id-mapped with the host's view, as at a
start (:func:`jaula.runtime.create.mount_rootfs.prepare_mounts`). The helper then joins the
container's user and mount namespace and attaches them by the steps of a start, as the container's
root user.

Facts about unmounting: a descriptor of a mount keeps it in use, and a path below the container's
root could be changed by its programs meanwhile. So the parent directory is opened once, and the
last component is unmounted from there (umount2(2), UMOUNT_NOFOLLOW). A link cannot lead into /proc
or /sys, where mounts hide files.

Facts about undoing: a mount is cloned before it is unmounted. The clone is attached again if a
later step fails, with its content also if that is in memory. The container's programs may mount and
unmount meanwhile. So each step is noted in a journal before it is done, with the identity of the
mount that it makes, and an undo unmounts that mount only. The kernel uses the id of a mount again
(before Linux 6.8 it has no other), so the root of the mount is part of its identity.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from jaula.errors import RuntimeFailure
from jaula.kernel import mounts, namespaces, process_calls
from jaula.kernel.mounts import MNT
from jaula.kernel.namespaces import CLONE
from jaula.kernel.openat2 import RESOLVE, components, openat2
from jaula.runtime.create import mount_options, mount_plan
from jaula.runtime.create.clone_process import FdStack
from jaula.runtime.create.mount_rootfs import prepare_mounts
from jaula.runtime.create.user_namespace_maps import host_id
from jaula.runtime.exec_process import different_namespaces
from jaula.runtime.init import mount_steps, process_labels, process_setup, step

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.runtime.shim_protocol import MountsRequest
    from jaula.spec.runtime_spec import Mount

_SYSFS_MAGIC = 0x62656572  # include/uapi/linux/magic.h
_LAST = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS | RESOLVE.NO_MAGICLINKS
_NAMESPACES = CLONE.NEWUSER | CLONE.NEWNS


class _Journal:
    """The steps of a change in a file: ``+IDENTITY DESTINATION`` made, ``-DESTINATION`` removed.

    Each ends with a NUL.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def made(self, destination: str, tree: int) -> None:
        """Note that the mount ``tree`` is about to be attached."""
        os.write(self._fd, f"+{_identity(tree)} {destination}\0".encode())

    def removed(self, destination: str) -> None:
        """Note that a mount is about to be unmounted."""
        os.write(self._fd, f"-{destination}\0".encode())

    def clear(self) -> None:
        """Note that all steps were reverted."""
        os.ftruncate(self._fd, 0)


class _Done:
    """The steps of an earlier change: identities by destination, and destinations."""

    def __init__(self, journal: bytes) -> None:
        self.made: dict[str, str] = {}
        self.removed: set[str] = set()
        for entry in journal.decode().split("\0")[:-1]:
            if entry[0] == "+":
                identity, _, destination = entry[1:].partition(" ")
                self.made[destination] = identity
            else:
                self.removed.add(entry[1:])


def _identity(fd: int) -> str:
    """Return the identity of the mount whose root a descriptor refers to."""
    try:
        number = mounts.unique_mount_id(fd)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        number = mounts.mount_id(fd)
    status = os.fstat(fd)
    return f"{number}:{status.st_dev}:{status.st_ino}"


def change(
    request: MountsRequest,
    init_pid: int,
    init_pidfd: int,
    bundle: str,
    host_mounts: int,
    journal: int,
    done: bytes,
) -> None:
    """Unmount and mount in the namespaces of init. The calling process must exit after this.

    It closes no descriptor of the mounts that it makes. The steps are noted in the file
    ``journal``. ``done`` is that of the change that is undone.

    :raises RuntimeFailure: when a step fails; the mounts are as before then. An undo does all its
        steps first, and fails also if it has left a mount of the container's programs.
    """
    spec, linux = request.spec, request.spec.linux
    assert linux is not None
    label = process_labels.mount_label(spec)
    process_calls.prctl(process_calls.PR_SET_DUMPABLE, 0)
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
            process_setup.become_root()
        root = fd_stack.add(os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        change = _Change(root, prepared, request, label, _Journal(journal))
        if request.undo:
            change.revert(_Done(done))
        else:
            change.run()
    except RuntimeFailure as failure:
        if isinstance(failure.__cause__, OSError):
            failure.errno = failure.__cause__.errno or 0
        raise
    except OSError as error:
        raise RuntimeFailure(
            f"mounts: {error.strerror} ({error.filename})", errno=error.errno or 0
        ) from error


class _Context(step.RootfsContext):
    """A context that passes each file system to ``on_made`` before it is attached."""

    on_made: Callable[[int], None]

    def made(self, tree: int) -> None:
        super().made(tree)
        self.on_made(tree)


class _Change:
    """One change, in the container's namespaces; ``_undo`` reverts what was done so far."""

    def __init__(
        self,
        root: int,
        prepared: dict[int, int],
        request: MountsRequest,
        label: str | None,
        journal: _Journal,
    ) -> None:
        self._context = _Context(root, prepared)
        self._request = request
        self._label = label
        self._journal = journal
        self._left: list[str] = []  # destinations with mounts of the container's programs
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
            self._journal.clear()
            raise

    def revert(self, done: _Done) -> None:
        """Revert the steps of an earlier change: all of them, also after a failure of one."""
        failures = []
        for destination in reversed(self._request.removed):
            try:
                self._unmake(destination, done.made.get(destination))
            except OSError as error:
                failures.append(f"{destination}: {error.strerror}")
        for index, mount in enumerate(self._request.spec.mounts):
            if mount.destination not in done.removed:
                continue
            if self._is_mounted(mount.destination):
                self._left.append(mount.destination)
                continue
            try:
                self._add(index, mount)
            except RuntimeFailure as error:
                failures.append(error.message)
        failures += [f"a program has mounted a file system at {place}" for place in self._left]
        if failures:
            raise RuntimeFailure("; ".join(failures))

    def _add(self, index: int, mount: Mount) -> None:
        destination = mount.destination
        self._check_free(destination)
        identity = ""

        def note(tree: int) -> None:
            nonlocal identity
            self._journal.made(destination, tree)
            identity = _identity(tree)

        self._context.on_made = note
        if index in self._context.prepared:
            note(self._context.prepared[index])
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
        self._undo.append(lambda: self._unmake(destination, identity))

    def _check_free(self, destination: str) -> None:
        if self._is_mounted(destination):
            raise RuntimeFailure(
                f"a file system is mounted at {destination} already", errno=errno.EEXIST
            )

    def _remove(self, destination: str) -> None:
        if not self._is_mounted(destination):
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
        self._journal.removed(destination)
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
        """Attach a mount again, unless the container's programs have mounted there."""
        if self._is_mounted(destination):
            return
        parent, name = self._parent(destination)
        fd = openat2(parent, name, os.O_PATH, resolve=_LAST)
        os.close(parent)
        try:
            mounts.move_mount(tree, "", to_fd=fd)
        finally:
            os.close(fd)

    def _unmake(self, destination: str, identity: str | None) -> None:
        """Unmount the mount that a change has made, and no other."""
        if identity is None:
            return
        mounted = self._mounted(destination)
        if mounted == identity:
            self._unmount(destination, MNT.DETACH)
        elif mounted is not None:
            self._left.append(destination)

    def _is_mounted(self, destination: str) -> bool:
        """Return whether a destination is a mount point."""
        return self._mounted(destination) is not None

    def _mounted(self, destination: str) -> str | None:
        """Return the identity of what is mounted at a destination; None if nothing is."""
        try:
            parent, name = self._parent(destination)
            try:
                fd = openat2(parent, name, os.O_PATH, resolve=_LAST)
            finally:
                os.close(parent)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise
        try:
            return _identity(fd) if mounts.is_mount_root(fd) else None
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
