"""The changes of a container: compare an upper directory or a whole tree with the lower tree.

Follows ``docker diff``: a directory is modified if an entry of it or its own metadata changed. The
entries of a deleted directory are not listed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from jaula.storage.drivers.storage_driver import Change, ChangeKind
from jaula.storage.trees import is_opaque, is_whiteout, open_subdirectory, walk


def overlay_differences(
    upper: int, lower_root: int, *, mount_points: bool = False
) -> dict[bytes, ChangeKind]:
    """Return the differences of an overlay's upper directory.

    ``lower_root`` is a descriptor of the merged layers. Paths are relative. The parent directories
    of a change are included as modified. The mount points of the engine are not, unless
    ``mount_points`` is set.
    """
    differences: dict[bytes, ChangeKind] = {}
    for path, directory, entries in walk(upper):
        with _lower(lower_root, path) as lower:
            for name, status in entries:
                file = _join(path, name)
                lower_status = _stat(lower, name)
                if is_whiteout(status):
                    if lower_status is not None:
                        differences[file] = ChangeKind.DELETED
                elif lower_status is None:
                    differences[file] = ChangeKind.ADDED
                elif not (
                    stat.S_ISDIR(status.st_mode)
                    and _same_directory(status, lower_status, times=file not in _PARENTS)
                ):
                    differences[file] = ChangeKind.MODIFIED
            if lower is not None and path and is_opaque(directory):
                differences |= _deleted(lower, path, entries)
    return _with_parents(differences if mount_points else _without_mount_points(differences))


def tree_differences(
    tree: int, lower_root: int, *, mount_points: bool = False
) -> dict[bytes, ChangeKind]:
    """Return the differences of a whole tree from the tree that it was copied from.

    The mount points of the engine are not among them, unless ``mount_points`` is set.
    """
    differences: dict[bytes, ChangeKind] = {}
    for path, _, entries in walk(tree):
        with _lower(lower_root, path) as lower:
            for name, status in entries:
                lower_status = _stat(lower, name)
                if lower_status is None:
                    differences[_join(path, name)] = ChangeKind.ADDED
                elif not _same(status, lower_status):
                    differences[_join(path, name)] = ChangeKind.MODIFIED
            if lower is not None:
                differences |= _deleted(lower, path, entries)
    return _with_parents(differences if mount_points else _without_mount_points(differences))


_MOUNT_POINTS = frozenset(
    [
        b"proc",
        b"sys",
        b"dev",
        b"dev/pts",
        b"dev/shm",
        b"dev/mqueue",
        b"dev/console",
        b"etc/hosts",
        b"etc/hostname",
        b"etc/resolv.conf",
        b"sbin/docker-init",
    ]
)
"""Mount points that a container start creates if the image lacks them."""
_PARENTS = (b"etc", b"sbin", b"dev")
"""Directories in which it creates them. Their own owner and mode are the container's."""


def _without_mount_points(differences: dict[bytes, ChangeKind]) -> dict[bytes, ChangeKind]:
    """Return the differences without the mount points that a container start created.

    A directory that was created only for such a mount point is left out too.
    """
    kept = {
        path: kind
        for path, kind in differences.items()
        if not (kind is ChangeKind.ADDED and path in _MOUNT_POINTS)
    }
    for parent in _PARENTS:
        if kept.get(parent) is not ChangeKind.ADDED:
            continue
        below = parent + b"/"
        if any(path.startswith(below) for path in differences) and not any(
            path.startswith(below) for path in kept
        ):
            del kept[parent]
    return kept


def _with_parents(differences: dict[bytes, ChangeKind]) -> dict[bytes, ChangeKind]:
    for path in list(differences):
        while b"/" in path:
            path = path.rpartition(b"/")[0]
            if path in differences:
                break
            differences[path] = ChangeKind.MODIFIED
    return differences


def sorted_changes(differences: dict[bytes, ChangeKind]) -> list[Change]:
    """Return the differences sorted by path, with absolute paths for display."""
    return [
        Change("/" + path.decode(errors="backslashreplace"), kind)
        for path, kind in sorted(differences.items(), key=lambda item: item[0].split(b"/"))
    ]


def has_redirects(upper: int) -> bool:
    """Return whether overlayfs moved a directory or copied up metadata only.

    Then the upper directory is incomplete without the lower one (``redirect_dir``, ``metacopy``).
    """
    for _, directory, entries in walk(upper):
        for name, status in entries:
            if not (stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)):
                continue
            fd_path = b"/proc/self/fd/%d/%s" % (directory, name)
            xattrs = os.listxattr(fd_path, follow_symlinks=False)
            if any(n.endswith((".overlay.redirect", ".overlay.metacopy")) for n in xattrs):
                return True
    return False


def _join(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name


@contextmanager
def _lower(lower_root: int, path: bytes) -> Iterator[int | None]:
    """Open the lower directory, or yield None if there is no directory with that path."""
    try:
        descriptor = open_subdirectory(lower_root, path)
    except OSError:  # ELOOP, too: a symbolic link in a directory's place
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _deleted(
    lower: int, path: bytes, entries: list[tuple[bytes, os.stat_result]]
) -> dict[bytes, ChangeKind]:
    """Return the names of the lower directory that are not among ``entries`` as deleted."""
    names = {name for name, _ in entries}
    return {
        _join(path, name): ChangeKind.DELETED
        for name in map(os.fsencode, os.listdir(lower))
        if name not in names
    }


def _stat(directory: int | None, name: bytes) -> os.stat_result | None:
    if directory is None:
        return None
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _same_directory(one: os.stat_result, other: os.stat_result, *, times: bool) -> bool:
    """Return whether overlayfs copied up a directory only because an entry changed.

    Without ``times`` only owner and mode count: the engine creates entries in the directory.
    """
    return (one.st_mode, one.st_uid, one.st_gid) == (
        other.st_mode,
        other.st_uid,
        other.st_gid,
    ) and (not times or one.st_mtime_ns == other.st_mtime_ns)


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    if (one.st_mode, one.st_uid, one.st_gid, one.st_rdev) != (
        other.st_mode,
        other.st_uid,
        other.st_gid,
        other.st_rdev,
    ):
        return False
    if stat.S_ISDIR(one.st_mode):
        return True
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)
