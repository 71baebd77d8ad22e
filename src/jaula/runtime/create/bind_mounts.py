"""Mounts that are made with the host's view before the container's init exists.

Bind mounts and device nodes: detached, and attached by init where the plan says
(:mod:`jaula.runtime.create.mount_plan`). An ordinary user has no rights over the host's mounts; there init
calls this itself, in its own namespaces.
"""

from __future__ import annotations

import errno
import os
import stat

from jaula.errors import RuntimeFailure
from jaula.kernel import mounts, namespaces
from jaula.kernel.namespaces import CLONE
from jaula.kernel.paths import RESOLVE, openat2
from jaula.runtime.create import devices, mount_options, mount_plan
from jaula.runtime.create.fd_stack import FdStack
from jaula.runtime.init.step import NODES, NULL, shape
from jaula.spec.annotations import BIND_ROOT_ANNOTATION, decode_bind_roots, path_below
from jaula.spec.runtime import IDMapping, Mount, Spec


def prepare(
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
    nodes = devices.wanted(spec.linux.devices)
    bounds = decode_bind_roots(spec.annotations.get(BIND_ROOT_ANNOTATION, ""))
    labels = (spec.linux.mount_label,) if selinux and spec.linux.mount_label else ()
    for index, mount in enumerate(spec.mounts):
        options = mount_options.of(mount)
        if not mount_plan.needs_preparation(mount, options):
            continue
        try:
            if mount_plan.is_device_directory(mount):
                tree = keep.add(devices.make(options, nodes, owner, labels))
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
            ready[NODES] = keep.add(devices.store(nodes, owner))
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
        rest = path_below(source, bound)
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
        uids, gids = _rows(mount.uid_mappings), _rows(mount.gid_mappings)
        made = user_fd = namespaces.create_namespaces(CLONE(0), uids, gids)["user"]
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


def _rows(mappings: tuple[IDMapping, ...]) -> list[tuple[int, int, int]]:
    return [(row.container_id, row.host_id, row.size) for row in mappings]
