"""Steps that build a container's root: values with ``describe`` and ``execute``.

This module holds what they share. The steps are in :mod:`jaula.runtime.init.mount_steps`,
:mod:`jaula.runtime.init.mask_steps` and :mod:`jaula.runtime.create.device_nodes`.

They run in init before pivot_root: in the container's namespaces, with all capabilities over them,
and with the host's tree still at ``/``. The new root is a descriptor. Nothing below it is ever
named by a host path.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Sequence
from typing import Protocol

from jaula.kernel import mounts
from jaula.kernel.openat2 import (
    RESOLVE,
    components,
    make_directory_in_root,
    make_file_in_root,
    openat2,
)
from jaula.runtime.create.mount_options import locked_flags

NODES = -1
"""Slot of the node store: a detached tmpfs with device nodes, named as in :class:`Node`."""
NULL = -2
"""Slot of the null device for masks: a descriptor in a tmpfs created by the parent."""
SYSTEM_DIRECTORIES = ("dev", "proc", "sys")
"""Directories of the root that must not be symbolic links of the image."""
SYSTEM_SLOTS = {"proc": -3, "dev": -4, "sys": -5}
"""Slots of the trees of a spare init, in the order in which they are attached."""


class RootfsContext:
    """The state that the steps share.

    ``prepared`` holds detached mounts by their index in ``spec.mounts``, and ``NODES`` and
    ``NULL``. ``made_mounts`` holds the ids of the root and of the file systems made for it.
    :class:`Console` sets ``master`` and ``slave``.
    """

    def __init__(
        self, root: int, prepared: dict[int, int], made_mounts: Collection[int] = ()
    ) -> None:
        self.root = root
        self.prepared = prepared
        self.made_mounts = {mounts.mount_id(root), *made_mounts}
        self.master = -1
        self.slave = -1
        self.shared_recursive: bool | None = None
        self._null = prepared.get(NULL, -1)
        self._empty = -1
        self._nodes_attached = False

    def null(self) -> int:
        """Return a detached mount of the null device, to cover a masked file.

        It is never looked up in the container's tree: the parent created it. If the parent could
        not create nodes, it is the node of the host's tree, which is still at ``/``.
        """
        if self._null < 0:
            self._null = host_node("/dev/null", stat.S_IFCHR, os.makedev(1, 3))
        return self.clone_node(self._null)

    def empty_directory(self) -> int:
        """Return a mount of an empty read-only tmpfs, to cover a masked directory; attach it.

        All are one file system: CRIU saves and restores each with a run of tar(1).
        """
        if self._empty >= 0:
            return mounts.clone_tree("", dir_fd=self._empty)
        tree = mounts.new_filesystem(
            "tmpfs",
            (("size", "4k"), ("nr_inodes", "1"), ("mode", "755"), ("ro", None)),
            mounts.MOUNT_ATTR.RDONLY | mounts.MOUNT_ATTR.NOSUID | mounts.MOUNT_ATTR.NODEV,
        )
        self._empty = os.dup(tree)
        return tree

    def clone_node(self, node: int) -> int:
        """Return a detached mount of a node of the store, or of any attached node."""
        try:
            return mounts.clone_tree("", dir_fd=node)
        except OSError as error:
            if error.errno != errno.EINVAL or NODES not in self.prepared or self._nodes_attached:
                raise
        # Before Linux 6.15 only attached mounts can be cloned: the store covers the root meanwhile.
        mounts.move_mount(self.prepared[NODES], "", to_fd=self.root)
        self._nodes_attached = True
        return mounts.clone_tree("", dir_fd=node)

    def finish(self) -> None:
        """Unmount the node store, so that only the container's mounts are left."""
        if self._empty >= 0:
            os.close(self._empty)
            self._empty = -1
        if self._nodes_attached:
            # Not by /proc: in a joined mount namespace it belongs to another pid namespace.
            os.fchdir(self.prepared[NODES])
            mounts.umount2(".", mounts.MNT.DETACH)
            self._nodes_attached = False

    def made(self, tree: int) -> None:
        """Note that ``tree`` is a mount of a file system made for this container."""
        self.made_mounts.add(mounts.mount_id(tree))

    def refuse_bound(self, directory: int) -> None:
        """Refuse to create a file in a directory to which a symbolic link of the image led.

        The file would appear in a bind mount: a volume, or a directory of the host. So it may be
        created only in the root, and in file systems made for this container.

        :raises OSError: EXDEV when the directory is in another mount.
        """
        if mounts.mount_id(directory) not in self.made_mounts:
            raise OSError(errno.EXDEV, "a symbolic link of the image leads into a bind mount")

    def share(self) -> None:
        """Make the root's mounts shared, which pivot_root(2) would refuse before."""
        if self.shared_recursive is not None:
            mounts.mount_setattr(
                self.root, propagation=mounts.MS.SHARED, recursive=self.shared_recursive
            )


