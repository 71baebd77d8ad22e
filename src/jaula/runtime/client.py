"""The engine's side of the zygote and the shims: an async facade over their sockets.

:class:`Runtime` forks the zygote, so it is created before asyncio is imported. Its coroutines need
    a running event loop.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from jaula.errors import RuntimeFailure, Unavailable
from jaula.runtime import protocol, seqpacket, zygote
from jaula.runtime.interfaces import Interfaces
from jaula.runtime.protocol import (
    Answer,
    AttachRequest,
    AttachStream,
    Event,
    ExecRequest,
    ExitRecord,
    HelloRequest,
    ResizeRequest,
    SandboxRequest,
    SignalRequest,
    StartRequest,
)
from jaula.runtime.shim import shim
from jaula.runtime.shim.engine_connections import SOCKET_NAME
from jaula.spec.runtime import IDMapping, Process

if TYPE_CHECKING:
    import asyncio

OnEvent = Callable[[Event], None]


def _set_ready(ready: asyncio.Future[None]) -> None:
    """Mark a socket as readable; the event loop may call this more than once."""
    if not ready.done():
        ready.set_result(None)


def remove_shim_files(run_dir: str) -> None:
    """Remove the exit record and the socket of an earlier shim, which a new one must not show."""
    for name in (shim.EXIT_NAME, SOCKET_NAME):
        try:
            os.unlink(f"{run_dir}/{name}")
        except FileNotFoundError:
            continue


def _pair() -> tuple[socket.socket, socket.socket]:
    """Return the two connected ends of a SOCK_SEQPACKET socket, as the event loop takes them."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Sandbox:
    """A user namespace and the network namespace that it owns, as descriptors."""

    def __init__(self, user_fd: int, net_fd: int) -> None:
        self.user_fd = user_fd
        self.net_fd = net_fd

    def close(self) -> None:
        """Close the descriptors; the kernel removes a namespace with its last reference."""
        for fd in (self.user_fd, self.net_fd):
            if fd >= 0:
                os.close(fd)
        self.user_fd = self.net_fd = -1


class Shim:
    """A connection to the shim of a running container.

    ``gone`` is set when the connection is lost.
    """

    def __init__(
        self, sock: socket.socket, on_event: OnEvent, loop: asyncio.AbstractEventLoop
    ) -> None:
        self.pid = 0
        self.shim_pid = 0
        self.execs: tuple[str, ...] = ()
        self.gone = False
        self._sock = sock
        self._on_event = on_event
        self._loop = loop
        self._number = 0
        self._pending: dict[int, asyncio.Future[Answer]] = {}
        self.on_gone: Callable[[], None] | None = None
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._readable)

    def expect(self, number: int) -> asyncio.Future[Answer]:
        """Return a future for the answer with the number ``number``."""
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._pending[number] = future
        return future

    def _readable(self) -> None:
        while not self.gone:
            try:
                data, fds = seqpacket.receive(self._sock)
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            for fd in fds:
                os.close(fd)
            if not data:
                self._disconnect()
                return
            message = protocol.decode_from_shim(data)
            if isinstance(message, Answer):
                future = self._pending.pop(message.number, None)
                if future is not None and not future.done():
                    future.set_result(message)
            else:
                self._on_event(message)

    def _disconnect(self) -> None:
        self.close()
        if self.on_gone is not None:
            self.on_gone()

    def close(self) -> None:
        """Close the connection; the shim keeps running."""
        if self.gone:
            return
        self.gone = True
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        for future in self._pending.values():
            if not future.done():
                future.set_result(Answer(0, error="the container's shim is gone"))
        self._pending.clear()

    async def _request(self, request: protocol.ShimRequest, fds: Sequence[int] = ()) -> Answer:
        if self.gone:
            raise Unavailable("the container's shim is gone", hint="the container has ended")
        future = self.expect(request.number)
        try:
            seqpacket.send(self._sock, protocol.encode(request), fds)
        except OSError as error:
            self._pending.pop(request.number, None)
            raise Unavailable(f"the container's shim does not answer: {error}") from error
        answer = await future
        if answer.error:
            raise RuntimeFailure(answer.error, exit_code=answer.exit_code)
        return answer

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    async def hello(self) -> None:
        """Ask the shim for its pids and the running execs."""
        answer = await self._request(HelloRequest(self._next_number()))
        self.pid, self.shim_pid, self.execs = answer.pid, answer.shim_pid, answer.execs

    async def attach(self, fd: int, stream: AttachStream) -> None:
        """Pass a client's socket to the shim; ``fd`` is closed here in every case."""
        try:
            await self._request(AttachRequest(self._next_number(), stream), (fd,))
        finally:
            os.close(fd)

    async def exec(
        self,
        exec_id: str,
        process: Process,
        *,
        tty: bool,
        console: tuple[int, int] = (0, 0),
        fd: int | None = None,
        stream: AttachStream | None = None,
    ) -> int:
        """Run another process in the container and return its host pid.

        ``console`` is (rows, columns); 0 keeps the kernel's size. ``fd`` is the client's socket,
        which is closed here in every case.
        """
        try:
            request = ExecRequest(self._next_number(), exec_id, process, tty, console, stream)
            answer = await self._request(request, () if fd is None else (fd,))
            return answer.pid
        finally:
            if fd is not None:
                os.close(fd)

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        """Set the size of a terminal; an empty id means the container's own terminal."""
        await self._request(ResizeRequest(self._next_number(), exec_id, height, width))

    async def signal(self, signum: int, exec_id: str = "") -> int:
        """Send a signal to init or to an exec'd process; return the host pid of that process."""
        return (await self._request(SignalRequest(self._next_number(), exec_id, signum))).pid


