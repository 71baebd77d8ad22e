"""Run a command in a container and return its output: ``ExecSync`` of CRI."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, NamedTuple

from jaula.engine.containers import exec_session
from jaula.spec.api_documents import ExecCreate
from jaula.spec.stdcopy import STREAMS, StdcopyReader

if TYPE_CHECKING:
    from jaula.engine.containers.container_exec import Execs
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services

OUTPUT_LIMIT = 16 << 20  # bytes of both streams; what is more is read and dropped
_END_SECONDS = 5.0  # from the kill, or the exit, until the output ends


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
                await exec_session.kill_in_container(services, container, execs.find(exec_id).pid)
                await asyncio.wait((finished,), timeout=_END_SECONDS)  # no zombie is left
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


async def _read(sock: socket.socket) -> tuple[bytes, bytes]:
    """Return both streams of a framed one; cancelled, those that have arrived."""
    loop, reader = asyncio.get_running_loop(), StdcopyReader()
    stdout, stderr = bytearray(), bytearray()
    try:
        while data := await loop.sock_recv(sock, 1 << 16):
            for stream, part in reader.feed(data):
                room = OUTPUT_LIMIT - len(stdout) - len(stderr)
                (stderr if stream == STREAMS["stderr"] else stdout).extend(part[:room])
    except asyncio.CancelledError:
        pass
    return bytes(stdout), bytes(stderr)
