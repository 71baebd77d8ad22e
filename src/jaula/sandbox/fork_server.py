"""Fork sandboxed processes from one that has imported what they need.

Facts about time: an interpreter with the modules of a parser starts in 60 ms, 25 of them for
msgspec. A fork is confined within 5 ms. A pull has two processes for each layer.

The fork server (:mod:`jaula.sandbox.sandbox_program`) takes requests of this process only, and
never a stranger's byte. Its first request starts it. It ends some time after its last process, or
with this process, whose end it sees; the kernel then kills its processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable

from jaula.errors import Unavailable
from jaula.kernel import process_calls
from jaula.sandbox.sandbox_limits import Limits, Rights
from jaula.sandbox.start_sandbox import Task, execute, work

NAME = "jaula-sandbox"
"""The name of the fork server in ps(1)."""
LINGER = 10.0
"""Seconds that the server stays without a process. 9 MB of memory are its own."""
_REPLY = 60.0  # seconds until it has imported a module and forked
_END = 10.0  # seconds for a killed process to end
_MESSAGE = 1 << 16  # bytes
_SERVER_MEMORY = 10 << 20  # bytes of the server, and of the modules that the engine imports then
_PROCESS_MEMORY = 6 << 20  # bytes of a process, and of what the engine keeps for it


class ForkedProcess:
    """A sandboxed process, a child of the fork server."""

    def __init__(
        self,
        server: ForkServer,
        pid: int,
        pidfd: int,
        reports: socket.socket,
        channel: socket.socket,
    ) -> None:
        self.pid = pid
        self.channel = channel  # closed by its user
        self._server = server
        self._pidfd = pidfd
        self._reports = reports
        self._status: int | None = None

    def kill(self) -> None:
        """Kill the process, if it has not ended."""
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                process_calls.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def wait(self, timeout: float) -> int:
        """Return the exit code of the process, or the negative number of a signal.

        :raises TimeoutError: when it has not ended in that time, seconds.
        """
        if self._status is None:
            self._reports.settimeout(timeout)
            try:
                report = self._reports.recv(_MESSAGE)
            except ConnectionResetError:
                report = b""
            # A server that was killed has not reported, and the kernel has killed its processes.
            self._status = int(report) if report else -signal.SIGKILL
        return self._status

    def close(self) -> None:
        """Kill the process, and wait for its end. Call it once."""
        self.kill()
        with contextlib.suppress(TimeoutError):  # in the kernel; the server reaps it
            self.wait(_END)
        self._reports.close()
        os.close(self._pidfd)
        self._server.release()


class ForkServer:
    """The fork server of this process, which starts and ends with what is needed."""

    def __init__(self) -> None:
        self.check_memory: Callable[[int], None] = lambda needed: None
        """Raises Unavailable when fewer bytes are left. The engine sets it."""
        self._lock = threading.Lock()
        self._users = 0  # requests and processes
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._timer: threading.Timer | None = None

    def fork(self, task: Task, limits: Limits, rights: Rights) -> ForkedProcess:
        """Return a new process.

        :raises Unavailable: when there is none.
        """
        self.check_memory(_PROCESS_MEMORY + (_SERVER_MEMORY if self._socket is None else 0))
        request = json.dumps(work(task, limits, rights)).encode()
        with self._lock:
            self._users += 1
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        try:
            forked = self._fork(request) or self._fork(request)
            if forked is None:
                raise Unavailable(
                    "a sandboxed process cannot start: the process that forks it was killed",
                    hint="the host may lack memory: try again",
                )
        except BaseException:
            self.release()
            raise
        return forked

    def _fork(self, request: bytes) -> ForkedProcess | None:
        """Return a new process, None if the server was killed; the next call starts another.

        Each attempt has a channel of its own: a process of the former one may have written to it.
        """
        channel, its_channel = socket.socketpair()
        reports, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        server = None
        with contextlib.ExitStack() as undo:
            undo.callback(reports.close)
            undo.callback(channel.close)
            with theirs, its_channel:
                try:
                    with self._lock:
                        server = self._running()
                        socket.send_fds(server, [request], [its_channel.fileno(), theirs.fileno()])
                except (BrokenPipeError, ConnectionResetError):
                    pass
            reports.settimeout(_REPLY)
            try:
                data, fds, _, _ = socket.recv_fds(reports, _MESSAGE, 1)
            except (ConnectionResetError, TimeoutError):
                data, fds = b"", []
            if data and fds:
                undo.pop_all()
                return ForkedProcess(self, int(data), fds[0], reports, channel)
        if data:
            raise Unavailable(f"a sandboxed process cannot start: {data.decode(errors='replace')}")
        self._discard(server)
        return None

    def _running(self) -> socket.socket:
        """Return the socket of the server, which is started if there is none."""
        if self._socket is None:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                with theirs:
                    self._process = execute(
                        {"name": NAME, "server": theirs.fileno()}, (theirs.fileno(),)
                    )
            except BaseException:
                ours.close()
                raise
            self._socket = ours
        return self._socket

    def _discard(self, server: socket.socket | None) -> None:
        """End the server of a socket, unless another one has replaced it."""
        with self._lock:
            if server is not None and server is self._socket:
                self._end()

    def release(self) -> None:
        """Count one user less."""
        with self._lock:
            self._users -= 1
            if not self._users and self._socket is not None:
                self._timer = threading.Timer(LINGER, self.end_idle)
                self._timer.daemon = True
                self._timer.start()

    def end_idle(self) -> None:
        """End the server if it has no process."""
        with self._lock:
            if not self._users and self._socket is not None:
                self._end()

    def _end(self) -> None:
        assert self._socket is not None
        assert self._process is not None
        self._socket.close()
        self._process.kill()
        self._process.wait()
        self._socket = self._process = None


SERVER = ForkServer()
