"""The container's root file system as a detached mount.

Follows the kernel's Documentation/filesystems/overlayfs.rst and mount_setattr(2) (id-mapped
mounts). Files keep their plain ids on disk; the map is applied to layers and to the writable
directory below the overlay, because an overlay itself cannot be id-mapped.

Facts: upper and work must lie on one mount, so their common parent is cloned and mapped once. Linux
before 6.15 takes only attached mounts as overlay layers; there the clones are attached for a moment
on a tmpfs in a mount namespace of the calling process's own.
"""

from __future__ import annotations

import errno
import os
import stat

from jaula.errors import RuntimeFailure
from jaula.kernel import capabilities, mounts, namespaces, process
from jaula.kernel.namespaces import CLONE
from jaula.kernel.paths import RESOLVE, openat2
from jaula.runtime.create import devices, mount_options, mount_plan
from jaula.runtime.create.id_maps import rows
from jaula.runtime.create.process import FdStack
from jaula.runtime.init.step import NODES, NULL, shape
from jaula.spec import bind_root
from jaula.spec.rootfs import DirectoryRoot, OverlayRoot, RootSource
from jaula.spec.runtime import Mount, Spec

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


def prepare_mounts(
    spec: Spec,
    *,
    user_fd: int | None,
    owner: tuple[int, int],
    keep: FdStack,
    bundle: str = "",
    unprivileged: bool = False,
    selinux: bool = False,
) -> dict[int, int]:
    """Detached mounts for binds and /dev by their index in the spec, and nodes for the others.

    ``bundle`` is what relative sources are relative to. ``unprivileged`` says that this runs in the
    container's own user and mount namespace. Raises ``RuntimeFailure`` or ``InvalidRequest``.
    """
    assert spec.linux is not None
    if unprivileged:
        owner = (0, 0)
    ready: dict[int, int] = {}
    nodes = devices.device_nodes(spec.linux.devices)
    bounds = bind_root.decode(spec.annotations.get(bind_root.ANNOTATION, ""))
    labels = (spec.linux.mount_label,) if selinux and spec.linux.mount_label else ()
    for index, mount in enumerate(spec.mounts):
        options = mount_options.for_mount(mount)
        if not mount_plan.needs_preparation(mount, options):
            continue
        try:
            if mount_plan.is_device_directory(mount):
                tree = keep.add(devices.make_dev(options, nodes, owner, labels))
                ready[index] = tree
                _keep_null(tree, ready, keep)
            else:
                source = os.path.join(bundle, mount.source or "")
                tree = open_source(
                    source, bounds.get(mount.source or ""), recursive=options.recursive
                )
                ready[index] = keep.add(_bind(tree, source, mount, options, user_fd))
        except OSError as error:
            raise RuntimeFailure(f"mount {mount.source} at {mount.destination}: {error}") from error
    if not unprivileged and mount_plan.needs_store(spec, nodes):
        try:
            ready[NODES] = keep.add(devices.make_node_store(nodes, owner))
        except PermissionError:
            return ready  # we run in a user namespace: the host's nodes are bound
        flags = os.O_PATH | os.O_NOFOLLOW
        ready[NULL] = keep.add(os.open(devices.NULL_NAME, flags, dir_fd=ready[NODES]))
    return ready


def _keep_null(tree: int, ready: dict[int, int], keep: FdStack) -> None:
    """The null device of a /dev made here covers masked files, if the spec makes no other of it."""
    try:
        fd = keep.add(os.open("null", os.O_PATH | os.O_NOFOLLOW, dir_fd=tree))
    except FileNotFoundError:
        return
    facts = os.fstat(fd)
    if stat.S_ISCHR(facts.st_mode) and facts.st_rdev == os.makedev(1, 3):
        ready[NULL] = fd


def open_source(source: str, bound: str | None, *, recursive: bool) -> int:
    """A detached mount of the source; with ``bound``, of what no link leads out of below it."""
    if bound is None or source == bound:
        return mounts.clone_tree(source, recursive=recursive)
    directory = os.open(bound, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        rest = bind_root.below(source, bound)
        if rest is None:
            raise OSError(errno.EXDEV, f"it does not lie below {bound}", source)
        try:
            resolve = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS | RESOLVE.NO_MAGICLINKS
            place = openat2(directory, rest, os.O_PATH, resolve=resolve)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise OSError(errno.ELOOP, f"it has a symbolic link below {bound}", source) from None
    finally:
        os.close(directory)
    try:
        return mounts.clone_tree("", recursive=recursive, dir_fd=place)
    finally:
        os.close(place)


def _bind(
    tree: int, source: str, mount: Mount, options: mount_options.MountOptions, user_fd: int | None
) -> int:
    try:
        if options.idmap:
            _idmap(tree, source, mount, options, user_fd)
        private = ((int(mounts.MS.PRIVATE), True),)
        shape(
            tree,
            (options.set, options.clear),
            (options.recursive_set, options.recursive_clear),
            options.propagation or private,
        )
    except BaseException:
        os.close(tree)
        raise
    return tree


def _idmap(
    tree: int, source: str, mount: Mount, options: mount_options.MountOptions, user_fd: int | None
) -> None:
    """Show owners as the mount's own mappings say or, without, as the container's."""
    made = -1
    if mount.uid_mappings or mount.gid_mappings:
        uids, gids = rows(mount.uid_mappings), rows(mount.gid_mappings)
        made = user_fd = namespaces.make(CLONE(0), uids, gids)["user"]
    if user_fd is None:
        raise OSError(22, "an id-mapped mount needs mappings or a user namespace", source)
    try:
        mounts.idmap(tree, user_fd, recursive=options.idmap_recursive)
    except OSError as error:
        if error.errno == 22:
            raise OSError(
                22, "its file system, or one mounted below it, cannot be id-mapped", source
            ) from None
        raise
    finally:
        if made >= 0:
            os.close(made)
