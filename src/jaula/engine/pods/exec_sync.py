"""Run a command in a container and return its output: ``ExecSync`` of CRI."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from jaula.engine.containers import exec_session
from jaula.engine.containers.start import open_cgroup
from jaula.errors import JaulaError
from jaula.spec.api import ExecCreate

if TYPE_CHECKING:
    from jaula.engine.containers.exec import Execs
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services

OUTPUT_LIMIT = 16 << 20  # bytes of both streams; what is more is read and dropped
_END_SECONDS = 5.0  # from the kill, or the exit, until the output ends
_HEADER = struct.Struct(">BxxxL")
_STDERR = 2


class ExecResult(NamedTuple):
    """The output and the exit status of a command."""

    stdout: bytes
    stderr: bytes
    exit_code: int


async def exec_sync(
    services: Services,
    execs: Execs,
    container: Container,
    command: tuple[str, ...],
    seconds: float | None,
) -> ExecResult:
    """Run a command; kill it after ``seconds``, never if that is None.

    :raises Conflict: when the container does not run.
    :raises TimeoutError: when the command was killed.
    """
    body = ExecCreate(cmd=command, attach_stdout=True, attach_stderr=True)
    exec_id = await execs.create(container.id, body)
    reader, writer = socket.socketpair()
    with reader:
        reader.setblocking(False)
        output = asyncio.ensure_future(_read(reader))
        try:
            finished = execs.exit_future(exec_id)
            await execs.start(exec_id, writer.detach(), b"", False, False, None)
            done, _ = await asyncio.wait((finished,), timeout=seconds)
            if not done:
                await _kill(services, container, execs.find(exec_id).pid)
                raise TimeoutError(f"the command {command[0]!r} did not end in {seconds:g} s")
            await asyncio.wait((output,), timeout=_END_SECONDS)
            if not output.done():  # a process that the command left has the streams
                output.cancel()
                await asyncio.wait((output,))
            stdout, stderr = output.result()
            return ExecResult(stdout, stderr, finished.result())
        finally:
            output.cancel()
            execs.forget(exec_id)


async def _kill(services: Services, container: Container, session: int) -> None:
    if not session or not container.live:
        return

    def work() -> None:
        try:
            with open_cgroup(services, container.record) as cgroup:
                exec_session.kill_session(session, lambda: cgroup.pids() or (session,))
        except JaulaError:
            if container.live:
                raise

    await asyncio.to_thread(work)


async def _read(sock: socket.socket) -> tuple[bytes, bytes]:
    """Return both streams of a framed one; cancelled, those that have arrived."""
    loop = asyncio.get_running_loop()
    buffer = bytearray()
    streams = {False: bytearray(), True: bytearray()}
    try:
        while data := await loop.sock_recv(sock, 1 << 16):
            buffer += data
            while len(buffer) >= _HEADER.size:
                kind, size = _HEADER.unpack_from(buffer)
                if len(buffer) < _HEADER.size + size:
                    break
                room = OUTPUT_LIMIT - sum(map(len, streams.values()))
                streams[kind == _STDERR] += buffer[_HEADER.size : _HEADER.size + min(size, room)]
                del buffer[: _HEADER.size + size]
    except asyncio.CancelledError:
        pass
    return bytes(streams[False]), bytes(streams[True])
