"""The root directory of a debug session (``jaula debug``).

The session is an exec'd process (:mod:`jaula.runtime.exec_process`) with a mount namespace of its
own. Its root is a read-only tmpfs. On it each entry of the target's root is mounted, and the
toolbox image at ``/.debug``. The target's own files are the same as the container sees, writable
where they are. What the target has at ``/.debug`` is neither followed nor changed.

Facts: a mount needs a mount point, and one in the container's root would be a change of its files.
That is why the root is another one, and why a new file in ``/`` itself is refused (EROFS). Mounts
can be cloned in their own namespace only, so they are cloned before unshare(2). The namespace
belongs to the container's user namespace, like that of the container: no mount is locked, and none
of the session's propagates to the container.

All calls happen after the container's namespaces are joined, with the rights of its root user.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from typing import NamedTuple

from jaula.errors import RuntimeFailure
from jaula.kernel import mounts, namespaces
from jaula.kernel.mounts import MNT, MOUNT_ATTR, MS
from jaula.kernel.namespaces import CLONE
from jaula.kernel.openat2 import RESOLVE, openat2

DIRECTORY = ".debug"
"""Name of the directory of the tools in the session's root."""

MAX_ENTRIES = 1000  # of the target's root directory
_SIZE = "256k"  # bytes of the tmpfs, for names and links


class _Entry(NamedTuple):
    """An entry of a root directory: a detached mount of it, or the target of a symbolic link."""

    name: str
    is_directory: bool
    tree: int = -1
    link: str = ""


def enter(toolbox: int, target_root: int, context: str | None) -> None:
    """Enter a new mount namespace, in which the root is the target's with the tools.

    ``toolbox`` is a detached mount. ``target_root`` is a directory in this mount namespace; -1 is
    the present root. ``context`` is the SELinux label of the new root directory. The process has
    joined the container's namespaces and is root in its user namespace.

    :raises RuntimeFailure: when the target's root directory has more than :data:`MAX_ENTRIES`.
    :raises OSError: when a mount cannot be made.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    root = os.open("/", flags) if target_root < 0 else os.open(".", flags, dir_fd=target_root)
    entries = _clone_entries(root)
    namespaces.unshare(CLONE.NEWNS)
    mounts.mount(None, "/", None, MS.REC | MS.SLAVE)
    status = os.fstat(root)
    options = [("mode", f"{stat.S_IMODE(status.st_mode):o}"), ("size", _SIZE)]
    if context:
        options.append(("context", context))
    attributes = MOUNT_ATTR.NOSUID | MOUNT_ATTR.NODEV
    tree = mounts.new_filesystem("tmpfs", options, attributes)
    _fill(tree, entries, toolbox)
    mounts.mount_setattr(tree, set=MOUNT_ATTR.RDONLY)
    mounts.mount_setattr(tree, propagation=MS.SLAVE, recursive=True)
    _change_root(tree)


def _clone_entries(root: int) -> list[_Entry]:
    """Return the entries of a directory, with their mounts and what is mounted below them."""
    with os.scandir(root) as iterator:
        names = [entry.name for entry in itertools.islice(iterator, MAX_ENTRIES + 1)]
    if len(names) > MAX_ENTRIES:
        raise RuntimeFailure(
            f"the root directory of the target has more than {MAX_ENTRIES} entries"
        )
    entries = []
    for name in names:
        if name == DIRECTORY:
            continue
        try:
            flags = os.O_PATH | os.O_NOFOLLOW
            resolve = RESOLVE.BENEATH | RESOLVE.NO_SYMLINKS | RESOLVE.NO_MAGICLINKS
            fd = openat2(root, name, flags, resolve=resolve)
        except FileNotFoundError:
            continue  # the container has removed it meanwhile
        mode = os.fstat(fd).st_mode
        if stat.S_ISLNK(mode):
            entries.append(_Entry(name, False, link=os.readlink("", dir_fd=fd)))
        else:
            tree = mounts.clone_tree("", recursive=True, dir_fd=fd)
            entries.append(_Entry(name, stat.S_ISDIR(mode), tree))
        os.close(fd)
    return entries


def _fill(root: int, entries: list[_Entry], toolbox: int) -> None:
    """Make and mount the entries below a new root, and the toolbox."""
    mounts.move_mount(root, "/")  # before Linux 6.15, nothing can be attached to a detached mount
    for entry in (*entries, _Entry(DIRECTORY, True, toolbox)):
        if entry.tree < 0:
            os.symlink(entry.link, entry.name, dir_fd=root)
            continue
        if entry.is_directory:
            os.mkdir(entry.name, 0o755, dir_fd=root)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            os.close(os.open(entry.name, flags, 0o644, dir_fd=root))
        target = os.open(entry.name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
        mounts.move_mount(entry.tree, "", to_fd=target)
        os.close(target)
        os.close(entry.tree)


def _change_root(root: int) -> None:
    """Make a mounted directory ``/``, and detach the former root."""
    os.fchdir(root)
    try:
        mounts.pivot_root(".", ".")
        mounts.umount2(".", MNT.DETACH)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        os.chroot(".")  # the container's own root was not pivoted to either
    os.chdir("/")
