"""Containers of another OCI runtime: the engine's side.

Making, exec and the end are the shim's (:mod:`jaula.runtime.external.runtime`). Here is what changes a
running container, by the runtime's ``kill``, ``pause``, ``resume`` and ``update``, and what is left
to do when a shim was lost: ``delete --force``.

Which runtime made a container is in ``runtime.json`` of its run directory, and not asked of the
configuration, which may have changed since.
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import msgspec

from jaula.errors import Conflict, JaulaError, RuntimeFailure
from jaula.runtime.external import command_line
from jaula.runtime.protocol import ExternalRuntime

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jaula.config import Paths
    from jaula.spec.runtime import Resources

RUNTIME_FILE = "runtime.json"
TIMEOUT = 10.0  # seconds, for what makes no process
_KEPT = 1 << 21  # bytes of output
_GONE = ("process already finished", "container not running", "no such process", "not running")

_decode = msgspec.json.Decoder(ExternalRuntime).decode
_encode = msgspec.json.Encoder().encode


class RuntimeGone(JaulaError):
    """The runtime says that the container's first process has ended."""


class ExternalContainer:
    """One container that another runtime made."""

    def __init__(self, runtime: ExternalRuntime, run_dir: Path) -> None:
        self.runtime = runtime
        self._run_dir = str(run_dir)
        self._id = run_dir.name

    @classmethod
    def of(cls, run_dir: Path) -> ExternalContainer | None:
        """The one whose run directory this is; None where our own runtime made it.

        :raises RuntimeFailure: it cannot be told, since the file is damaged.
        """
        try:
            with open(run_dir / RUNTIME_FILE, "rb") as file:
                return cls(_decode(file.read()), run_dir)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise RuntimeFailure(f"{run_dir / RUNTIME_FILE}: {error}") from error

    @staticmethod
    def note(run_dir: Path, runtime: ExternalRuntime | None) -> None:
        """Write down which runtime is about to make the container."""
        path = run_dir / RUNTIME_FILE
        if runtime is None:
            path.unlink(missing_ok=True)
            return
        with open(f"{path}.new", "wb", buffering=0) as file:
            file.write(_encode(runtime))
        os.rename(f"{path}.new", path)

    async def _call(self, *arguments: str, stdin: bytes = b"") -> None:
        """One command of the runtime. Raises ``RuntimeFailure`` with its reason."""
        start = command_line.log_size(self._run_dir)
        line = command_line.words(self.runtime, self._run_dir, *arguments)
        status, _, printed = await communicate(line, stdin, TIMEOUT)
        if status:
            reason = command_line.complaint(command_line.logged(self._run_dir, start), printed)
            raise RuntimeFailure(f"OCI runtime {arguments[0]} failed: {reason}")

    async def kill(self, number: int) -> None:
        """Signal the first process.

        :raises Gone: it has ended.
        :raises RuntimeFailure: the runtime refuses.
        """
        try:
            await self._call("kill", self._id, str(number))
        except RuntimeFailure as error:
            if any(text in error.message.lower() for text in _GONE):
                raise RuntimeGone(error.message) from None
            raise

    async def pause(self) -> None:
        """Stop every process where it is."""
        await self._call("pause", self._id)

    async def resume(self) -> None:
        """Let every process go on."""
        await self._call("resume", self._id)

    async def update(self, resources: Resources) -> None:
        """Write new limits.

        :raises Conflict: the runtime refuses them.
        """
        document = msgspec.json.encode(resources)
        try:
            await self._call("update", "--resources", "-", self._id, stdin=document)
        except RuntimeFailure as error:
            raise Conflict(error.message) from error

    async def delete(self) -> None:
        """Have the runtime forget the container, whose processes have ended."""
        await self._call("delete", "--force", self._id)


class _Output:
    """A pipe that is read as the program writes; beyond a bound it is read and dropped."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(self.writing, True)
        self.kept = bytearray()
        asyncio.get_running_loop().add_reader(self._reading, self._read)

    def _read(self) -> bool:
        try:
            chunk = os.read(self._reading, 1 << 16)
        except BlockingIOError:
            return False
        if not chunk:
            asyncio.get_running_loop().remove_reader(self._reading)
        elif len(self.kept) < _KEPT:
            self.kept += chunk
        return bool(chunk)

    def started(self) -> None:
        """The program has its end; ours is of no more use."""
        os.close(self.writing)
        self.writing = -1

    def close(self) -> bytes:
        """Everything that was written. What the program left running may hold the pipe on."""
        for _ in range(16):  # what a full pipe holds, and as much again
            if not self._read():
                break
        asyncio.get_running_loop().remove_reader(self._reading)
        os.close(self._reading)
        if self.writing >= 0:
            os.close(self.writing)
        return bytes(self.kept)


async def communicate(
    line: Sequence[str], stdin: bytes, timeout: float
) -> tuple[int, bytes, bytes]:
    """Run a program: exit status, what it printed on standard output and error, in bounds.

    :raises RuntimeFailure: it cannot be executed, or has not ended in time and was killed.
    """
    output, complaint = _Output(), _Output()
    child: asyncio.subprocess.Process | None = None
    try:
        child = await asyncio.create_subprocess_exec(
            *line,
            stdin=asyncio.subprocess.PIPE,
            stdout=output.writing,
            stderr=complaint.writing,
            env=command_line.environment(),
            process_group=0,
            cwd="/",
        )
        output.started()
        complaint.started()
        async with asyncio.timeout(timeout):
            await child.communicate(stdin)
    except OSError as error:
        if not isinstance(error, TimeoutError):
            raise RuntimeFailure(f"cannot execute {line[0]}: {error.strerror}") from error
        raise RuntimeFailure(
            f"{line[0]} has not ended after {timeout:g} seconds and was killed"
        ) from None
    finally:
        if child is not None and child.returncode is None:
            os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
        printed = output.close(), complaint.close()
    return child.returncode or 0, *printed


def external_container(paths: Paths, container_id: str) -> ExternalContainer | None:
    """The other runtime that made a container; None where it was our own."""
    return ExternalContainer.of(paths.container_run(container_id))
