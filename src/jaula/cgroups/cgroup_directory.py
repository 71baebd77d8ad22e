"""Cgroup directories on both versions: processes, killing, removal.

Facts: ``st_nlink`` of a cgroup directory is two plus the number of child cgroups (kernfs), so a
leaf is recognised without listing its fifty files. ``rmdir`` fails with EBUSY while a process or a
cgroup is inside. A process leaves the cgroup when it exits, before it is waited for, but some time
after SIGKILL was sent.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator

from jaula.cgroups import cgroup_files
from jaula.errors import Conflict, NotAuthorized, NotFound

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
_KILL_TIMEOUT = 5.0  # seconds


def children(directory: int) -> list[str]:
    """Return the names of the child cgroups."""
    if os.fstat(directory).st_nlink <= 2:
        return []
    # Reopen ".": an O_PATH descriptor cannot be listed, and listing moves the position.
    listing = os.open(".", DIRECTORY, dir_fd=directory)
    try:
        return _directories(listing)
    finally:
        os.close(listing)


def _directories(listing: int) -> list[str]:
    with os.scandir(listing) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def walk(directory: int) -> Iterator[int]:
    """Yield descriptors of the directory and all below; each is closed at the next step."""
    yield directory
    for name in children(directory):
        try:
            child = os.open(name, DIRECTORY, dir_fd=directory)
        except FileNotFoundError:
            continue
        try:
            yield from walk(child)
        finally:
            os.close(child)


def has_file(root: int, file: str) -> bool:
    """Return whether ``file`` is in the root cgroup or a child; the root lacks most limits."""
    names = ["", *(f"{name}/" for name in children(root))]
    return any(cgroup_files.exists(root, name + file) for name in names)


def pids(directory: int, file: str = "cgroup.procs") -> set[int]:
    """Return every process in the subtree; processes outside the pid namespace are left out."""
    processes: set[int] = set()
    for level in walk(directory):
        try:
            processes.update(cgroup_files.pids(cgroup_files.read(level, file)))
        except OSError as error:
            # ENODEV: removed; EOPNOTSUPP: a threaded cgroup, whose domain lists its processes
            if error.errno not in (errno.ENODEV, errno.ENOENT, errno.EOPNOTSUPP):
                raise
    return processes


def add(directory: int, path: str, pid: int, *, hint: str | None = None) -> None:
    """Move a process into the cgroup ``directory`` (``path`` is for messages).

    :raises NotFound: when the process does not exist.
    :raises NotAuthorized: when the caller may not move it.
    :raises Conflict: (with ``hint``) when the kernel refuses for another reason.
    """
    try:
        cgroup_files.write(directory, "cgroup.procs", str(pid))
    except ProcessLookupError as error:
        raise NotFound(f"no such process: {pid}") from error
    except OSError as error:
        message = f"cannot move process {pid} to cgroup {path}: {error.strerror}"
        if isinstance(error, PermissionError):
            raise NotAuthorized(message) from error
        raise Conflict(message, hint=hint) from error


def remove_leftover(parent: int, path: str) -> None:
    """Remove the cgroup that a crashed engine left at ``path``.

    :raises Conflict: when it holds processes.
    """
    directory = os.open(path, DIRECTORY, dir_fd=parent)
    try:
        if processes := pids(directory):
            raise Conflict(f"cgroup /{path} is in use by process {min(processes)}")
    finally:
        os.close(directory)
    remove(parent, path, 0.0)


def remove(parent: int, path: str, deadline: float) -> None:
    """Remove ``path`` below ``parent`` with its children; an absent one is not an error.

    Wait until ``deadline`` (``time.monotonic``) for exiting processes.

    :raises Conflict: when processes remain; the error names them.
    :raises NotAuthorized: when the caller may not remove it.
    """
    pause = 0.0
    while True:
        try:
            os.rmdir(path, dir_fd=parent)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise NotAuthorized(f"cannot remove cgroup {path}: {error.strerror}") from error
            if error.errno != errno.EBUSY:
                raise
        _remove_children(parent, path, deadline)
        if time.monotonic() >= deadline:
            raise _in_use_error(parent, path)
        time.sleep(pause)
        pause = min(pause + 0.0005, 0.01)


def _remove_children(parent: int, path: str, deadline: float) -> None:
    try:
        directory = os.open(path, DIRECTORY, dir_fd=parent)
    except FileNotFoundError:
        return
    try:
        for name in children(directory):
            remove(directory, name, deadline)
    finally:
        os.close(directory)


def _in_use_error(parent: int, path: str) -> Conflict:
    directory = os.open(path, DIRECTORY, dir_fd=parent)
    try:
        processes = sorted(pids(directory))
    finally:
        os.close(directory)
    listed = ", ".join(map(str, processes[:8])) or "processes of another namespace"
    return Conflict(f"cannot remove cgroup {path}: in use by {listed}", hint="kill them first")


def kill(
    path: str, pids: Callable[[], set[int]], freeze: Callable[[], bool], thaw: Callable[[], None]
) -> None:
    """Send SIGKILL to every process, for kernels without ``cgroup.kill``.

    ``freeze`` returns whether it froze every process, so that none forks while the list is
    processed. Without a freezer, or if it fails, the list is read again until it is empty.
    ``thaw`` lets the processes run, so that they exit.

    :raises Conflict: when processes remain after five seconds.
    """
    deadline = time.monotonic() + _KILL_TIMEOUT
    while pids():
        frozen = freeze()
        processes = pids()
        for pid in processes:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it has exited
        thaw()
        if frozen or not processes:
            return
        if time.monotonic() > deadline:
            raise Conflict(f"cgroup {path} still has processes {sorted(processes)[:8]}")
        time.sleep(0.001)
