"""Remove cgroups that an external runtime created in hierarchies that our own driver does not use.

A runtime puts a container into every hierarchy that the host has mounted, including systemd's and
an empty v2 tree, and removes those cgroups itself. A runtime that was killed half-way does not, and
it has no record of the container that ``delete`` could use.
"""

from __future__ import annotations

import errno
import os
import time

from jaula.kernel.mountinfo import OWN

REMOVE_TIMEOUT = 1.0  # seconds for killed processes to exit


def cgroup_directories(path: str, mountinfo: str = OWN) -> list[str]:
    """Return the existing directories of the cgroup ``path``, in every mounted hierarchy.

    Source: proc_pid_mountinfo(5).
    """
    from jaula.runtime.create.mount_plan import cgroup_mounts

    directories: list[str] = []
    for mount in cgroup_mounts(mountinfo):
        directory = f"{mount.target}/{path.strip('/')}"
        if os.path.isdir(directory) and directory not in directories:
            directories.append(directory)
    return directories


def remove(path: str) -> list[str]:
    """Remove the cgroup ``path`` and its descendants from every hierarchy.

    Return the directories that could not be removed, since they are in use.
    """
    deadline = time.monotonic() + REMOVE_TIMEOUT
    remaining = cgroup_directories(path)
    while remaining:
        remaining = [directory for directory in remaining if not _remove_tree(directory)]
        if not remaining or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    return remaining


def _remove_tree(directory: str) -> bool:
    """Remove a directory and its descendants; return False if one is in use."""
    for path, _, _ in os.walk(directory, topdown=False):
        try:
            os.rmdir(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
                return False
            raise
    return True
