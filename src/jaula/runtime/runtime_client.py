"""The engine's side of the zygote and the shims: an async facade over their sockets.

:class:`Runtime` forks the zygote, so it is created before asyncio is imported. Its coroutines need
a running event loop.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from jaula.errors import InvalidRequest, RuntimeFailure, Unavailable, Unsupported
from jaula.kernel import process_calls
from jaula.runtime import seqpacket, shim_protocol
from jaula.runtime.shim_protocol import (
    EXIT_NAME,
    SHIM_COMM,
    SOCKET_NAME,
    Answer,
    AttachRequest,
    AttachStream,
    DebugRequest,
    Event,
    ExecRequest,
    ExitRecord,
    HelloRequest,
    ListenRequest,
    LogFollowersRequest,
    MountsRequest,
    ReopenLogRequest,
    ResizeRequest,
    SandboxRequest,
    SignalRequest,
    SpareInitRequest,
    StartRequest,
)
from jaula.spec.runtime_spec import IDMapping, Process, Spec

if TYPE_CHECKING:
    import asyncio

    from jaula.runtime.interfaces import Interfaces

OnEvent = Callable[[Event], None]
_UNDECODED = 0  # number of the answer to a request that the shim cannot decode
_LOST = -1  # number of the answer to every request of a shim that is gone
_CLOSE_TIMEOUT = 5.0  # seconds for a process that was told to exit, or killed
_CHECK_INTERVAL = 1.0  # seconds between two checks of a silent shim
_EXECS_SENT = 8  # requests of one shim, which creates one process after the other
_SEND_INTERVAL = 0.005  # seconds between two attempts to send to a full socket
_SILENT = "the zygote does not answer"
_ZYGOTE = "jaula-zygote"  # in a message
_ucred = struct.Struct("iII")  # pid, uid, gid: unix(7), SO_PEERCRED


def _set_ready(ready: asyncio.Future[None]) -> None:
    """Mark a socket as readable; the event loop may call this more than once."""
    if not ready.done():
        ready.set_result(None)


def remove_shim_files(run_dir: str) -> None:
    """Remove the exit record and the socket of an earlier shim, which a new one must not show."""
    for name in (EXIT_NAME, SOCKET_NAME):
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


class SpareInit:
    """An init that was created ahead for a container; it ends when the control socket is closed."""

    def __init__(self, container_id: str, control: socket.socket) -> None:
        self.container_id = container_id
        self._control = control
        self._loop: asyncio.AbstractEventLoop | None = None

    def watch(self, on_end: Callable[[], None]) -> None:
        """Call ``on_end`` in the event loop if its shim ends before :meth:`end` or a start."""
        import asyncio

        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._control.fileno(), on_end)

    def unwatch(self) -> None:
        """Do not call it any more."""
        if self._loop is not None:
            self._loop.remove_reader(self._control.fileno())
            self._loop = None

    def end(self) -> None:
        """Give it up, unless a start has it. :meth:`wait` waits until nothing of it is left."""
        self.unwatch()
        with contextlib.suppress(OSError):  # it has ended
            self._control.shutdown(socket.SHUT_WR)

    def wait(self) -> None:
        """Wait until the process has ended and its cgroup is removed, or a start has it."""
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.poll(_CLOSE_TIMEOUT * 1000)
        self.close()

    def close(self) -> None:
        """Close the control socket, which ends it unless a start has it."""
        self.unwatch()
        self._control.close()


class ShimLost(RuntimeFailure):
    """A shim ended or was killed before it reported; parts of its container may exist."""


def kill_holders(inode: int, zygote_pid: int) -> None:
    """Kill every process but the zygote that has a descriptor of the socket with this inode."""
    link = f"socket:[{inode}]"
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != zygote_pid:
            process_calls.kill_if(int(name), lambda pid: _has_descriptor(pid, link))


def _has_descriptor(pid: int, link: str) -> bool:
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if process_calls.fd_name(pid, fd) == link:
                return True
    return False


def is_shim(pid: int) -> bool:
    """Return whether a process has the name of a shim.

    :raises FileNotFoundError: when there is no such process.
    """
    with open(f"/proc/{pid}/comm", "rb") as file:
        return file.read() == f"{SHIM_COMM}\n".encode()


def kill_child(pid: int, parent: int) -> None:
    """Kill a process if it is still a child of ``parent``."""
    if pid:
        process_calls.kill_if(pid, lambda pid: _parent(pid) == parent)


def hang_up(shim_pid: int, pid: int) -> bool:
    """Let the shim with the child ``pid`` make its socket again, if its file was removed.

    Return whether there is such a shim. It may be stopped.
    """
    return _signal_shim(shim_pid, pid, signal.SIGHUP)


def kill_shim(shim_pid: int, pid: int) -> bool:
    """Kill the shim with the child ``pid``; return whether there was one."""
    return _signal_shim(shim_pid, pid, signal.SIGKILL)


def _signal_shim(shim_pid: int, pid: int, number: int) -> bool:
    return bool(shim_pid) and process_calls.signal_if(
        shim_pid, number, lambda shim: is_shim(shim) and _parent(pid) == shim
    )


def _parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _is_stopped(pid: int) -> bool:
    """Return whether a signal has stopped a process."""
    try:
        return _stat(pid)[0] == b"T"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _stat(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat from the state on (proc_pid_stat(5))."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


async def _send(
    sock: socket.socket,
    data: bytes,
    fds: Sequence[int],
    timeout: float,
    can_read: Callable[[], bool] = lambda: True,
) -> None:
    """Send a message; wait while the socket is full, as long as the peer can read.

    :raises BlockingIOError: when the peer reads nothing within ``timeout`` seconds, or cannot.
    :raises OSError: when the peer is gone, or the message is larger than the buffer.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            seqpacket.send(sock, data, fds)
            return
        except BlockingIOError:
            if time.monotonic() > deadline or not can_read():
                raise
        import asyncio

        await asyncio.sleep(_SEND_INTERVAL)


