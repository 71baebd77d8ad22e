"""Commands of the CLI that the engine runs as root for a caller that may have their answer.

``jaula why``, ``jaula record`` and ``jaula audit`` trace or read the kernel. The engine runs them
as they are, with its own socket, and returns what they print. Arguments of clients come after the
flags, each as one word.

``jaula harden`` reads nothing but the record of the client. So it is not run as root: a sandboxed
process derives the profile.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import msgspec

from jaula.engine.parsers import parse
from jaula.engine.system.jaula_process import command, environment
from jaula.errors import Conflict, InvalidRequest, RuntimeFailure, Unavailable
from jaula.sandbox.sandbox_limits import Limits
from jaula.sandbox.start_sandbox import Task

MAX_COMMANDS = 4  # at the same time
MAX_OUTPUT = 64 << 20  # bytes
MAX_ERROR = 4096  # bytes
MAX_RECORD = 64 << 20  # bytes
CHUNK = 1 << 16  # bytes
RECORD = Task("jaula-harden", "the record", "jaula.features.harden.record_worker:profile")
RECORD_LIMITS = Limits(memory=768 << 20, processor=60, result=4 << 20)
MAX_SECONDS = 3600.0  # of a record
_STOP = 10.0  # seconds until a command that was interrupted is killed


class Commands:
    """Runs commands, at most :data:`MAX_COMMANDS` at the same time."""

    def __init__(self, socket: str, directory: Path) -> None:
        self._socket = socket
        self._directory = directory  # of temporary files, on a volatile file system
        self._running = 0

    async def why(self, container: str, words: Sequence[str], user: str, timeout: float) -> bytes:
        """Run a command in a container and explain what was refused; JSON.

        Without ``words`` the end of an exited container is explained.
        """
        flags = ["--format", "json", "--all", *(["--user", user] if user else [])]
        rest = ["--", *words] if words else []
        return await self._output(["why", *flags, container, *rest], timeout)

    async def audit(self, scopes: Sequence[str], profile: str, timeout: float) -> bytes:
        """Return the assessment of a benchmark; JSON."""
        flags = [f"--{scope}" for scope in scopes]
        words = ["audit", "--format", "json", "--no-history", "--profile", profile, *flags]
        return await self._output(words, timeout, statuses=(0, 1))

    async def harden(self, record: AsyncIterator[bytes], timeout: float) -> bytes:
        """Return the profile of what a record has, as TOML.

        :raises InvalidRequest: when it is not a record, or too large.
        """
        fd = os.memfd_create("record", os.MFD_CLOEXEC)
        try:
            size = 0
            async for chunk in record:
                size += len(chunk)
                if size > MAX_RECORD:
                    raise InvalidRequest(f"a record has at most {MAX_RECORD} bytes here")
                os.write(fd, chunk)
            os.lseek(fd, 0, os.SEEK_SET)
            limits = msgspec.structs.replace(RECORD_LIMITS, patience=timeout)
            return await parse(RECORD, b"", (fd,), limits=limits)
        finally:
            os.close(fd)

    async def record(self, container: str, seconds: float) -> AsyncIterator[bytes]:
        """Record a container and yield the file; the record ends early if the client leaves."""
        descriptor, path = tempfile.mkstemp(dir=self._directory, suffix=".record")
        os.close(descriptor)
        os.unlink(path)  # the command makes a new file
        try:
            words = ["record", "--for", f"{seconds:g}s", "-o", path, container]
            await self._output(words, seconds + 60.0)
            file = await asyncio.to_thread(open, path, "rb")
            with file:
                while chunk := await asyncio.to_thread(file.read, CHUNK):
                    yield chunk
        finally:
            with suppress(FileNotFoundError):
                os.unlink(path)

    async def _output(
        self, words: Sequence[str], timeout: float, *, statuses: Sequence[int] = (0,)
    ) -> bytes:
        """Run a command and return its standard output.

        :raises Conflict: when it fails, with its message.
        :raises Unavailable: when it takes too long, or too many run.
        """
        line = command("jaula", "-H", f"unix://{self._socket}", *words)
        async with self._slot():
            try:
                child = await asyncio.create_subprocess_exec(
                    *line,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.PIPE,
                    stderr=asyncio.subprocess.PIPE,
                    env=environment(),
                    cwd="/",
                    process_group=0,
                )
            except OSError as error:
                raise RuntimeFailure(f"cannot run jaula {words[0]}: {error.strerror}") from error
            try:
                async with asyncio.timeout(timeout):
                    output, errors = await asyncio.gather(
                        _read(child.stdout, MAX_OUTPUT), _read_end(child.stderr, MAX_ERROR)
                    )
                    await child.wait()
            except TimeoutError:
                raise Unavailable(
                    f"jaula {words[0]} has not ended after {timeout:g} seconds"
                ) from None
            finally:
                await _stop(child)
        if child.returncode not in statuses:
            text = errors.decode("utf-8", "replace").strip()
            raise Conflict(text.removeprefix("jaula: ") or f"jaula {words[0]} failed")
        return output

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        if self._running >= MAX_COMMANDS:
            raise Unavailable(
                f"{self._running} records, explanations and audits run: wait for one of them"
            )
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1


async def _read(stream: asyncio.StreamReader | None, limit: int) -> bytes:
    assert stream is not None, "it is a pipe"
    data = bytearray()
    while chunk := await stream.read(CHUNK):
        data += chunk
        if len(data) > limit:
            raise Unavailable(f"the answer has more than {limit} bytes")
    return bytes(data)


async def _read_end(stream: asyncio.StreamReader | None, limit: int) -> bytes:
    """Return the last bytes of a stream."""
    assert stream is not None, "it is a pipe"
    data = b""
    while chunk := await stream.read(CHUNK):
        data = (data + chunk)[-limit:]
    return data


async def _stop(child: asyncio.subprocess.Process) -> None:
    """Interrupt a command that runs, so that it restores what it changed; then kill it."""
    for each, seconds in ((signal.SIGINT, _STOP), (signal.SIGKILL, _STOP)):
        if child.returncode is not None:
            return
        with suppress(ProcessLookupError):
            os.killpg(child.pid, each)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await child.wait()
