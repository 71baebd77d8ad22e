"""The container's root file system and its bind mounts, as detached mounts.

Follows the kernel's Documentation/filesystems/overlayfs.rst and mount_setattr(2) (id-mapped
mounts). Files keep their plain ids on disk. The map is applied to the layers and to the writable
directory below the overlay, because an overlay itself cannot be id-mapped.

Facts: upper and work must be on one mount, so their common parent is cloned and mapped once. Linux
before 6.15 takes only attached mounts as overlay layers. There the clones are attached for a moment
on a tmpfs, in a mount namespace of the calling process's own.

The last close of a detached mount waits for a grace period of RCU: mostly 0.2 ms, on a busy machine
up to 20. So the caller closes the clones when no other process waits for it.

Bind mounts and /dev are created with the host's view before init exists; init attaches them where
the plan says (:mod:`jaula.runtime.create.mount_plan`). An unprivileged user has no privileges over
the host's mounts: there init calls :func:`prepare_mounts` itself, in its own namespaces.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Mapping

from jaula.errors import RuntimeFailure
from jaula.kernel import capabilities, mounts, namespaces, process_calls
from jaula.kernel.namespaces import CLONE
from jaula.kernel.openat2 import RESOLVE, openat2
from jaula.runtime.create import device_nodes, forked_mounts, mount_options, mount_plan
from jaula.runtime.create.clone_process import FdStack
from jaula.runtime.create.namespace_plan import FILE_SYSTEMS, KINDS
from jaula.runtime.create.user_namespace_maps import rows
from jaula.runtime.init.step import NODES, NULL, set_attributes
from jaula.spec import annotations as spec_annotations
from jaula.spec.rootfs import DirectoryRoot, OverlayRoot, RootSource
from jaula.spec.runtime_spec import Mount, Spec

Options = tuple[tuple[str, str | None], ...]
"""Further options of an overlay."""


def mount_root(
    root: RootSource,
    user_fd: int | None,
    owner: tuple[int, int],
    *,
    context: str | None = None,
    clones: FdStack | None = None,
) -> int:
    """Create a detached mount of the root, id-mapped if ``user_fd`` is set.

    ``owner`` is the host uid and gid of the container's root. ``context`` is the SELinux label that
    all files of an overlay show; files of a directory keep their own. ``clones`` gets the
    descriptors of the layers' mounts, which are of no use any more. Without it they are closed.

    :raises OSError: when a mount cannot be created.
    """
    options: Options = (("context", context),) if context else ()
    if isinstance(root, DirectoryRoot):
        tree = mounts.clone_tree(root.path, recursive=not root.id_mapped)
        try:
            # A clone of a shared mount is its peer: mounts in it would propagate to the host.
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
    if clones is not None:
        return _mapped_overlay(root, user_fd, owner, options, clones)
    clones = FdStack()
    try:
        return _mapped_overlay(root, user_fd, owner, options, clones)
    finally:
        clones.close()


def _mapped_overlay(
    root: OverlayRoot, user_fd: int, owner: tuple[int, int], options: Options, clones: FdStack
) -> int:
    def mapped(path: str) -> int:
        tree = clones.add(mounts.clone_tree(path))
        mounts.idmap(tree, user_fd)
        return tree

    lowers = [mapped(path) for path in root.lowers]
    upper = work = None
    parent = None
    if root.upper is not None and root.work is not None:
        directory = os.path.dirname(root.upper)
        if os.path.dirname(root.work) != directory:
            raise OSError(
                errno.EINVAL, "upper and work directories must have the same parent", root.upper
            )
        parent = mapped(directory)
        upper, work = os.path.basename(root.upper), os.path.basename(root.work)
    with acting_as(owner):
        try:
            names = [f"/proc/self/fd/{tree}" for tree in lowers]
            return _overlay(names, _fd_path(parent), upper, work, options)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        return _overlay_attached(lowers, parent, upper, work, options)


def _fd_path(parent: int | None) -> str:
    return "" if parent is None else f"/proc/self/fd/{parent}"


def _overlay(
    lowers: list[str], parent: str, upper: str | None, work: str | None, options: Options
) -> int:
    return mounts.overlay(
        lowers,
        f"{parent}/{upper}" if upper else None,
        f"{parent}/{work}" if work else None,
        options=(*options, ("xino", "off")) if not upper else options,
    )


def _overlay_attached(
    lowers: list[int], parent: int | None, upper: str | None, work: str | None, options: Options
) -> int:
    """Mount an overlay of attached layers, for kernels that refuse detached ones."""
    namespaces.unshare(namespaces.CLONE.NEWNS)
    mounts.mount(None, "/", None, mounts.MS.REC | mounts.MS.SLAVE)
    fd_path = "/proc/self/fd/{}"
    staging = mounts.new_filesystem("tmpfs", (("mode", "0711"),))
    mounts.move_mount(staging, "/tmp" if os.path.isdir("/tmp") else "/mnt")
    try:
        staging_path = fd_path.format(staging)
        names = []
        for index, tree in enumerate(lowers):
            os.mkdir(f"{staging_path}/{index}")
            mounts.move_mount(tree, f"{staging_path}/{index}")
            names.append(f"{staging_path}/{index}")
        if parent is not None:
            os.mkdir(f"{staging_path}/w")
            mounts.move_mount(parent, f"{staging_path}/w")
        return _overlay(names, f"{staging_path}/w", upper, work, options)
    finally:
        mounts.umount2(fd_path.format(staging), mounts.MNT.DETACH)
        os.close(staging)


class acting_as:
    """Act with the file system ids of the container's root, keeping all capabilities."""

    def __init__(self, owner: tuple[int, int]) -> None:
        self.uid, self.gid = owner

    def __enter__(self) -> None:
        self.parent, self.parent_death_signal = os.getppid(), process_calls.parent_death_signal()
        self.former = (process_calls.setfsgid(self.gid), process_calls.setfsuid(self.uid))
        _, permitted, inheritable = capabilities.capget()
        capabilities.capset(permitted, permitted, inheritable)

    def __exit__(self, *_: object) -> None:
        process_calls.setfsuid(self.former[1])
        process_calls.setfsgid(self.former[0])
        if self.parent_death_signal:
            process_calls.die_with_parent(self.parent)