def host_node(path: str, kind: int, device: int) -> int:
    """Open a device node of the host's tree and check that it is that device.

    :raises OSError: when it does not exist or is another device.
    """
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    st = os.fstat(fd)
    if stat.S_IFMT(st.st_mode) != kind or st.st_rdev != device:
        os.close(fd)
        raise OSError(
            errno.ENXIO,
            "cannot create this device without privileges, and the host's node is another device",
            path,
        )
    return fd


class Step(Protocol):
    """One step of building the root."""

    def describe(self) -> str: ...
    def execute(self, context: RootfsContext) -> None: ...


def mount_target(context: RootfsContext, destination: str, source: int) -> int:
    """Return the mount target; create it as a directory or a file like the source.

    :raises OSError: as :func:`directory_target` does.
    """
    if stat.S_ISDIR(os.fstat(source).st_mode):
        return directory_target(context, destination)
    return file_target(context, destination)


def directory_target(context: RootfsContext, destination: str) -> int:
    """Open a directory of the root, creating missing components.

    :raises OSError: ELOOP when /dev, /proc or /sys is a symbolic link of the image and is part of
        the destination; EPERM when a link leads into /proc; EXDEV when a component would be created
        in a bind mount to which a link leads.
    """
    _refuse_linked_system_directory(context, destination)
    target = make_directory_in_root(context.root, destination, check=context.refuse_bound)
    return refuse_procfs(target, destination)


def file_target(context: RootfsContext, destination: str, mode: int = 0o644) -> int:
    """Open a file of the root, creating it and its parents if absent.

    :raises OSError: as :func:`directory_target` does.
    """
    _refuse_linked_system_directory(context, destination)
    target = make_file_in_root(context.root, destination, mode, check=context.refuse_bound)
    return refuse_procfs(target, destination)


def _refuse_linked_system_directory(context: RootfsContext, destination: str) -> None:
    """Refuse a link in place of /dev, /proc or /sys.

    Device nodes, links and sockets that the runtime creates there would appear where it leads.
    """
    first = next(iter(components(destination)), "")
    if first not in SYSTEM_DIRECTORIES:
        return
    try:
        os.close(openat2(context.root, first, os.O_PATH, resolve=RESOLVE.NO_SYMLINKS))
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OSError(errno.ELOOP, f"/{first} of the image is a symbolic link") from None


def refuse_procfs(target: int, destination: str) -> int:
    """Return the target, unless a link of the image led into /proc (CVE-2019-16884).

    :raises OSError: when it did.
    """
    if components(destination)[:1] == ["proc"] or not is_procfs(target):
        return target
    os.close(target)
    raise OSError(errno.EPERM, "a symbolic link leads into /proc", destination)


def is_procfs(fd: int) -> bool:
    """Return whether a descriptor belongs to a proc file system."""
    return mounts.filesystem_magic(fd) == mounts.PROC_SUPER_MAGIC


def attach(tree: int, target: int) -> None:
    """Attach a detached mount on ``target``, and close ``target``."""
    try:
        mounts.move_mount(tree, "", to_fd=target)
    finally:
        os.close(target)


def set_attributes(
    tree: int,
    attributes: tuple[int, int],
    recursive_attributes: tuple[int, int],
    propagation: tuple[tuple[int, bool], ...],
) -> None:
    """Set and clear attributes of a mount, then of its tree, then the propagation, in order.

    :raises PermissionError: when a user namespace would clear an attribute that its parent has
        locked (mount_namespaces(7)).
    """
    _set(tree, attributes, recursive=False)
    _set(tree, recursive_attributes, recursive=True)
    for flag, recursive in propagation:
        mounts.mount_setattr(tree, propagation=flag, recursive=recursive)


def _set(tree: int, attributes: tuple[int, int], *, recursive: bool) -> None:
    if not any(attributes):
        return
    try:
        mounts.mount_setattr(tree, set=attributes[0], clear=attributes[1], recursive=recursive)
    except PermissionError:
        kept = locked_flags(attributes, os.fstatvfs(tree).f_flag)
        raise locked_error(kept or ("locked flags",)) from None


def locked_error(kept: Sequence[str], where: str = "the source") -> PermissionError:
    """Return the error for options that would clear flags that a user namespace must keep."""
    return PermissionError(
        errno.EPERM,
        f"{where} has {' and '.join(kept)}, which a user namespace must keep; remove the option"
        " that clears it",
    )
