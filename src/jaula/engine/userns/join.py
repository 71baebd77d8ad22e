"""Namespaces and roots of running containers: held by descriptor, not by a path.

Facts about /proc/PID: the number may be another process's a moment later. A descriptor of the
directory belongs to the process that had the number when it was opened; looking things up through
it fails once that process is gone, whoever has the number then. So the directory is opened once,
the namespaces through it, and that it is the container's first process is checked so too.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jaula.errors import Conflict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jaula.engine.model.container import Container

NAMES = {"user": "user", "pid": "pid", "ipc": "ipc", "network": "net"}
"""OCI type: file below /proc/PID/ns."""

_GENERATIONS = 3
"""Looks at a process's parent: its helper, the same while it ends, the shim."""


def open_namespaces(lender: Container, kinds: Iterable[str]) -> dict[str, int]:
    """Descriptors of a running container's namespaces, by OCI type; the caller closes them.

    :raises Conflict: it has no first process any more.
    """
    with _places(lender) as found:
        for kind in kinds:
            found.open(kind, f"ns/{NAMES[kind]}", os.O_RDONLY)
        return found.take()


def open_root(container: Container) -> int:
    """A descriptor of a running container's root directory; the caller closes it.

    :raises Conflict: it has no first process any more.
    """
    with _places(container) as found:
        found.open("root", "root", os.O_PATH | os.O_DIRECTORY)
        return found.take()["root"]


class _places:
    """What is opened through the /proc directory of a container's first process."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._found: dict[str, int] = {}
        self._process = -1

    def __enter__(self) -> _places:
        record = self._container.record
        if not self._container.live or not record.pid:
            raise self._gone()
        try:
            flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
            self._process = os.open(f"/proc/{record.pid}", flags)
        except FileNotFoundError:
            raise self._gone() from None
        return self

    def open(self, name: str, path: str, flags: int) -> None:
        self._found[name] = os.open(path, flags | os.O_CLOEXEC, dir_fd=self._process)

    def take(self) -> dict[str, int]:
        """All of them, if the process is the container's."""
        if not self._is_of(self._container.record.shim_pid):
            raise self._gone()
        found, self._found = self._found, {}
        return found

    def _is_of(self, shim: int) -> bool:
        """Whether it descends from the shim: by a helper until that ends, then as its child."""
        for _ in range(_GENERATIONS):
            parent = _parent(self._process)
            if parent == shim:
                return True
            try:
                helper = os.open(f"/proc/{parent}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # it has ended, and the next look finds the shim
            try:
                if _parent(helper) == shim:
                    return True
            except (FileNotFoundError, ProcessLookupError):
                pass  # the same
            finally:
                os.close(helper)
        return False

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        os.close(self._process)
        for fd in self._found.values():
            os.close(fd)
        if isinstance(error, FileNotFoundError | ProcessLookupError):
            raise self._gone() from None

    def _gone(self) -> Conflict:
        return Conflict(f"container {self._container.name} does not run, it may just have ended")


def _parent(process: int) -> int:
    """The parent's number of the process of a /proc directory (proc_pid_stat(5))."""
    fd = os.open("stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
    try:
        text = os.read(fd, 1024)
    finally:
        os.close(fd)
    return int(text[text.rindex(b")") :].split()[2])
