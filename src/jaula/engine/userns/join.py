"""Open the namespaces and the root of a running container, by descriptor instead of by path.

Facts about /proc/PID: the number may be another process's a moment later. A descriptor of the
directory belongs to the process that had the number when it was opened. Opening files through it
fails once that process is gone, whichever process has the number then. So the directory is opened
once, the namespaces are opened through it, and the check that the process is the container's init
also uses it.

The process that an external runtime reports need not be in the container: the monitor of a virtual
machine has the host's root. What is opened is compared with what the engine has made
(:mod:`jaula.runtime.external.identity`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from jaula.errors import Conflict, JaulaError, Unsupported
from jaula.runtime.external import identity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jaula.engine.model.container import Container

NAMES = {"user": "user", "pid": "pid", "ipc": "ipc", "uts": "uts", "network": "net"}
"""OCI type: file below /proc/PID/ns."""

_PF_EXITING = 0x4  # include/linux/sched.h: do_exit() has begun

_GENERATIONS = 3
"""Checks of a process's parent: its helper, the same while it exits, the shim."""


def open_namespaces(container: Container, kinds: Iterable[str]) -> dict[str, int]:
    """Open a running container's namespaces, by OCI type; the caller closes the descriptors.

    A container that is restored and waits for its commit is like one that runs.

    :raises Conflict: when its init has exited.
    """
    if (held := container.held) is not None:
        return {kind: os.dup(held.namespaces[kind]) for kind in kinds}
    with _InitProcess(container) as init:
        for kind in kinds:
            init.open(kind, f"ns/{NAMES[kind]}", os.O_RDONLY)
        return init.take()


def open_root(container: Container) -> int:
    """Open a running container's root directory; the caller closes the descriptor.

    :raises Conflict: when its init has exited.
    """
    with _InitProcess(container) as init:
        init.open("root", "root", os.O_PATH | os.O_DIRECTORY)
        return init.take()["root"]


def open_mounts(container: Container) -> tuple[int, int]:
    """Open a running container's root directory and its mount namespace.

    The mounts below the root stay attached while the namespace is open, even if the container
    exits. The caller closes the descriptors.

    :raises Conflict: when its init has exited.
    """
    with _InitProcess(container) as init:
        init.open("root", "root", os.O_PATH | os.O_DIRECTORY)
        init.open("mnt", "ns/mnt", os.O_RDONLY)
        fds = init.take()
        return fds["root"], fds["mnt"]


def process_in(container: Container, kind: str) -> int:
    """Return the pid of a container's init if it is in the container's own namespace, else 0.

    ``kind`` is an OCI type. Only an external runtime can report another process.
    """
    if not container.record.external_runtime:
        return container.record.pid
    try:
        for fd in open_namespaces(container, (kind,)).values():
            os.close(fd)
    except JaulaError:
        return 0
    return container.record.pid


def check(container: Container) -> None:
    """Check that a running container's init is in the container's root and namespaces.

    :raises Unsupported: when an external runtime has reported another process.
    :raises Conflict: when its init has exited.
    """
    if container.record.external_runtime:
        for fd in (*open_mounts(container), *open_namespaces(container, NAMES).values()):
            os.close(fd)


def init_exits(container: Container) -> bool:
    """Return whether a container's init has exited, or has begun to exit."""
    try:
        with _InitProcess(container) as init:
            return init.exits()
    except Conflict:
        return True


class _InitProcess:
    """The /proc directory of a container's init, and the files opened through it."""

    def __init__(self, container: Container) -> None:
        self._container = container
        self._fds: dict[str, int] = {}
        self._process = -1

    def __enter__(self) -> _InitProcess:
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
        self._fds[name] = os.open(path, flags | os.O_CLOEXEC, dir_fd=self._process)

    def take(self) -> dict[str, int]:
        """Return all descriptors, if the process is the container's init."""
        if not self._is_of(self._container.record.shim_pid):
            raise self._gone()
        if self._container.record.external_runtime:
            self._check_identity()
        fds, self._fds = self._fds, {}
        return fds

    def _check_identity(self) -> None:
        """Check that what was opened is the container's.

        :raises Unsupported: when it is the host's, or another one than the engine has made.
        """
        container, record = self._container, self._container.record
        modes = record.resolved.namespaces
        shared = {
            kind
            for kind, mode in (
                ("user", modes.user),
                ("pid", modes.pid),
                ("ipc", modes.ipc),
                ("uts", modes.uts),
                ("network", modes.net),
            )
            if mode.host
        }
        inodes = {kind: os.fstat(fd) for kind, fd in self._fds.items()}
        root = inodes.pop("root", None)
        namespaces = {kind: st.st_ino for kind, st in inodes.items() if kind not in shared}
        try:
            made = identity.read(container.run_dir)
        except (OSError, ValueError) as error:
            raise Unsupported(f"container {container.name}: {identity.FILE}: {error}") from error
        own = os.stat("/")
        reason = identity.problem(
            made,
            root=(root.st_dev, root.st_ino) if root is not None else None,
            namespaces=namespaces,
            host_root=(own.st_dev, own.st_ino),
            host={kind: _host_namespaces(kind, record.shim_pid) for kind in namespaces},
        )
        if reason:
            raise Unsupported(
                f"container {container.name}: process {record.pid}, which the runtime"
                f" {record.host_config.runtime} reports, is not in the container: {reason}",
                hint="use exec, or the engine's own runtime",
            )

    def exits(self) -> bool:
        """Return whether the process has begun to exit, or is not the container's init."""
        state, _, _, _, _, _, flags = _stat(self._process)[:7]
        exiting = state in "ZX" or int(flags) & _PF_EXITING
        return bool(exiting) or not self._is_of(self._container.record.shim_pid)

    def _is_of(self, shim: int) -> bool:
        """Return whether it descends from the shim.

        It is the child of a helper until that exits, then the child of the shim.
        """
        for _ in range(_GENERATIONS):
            parent = _parent(self._process)
            if parent == shim:
                return True
            try:
                helper = os.open(f"/proc/{parent}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # the helper has exited, and the next check sees the shim
            try:
                if _parent(helper) == shim:
                    return True
            except (FileNotFoundError, ProcessLookupError):
                pass  # the helper has exited meanwhile
            finally:
                os.close(helper)
        return False

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        os.close(self._process)
        for fd in self._fds.values():
            os.close(fd)
        if isinstance(error, FileNotFoundError | ProcessLookupError):
            raise self._gone() from None

    def _gone(self) -> Conflict:
        return Conflict(f"container {self._container.name} does not run, it may just have exited")


def _parent(process: int) -> int:
    """Return the parent pid of the process of a /proc directory."""
    return int(_stat(process)[1])


def _stat(process: int) -> list[str]:
    """Return the fields of a process's ``stat``, from its state on (proc_pid_stat(5))."""
    fd = os.open("stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=process)
    try:
        text = os.read(fd, 1024)
    finally:
        os.close(fd)
    return text[text.rindex(b")") + 1 :].decode("ascii").split()


def _host_namespaces(kind: str, shim: int) -> set[int]:
    """Return the inode numbers of the namespaces of engine, shim and host."""
    found = set()
    for pid in ("self", str(shim), str(os.getppid()), "1"):
        try:
            found.add(os.stat(f"/proc/{pid}/ns/{NAMES.get(kind, kind)}").st_ino)
        except OSError:
            continue  # it is outside of the engine's pid namespace, has ended, or is not readable
    return found