class Shim:
    """A connection to the shim of a running container.

    ``gone`` is set when the connection is lost. ``kill_unreported`` kills a shim that has not
    reported its pid. The other end of a new shim's socket is held by the shim and the processes
    that create the container. So end of file means that none of them is left.
    """

    def __init__(
        self,
        sock: socket.socket,
        on_event: OnEvent,
        loop: asyncio.AbstractEventLoop,
        kill_unreported: Callable[[], None] | None = None,
    ) -> None:
        import asyncio

        self._kill_unreported = kill_unreported
        self._closed = asyncio.Event()
        self.pid = 0
        self.shim_pid = 0
        self.execs: tuple[str, ...] = ()
        self.gone = False
        self.runtime: shim_protocol.ExternalRuntime | None = None
        self._engine_socket = -1
        self._sock = sock
        self._on_event = on_event
        self._loop = loop
        self._number = 0
        self._pending: dict[int, asyncio.Future[Answer]] = {}
        self._checkpoints: set[int] = set()  # numbers of these requests
        self._exec_slots = asyncio.Semaphore(_EXECS_SENT)
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
            if fds:  # with the answer to hello
                self._close_engine_socket()
                self._engine_socket = fds.pop(0)
            for fd in fds:
                os.close(fd)
            if not data:
                self._disconnect()
                return
            message = shim_protocol.decode_from_shim(data)
            if isinstance(message, Answer):
                self._resolve(message)
            else:
                self._on_event(message)

    def _resolve(self, answer: Answer) -> None:
        """Give an answer to its request.

        A shim answers in the order of the requests, except a checkpoint. It does not know the
        number of a request that it cannot decode, since a newer engine made it: that is the first
        one without an answer.
        """
        number = answer.number
        if number == _UNDECODED:
            in_order = (each for each in self._pending if each not in self._checkpoints)
            number = next(in_order, next(iter(self._pending), _UNDECODED))
        future = self._pending.pop(number, None)
        if future is not None and not future.done():
            future.set_result(answer)

    def _disconnect(self) -> None:
        self.close()
        if self.on_gone is not None:
            self.on_gone()

    def close(self) -> None:
        """Close the connection; the shim keeps running."""
        if self.gone:
            return
        self.gone = True
        self._closed.set()
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        self._close_engine_socket()
        for future in self._pending.values():
            if not future.done():
                future.set_result(Answer(_LOST, error="the container's shim is gone"))
        self._pending.clear()

    def take_engine_socket(self) -> socket.socket | None:
        """Return the listening engine socket of the container, if :meth:`hello` brought one.

        The caller owns it.
        """
        fd, self._engine_socket = self._engine_socket, -1
        return socket.socket(fileno=fd) if fd >= 0 else None

    def _close_engine_socket(self) -> None:
        if self._engine_socket >= 0:
            os.close(self._engine_socket)
            self._engine_socket = -1

    async def kill(self) -> None:
        """Kill the shim, and the processes of a container that it still creates.

        ``gone`` is set when this returns.
        """
        import asyncio

        if self.gone:
            return
        if self.shim_pid:
            process_calls.kill_if(self.shim_pid, is_shim)
        elif self._kill_unreported is not None:
            with contextlib.suppress(OSError):  # no process has the other end
                seqpacket.send(self._sock, shim_protocol.CANCEL)
            await asyncio.to_thread(self._kill_unreported)
        try:
            await asyncio.wait_for(self._closed.wait(), _CLOSE_TIMEOUT)
        except TimeoutError:  # a process hangs in the kernel, or the zygote has not forked the shim
            self._disconnect()

    async def _answer(
        self, future: asyncio.Future[Answer], number: int, timeout: float | None
    ) -> Answer:
        """Return the answer with the number ``number``.

        :raises Unavailable: when it does not arrive within ``timeout`` seconds, or the shim is
            stopped.
        """
        import asyncio

        if timeout is None:
            return await future
        deadline = self._loop.time() + timeout
        while True:
            left = deadline - self._loop.time()
            done, _ = await asyncio.wait((future,), timeout=min(left, _CHECK_INTERVAL))
            if done:
                return future.result()
            if left <= _CHECK_INTERVAL or _is_stopped(self.shim_pid):
                self._pending.pop(number, None)
                raise Unavailable(
                    "the container's shim does not answer",
                    hint="remove the container by force if its shim stays silent",
                )

    async def _request(
        self,
        request: shim_protocol.ShimRequest,
        fds: Sequence[int] = (),
        timeout: float | None = shim_protocol.ANSWER_TIMEOUT,
    ) -> Answer:
        if self.gone:
            raise Unavailable("the container's shim is gone", hint="the container has ended")
        future = self.expect(request.number)
        try:
            await _send(
                self._sock,
                shim_protocol.encode(request),
                fds,
                shim_protocol.ANSWER_TIMEOUT if timeout is None else timeout,
                lambda: not self.gone and not _is_stopped(self.shim_pid),
            )
        except OSError as error:
            self._pending.pop(request.number, None)
            if error.errno == errno.EMSGSIZE:
                raise InvalidRequest(
                    "the command and its variables are too large for the container's shim",
                    hint="put them into a file of the container",
                ) from None
            raise Unavailable(f"the container's shim does not answer: {error}") from error
        answer = await self._answer(future, request.number, timeout)
        if answer.number == _UNDECODED:
            raise Unsupported(
                f"the container's shim does not know this request: {answer.error}",
                hint="an older jaula has started the container: restart the container",
            )
        if answer.error:
            raise RuntimeFailure(answer.error, exit_code=answer.exit_code, errno=answer.errno)
        return answer

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    async def hello(self, timeout: float | None = shim_protocol.ANSWER_TIMEOUT) -> None:
        """Ask the shim for its pids and the running execs.

        Without ``timeout``, wait until it answers or exits.
        """
        answer = await self._request(HelloRequest(self._next_number()), timeout=timeout)
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
        process_spec: Process,
        *,
        tty: bool,
        console: tuple[int, int] = (0, 0),
        fd: int | None = None,
        stream: AttachStream | None = None,
        tools: tuple[int, ...] = (),
    ) -> int:
        """Run another process in the container and return its host pid.

        ``console`` is (rows, columns); 0 keeps the kernel's size. ``fd`` is the client's socket.
        ``tools`` are the descriptors of a :class:`DebugRequest`, for a debug session. All
        descriptors are closed here in every case.

        Requests beyond some wait here: they would fill the socket, which signals pass too.
        """
        fds = (*(() if fd is None else (fd,)), *tools)
        arguments = (self._next_number(), exec_id, process_spec, tty, console, stream)
        try:
            request: ExecRequest | DebugRequest = ExecRequest(*arguments)
            if tools:
                request = DebugRequest(*arguments, target=len(tools) > 1)
            async with self._exec_slots:
                answer = await self._request(
                    request, fds, shim_protocol.start_timeout(self.runtime)
                )
            return answer.pid
        finally:
            for each in fds:
                os.close(each)

    async def change_mounts(
        self,
        spec: Spec,
        removed: tuple[str, ...],
        *,
        detach: bool = False,
        undo: bool = False,
        free: tuple[str, ...] = (),
        host_mounts: int = -1,
    ) -> None:
        """Make the mounts of ``spec`` in the container, and unmount those at ``removed``.

        ``host_mounts`` is a descriptor of the host's mount namespace, -1 for the shim's own. It
        stays open. See :class:`MountsRequest`.

        :raises RuntimeFailure: when a mount cannot be made or removed; all are as before then.
        """
        fds = () if host_mounts < 0 else (host_mounts,)
        number = self._next_number()
        request = MountsRequest(number, spec, removed, detach, undo, free, bool(fds))
        await self._request(request, fds, shim_protocol.start_timeout(self.runtime))

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        """Set the size of a terminal; an empty id means the container's own terminal."""
        await self._request(ResizeRequest(self._next_number(), exec_id, height, width))

    async def reopen_log(self) -> None:
        """Open the log's file again, which another program has renamed.

        :raises RuntimeFailure: when it cannot be opened: then the log goes on in the present file.
        """
        await self._request(ReopenLogRequest(self._next_number()))

    async def listen(self) -> None:
        """Make the socket for later engines again, whose file another program has removed.

        :raises RuntimeFailure: when it cannot be bound, or the container has exited.
        """
        await self._request(ListenRequest(self._next_number()))

    async def checkpoint(self, request: shim_protocol.CheckpointRequest, commit_fd: int) -> None:
        """Dump the container; ``commit_fd`` is closed here in every case.

        The other end of that socket answers :data:`protocol.HELD`. The request gets a number here.

        :raises RuntimeFailure: when it fails; the container runs on, but a held one stays frozen if
            CRIU or the helper of the shim was killed.
        """
        timeout = None if request.hold else shim_protocol.checkpoint_timeout()
        request = msgspec.structs.replace(request, number=self._next_number())
        self._checkpoints.add(request.number)
        try:
            await self._request(request, (commit_fd,), timeout)
        finally:
            self._checkpoints.discard(request.number)
            os.close(commit_fd)

    async def signal(
        self, signum: int, exec_id: str = "", timeout: float = shim_protocol.ANSWER_TIMEOUT
    ) -> int:
        """Send a signal to init or to an exec'd process; return the host pid of that process."""
        request = SignalRequest(self._next_number(), exec_id, signum)
        return (await self._request(request, timeout=timeout)).pid


