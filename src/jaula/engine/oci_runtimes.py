"""OCI runtimes: jaula's own, those of the configuration, and containers that run in one of them.

Docker's names for them are ``--runtime``, ``runtimes`` and ``default-runtime`` in daemon.json, and
``Runtimes`` in ``info``. When the engine starts, each runtime is asked once for its features
(``features``, the document of runtime-spec features.md).

The shim creates containers of an external runtime, runs exec in them and records their exit
(:mod:`jaula.runtime.external.external_runtime`). The engine changes running ones by the runtime's
``kill``, ``pause``, ``resume`` and ``update``, and cleans up after a lost shim by ``delete
--force``. ``runtime.json`` in the run directory names the runtime that created a container, since
the configuration may have changed since.
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
from jaula.runtime.shim_protocol import ExternalRuntime

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jaula.config import EngineConfig, Paths
    from jaula.spec.runtime_spec import Resources

log = logging.getLogger("jaula.runtimes")

ALIASES = ("runc", "io.containerd.runc.v2")
"""Names of the default runtime in Docker's clients; jaula's own unless another has the name."""
FEATURES = "org.opencontainers.runtime-spec.features"
_FEATURES_TIMEOUT = 10.0  # seconds
_FEATURES_SIZE = 1 << 20  # bytes
_DEFAULT_VERSION = "1.0.2"  # the spec's version before runtimes had features documents


class LinuxFeatures(msgspec.Struct, frozen=True):
    """The used part of the member ``linux`` of the features document. None means unknown."""

    namespaces: tuple[str, ...] | None = None


class RuntimeFeatures(msgspec.Struct, frozen=True):
    """The used part of the features document. None means unknown."""

    oci_version_max: str = msgspec.field(name="ociVersionMax", default=_DEFAULT_VERSION)
    mount_options: tuple[str, ...] | None = msgspec.field(name="mountOptions", default=None)
    linux: LinuxFeatures | None = None

    @property
    def recursive_read_only(self) -> bool:
        """Whether it can make a mount read-only with every mount below it."""
        return "rro" in (self.mount_options or ())

    @property
    def user_namespaces(self) -> bool:
        """Whether it can create containers in a user namespace."""
        return self.linux is not None and "user" in (self.linux.namespaces or ())


OWN_FEATURES = RuntimeFeatures(mount_options=("rro",), linux=LinuxFeatures(namespaces=("user",)))
"""The used features of jaula's own runtime: every supported kernel has mount_setattr(2)."""

_decode_features = msgspec.json.Decoder(RuntimeFeatures).decode


