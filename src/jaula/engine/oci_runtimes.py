"""The OCI runtimes that a container may be given to: our own, and those of the configuration.

Docker's words for them are ``--runtime``, ``runtimes`` and ``default-runtime`` in daemon.json, and
``RuntimeTable`` in ``info``. What a runtime says of itself (``features``, the document of
runtime-spec features.md) is asked once, when the engine starts.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
from typing import TYPE_CHECKING, Any

import msgspec

from jaula.config import OWN_RUNTIME
from jaula.errors import Conflict, InvalidRequest, JaulaError, RuntimeFailure
from jaula.runtime.external import command_line
from jaula.runtime.protocol import ExternalRuntime

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jaula.config import EngineConfig, Paths
    from jaula.spec.runtime import Resources

log = logging.getLogger("jaula.runtimes")

ALIASES = ("runc", "io.containerd.runc.v2")
"""What Docker's clients call the default runtime; ours where no other has the name."""
FEATURES = "org.opencontainers.runtime-spec.features"
_FEATURES_TIMEOUT = 10.0  # seconds
_FEATURES_SIZE = 1 << 20  # bytes
_UNSAID = "1.0.2"  # the spec's version before runtimes could say theirs


class RuntimeFeatures(msgspec.Struct, frozen=True):
    """The part of the features document that is used here."""

    oci_version_max: str = msgspec.field(name="ociVersionMax", default=_UNSAID)


_decode_features = msgspec.json.Decoder(RuntimeFeatures).decode


class RuntimeTable:
    """The table of runtimes, and what each said of itself."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._documents: dict[str, bytes] = {}
        self._probing: dict[str, asyncio.Task[None]] = {}

    def open(self) -> None:
        """Begin to ask every runtime for its features; call in the event loop."""
        loop = asyncio.get_running_loop()
        for runtime in self._config.runtimes:
            self._probing[runtime.name] = loop.create_task(self._probe(runtime.name))

    def change(self, config: EngineConfig) -> None:
        """Other runtimes from now on; those that are new or changed are asked."""
        known, self._config = self._config.runtimes, config
        loop = asyncio.get_running_loop()
        for runtime in config.runtimes:
            if runtime not in known:
                self._documents.pop(runtime.name, None)
                self._probing[runtime.name] = loop.create_task(self._probe(runtime.name))

    async def close(self) -> None:
        """Ask no more."""
        for task in self._probing.values():
            task.cancel()
        await asyncio.gather(*self._probing.values(), return_exceptions=True)

    def choose(self, wanted: str) -> str:
        """The runtime of a new container.

        :raises InvalidRequest: there is none of that name.
        """
        name = wanted or self._config.default_runtime
        if name == OWN_RUNTIME or self._has(name):
            return name
        if name in ALIASES:
            return OWN_RUNTIME
        raise InvalidRequest(f"unknown or invalid runtime name: {name}")

    def _has(self, name: str) -> bool:
        return any(runtime.name == name for runtime in self._config.runtimes)

    async def command(self, name: str) -> ExternalRuntime | None:
        """How to call the runtime of that name; None for our own.

        :raises InvalidRequest: it is not configured any more.
        """
        if self.choose(name or OWN_RUNTIME) == OWN_RUNTIME:
            return None
        if (task := self._probing.get(name)) is not None:
            await asyncio.wait((task,))
        return self._command(name)

    def _command(self, name: str) -> ExternalRuntime:
        runtime = next(r for r in self._config.runtimes if r.name == name)
        # Looked up for each container: the program may be installed, or replaced, meanwhile.
        path = shutil.which(runtime.path) or runtime.path
        return ExternalRuntime(
            name,
            os.path.abspath(path) if "/" in path else path,
            runtime.arguments,
            float(self._config.runtime_timeout),
            self._version(name),
        )

    def _version(self, name: str) -> str:
        document = self._documents.get(name)
        return _decode_features(document).oci_version_max if document is not None else _UNSAID

    async def _probe(self, name: str) -> None:
        """Ask one runtime; what it cannot say is left open, as older ones have no such command."""
        runtime = self._command(name)
        try:
            document = await _features(runtime)
            _decode_features(document)
        except (JaulaError, OSError, msgspec.MsgspecError, RecursionError) as error:
            log.warning("runtime %s (%s) does not tell its features: %s", name, runtime.path, error)
            return
        self._documents[name] = document

    def document(self) -> dict[str, Any]:
        """``RuntimeTable`` of Docker's info document."""
        found: dict[str, Any] = {OWN_RUNTIME: {"path": OWN_RUNTIME}}
        for runtime in self._config.runtimes:
            entry: dict[str, Any] = {"path": runtime.path}
            if runtime.arguments:
                entry["runtimeArgs"] = list(runtime.arguments)
            if (document := self._documents.get(runtime.name)) is not None:
                entry["status"] = {FEATURES: document.decode(errors="replace")}
            found[runtime.name] = entry
        return found


async def _features(runtime: ExternalRuntime) -> bytes:
    """The document that ``features`` prints, without needless white space."""
    line = (runtime.path, *runtime.arguments, "features")
    status, output, complaint = await communicate(line, b"", _FEATURES_TIMEOUT)
    if status:
        raise JaulaError(f"exit status {status}: {command_line.complaint(b'', complaint)}")
    if len(output) > _FEATURES_SIZE:
        raise JaulaError(f"it printed {len(output)} bytes, more than {_FEATURES_SIZE}")
    return msgspec.json.format(output, indent=-1)


RUNTIME_FILE = "runtime.json"
TIMEOUT = 10.0  # seconds, for what makes no process
_KEPT = 1 << 21  # bytes of output
_GONE = ("process already finished", "container not running", "no such process", "not running")

_decode_runtime = msgspec.json.Decoder(ExternalRuntime).decode
_encode_runtime = msgspec.json.Encoder().encode


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
                return cls(_decode_runtime(file.read()), run_dir)
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
            file.write(_encode_runtime(runtime))
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