class Runtime:
    """The zygote, and the shims that it forks."""

    def __init__(self, sock: socket.socket, pid: int, host_mounts: int = -1) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.host_mounts = host_mounts
        self.zygote_pid = pid

    @classmethod
    def launch(
        cls,
        load_interfaces: Callable[[], Interfaces],
        *,
        host_mounts: int = -1,
        spare_shims: int = 1,
        lay_out_memory: bool = False,
        room_for_spares: Callable[[], int] = lambda: sys.maxsize,
    ) -> Runtime:
        """Fork the zygote. Call this before anything starts a thread or imports asyncio.

        The zygote imports its own modules, which the engine does not need.

        ``host_mounts`` is a descriptor of the host's mount namespace, if that is another one than
        this process's. It stays open as long as the process runs. ``spare_shims`` is the number of
        shims that the zygote forks ahead of requests. ``lay_out_memory`` prepares its memory for
        many shims, which takes longer the more memory this process has. ``room_for_spares`` returns
        how many more spare shims there is memory for; it is negative if there are too many.
        """
        engine_end, zygote_end = _pair()
        pid = os.fork()
        if pid == 0:
            engine_end.close()

            def run() -> None:
                from jaula.runtime import zygote

                zygote.main(
                    *(zygote_end, load_interfaces, spare_shims),
                    lay_out_memory=lay_out_memory,
                    room_for_spares=room_for_spares,
                )

            process_calls.run_and_exit(_ZYGOTE, run)
        zygote_end.close()
        return cls(engine_end, pid, host_mounts)

    def close(self) -> None:
        """Stop the zygote; the shims keep running. A zygote that does not exit is killed."""
        self._sock.close()
        pidfd = process_calls.pidfd_open(self.zygote_pid)
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(_CLOSE_TIMEOUT * 1000):
                process_calls.pidfd_send_signal(pidfd, signal.SIGKILL)
        finally:
            os.close(pidfd)
        os.waitpid(self.zygote_pid, 0)

    async def _send(self, request: shim_protocol.ZygoteRequest, fds: Sequence[int]) -> None:
        """Send a request to the zygote; wait while its socket is full.

        :raises Unavailable: when it is gone, or does not read.
        """
        try:
            await _send(
                self._sock, shim_protocol.encode(request), fds, shim_protocol.SANDBOX_TIMEOUT
            )
        except BlockingIOError:
            raise Unavailable(_SILENT, hint="restart the engine") from None
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
                await self._send(request, (zygote_end.fileno(), *fds))
            sock.setblocking(False)
            ready: asyncio.Future[None] = loop.create_future()
            loop.add_reader(sock.fileno(), _set_ready, ready)
            try:
                await asyncio.wait_for(ready, shim_protocol.SANDBOX_TIMEOUT)
            except TimeoutError:
                raise Unavailable(_SILENT, hint="restart the engine") from None
            finally:
                loop.remove_reader(sock.fileno())
            data, namespace_fds = seqpacket.receive(sock)
        if data != b"ok":
            reason = data.decode(errors="replace") or "the zygote is gone"
            raise RuntimeFailure(f"user or network namespace: {reason}")
        return namespace_fds

    async def spare_init(
        self, container_id: str, sandbox: Sandbox, spec: Spec, mount_point: str
    ) -> SpareInit:
        """Let the zygote create the init of a later start of a container, in this sandbox.

        The start has it if its spec has the shape of ``spec``. This does not wait for the process:
        if it cannot be created, the start creates another one. ``mount_point`` is an empty
        directory.

        :raises Unavailable: when the zygote is gone.
        """
        control, shim_end = _pair()
        with shim_end:
            request = SpareInitRequest(container_id, mount_point, spec)
            fds = (shim_end.fileno(), sandbox.user_fd, sandbox.net_fd)
            try:
                await self._send(request, fds)
            except BaseException:
                control.close()
                raise
        return SpareInit(container_id, control)

    async def log_followers(self) -> socket.socket:
        """Fork the process that follows logs; it exits when the returned socket is closed.

        :raises Unavailable: when the zygote is gone.
        """
        sock, process_end = _pair()
        with process_end:
            await self._send(LogFollowersRequest(), (process_end.fileno(),))
        sock.setblocking(False)
        return sock

    async def start(
        self,
        request: StartRequest,
        sandbox: Sandbox | None,
        attachments: Sequence[tuple[int, AttachStream]],
        on_event: OnEvent,
        namespace_fds: Mapping[str, int] | None = None,
        on_request: Callable[[Shim], None] | None = None,
        *,
        engine_socket: int = -1,
        hold: int = -1,
        inherited: Sequence[int] = (),
    ) -> Shim:
        """Create and start a container; the program runs when this returns.

        ``namespace_fds`` are descriptors by namespace type. The container joins them, whether the
        spec names a path for that type or asks for a new one. The program gets ``inherited``. These
        descriptors and those of ``attachments`` are closed here in every case. The sandbox and the
        namespace descriptors stay open: the caller owns them. ``on_request`` gets the connection
        when the request was sent: its ``kill`` ends the start. The shim holds a duplicate of
        ``engine_socket`` as long as the container runs. ``hold`` is the other end of a socket on
        which a restore asks before its processes run.

        :raises RuntimeFailure: with Docker's exit code; nothing of the container is left then.
        :raises ShimLost: when the shim was killed, or did not answer and was killed. No process
            that creates the container is left then, but its cgroup and its init may be.
        """
        import asyncio

        sock, shim_end = _pair()
        fds = [shim_end.fileno()]
        if sandbox is not None:
            fds += [sandbox.user_fd, sandbox.net_fd]
        fds += (namespace_fds or {}).values()
        host_mounts = request.host_mounts and self.host_mounts >= 0
        if host_mounts:
            fds.append(self.host_mounts)
        if engine_socket >= 0:
            fds.append(engine_socket)
        if hold >= 0:
            fds.append(hold)
        fds += inherited
        fds += [fd for fd, _ in attachments]
        request = msgspec.structs.replace(
            request,
            sandbox=sandbox is not None,
            namespace_types=tuple(namespace_fds or ()),
            host_mounts=host_mounts,
            engine_socket=engine_socket >= 0,
            hold=hold >= 0,
            inherited=len(inherited),
            attachments=tuple(stream for _, stream in attachments),
        )
        inode = os.fstat(shim_end.fileno()).st_ino
        handle = Shim(
            sock,
            on_event,
            asyncio.get_running_loop(),
            functools.partial(kill_holders, inode, self.zygote_pid),
        )
        handle.runtime = request.runtime
        try:
            reply = handle.expect(0)
            await self._send(request, fds)
        except BaseException:
            handle.close()
            raise
        finally:
            shim_end.close()
            for fd in (*inherited, *(fd for fd, _ in attachments)):
                os.close(fd)
        if on_request is not None:
            on_request(handle)
        timeout = shim_protocol.start_timeout(
            request.runtime,
            checkpoint=request.restore is not None,
            early=request.restore is not None and request.restore.early,
        )
        done, _ = await asyncio.wait((reply,), timeout=timeout)
        if not done:
            await handle.kill()
            raise ShimLost(f"the container's shim did not report in {timeout:g} seconds")
        answer = reply.result()
        if answer.error:
            handle.close()
            if answer.number == _LOST:
                raise ShimLost("the container's shim was killed while the container was created")
            raise RuntimeFailure(answer.error, exit_code=answer.exit_code, errno=answer.errno)
        handle.pid, handle.shim_pid = answer.pid, answer.shim_pid
        return handle

    def connect(self, run_dir: str, on_event: OnEvent) -> Shim | None:
        """Connect to a container's shim after a restart of the engine, without waiting.

        The result has the pid of the shim only, until :meth:`Shim.hello`. Return None if there is
        no shim.
        """
        import asyncio

        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.setblocking(False)
        try:
            with seqpacket.SocketDir(run_dir) as directory:
                sock.connect(f"{directory}/{SOCKET_NAME}")
            peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _ucred.size)
        except OSError:
            sock.close()
            return None
        handle = Shim(sock, on_event, asyncio.get_running_loop())
        handle.shim_pid = _ucred.unpack(peer)[0]  # of the process that listens: unix(7)
        return handle

    async def reconnect(self, run_dir: str, on_event: OnEvent) -> Shim | None:
        """Connect to a container's shim and ask for its state.

        Return None if there is no shim, or none that answers.
        """
        handle = self.connect(run_dir, on_event)
        if handle is None:
            return None
        try:
            await handle.hello()
        except (RuntimeFailure, Unavailable):
            handle.close()
            return None
        return handle

    @staticmethod
    def exit_record(run_dir: str) -> ExitRecord | None:
        """Return what the shim wrote when the container exited, or None if it wrote nothing.

        The shim does not wait for a disk. So a power failure may leave an empty file, if the run
        directory is not on a tmpfs.
        """
        try:
            with open(f"{run_dir}/{EXIT_NAME}", "rb") as file:
                return shim_protocol.decode_exit(file.read())
        except (FileNotFoundError, msgspec.DecodeError, UnicodeDecodeError):
            return None
