"""The steps that build a container's root, each a value with ``describe`` and ``execute``.

What they share is here; the steps are in :mod:`jaula.runtime.init.mount_steps`, :mod:`jaula.runtime.init.dev_steps`
and :mod:`jaula.runtime.init.mask_steps`.

They run in the container's init before pivot_root: in the container's namespaces, with all
capabilities over them, the host's tree still reachable as ``/``. The new root is a descriptor;
nothing below it is ever named by a host path.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Protocol

from jaula.kernel import mounts
from jaula.kernel.paths import components, make_directory_in_root, make_file_in_root

NODES = -1
"""The slot of the store: a detached tmpfs with device nodes, by :class:`Node`'s names."""
NULL = -2
"""The slot of the null device that masks are made of: a descriptor in a tmpfs made outside."""


class RootfsContext:
    """What the steps work on.

    ``prepared`` holds detached mounts by their index in ``spec.mounts``, besides ``NODES`` and
    ``NULL``. :class:`Console` sets ``master`` and ``slave``.
    """

    def __init__(self, root: int, prepared: dict[int, int]) -> None:
        self.root = root
        self.prepared = prepared
        self.master = -1
        self.slave = -1
        self.shared: bool | None = None
        self._null = prepared.get(NULL, -1)
        self._nodes_attached = False

    def null(self) -> int:
        """The null device that covers masked files: never looked up in the container's tree.

        It was made outside; where nodes could not be made there, it is that of the host's tree,
        which is still ``/`` here.
        """
        if self._null < 0:
            self._null = host_node("/dev/null", stat.S_IFCHR, os.makedev(1, 3))
        return self.clone_node(self._null)

    def clone_node(self, node: int) -> int:
        """A detached mount of one node of the store, or of any attached node."""
        try:
            return mounts.clone_tree("", dir_fd=node)
        except OSError as error:
            if error.errno != errno.EINVAL or NODES not in self.prepared or self._nodes_attached:
                raise
        # Before Linux 6.15 only attached mounts can be cloned: it covers the root for the while.
        mounts.move_mount(self.prepared[NODES], "", to_fd=self.root)
        self._nodes_attached = True
        return mounts.clone_tree("", dir_fd=node)

    def finish(self) -> None:
        """Nothing but the container's mounts is left."""
        if self._nodes_attached:
            # Not by /proc: in a mount namespace that was joined it is of other processes.
            os.fchdir(self.prepared[NODES])
            mounts.umount2(".", mounts.MNT.DETACH)
            self._nodes_attached = False

    def share(self) -> None:
        """What pivot_root(2) does not take before it: a root whose mounts are shared."""
        if self.shared is not None:
            mounts.mount_setattr(self.root, propagation=mounts.MS.SHARED, recursive=self.shared)


def host_node(path: str, kind: int, number: int) -> int:
    """A device node of the host's tree, checked to be that device. Raises ``OSError``."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    facts = os.fstat(fd)
    if stat.S_IFMT(facts.st_mode) != kind or facts.st_rdev != number:
        os.close(fd)
        raise OSError(
            errno.ENXIO,
            "this node cannot be made without rights, and the host's of that path is another",
            path,
        )
    return fd


class Step(Protocol):
    """One step."""

    def describe(self) -> str: ...
    def execute(self, stage: RootfsContext) -> None: ...


def place_for(stage: RootfsContext, destination: str, source: int) -> int:
    """The place of a mount, made when missing as a directory or a file like the source."""
    if stat.S_ISDIR(os.fstat(source).st_mode):
        return not_in_proc(make_directory_in_root(stage.root, destination), destination)
    return not_in_proc(make_file_in_root(stage.root, destination), destination)


def not_in_proc(target: int, destination: str) -> int:
    """The target, unless a link of the image led from elsewhere into /proc (CVE-2019-16884)."""
    if components(destination)[:1] == ["proc"] or not is_procfs(target):
        return target
    os.close(target)
    raise OSError(errno.EPERM, "a link leads into /proc", destination)


def is_procfs(fd: int) -> bool:
    """Whether a descriptor is of a proc file system."""
    return mounts.filesystem_magic(fd) == mounts.PROC_SUPER_MAGIC


def attach(tree: int, target: int) -> None:
    """Attach a detached mount on ``target``, which is closed."""
    try:
        mounts.move_mount(tree, "", to_fd=target)
    finally:
        os.close(target)


def shape(
    tree: int,
    one: tuple[int, int],
    recursive: tuple[int, int],
    propagation: tuple[tuple[int, bool], ...],
) -> None:
    """Set and clear attributes of a mount, then of its tree; then how mounts travel, in order."""
    if any(one):
        mounts.mount_setattr(tree, set=one[0], clear=one[1])
    if any(recursive):
        mounts.mount_setattr(tree, set=recursive[0], clear=recursive[1], recursive=True)
    for flag, below in propagation:
        mounts.mount_setattr(tree, propagation=flag, recursive=below)
