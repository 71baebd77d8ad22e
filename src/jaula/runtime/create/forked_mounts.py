"""Mounts that a child process makes in a mount namespace of its own, as detached trees.

Facts about id-mapped mounts (mount_setattr(2)): the map is set on the root of a detached tree only,
for the whole tree or for that one mount, and a recursive call fails if one mount of the tree cannot
be mapped. So a tree with such mounts is cloned mount by mount, each clone is mapped if its file
system permits, and the clones are put together again.

Facts about propagation: a clone of a shared mount is its peer, and what is mounted on it appears on
the host. So clones become slaves before anything is mounted on them.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable

from jaula.errors import RuntimeFailure
from jaula.kernel import mountinfo, mounts, namespaces
from jaula.kernel.mountinfo import MountInfo
from jaula.kernel.mounts import MS
from jaula.kernel.namespaces import CLONE
from jaula.kernel.openat2 import RESOLVE, openat2
from jaula.runtime import seqpacket
from jaula.runtime.create import mount_options
from jaula.runtime.create.mount_options import MountOptions
from jaula.runtime.init.step import locked_error

_CANNOT_BE_MAPPED = (errno.EINVAL, errno.EPERM)
"""Errors of a file system without id maps, and of a mount that has a map already."""


def tree_from_child(make: Callable[[], int]) -> int:
    """Call ``make`` in a forked child and return the detached mount that it returns there.

    :raises OSError: when ``make`` does.
    :raises RuntimeFailure: when ``make`` does.
    """
    ours, theirs = seqpacket.pair()
    pid = os.fork()
    if pid == 0:
        try:
            seqpacket.send(theirs, b"T", (make(),))
        except OSError as error:
            seqpacket.send(theirs, f"E{error.errno} {error.strerror}".encode(errors="replace"))
        except RuntimeFailure as failure:
            seqpacket.send(theirs, f"F{failure.message}".encode(errors="surrogateescape"))
        finally:
            os._exit(0)
    theirs.close()
    try:
        data, fds = seqpacket.receive(ours)
    finally:
        ours.close()
        os.waitpid(pid, 0)
    if data == b"T":
        return fds[0]
    if not data:
        raise OSError(errno.ECHILD, "the process that makes a mount died")
    if data[:1] == b"F":
        raise RuntimeFailure(data[1:].decode(errors="surrogateescape"))
    number, _, text = data[1:].decode(errors="replace").partition(" ")
    raise OSError(int(number), text)


def filesystem_in_namespace(
    namespace: tuple[int, CLONE],
    fstype: str,
    data: tuple[tuple[str, str | None], ...],
    attributes: int,
) -> int:
    """Return a detached mount of a file system that shows a namespace: proc, sysfs or mqueue.

    ``namespace`` is a descriptor and its type. A process enters a pid namespace only as a child.

    :raises OSError: when the namespace has no process any more, or the mount is refused.
    """

    def make() -> int:
        return mounts.new_filesystem(fstype, data, attributes, source=fstype)

    def enter() -> int:
        namespaces.setns(*namespace)
        return tree_from_child(make) if namespace[1] == CLONE.NEWPID else make()

    return tree_from_child(enter)


def shared_with_namespace(namespace: int, source: str, clone: Callable[[], int]) -> int:
    """Return the detached mount of ``source`` that ``clone`` makes in a mount namespace.

    It is a peer of the mount of ``source`` there: what is mounted in one appears in the other.

    :raises OSError: when ``clone`` does.
    :raises RuntimeFailure: when the mount of ``source`` is not shared.
    """

    def make() -> int:
        namespaces.setns(namespace, CLONE.NEWNS)
        _check_shared(source)
        return clone()

    return tree_from_child(make)


def _check_shared(source: str) -> None:
    fd = os.open(source, os.O_PATH | os.O_CLOEXEC)
    try:
        number = mounts.mount_id(fd)
    finally:
        os.close(fd)
    for mount in mountinfo.read():
        if mount.mount_id == number and not any(
            tag.startswith("shared:") for tag in mount.propagation
        ):
            raise RuntimeFailure(
                f"path {source} is mounted on {mount.target} but it is not a shared mount"
            )


def map_what_can_be(tree: int, user_fd: int) -> int:
    """Return a copy of a detached tree in which every mount that can be id-mapped is.

    The copies are slaves of the mounts of the host.

    :raises OSError: when a mount cannot be cloned.
    """
    return tree_from_child(lambda: _map_each(tree, user_fd))


def refuse_locked(tree: int, options: MountOptions) -> int:
    """Return a copy of a detached tree if ``options`` clear no flag that a user namespace keeps.

    The mounts of a detached tree are in no mount table, so the tree is attached in a mount
    namespace of a child. The copy is a slave of the host's mounts.

    :raises OSError: EPERM when a flag would be cleared.
    """
    return tree_from_child(lambda: _refuse_locked(tree, options))


def _refuse_locked(tree: int, options: MountOptions) -> int:
    namespaces.unshare(CLONE.NEWNS)
    mounts.mount(None, "/", None, MS.REC | MS.PRIVATE)
    staging = mounts.new_filesystem("tmpfs", (("mode", "0700"),))
    directory = os.path.realpath("/tmp" if os.path.isdir("/tmp") else "/mnt")
    mounts.move_mount(staging, directory)
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        os.mkdir("tree", 0o700, dir_fd=staging)
    else:
        os.close(os.open("tree", os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=staging))
    mounts.mount_setattr(tree, propagation=MS.SLAVE, recursive=True)
    mounts.move_mount(tree, f"{directory}/tree")
    top = mounts.mount_id(tree)
    for mount in mountinfo.read():
        if mount.mount_id != top and not mount.target.startswith(f"{directory}/tree/"):
            continue
        flags = mount_options.statvfs_flags(mount.options)
        kept = mount_options.locked_flags((options.recursive_set, options.recursive_clear), flags)
        if mount.mount_id == top:
            attributes = (options.set | options.recursive_set, options.clear)
            kept += mount_options.locked_flags(attributes, flags)
        if kept:
            below = mount.target.removeprefix(f"{directory}/tree/")
            where = "the source" if mount.mount_id == top else f"the mount at {below} of the source"
            raise locked_error(tuple(dict.fromkeys(kept)), where)
    return mounts.clone_tree("", recursive=True, dir_fd=tree)


def _map_each(tree: int, user_fd: int) -> int:
    namespaces.unshare(CLONE.NEWNS)
    mounts.mount(None, "/", None, MS.REC | MS.PRIVATE)
    staging = mounts.new_filesystem("tmpfs", (("mode", "0700"),))
    directory = os.path.realpath("/tmp" if os.path.isdir("/tmp") else "/mnt")
    mounts.move_mount(staging, directory)
    for name in ("source", "copy"):
        os.mkdir(name, 0o700, dir_fd=staging)
    mounts.mount_setattr(tree, propagation=MS.SLAVE, recursive=True)
    mounts.move_mount(tree, f"{directory}/source")
    copy = -1
    for path, mount_fd in _visible(f"{directory}/source", mountinfo.read()):
        clone = mounts.clone_tree("", dir_fd=mount_fd)
        mounts.mount_setattr(clone, propagation=MS.SLAVE)
        try:
            mounts.idmap(clone, user_fd)
        except OSError as error:
            if error.errno not in _CANNOT_BE_MAPPED:
                raise
        if copy < 0:
            mounts.move_mount(clone, f"{directory}/copy")
            copy = clone
            continue
        target = openat2(copy, path, os.O_PATH, resolve=RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS)
        mounts.move_mount(clone, "", to_fd=target)
        os.close(target)
        os.close(clone)
        os.close(mount_fd)
    return mounts.clone_tree("", recursive=True, dir_fd=copy)


def _visible(top: str, table: tuple[MountInfo, ...]) -> list[tuple[str, int]]:
    """Return (path below ``top``, descriptor) of each mount that no other covers, parents first."""
    below = [mount for mount in table if mount.target == top or mount.target.startswith(f"{top}/")]
    result = []
    for mount in sorted(below, key=lambda row: row.target.count("/")):
        fd = os.open(mount.target, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        if mounts.mount_id(fd) == mount.mount_id:
            result.append((mount.target[len(top) :].lstrip("/"), fd))
        else:
            os.close(fd)
    return result