class RuntimeTable:
    """The table of runtimes and their features documents."""

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
        """Use the runtimes of ``config`` from now on; ask those that are new or changed."""
        previous, self._config = self._config.runtimes, config
        loop = asyncio.get_running_loop()
        for runtime in config.runtimes:
            if runtime not in previous:
                self._documents.pop(runtime.name, None)
                self._probing[runtime.name] = loop.create_task(self._probe(runtime.name))

    async def close(self) -> None:
        """Cancel pending requests for features."""
        for task in self._probing.values():
            task.cancel()
        await asyncio.gather(*self._probing.values(), return_exceptions=True)

    def choose(self, requested: str) -> str:
        """Return the runtime of a new container.

        :raises InvalidRequest: when there is none of that name.
        """
        name = requested or self._config.default_runtime
        if name == OWN_RUNTIME or self._has(name):
            return name
        if name in ALIASES:
            return OWN_RUNTIME
        raise InvalidRequest(f"unknown or invalid runtime name: {name}")

    def _has(self, name: str) -> bool:
        return any(runtime.name == name for runtime in self._config.runtimes)

    async def command(self, name: str) -> ExternalRuntime | None:
        """Return the command of the runtime of that name; None for jaula's own.

        :raises InvalidRequest: when it is not configured any more.
        """
        if self.choose(name or OWN_RUNTIME) == OWN_RUNTIME:
            return None
        if (task := self._probing.get(name)) is not None:
            await asyncio.wait((task,))
        return self._command(name)

    def _command(self, name: str) -> ExternalRuntime:
        runtime = next(r for r in self._config.runtimes if r.name == name)
        # Resolved for each container: the program may be installed or replaced meanwhile.
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
        return (
            _decode_features(document).oci_version_max if document is not None else _DEFAULT_VERSION
        )

    async def features(self, name: str) -> RuntimeFeatures | None:
        """Return what a runtime reports about itself; None if it reports nothing.

        :raises InvalidRequest: when there is none of that name.
        """
        if self.choose(name or OWN_RUNTIME) == OWN_RUNTIME:
            return OWN_FEATURES
        if (task := self._probing.get(name)) is not None:
            await asyncio.wait((task,))
        document = self._documents.get(name)
        return None if document is None else _decode_features(document)

    async def _probe(self, name: str) -> None:
        """Ask one runtime for its features; older runtimes have no such command."""
        runtime = self._command(name)
        try:
            document = await _features(runtime)
            _decode_features(document)
        except (
            JaulaError,
            OSError,
            msgspec.MsgspecError,
            UnicodeDecodeError,
            RecursionError,
        ) as error:
            log.warning(
                "runtime %s (%s) does not report its features: %s", name, runtime.path, error
            )
            return
        self._documents[name] = document

    def document(self) -> dict[str, Any]:
        """Return ``Runtimes`` of Docker's info document."""
        runtimes: dict[str, Any] = {OWN_RUNTIME: {"path": OWN_RUNTIME}}
        for runtime in self._config.runtimes:
            entry: dict[str, Any] = {"path": runtime.path}
            if runtime.arguments:
                entry["runtimeArgs"] = list(runtime.arguments)
            if (document := self._documents.get(runtime.name)) is not None:
                entry["status"] = {FEATURES: document.decode(errors="replace")}
            runtimes[runtime.name] = entry
        return runtimes


async def _features(runtime: ExternalRuntime) -> bytes:
    """Return the document that ``features`` prints, without insignificant white space."""
    line = (runtime.path, *runtime.arguments, "features")
    status, output, errors = await communicate(line, b"", _FEATURES_TIMEOUT)
    if status:
        raise JaulaError(f"exit status {status}: {command_line.error_message(b'', errors)}")
    if len(output) > _FEATURES_SIZE:
        raise JaulaError(f"it printed {len(output)} bytes, more than {_FEATURES_SIZE}")
    return msgspec.json.format(output, indent=-1)


# -- containers of an external runtime -----------------------------------------------------------


RUNTIME_FILE = "runtime.json"
TIMEOUT = 10.0  # seconds, for commands that create no process
_OUTPUT_LIMIT = 1 << 21  # bytes
_GONE = ("process already finished", "container not running", "no such process", "not running")

_decode_runtime = msgspec.json.Decoder(ExternalRuntime).decode
_encode_runtime = msgspec.json.Encoder().encode


class RuntimeGone(JaulaError):
    """The runtime reports that the container's init has exited."""


