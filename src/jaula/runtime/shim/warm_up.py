"""Warm-up of the zygote: execute the life of a container once, for the shims that are forked later.

Facts about the interpreter: code that runs first writes to memory that all shims could share. An
instruction is replaced by a special one after a few executions (PEP 659), a type gets a number when
an attribute of it is looked up, the result goes to a table of the interpreter, and the C library
binds a function when it is called first. A shim that is forked afterwards writes less, so it has
fewer page faults and less memory of its own.

The container of the warm-up has no program and no namespaces: its init is a fork that waits for a
signal. Its files are on a detached tmpfs, which no other process sees. Its cgroup is the one of the
zygote, which is only read.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from typing import cast

import msgspec

from jaula.errors import JaulaError, RuntimeFailure
from jaula.kernel import mounts, process_calls
from jaula.runtime import seqpacket, shim_protocol
from jaula.runtime.create.clone_process import FdStack, ProcessHandle, stdio_pipes
from jaula.runtime.interfaces import Cgroup, Interfaces
from jaula.runtime.shim import prefault, shim
from jaula.runtime.shim_protocol import Answer, HelloRequest, LogSetup, SignalRequest, StartRequest
from jaula.spec.rootfs import OverlayRoot

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from typing import Any

_ROUNDS = 3
"""An instruction is replaced after two executions."""
_OUTPUT = b"output\n"


def run(interfaces: Interfaces) -> None:
    """Execute the life of a container, and the parts of a start that its helper executes.

    :raises JaulaError: when the container of the warm-up fails.
    :raises OSError: when the kernel refuses a step.
    """
    for _ in range(_ROUNDS):
        for part in prefault.of_helper(interfaces):
            part()
        run_shim(interfaces)


def run_shim(interfaces: Interfaces) -> None:
    """Execute the life of a container once; it raises as :func:`run`."""
    fds = process_calls.open_fds()
    reaped = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        for part in prefault.of_shim(interfaces):
            part()
        _run_container(interfaces)
    finally:
        signal.signal(signal.SIGCHLD, reaped)
        gc.collect()  # sockets
        for fd in set(process_calls.open_fds()).difference(fds):  # a shim leaves these to its exit
            os.close(fd)


def _run_container(interfaces: Interfaces) -> None:
    """Be the shim of a container that an engine kills at once."""
    fd_stack = FdStack()
    try:
        directory = fd_stack.add(mounts.new_filesystem("tmpfs", (("mode", "700"),)))
        init_sock, end_sock = os.pipe2(os.O_CLOEXEC)
        fd_stack.fds += [init_sock, end_sock]
        run_dir = f"/proc/self/fd/{directory}"
        request = StartRequest(
            "container",
            run_dir,
            run_dir,
            OverlayRoot(("/layer",)),
            LogSetup("json-file", {}, f"{run_dir}/log"),
        )
        engine, shim_end = seqpacket.pair()
        with contextlib.closing(engine):
            for message in (HelloRequest(1), SignalRequest(2, "", signal.SIGKILL)):
                seqpacket.send(engine, shim_protocol.encode(message))
            helper = _Helper(ahead=True)
            helper.prepare_init(init_sock, end_sock)
            without_effects = msgspec.structs.replace(interfaces, cgroups=_Cgroups(interfaces))
            shim.run(request, [shim_end.detach()], without_effects, helper)
            answer = shim_protocol.decode_from_shim(seqpacket.receive(engine)[0])
            if isinstance(answer, Answer) and answer.error:
                raise RuntimeFailure(f"warm-up: {answer.error}")
    finally:
        fd_stack.close()


class _Helper(shim.SpawnHelper):
    """A spawn helper that creates a process without a container."""

    def prepare_init(self, init_sock: int, end_sock: int) -> None:
        """Fork the helper. Its init exits at the latest when ``end_sock`` is closed."""

        def work(sock: _socket.socket) -> ProcessHandle:
            seqpacket.receive(sock)  # the request
            shim.wait_to_proceed(sock)
            child_fds: list[int] = []
            _, stdio = stdio_pipes(0, 0, False, child_fds)
            pid = os.fork()
            if pid == 0:
                os.close(end_sock)
                os.write(child_fds[1], _OUTPUT)
                os.read(init_sock, 1)
                os._exit(0)
            for fd in child_fds:
                os.close(fd)
            return ProcessHandle(pid, -1, *stdio, _own_cgroup())

        self._sock = self._fork(work)


def _own_cgroup() -> str:
    """Return the cgroup of this process in the hierarchy that counts its memory."""
    with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        paths = {
            controller: path
            for _, controllers, path in (line.rstrip("\n").split(":", 2) for line in file)
            for controller in controllers.split(",")
        }
    return paths.get("memory", paths.get("", "/"))


class _Cgroups:
    """The driver of the host; the cgroups that it opens are only read."""

    def __init__(self, interfaces: Interfaces) -> None:
        self.version = interfaces.cgroups.version
        self._interfaces = interfaces

    def create(self, path: str) -> Cgroup:
        return self._interfaces.absent_cgroup(path)

    def open(self, path: str) -> Cgroup:
        """Open a cgroup. One that the driver does not see is absent, as of a rootless engine."""
        try:
            cgroup = self._interfaces.cgroups.open(path)
        except JaulaError:
            return self._interfaces.absent_cgroup(path)
        return cast(Cgroup, _ReadOnlyCgroup(cgroup, self._interfaces.absent_cgroup(path)))


class _ReadOnlyCgroup:
    """A cgroup whose counters are read, and which has no processes for its caller."""

    _READ = frozenset(("oom_fd", "oom_kills", "is_oom", "peak_memory", "close"))

    def __init__(self, cgroup: Cgroup, absent: Cgroup) -> None:
        self._cgroup = cgroup
        self._absent = absent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cgroup if name in self._READ else self._absent, name)
