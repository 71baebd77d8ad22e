"""The engine's side of zygote and shims: an async facade over their channels.

:class:`Runtime` is made before asyncio is imported, since it forks; its coroutines need a running
loop from then on.
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


def _set(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends of a channel, as the event loop takes them."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


class Sandbox:
    """A user namespace and the network namespace that it owns, as descriptors."""

    def __init__(self, user_fd: int, net_fd: int) -> None:
        self.user_fd = user_fd
        self.net_fd = net_fd

    def close(self) -> None:
        """Let go; the kernel removes what nobody else holds."""
        for fd in (self.user_fd, self.net_fd):
            if fd >= 0:
                os.close(fd)
        self.user_fd = self.net_fd = -1


class Shim:
    """A running container. ``gone`` is set when the channel is lost."""

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
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self.on_gone: Callable[[], None] | None = None
        sock.setblocking(False)
        loop.add_reader(sock.fileno(), self._readable)

    def expect(self, number: int) -> asyncio.Future[Answer]:
        """A future for the answer of that number."""
        future: asyncio.Future[Answer] = self._loop.create_future()
        self._waiting[number] = future
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
                self._lost()
                return
            message = protocol.decode_from_shim(data)
            if isinstance(message, Answer):
                future = self._waiting.pop(message.number, None)
                if future is not None and not future.done():
                    future.set_result(message)
            else:
                self._on_event(message)

    def _lost(self) -> None:
        self.close()
        if self.on_gone is not None:
            self.on_gone()

    def close(self) -> None:
        """Stop listening; the shim goes on without us."""
        if self.gone:
            return
        self.gone = True
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_result(Answer(0, error="the container's shim is gone"))
        self._waiting.clear()

    async def _ask(self, request: protocol.ShimRequest, fds: Sequence[int] = ()) -> Answer:
        if self.gone:
            raise Unavailable("the container's shim is gone", hint="the container has ended")
        future = self.expect(request.number)
        try:
            seqpacket.send(self._sock, protocol.encode(request), fds)
        except OSError as error:
            self._waiting.pop(request.number, None)
            raise Unavailable(f"the container's shim does not answer: {error}") from error
        answer = await future
        if answer.error:
            raise RuntimeFailure(answer.error, exit_code=answer.exit_code)
        return answer

    def _next(self) -> int:
        self._number += 1
        return self._number

    async def hello(self) -> None:
        """Ask for the pids and the execs that run."""
        answer = await self._ask(HelloRequest(self._next()))
        self.pid, self.shim_pid, self.execs = answer.pid, answer.shim_pid, answer.execs

    async def attach(self, fd: int, stream: AttachStream) -> None:
        """Hand a client's socket over; ``fd`` is closed here in every case."""
        try:
            await self._ask(AttachRequest(self._next(), stream), (fd,))
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
        """Run one more process; returns its host pid. ``fd`` is closed here in every case."""
        try:
            request = ExecRequest(self._next(), exec_id, process, tty, console, stream)
            answer = await self._ask(request, () if fd is None else (fd,))
            return answer.pid
        finally:
            if fd is not None:
                os.close(fd)

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        """Set a terminal's size; the empty id is the container's own."""
        await self._ask(ResizeRequest(self._next(), exec_id, height, width))

    async def signal(self, signum: int, exec_id: str = "") -> int:
        """Signal init or an exec'd process; its pid on the host."""
        return (await self._ask(SignalRequest(self._next(), exec_id, signum))).pid


class Runtime:
    """The zygote, and the shims it forks."""

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self._sock = sock
        self.zygote_pid = pid

    @classmethod
    def launch(cls, load_parts: Callable[[], Interfaces]) -> Runtime:
        """Fork the zygote. Call before anything starts a thread or imports asyncio."""
        ours, theirs = _pair()
        pid = os.fork()
        if pid == 0:
            ours.close()
            zygote.main(theirs, load_parts)
        theirs.close()
        return cls(ours, pid)

    def close(self) -> None:
        """End the zygote; shims live on."""
        self._sock.close()
        os.waitpid(self.zygote_pid, 0)

    def _order(self, request: protocol.ZygoteRequest, fds: Sequence[int]) -> None:
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
        """A fresh pair of namespaces; the caller closes it. Raises ``RuntimeFailure``."""
        wanted = SandboxRequest(tuple(mappings), network, tuple(gid_mappings))
        fds = await self._namespaces(wanted)
        return Sandbox(fds[0], fds[1] if network else -1)

    async def network_within(self, user_fd: int) -> Sandbox:
        """A fresh network namespace that belongs to a user namespace which exists.

        The caller closes what it gets, and keeps ``user_fd``. Raises ``RuntimeFailure``.
        """
        fds = await self._namespaces(SandboxRequest((), within=True), user_fd)
        return Sandbox(os.dup(user_fd), fds[0])

    async def _namespaces(self, wanted: SandboxRequest, *fds: int) -> list[int]:
        import asyncio

        loop = asyncio.get_running_loop()
        ours, theirs = _pair()
        with ours:
            with theirs:
                self._order(wanted, (theirs.fileno(), *fds))
            ours.setblocking(False)
            ready: asyncio.Future[None] = loop.create_future()
            loop.add_reader(ours.fileno(), _set, ready)
            try:
                await ready
            finally:
                loop.remove_reader(ours.fileno())
            data, made = seqpacket.receive(ours)
        if data != b"ok":
            reason = data.decode(errors="replace") or "the zygote is gone"
            raise RuntimeFailure(f"user or network namespace: {reason}")
        return made

    async def start(
        self,
        request: StartRequest,
        sandbox: Sandbox | None,
        attachments: Sequence[tuple[int, AttachStream]],
        on_event: OnEvent,
        held: Mapping[str, int] | None = None,
    ) -> Shim:
        """Create and start a container; the program runs when this returns.

        ``held`` are descriptors of namespaces by type: they are entered where the spec names a path
        for that type. The attachments' descriptors are closed here in every case; the sandbox and
        what is held stay the caller's.
        Raises ``RuntimeFailure`` with Docker's exit code; then nothing of the container is left.
        """
        import asyncio

        ours, theirs = _pair()
        fds = [theirs.fileno()]
        if sandbox is not None:
            fds += [sandbox.user_fd, sandbox.net_fd]
        fds += [*(held or {}).values(), *(fd for fd, _ in attachments)]
        request = msgspec.structs.replace(
            request,
            sandbox=sandbox is not None,
            held=tuple(held or ()),
            attachments=tuple(stream for _, stream in attachments),
        )
        handle = Shim(ours, on_event, asyncio.get_running_loop())
        try:
            answering = handle.expect(0)
            self._order(request, fds)
        except BaseException:
            handle.close()
            raise
        finally:
            theirs.close()
            for fd, _ in attachments:
                os.close(fd)
        answer = await answering
        if answer.error:
            handle.close()
            raise RuntimeFailure(answer.error, exit_code=answer.exit_code)
        handle.pid, handle.shim_pid = answer.pid, answer.shim_pid
        return handle

    async def reconnect(self, run_dir: str, on_event: OnEvent) -> Shim | None:
        """Find a container's shim after an engine restart; None when there is none."""
        import asyncio

        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with seqpacket.SocketDir(run_dir) as place:
                sock.connect(f"{place}/{SOCKET_NAME}")
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
        """What the shim wrote when the container ended; None when it wrote nothing."""
        try:
            with open(f"{run_dir}/{shim.EXIT_NAME}", "rb") as file:
                return protocol.decode_exit(file.read())
        except FileNotFoundError:
            return None
