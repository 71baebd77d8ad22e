"""A cgroup directory and those below it: processes in it, removal. Works on both versions.

Facts: ``st_nlink`` of a cgroup directory is two plus the number of cgroups in it (kernfs), so a
leaf is told without listing its fifty files. ``rmdir`` fails with EBUSY while a process or a
cgroup is inside; a process leaves when it exits, before it is waited for, but a moment after
SIGKILL was sent.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator

from jaula.cgroups import files
from jaula.errors import Conflict, NotAuthorized, NotFound

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


def children(directory: int) -> list[str]:
    """Names of the cgroups directly inside."""
    if os.fstat(directory).st_nlink <= 2:
        return []
    # From ".", afresh: an O_PATH descriptor cannot be listed, and listing moves the position.
    listing = os.open(".", DIRECTORY, dir_fd=directory)
    try:
        return _directories(listing)
    finally:
        os.close(listing)


def _directories(listing: int) -> list[str]:
    with os.scandir(listing) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def walk(directory: int) -> Iterator[int]:
    """Descriptors of the directory and of all below; each is closed when the next is asked for."""
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
    """Whether ``file`` is in the root cgroup or one directly below; the root lacks most limits."""
    names = ["", *(f"{name}/" for name in children(root))]
    return any(files.exists(root, name + file) for name in names)


def pids(directory: int, file: str = "cgroup.procs") -> set[int]:
    """Every process inside, at any depth; those of namespaces that cannot be seen are left out."""
    found: set[int] = set()
    for level in walk(directory):
        try:
            found.update(files.pids(files.read(level, file)))
        except OSError as error:
            # ENODEV: removed since; EOPNOTSUPP: a threaded cgroup, whose domain lists its processes
            if error.errno not in (errno.ENODEV, errno.ENOENT, errno.EOPNOTSUPP):
                raise
    return found


def add(directory: int, path: str, pid: int, *, hint: str | None = None) -> None:
    """Move a process into the cgroup ``directory`` (``path`` is for messages).

    Raises ``NotFound`` where there is no such process, ``NotAuthorized`` and ``Conflict`` (with
    ``hint``) where the kernel refuses.
    """
    try:
        files.write(directory, "cgroup.procs", str(pid))
    except ProcessLookupError as error:
        raise NotFound(f"no such process: {pid}") from error
    except OSError as error:
        refused = f"cannot move process {pid} to cgroup {path}: {error.strerror}"
        if isinstance(error, PermissionError):
            raise NotAuthorized(refused) from error
        raise Conflict(refused, hint=hint) from error


def remove_leftover(parent: int, path: str) -> None:
    """Remove what an engine that crashed left at ``path``; ``Conflict`` where it is in use."""
    directory = os.open(path, DIRECTORY, dir_fd=parent)
    try:
        if found := pids(directory):
            raise Conflict(f"cgroup /{path} is in use by process {min(found)}")
    finally:
        os.close(directory)
    remove(parent, path, 0.0)


def remove(parent: int, path: str, deadline: float) -> None:
    """Remove ``path`` below ``parent`` with all in it; gone already is well.

    Waits until ``deadline`` (``time.monotonic``) for processes that are exiting; raises
    ``Conflict`` naming those that stay.
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
            raise _stays(parent, path)
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


def _stays(parent: int, path: str) -> Conflict:
    directory = os.open(path, DIRECTORY, dir_fd=parent)
    try:
        found = sorted(pids(directory))
    finally:
        os.close(directory)
    listed = ", ".join(map(str, found[:8])) or "processes of another namespace"
    return Conflict(f"cannot remove cgroup {path}: in use by {listed}", hint="kill them first")


_TIMEOUT = 5.0  # seconds


def kill(
    path: str, pids: Callable[[], set[int]], stop: Callable[[], bool], go: Callable[[], None]
) -> None:
    """``stop`` says whether every process has stopped; ``go`` lets them run, so that they die.

    Raises ``Conflict`` where processes stay for five seconds.
    """
    deadline = time.monotonic() + _TIMEOUT
    while pids():
        stopped = stop()
        found = pids()
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue  # it ended meanwhile, which is what is wanted
        go()
        if stopped or not found:
            return
        if time.monotonic() > deadline:
            raise Conflict(f"cgroup {path} still has processes {sorted(found)[:8]}")
        time.sleep(0.001)
