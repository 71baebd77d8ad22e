"""Cgroups that another runtime has made in hierarchies where our own driver makes none.

A runtime puts a container into every hierarchy that the host has mounted, systemd's and an
empty v2 tree among them, and removes those cgroups itself. One that was killed half-way does not,
and knows of no container that it could be asked to delete.
"""

from __future__ import annotations

import errno
import os
import time

from jaula.kernel import mountinfo

PATIENCE = 1.0  # seconds for processes that were killed to be gone


def places(path: str) -> list[str]:
    """Return the directories of the cgroup ``path`` that exist, in every mounted hierarchy."""
    result: list[str] = []
    for mount in mountinfo.read():
        place = f"{mount.target}/{path.strip('/')}"
        if mount.fstype in ("cgroup", "cgroup2") and place not in result and os.path.isdir(place):
            result.append(place)
    return result


def remove(path: str) -> list[str]:
    """Remove the cgroup ``path`` with all below from every hierarchy; what is in use is left.

    Returns the directories that could not be removed.
    """
    until = time.monotonic() + PATIENCE
    left = places(path)
    while left:
        left = [place for place in left if not _removed(place)]
        if not left or time.monotonic() > until:
            break
        time.sleep(0.01)
    return left


def _removed(place: str) -> bool:
    for directory, _, _ in os.walk(place, topdown=False):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
                return False
            raise
    return True