class Runtime:
    """The zygote, and the shims that it forks."""

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self._sock = sock
        self.zygote_pid = pid

    @classmethod
    def launch(cls, load_interfaces: Callable[[], Interfaces]) -> Runtime:
        """Fork the zygote. Call this before anything starts a thread or imports asyncio."""
        engine_end, zygote_end = _pair()
        pid = os.fork()
        if pid == 0:
            engine_end.close()
            zygote.main(zygote_end, load_interfaces)
        zygote_end.close()
        return cls(engine_end, pid)

    def close(self) -> None:
        """Stop the zygote; the shims keep running."""
        self._sock.close()
        os.waitpid(self.zygote_pid, 0)

    def _send(self, request: protocol.ZygoteRequest, fds: Sequence[int]) -> None:
        try:
            seqpacket.send(self._sock, protocol.encode(request), fds)
        except OSError as error:
            raise Unavailable(f"the zygote is gone: {error}", hint="restart the engine") from error

    async def sandbox(
        self,
        mappings: Sequence[IDMapping],
        *,
        network: bool = True,
        gid_mappings: Sequence[IDMapping] = (),
    ) -> Sandbox:
        """Create a user namespace and a network namespace; the caller closes them.

        :raises RuntimeFailure: when the kernel refuses.
        """
        request = SandboxRequest(tuple(mappings), network, tuple(gid_mappings))
        fds = await self._namespaces(request)
        return Sandbox(fds[0], fds[1] if network else -1)

    async def sandbox_in_userns(self, user_fd: int) -> Sandbox:
        """Create a network namespace that belongs to an existing user namespace.

        The caller closes the result and keeps ``user_fd``.

        :raises RuntimeFailure: when the kernel refuses.
        """
        fds = await self._namespaces(SandboxRequest((), within=True), user_fd)
        return Sandbox(os.dup(user_fd), fds[0])

    async def _namespaces(self, request: SandboxRequest, *fds: int) -> list[int]:
        import asyncio

        loop = asyncio.get_running_loop()
        sock, zygote_end = _pair()
        with sock:
            with zygote_end:
                self._send(request, (zygote_end.fileno(), *fds))
            sock.setblocking(False)
            ready: asyncio.Future[None] = loop.create_future()
            loop.add_reader(sock.fileno(), _set_ready, ready)
            try:
                await ready
            finally:
                loop.remove_reader(sock.fileno())
            data, namespace_fds = seqpacket.receive(sock)
        if data != b"ok":
            reason = data.decode(errors="replace") or "the zygote is gone"
            raise RuntimeFailure(f"user or network namespace: {reason}")
        return namespace_fds

    async def start(
        self,
        request: StartRequest,
        sandbox: Sandbox | None,
        attachments: Sequence[tuple[int, AttachStream]],
        on_event: OnEvent,
        namespace_fds: Mapping[str, int] | None = None,
    ) -> Shim:
        """Create and start a container; the program runs when this returns.

        ``namespace_fds`` are descriptors by namespace type. The container joins them where the spec
        names a path for that type. The descriptors of ``attachments`` are closed here in every
        case. The sandbox and the namespace descriptors stay open: the caller owns them.

        :raises RuntimeFailure: with Docker's exit code; nothing of the container is left then.
        """
        import asyncio

        sock, shim_end = _pair()
        fds = [shim_end.fileno()]
        if sandbox is not None:
            fds += [sandbox.user_fd, sandbox.net_fd]
        fds += [*(namespace_fds or {}).values(), *(fd for fd, _ in attachments)]
        request = msgspec.structs.replace(
            request,
            sandbox=sandbox is not None,
            namespace_types=tuple(namespace_fds or ()),
            attachments=tuple(stream for _, stream in attachments),
        )
        handle = Shim(sock, on_event, asyncio.get_running_loop())
        try:
            reply = handle.expect(0)
            self._send(request, fds)
        except BaseException:
            handle.close()
            raise
        finally:
            shim_end.close()
            for fd, _ in attachments:
                os.close(fd)
        answer = await reply
        if answer.error:
            handle.close()
            raise RuntimeFailure(answer.error, exit_code=answer.exit_code)
        handle.pid, handle.shim_pid = answer.pid, answer.shim_pid
        return handle

    async def reconnect(self, run_dir: str, on_event: OnEvent) -> Shim | None:
        """Connect to a container's shim after a restart of the engine.

        Return None if there is no shim.
        """
        import asyncio

        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with seqpacket.SocketDir(run_dir) as directory:
                sock.connect(f"{directory}/{SOCKET_NAME}")
        except OSError:
            sock.close()
            return None
        handle = Shim(sock, on_event, asyncio.get_running_loop())
        try:
            await handle.hello()
        except (RuntimeFailure, Unavailable):
            handle.close()
            return None
        return handle

    @staticmethod
    def exit_record(run_dir: str) -> ExitRecord | None:
        """Return what the shim wrote when the container exited, or None if it wrote nothing."""
        try:
            with open(f"{run_dir}/{shim.EXIT_NAME}", "rb") as file:
                return protocol.decode_exit(file.read())
        except FileNotFoundError:
            return None
