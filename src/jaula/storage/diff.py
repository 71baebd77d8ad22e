"""What a container changed: an upper directory, or a whole tree, against what is below.

Follows what ``docker diff`` shows: a directory appears as modified when something in it changed or
its own facts did; what a deleted directory held is not listed one by one.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from jaula.storage.drivers.driver import Change, ChangeKind
from jaula.storage.trees import is_opaque, is_whiteout, open_subdirectory, walk


def overlay_differences(upper: int, below: int) -> dict[bytes, ChangeKind]:
    """Read an overlay's upper directory; ``below`` is a descriptor of the layers' merged root.

    Paths are relative; directories above a change are there as modified.
    """
    found: dict[bytes, ChangeKind] = {}
    for path, folder, entries in walk(upper):
        with _lower(below, path) as lower:
            for name, facts in entries:
                place = _join(path, name)
                under = _stat(lower, name)
                if is_whiteout(facts):
                    if under is not None:
                        found[place] = ChangeKind.DELETED
                elif under is None:
                    found[place] = ChangeKind.ADDED
                elif not (stat.S_ISDIR(facts.st_mode) and _same_folder(facts, under)):
                    found[place] = ChangeKind.MODIFIED
            if lower is not None and path and is_opaque(folder):
                found |= _deleted(lower, path, entries)
    return _with_parents(found)


def tree_differences(tree: int, below: int) -> dict[bytes, ChangeKind]:
    """Compare a whole tree with the one it was copied from."""
    found: dict[bytes, ChangeKind] = {}
    for path, _, entries in walk(tree):
        with _lower(below, path) as lower:
            for name, facts in entries:
                under = _stat(lower, name)
                if under is None:
                    found[_join(path, name)] = ChangeKind.ADDED
                elif not _same(facts, under):
                    found[_join(path, name)] = ChangeKind.MODIFIED
            if lower is not None:
                found |= _deleted(lower, path, entries)
    return _with_parents(found)


def _with_parents(found: dict[bytes, ChangeKind]) -> dict[bytes, ChangeKind]:
    for path in list(found):
        while b"/" in path:
            path = path.rpartition(b"/")[0]
            if path in found:
                break
            found[path] = ChangeKind.MODIFIED
    return found


def sorted_changes(found: dict[bytes, ChangeKind]) -> list[Change]:
    """Differences in order of path, absolute, for people."""
    return [
        Change("/" + path.decode(errors="backslashreplace"), kind)
        for path, kind in sorted(found.items(), key=lambda item: item[0].split(b"/"))
    ]


_MOUNT_POINTS = frozenset(
    [
        "/proc",
        "/sys",
        "/dev",
        "/dev/pts",
        "/dev/shm",
        "/dev/mqueue",
        "/dev/console",
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/sbin/docker-init",
    ]
)
"""Mount points that a container start creates if the image lacks them."""


def without_mount_points(changes: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """Return ``changes`` without the mount points that a container start created.

    ``changes`` holds paths with Docker's kinds: 0 modified, 1 added, 2 deleted. A directory that
    changed only because of such a mount point is left out too.
    """
    kept = [(path, kind) for path, kind in changes if not (kind == 1 and path in _MOUNT_POINTS)]
    for parent in ("/etc", "/sbin", "/dev"):
        if not any(path.startswith(parent + "/") for path, _ in kept) and any(
            path.startswith(parent + "/") for path, _ in changes
        ):
            kept = [(path, kind) for path, kind in kept if path != parent]
    return kept


def layer_differences(differences: dict[bytes, ChangeKind]) -> dict[bytes, ChangeKind]:
    """Return the differences that belong in a layer of an image."""
    changes = [("/" + os.fsdecode(path), int(kind)) for path, kind in differences.items()]
    kept = {os.fsencode(path[1:]) for path, _ in without_mount_points(changes)}
    return {path: kind for path, kind in differences.items() if path in kept}


def has_redirects(upper: int) -> bool:
    """Whether overlayfs moved a directory, or has a file's facts only, by an attribute of its own.

    Then the upper directory does not hold what it shows (``redirect_dir``, ``metacopy``).
    """
    for _, folder, entries in walk(upper):
        for name, facts in entries:
            if not (stat.S_ISDIR(facts.st_mode) or stat.S_ISREG(facts.st_mode)):
                continue
            where = b"/proc/self/fd/%d/%s" % (folder, name)
            names = os.listxattr(where, follow_symlinks=False)
            if any(n.endswith((".overlay.redirect", ".overlay.metacopy")) for n in names):
                return True
    return False


def _join(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name


@contextmanager
def _lower(below: int, path: bytes) -> Iterator[int | None]:
    """The directory that lies below; None where something else or nothing does."""
    try:
        descriptor = open_subdirectory(below, path)
    except OSError:  # also a link in a directory's place: ELOOP
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _deleted(
    lower: int, path: bytes, entries: list[tuple[bytes, os.stat_result]]
) -> dict[bytes, ChangeKind]:
    """What is below and not among ``entries``."""
    names = {name for name, _ in entries}
    return {
        _join(path, name): ChangeKind.DELETED
        for name in map(os.fsencode, os.listdir(lower))
        if name not in names
    }


def _stat(folder: int | None, name: bytes) -> os.stat_result | None:
    if folder is None:
        return None
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _same_folder(one: os.stat_result, other: os.stat_result) -> bool:
    """A directory that overlayfs copied up only because something in it changed."""
    return (one.st_mode, one.st_uid, one.st_gid, one.st_mtime_ns) == (
        other.st_mode,
        other.st_uid,
        other.st_gid,
        other.st_mtime_ns,
    )


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
