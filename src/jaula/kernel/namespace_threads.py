"""Threads with namespaces of their own: unshare(2), setns(2).

Facts about threads: a thread shares its root and working directory with the others until it calls
unshare(CLONE_FS), and setns(2) refuses a mount namespace before that. A thread that has left the
process's namespaces ends with its work. Python imports modules by path, so ``work`` imports nothing
once the thread is in another mount namespace.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from jaula.kernel import mounts
from jaula.kernel.namespaces import CLONE, KINDS, open_namespace, setns, unshare

Result = TypeVar("Result")


def in_unshared_thread(work: Callable[[], Result]) -> Result:
    """Run ``work`` in a thread of its own, which may leave the process's namespaces."""
    outcome: list[Result] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 - raised in the calling thread
            failure.append(error)

    thread = threading.Thread(target=run, name="unshared")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def join_namespaces(pid: int, kinds: Sequence[str]) -> None:
    """Move the calling thread, which :func:`in_unshared_thread` runs, to a process's namespaces.

    ``kinds`` are entries of /proc/<pid>/ns. In a mount namespace, root and working directory become
    its root.

    :raises OSError: when the process has exited, or the caller may not join.
    """
    fds = []
    try:
        for kind in kinds:
            fds.append((open_namespace(pid, kind), KINDS[kind]))
        if "mnt" in kinds:
            unshare(CLONE.FS)
        for fd, flag in fds:
            setns(fd, flag)
    finally:
        for fd, _ in fds:
            os.close(fd)


def clone_tree_of(pid: int, path: str) -> int:
    """Return a copy of the mount at ``path`` in a process's mount namespace, -1 if there is none.

    A mount can be cloned only in its own namespace, so a thread enters that.
    """

    def clone() -> int:
        unshare(CLONE.FS)
        try:
            namespace = open_namespace(pid, "mnt")
        except OSError:
            return -1  # it has just exited
        try:
            setns(namespace, CLONE.NEWNS)
        finally:
            os.close(namespace)
        return mounts.clone_tree(path) if mounts.is_mount_point(path) else -1

    return in_unshared_thread(clone)
