"""Limit the bytes that a container writes by project quotas of the file system (ext4, xfs).

Each limited container has its own project. The project id is random and unused, so that several
engines and other programs on one file system do not collide.

Writes through overlayfs are limited too: overlayfs drops ``CAP_SYS_RESOURCE``, which lets a process
exceed quotas on ext4, for its own accesses.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

from jaula.errors import Unsupported
from jaula.kernel import namespaces, quotactl
from jaula.storage.filesystem_type import filesystem_name
from jaula.storage.trees import open_directory, write_new

_FIRST, _LAST = 1 << 20, (1 << 31) - 1
_NO_QUOTA = (errno.ENOENT, errno.ESRCH)  # xfs, ext4
_RECORD = "project"
_BYTES_PER_INODE, _LEAST_INODES = 4096, 1024
"""A file with data takes a block, so this limit is for files without: they cost the disk inodes."""


def are_enforced(directory: Path) -> bool:
    """Return whether the file system of a directory enforces project quotas."""
    with open_directory(directory) as fd:
        try:
            _check_enforced(fd, directory)
        except Unsupported:
            return False
    return True


def begin(parent: int, directories: Sequence[int], directory: Path) -> None:
    """Assign a new project without a limit to ``directories``; new files in them inherit it.

    The project id is written to a file in ``parent``, the container's directory.

    :raises Unsupported: when the file system at ``directory`` does not enforce project quotas.
    """
    _check_enforced(parent, directory)
    project = _unused_project(parent)
    write_new(parent, _RECORD, b"%d" % project)
    for directory_fd in directories:
        try:
            quotactl.set_project(directory_fd, project)
        except OSError as error:
            raise _unsupported(directory, os.strerror(error.errno or 0)) from error


def has_project(parent: int) -> bool:
    """Return whether a container has a project."""
    return _read_project(parent) is not None


def join(parent: int, directory: int) -> None:
    """Assign the project of a container, if it has one, to another empty directory."""
    project = _read_project(parent)
    if project is not None:
        quotactl.set_project(directory, project)


def limit(parent: int, size: int) -> None:
    """Limit the project of a container to its usage plus ``size`` bytes and their inodes."""
    project = _read_project(parent)
    assert project is not None
    usage = quotactl.get(parent, project)
    inodes = usage.dqb_curinodes + inodes_of(size)
    quotactl.set_limits(parent, project, usage.dqb_curspace + size, inodes)


def inodes_of(size: int) -> int:
    """Return how many files a limit of ``size`` bytes allows. Pure."""
    return max(size // _BYTES_PER_INODE, _LEAST_INODES)


def end(parent: int) -> None:
    """Clear the limit of a container's project if it has one."""
    project = _read_project(parent)
    if project is None:
        return
    try:
        quotactl.set_limits(parent, project, 0, 0)
    except OSError as error:
        if error.errno not in (*_NO_QUOTA, errno.ENOTSUP, errno.ENOSYS):
            raise  # the ignored errors mean that quotas were disabled
    os.unlink(_RECORD, dir_fd=parent)


def _read_project(parent: int) -> int | None:
    try:
        descriptor = os.open(_RECORD, os.O_RDONLY | os.O_CLOEXEC, dir_fd=parent)
    except FileNotFoundError:
        return None
    try:
        text = os.read(descriptor, 32)
    finally:
        os.close(descriptor)
    return int(text) if text.isdigit() else None


def _check_enforced(directory_fd: int, directory: Path) -> None:
    if not namespaces.is_initial_userns():
        raise _unsupported(directory, "a rootless engine cannot set quotas")
    try:
        enforced = quotactl.is_enforced(directory_fd)
    except OSError as error:
        raise _unsupported(directory, f"quotas are not enabled ({error.strerror})") from error
    if not enforced:
        raise _unsupported(directory, "project quotas are not enforced")


def _unsupported(directory: Path, reason: str) -> Unsupported:
    return Unsupported(
        f"--storage-opt size= is not possible on {filesystem_name(directory)} at {directory}: "
        f"{reason}",
        hint="xfs or ext4 mounted with prjquota (ext4 made with -O quota,project), or the btrfs"
        " driver can limit a container's disk",
    )


def _unused_project(directory_fd: int) -> int:
    import secrets

    while True:
        project = secrets.randbelow(_LAST - _FIRST) + _FIRST
        try:
            usage = quotactl.get(directory_fd, project)
        except OSError as error:
            if error.errno not in _NO_QUOTA:
                raise
            return project
        if not (usage.dqb_curinodes or usage.dqb_curspace or usage.dqb_bhardlimit):
            return project
