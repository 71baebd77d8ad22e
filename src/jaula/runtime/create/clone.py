"""Forking a child that is in a container's cgroup from its first instruction on."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn

from jaula.kernel import namespaces
from jaula.kernel.namespaces import CLONE
from jaula.runtime.interfaces import Cgroup


def clone_into(
    cgroup: Cgroup, keep: list[int], refused: Callable[[OSError], NoReturn]
) -> tuple[int, int]:
    """Fork a child that is in the cgroup when this returns in it: (pid, pidfd) or (0, -1).

    On v2 it is born there; on v1 it moves itself by descriptors, which are added to ``keep``, and
    calls ``refused`` where it may not.
    """
    directory = cgroup.directory_fd()
    entries: tuple[int, ...] = ()
    if directory is None:
        entries = cgroup.open_attach_fds()
        keep.extend(entries)
    pid, pidfd = namespaces.clone3(CLONE(0), cgroup=directory)
    if pid == 0:
        try:
            for entry in entries:
                os.write(entry, b"0")
        except OSError as error:
            refused(error)
    return pid, pidfd