class ExternalContainer:
    """One container that an external runtime created."""

    def __init__(self, runtime: ExternalRuntime, run_dir: Path) -> None:
        self.runtime = runtime
        self._run_dir = str(run_dir)
        self._id = run_dir.name

    @classmethod
    def load(cls, run_dir: Path) -> ExternalContainer | None:
        """Return the container of a run directory; None if jaula's own runtime created it.

        :raises RuntimeFailure: when the file is damaged.
        """
        try:
            with open(run_dir / RUNTIME_FILE, "rb") as file:
                return cls(_decode_runtime(file.read()), run_dir)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise RuntimeFailure(f"{run_dir / RUNTIME_FILE}: {error}") from error

    @staticmethod
    def write(run_dir: Path, runtime: ExternalRuntime | None) -> None:
        """Write the runtime that is about to create the container."""
        path = run_dir / RUNTIME_FILE
        if runtime is None:
            path.unlink(missing_ok=True)
            return
        with open(f"{path}.new", "wb", buffering=0) as file:
            file.write(_encode_runtime(runtime))
        os.rename(f"{path}.new", path)

    async def _call(self, *arguments: str, stdin: bytes = b"") -> None:
        """Run one command of the runtime.

        :raises RuntimeFailure: when it fails, with its reason.
        """
        start = command_line.log_size(self._run_dir)
        line = command_line.build_argv(self.runtime, self._run_dir, *arguments)
        status, _, printed = await communicate(line, stdin, TIMEOUT)
        if status:
            reason = command_line.error_message(
                command_line.read_log(self._run_dir, start), printed
            )
            raise RuntimeFailure(f"OCI runtime {arguments[0]} failed: {reason}")

    async def kill(self, number: int) -> None:
        """Send a signal to init.

        :raises RuntimeGone: when init has exited.
        :raises RuntimeFailure: when the runtime refuses.
        """
        try:
            await self._call("kill", self._id, str(number))
        except RuntimeFailure as error:
            if any(text in error.message.lower() for text in _GONE):
                raise RuntimeGone(error.message) from None
            raise

    async def pause(self) -> None:
        """Freeze every process.

        :raises RuntimeFailure: when the runtime refuses.
        """
        await self._call("pause", self._id)

    async def resume(self) -> None:
        """Resume every process.

        :raises RuntimeFailure: when the runtime refuses.
        """
        await self._call("resume", self._id)

    async def update(self, resources: Resources) -> None:
        """Write new limits.

        :raises Conflict: when the runtime refuses them.
        """
        document = msgspec.json.encode(resources)
        try:
            await self._call("update", "--resources", "-", self._id, stdin=document)
        except RuntimeFailure as error:
            raise Conflict(error.message) from error

    async def delete(self) -> None:
        """Delete the container, whose processes have exited, in the runtime.

        :raises RuntimeFailure: when the runtime refuses.
        """
        await self._call("delete", "--force", self._id)


class _Output:
    """A pipe that is read while the program writes; bytes beyond a limit are dropped."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(self.writing, True)
        self.data = bytearray()
        asyncio.get_running_loop().add_reader(self._reading, self._read)

    def _read(self) -> bool:
        try:
            chunk = os.read(self._reading, 1 << 16)
        except BlockingIOError:
            return False
        if not chunk:
            asyncio.get_running_loop().remove_reader(self._reading)
        elif len(self.data) < _OUTPUT_LIMIT:
            self.data += chunk
        return bool(chunk)

    def started(self) -> None:
        """Close our write end; the program has its own."""
        os.close(self.writing)
        self.writing = -1

    def close(self) -> bytes:
        """Return everything that was written.

        Processes that the program left behind may hold the pipe open.
        """
        for _ in range(16):  # twice the capacity of a pipe
            if not self._read():
                break
        asyncio.get_running_loop().remove_reader(self._reading)
        os.close(self._reading)
        if self.writing >= 0:
            os.close(self.writing)
        return bytes(self.data)


async def communicate(
    line: Sequence[str], stdin: bytes, timeout: float
) -> tuple[int, bytes, bytes]:
    """Run a program; return exit status, standard output and standard error, both limited.

    :raises RuntimeFailure: when it cannot be executed, or exceeds its timeout and is killed.
    """
    output, errors = _Output(), _Output()
    child: asyncio.subprocess.Process | None = None
    try:
        child = await asyncio.create_subprocess_exec(
            *line,
            stdin=asyncio.subprocess.PIPE,
            stdout=output.writing,
            stderr=errors.writing,
            env=command_line.environment(),
            process_group=0,
            cwd="/",
        )
        output.started()
        errors.started()
        async with asyncio.timeout(timeout):
            await child.communicate(stdin)
    except OSError as error:
        if not isinstance(error, TimeoutError):
            raise RuntimeFailure(f"cannot execute {line[0]}: {error.strerror}") from error
        raise RuntimeFailure(
            f"{line[0]} has not exited after {timeout:g} seconds and was killed"
        ) from None
    finally:
        if child is not None and child.returncode is None:
            os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
        printed = output.close(), errors.close()
    return child.returncode or 0, *printed


def external_container(paths: Paths, container_id: str) -> ExternalContainer | None:
    """Return a container of an external runtime; None if jaula's own runtime created it."""
    return ExternalContainer.load(paths.container_run(container_id))
