"""A ceiling for what a container writes, by the file system's project quota (ext4, xfs).

Each limited container is a project of its own. Its number is chosen at random among those that
nothing uses, so that engines, and other programs, on one file system do not meet.

What overlayfs writes is limited like everything else: it gives up ``CAP_SYS_RESOURCE``, with which
ext4 lets a process exceed quotas, for its own accesses.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from jaula.errors import Unsupported
from jaula.kernel import quota, userns
from jaula.storage.filesystem_type import filesystem_name
from jaula.storage.trees import write_new

_FIRST, _LAST = 1 << 20, (1 << 31) - 1
_UNUSED = (errno.ENOENT, errno.ESRCH)  # xfs, ext4
_RECORD = "project"


def begin(parent: int, folders: Sequence[int], directory: Path) -> None:
    """Count what is made in ``folders`` for a new project, which has no limit yet.

    Its number is written to a file in ``parent``, the container's directory. Raises
    :class:`Unsupported` where the file system at ``directory`` does not limit projects.
    """
    _check(parent, directory)
    project = _unused(parent)
    write_new(parent, _RECORD, b"%d" % project)
    for folder in folders:
        try:
            quota.set_project(folder, project)
        except OSError as error:
            raise _impossible(directory, os.strerror(error.errno or 0)) from error


def limit(parent: int, size: int) -> None:
    """Let the project of a container grow by ``size`` bytes from what it has now."""
    project = _recorded(parent)
    assert project is not None
    quota.set_limit(parent, project, quota.get(parent, project).dqb_curspace + size)


def end(parent: int) -> None:
    """Forget the project of a container, if it has one."""
    project = _recorded(parent)
    if project is None:
        return
    try:
        quota.set_limit(parent, project, 0)
    except OSError as error:
        if error.errno not in (*_UNUSED, errno.ENOTSUP, errno.ENOSYS):
            raise  # otherwise nobody keeps quotas here any more
    os.unlink(_RECORD, dir_fd=parent)


def _recorded(parent: int) -> int | None:
    try:
        descriptor = os.open(_RECORD, os.O_RDONLY | os.O_CLOEXEC, dir_fd=parent)
    except FileNotFoundError:
        return None
    try:
        text = os.read(descriptor, 32)
    finally:
        os.close(descriptor)
    return int(text) if text.isdigit() else None


def _check(folder: int, directory: Path) -> None:
    if not userns.is_initial():
        raise _impossible(directory, "an ordinary user's engine may not set quotas")
    try:
        enforced = quota.is_enforced(folder)
    except OSError as error:
        raise _impossible(directory, f"it keeps no quota ({error.strerror})") from error
    if not enforced:
        raise _impossible(directory, "it does not enforce project quotas")


def _impossible(directory: Path, reason: str) -> Unsupported:
    return Unsupported(
        f"--storage-opt size= is not possible on {filesystem_name(directory)} at {directory}: "
        f"{reason}",
        hint="xfs or ext4 mounted with prjquota (ext4 made with -O quota,project), or the btrfs"
        " driver can limit a container's disk",
    )


def _unused(folder: int) -> int:
    while True:
        project = secrets.randbelow(_LAST - _FIRST) + _FIRST
        try:
            found = quota.get(folder, project)
        except OSError as error:
            if error.errno not in _UNUSED:
                raise
            return project
        if not (found.dqb_curinodes or found.dqb_curspace or found.dqb_bhardlimit):
            return project