def prepare_mounts(
    spec: Spec,
    *,
    user_fd: int | None,
    owner: tuple[int, int],
    fd_stack: FdStack,
    bundle: str = "",
    unprivileged: bool = False,
    selinux: bool = False,
    inside: Collection[int] = (),
    foreign: Mapping[str, int] | None = None,
    host_mounts: int = -1,
    made: Collection[int] | None = None,
) -> dict[int, int]:
    """Create detached mounts for binds and /dev by their index in the spec, and device nodes.

    Relative sources are relative to ``bundle``. ``inside`` are the binds that init makes itself.
    ``unprivileged`` says that this process is in the container's own user and mount namespace.
    ``foreign`` are descriptors of joined namespaces, by type, that another user namespace owns.
    ``host_mounts`` is a mount namespace in which shared binds, and those that an annotation lists,
    are made; -1 for this process's own. ``made`` are the mounts that a spare init has. It has the
    nodes as well. None: there is no spare init.

    :raises RuntimeFailure: when a mount cannot be created.
    :raises InvalidRequest: when a mount of the spec is invalid.
    """
    assert spec.linux is not None
    if unprivileged:
        owner = (0, 0)
    prepared: dict[int, int] = {}
    nodes = device_nodes.device_nodes(spec.linux.devices)
    bind_roots = spec_annotations.decode_bind_roots(
        spec.annotations.get(spec_annotations.BIND_ROOT_ANNOTATION, "")
    )
    optional = spec_annotations.decode_destinations(
        spec.annotations.get(spec_annotations.IDMAP_OPTIONAL_ANNOTATION, "")
    )
    of_host = spec_annotations.decode_destinations(
        spec.annotations.get(spec_annotations.HOST_BINDS_ANNOTATION, "")
    )
    labels = (spec.linux.mount_label,) if selinux and spec.linux.mount_label else ()
    for index, mount in enumerate(spec.mounts):
        options = mount_options.for_mount(mount)
        if index in inside or (made and index in made):
            continue
        if not mount_plan.needs_preparation(mount, options, foreign or ()):
            continue
        try:
            if mount_plan.is_device_directory(mount):
                tree = fd_stack.add(device_nodes.make_dev(options, nodes, owner, labels))
                prepared[index] = tree
                _add_null(tree, prepared, fd_stack)
            elif not options.bind:
                prepared[index] = fd_stack.add(_of_namespace(mount, options, foreign or {}))
            else:
                source = os.path.join(bundle, mount.source or "")
                bind_root = bind_roots.get(mount.source or "")

                def clone(
                    source: str = source,
                    bind_root: str | None = bind_root,
                    recursive: bool = options.recursive,
                ) -> int:
                    return open_source(source, bind_root, recursive=recursive)

                if options.shared and host_mounts >= 0 and user_fd is None:
                    tree = forked_mounts.shared_with_namespace(host_mounts, source, clone)
                elif host_mounts >= 0 and mount.destination in of_host:
                    tree = namespaces.in_mount_namespace(host_mounts, clone)
                else:
                    tree = clone()
                is_optional = mount.destination in optional
                prepared[index] = fd_stack.add(
                    _bind(tree, source, mount, options, user_fd, is_optional=is_optional)
                )
        except OSError as error:
            raise RuntimeFailure(f"mount {mount.source} at {mount.destination}: {error}") from error
    if not unprivileged and made is None and mount_plan.needs_store(spec, nodes):
        try:
            prepared[NODES] = fd_stack.add(device_nodes.make_node_store(nodes, owner))
        except PermissionError:
            return prepared  # this process is in a user namespace: the host's nodes are bound
        flags = os.O_PATH | os.O_NOFOLLOW
        prepared[NULL] = fd_stack.add(
            os.open(device_nodes.NULL_NAME, flags, dir_fd=prepared[NODES])
        )
    return prepared


