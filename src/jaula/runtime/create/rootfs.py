"""The container's root file system as a detached mount.

Follows the kernel's Documentation/filesystems/overlayfs.rst and mount_setattr(2) (id-mapped
mounts). Files keep their plain ids on disk; the map is applied to layers and to the writable
directory below the overlay, because an overlay itself cannot be id-mapped.

Facts: upper and work must lie on one mount, so their common parent is cloned and mapped once. Linux
before 6.15 takes only attached mounts as overlay layers; there the clones are attached for a moment
on a tmpfs in a mount namespace of the calling process's own.
"""

from __future__ import annotations

import os

from jaula.kernel import capabilities, mounts, namespaces, process
from jaula.spec.rootfs import DirectoryRoot, OverlayRoot, RootSource

Options = tuple[tuple[str, str | None], ...]
"""Further options of an overlay."""


def mount_root(
    root: RootSource,
    user_fd: int | None,
    owner: tuple[int, int],
    *,
    context: str | None = None,
) -> int:
    """A detached mount of the root, id-mapped when ``user_fd`` is given.

    ``owner`` is the host uid and gid of the container's root, ``context`` the SELinux label that
    all files of an overlay show; a directory's have their own. Raises ``OSError``.
    """
    options: Options = (("context", context),) if context else ()
    if isinstance(root, DirectoryRoot):
        tree = mounts.clone_tree(root.path, recursive=not root.id_mapped)
        try:
            # A copy of a shared mount is its peer: what is mounted in it would come up outside.
            mounts.mount_setattr(tree, propagation=mounts.MS.SLAVE, recursive=True)
            if user_fd is not None and root.id_mapped:
                mounts.idmap(tree, user_fd)
        except BaseException:
            os.close(tree)
            raise
        return tree
    options += root.options
    if user_fd is None or not root.id_mapped:
        return mounts.overlay(root.lowers, root.upper, root.work, options=options)
    return _mapped_overlay(root, user_fd, owner, options)


def _mapped_overlay(
    root: OverlayRoot, user_fd: int, owner: tuple[int, int], options: Options
) -> int:
    trees: list[int] = []

    def mapped(path: str) -> int:
        tree = mounts.clone_tree(path)
        trees.append(tree)
        mounts.idmap(tree, user_fd)
        return tree

    try:
        lowers = [mapped(path) for path in root.lowers]
        upper = work = None
        parent = None
        if root.upper is not None and root.work is not None:
            directory = os.path.dirname(root.upper)
            if os.path.dirname(root.work) != directory:
                raise OSError(22, "upper and work directories need one parent", root.upper)
            parent = mapped(directory)
            upper, work = os.path.basename(root.upper), os.path.basename(root.work)
        with acting_as(owner):
            try:
                names = [f"/proc/self/fd/{tree}" for tree in lowers]
                return _stack(names, _below(parent), upper, work, options)
            except OSError as error:
                if error.errno != 22:
                    raise
            return _stack_attached(lowers, parent, upper, work, options)
    finally:
        for tree in trees:
            os.close(tree)


def _below(parent: int | None) -> str:
    return "" if parent is None else f"/proc/self/fd/{parent}"


def _stack(
    lowers: list[str], parent: str, upper: str | None, work: str | None, options: Options
) -> int:
    return mounts.overlay(
        lowers,
        f"{parent}/{upper}" if upper else None,
        f"{parent}/{work}" if work else None,
        options=(*options, ("xino", "off")) if not upper else options,
    )


def _stack_attached(
    lowers: list[int], parent: int | None, upper: str | None, work: str | None, options: Options
) -> int:
    """The same for kernels that want attached layers."""
    namespaces.unshare(namespaces.CLONE.NEWNS)
    mounts.mount(None, "/", None, mounts.MS.REC | mounts.MS.SLAVE)
    stage = "/proc/self/fd/{}"
    scratch = mounts.new_filesystem("tmpfs", (("mode", "0711"),))
    mounts.move_mount(scratch, "/tmp" if os.path.isdir("/tmp") else "/mnt")
    try:
        at = stage.format(scratch)
        names = []
        for index, tree in enumerate(lowers):
            os.mkdir(f"{at}/{index}")
            mounts.move_mount(tree, f"{at}/{index}")
            names.append(f"{at}/{index}")
        if parent is not None:
            os.mkdir(f"{at}/w")
            mounts.move_mount(parent, f"{at}/w")
        return _stack(names, f"{at}/w", upper, work, options)
    finally:
        mounts.umount2(stage.format(scratch), mounts.MNT.DETACH)
        os.close(scratch)


class acting_as:
    """File system ids of the container's root, with the capabilities that setfsuid drops."""

    def __init__(self, owner: tuple[int, int]) -> None:
        self.uid, self.gid = owner

    def __enter__(self) -> None:
        self.had = (process.setfsgid(self.gid), process.setfsuid(self.uid))
        _, permitted, inheritable = capabilities.capget()
        capabilities.capset(permitted, permitted, inheritable)

    def __exit__(self, *_: object) -> None:
        process.setfsuid(self.had[1])
        process.setfsgid(self.had[0])