def _of_namespace(
    mount: Mount, options: mount_options.MountOptions, foreign: Mapping[str, int]
) -> int:
    """Mount a file system that shows a joined namespace, in that namespace."""
    kind = FILE_SYSTEMS[mount.type or ""]
    return forked_mounts.filesystem_in_namespace(
        (foreign[kind], KINDS[kind]), mount.type or "", options.data, options.set
    )


def _add_null(tree: int, prepared: dict[int, int], fd_stack: FdStack) -> None:
    """Use the null device of our /dev to cover masked files, if the spec does not redefine it."""
    try:
        fd = fd_stack.add(os.open("null", os.O_PATH | os.O_NOFOLLOW, dir_fd=tree))
    except FileNotFoundError:
        return
    st = os.fstat(fd)
    if stat.S_ISCHR(st.st_mode) and st.st_rdev == os.makedev(1, 3):
        prepared[NULL] = fd


def open_source(source: str, bind_root_dir: str | None, *, recursive: bool) -> int:
    """Create a detached mount of a bind source.

    With a bind root the source must be below that directory, and no symbolic link is followed
    there.
    """
    if bind_root_dir is None or source == bind_root_dir:
        return mounts.clone_tree(source, recursive=recursive)
    directory = os.open(bind_root_dir, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        relative = spec_annotations.path_below(source, bind_root_dir)
        if relative is None:
            raise OSError(errno.EXDEV, f"not below {bind_root_dir}", source)
        try:
            resolve = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS | RESOLVE.NO_MAGICLINKS
            source_fd = openat2(directory, relative, os.O_PATH, resolve=resolve)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            raise OSError(errno.ELOOP, f"symbolic link below {bind_root_dir}", source) from None
    finally:
        os.close(directory)
    try:
        return mounts.clone_tree("", recursive=recursive, dir_fd=source_fd)
    finally:
        os.close(source_fd)


def _bind(
    tree: int,
    source: str,
    mount: Mount,
    options: mount_options.MountOptions,
    user_fd: int | None,
    *,
    is_optional: bool,
) -> int:
    """Return the mount with its map and attributes; ``tree`` is closed if that is another one.

    ``is_optional`` says that mounts without a possible id map are used as they are.

    A clone of a shared mount is its peer, and the kernel attaches it in any mount namespace. It
    becomes a slave first unless the option says shared, or if a user namespace owns the container's
    mounts: the mounts of such a container never reach another namespace (mount_namespaces(7)).
    """
    try:
        if options.idmap:
            mapped = _idmap(tree, source, mount, options, user_fd, is_optional=is_optional)
            if mapped != tree:
                os.close(tree)
                tree = mapped
        propagation = options.propagation or ((int(mounts.MS.PRIVATE), True),)
        if user_fd is not None or not options.shared:
            propagation = ((int(mounts.MS.SLAVE), True), *propagation)
        if user_fd is not None and _may_clear_locked(tree, options):
            judged = forked_mounts.refuse_locked(tree, options)
            os.close(tree)
            tree = judged
        set_attributes(
            tree,
            (options.set, options.clear),
            (options.recursive_set, options.recursive_clear),
            propagation,
        )
    except BaseException:
        os.close(tree)
        raise
    return tree


def _may_clear_locked(tree: int, options: mount_options.MountOptions) -> bool:
    """Return whether the options may clear a flag that a user namespace has to keep."""
    if options.recursive_clear:
        return True
    flags = os.fstatvfs(tree).f_flag
    return bool(mount_options.locked_flags((options.set, options.clear), flags))


def _idmap(
    tree: int,
    source: str,
    mount: Mount,
    options: mount_options.MountOptions,
    user_fd: int | None,
    *,
    is_optional: bool,
) -> int:
    """Id-map a bind mount by its own mappings or, without any, by the container's.

    Return the mount, which is another one if only a part of it can be mapped.
    """
    userns_fd = -1
    if mount.uid_mappings or mount.gid_mappings:
        uids, gids = rows(mount.uid_mappings), rows(mount.gid_mappings)
        userns_fd = user_fd = namespaces.create_namespaces(CLONE(0), uids, gids)["user"]
    if user_fd is None:
        raise OSError(errno.EINVAL, "an id-mapped mount needs mappings or a user namespace", source)
    try:
        mounts.idmap(tree, user_fd, recursive=options.idmap_recursive)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM) or not is_optional:
            if error.errno == errno.EINVAL:
                raise OSError(
                    errno.EINVAL,
                    "the file system, or one mounted below it, cannot be id-mapped",
                    source,
                ) from None
            raise
        if options.idmap_recursive and not options.shared and stat.S_ISDIR(os.fstat(tree).st_mode):
            return forked_mounts.map_what_can_be(tree, user_fd)
    finally:
        if userns_fd >= 0:
            os.close(userns_fd)
    return tree
