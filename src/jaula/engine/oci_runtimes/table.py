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
from typing import TYPE_CHECKING, Any

import msgspec

from jaula.config import OWN_RUNTIME
from jaula.errors import InvalidRequest, JaulaError
from jaula.runtime.protocol import ExternalRuntime

if TYPE_CHECKING:
    from jaula.config import EngineConfig

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


_decode = msgspec.json.Decoder(RuntimeFeatures).decode


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
        return _decode(document).oci_version_max if document is not None else _UNSAID

    async def _probe(self, name: str) -> None:
        """Ask one runtime; what it cannot say is left open, as older ones have no such command."""
        runtime = self._command(name)
        try:
            document = await _features(runtime)
            _decode(document)
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
    from jaula.engine.oci_runtimes.container import communicate

    line = (runtime.path, *runtime.arguments, "features")
    status, output, complaint = await communicate(line, b"", _FEATURES_TIMEOUT)
    if status:
        from jaula.runtime.external.command_line import error_message as reason

        raise JaulaError(f"exit status {status}: {reason(b'', complaint)}")
    if len(output) > _FEATURES_SIZE:
        raise JaulaError(f"it printed {len(output)} bytes, more than {_FEATURES_SIZE}")
    return msgspec.json.format(output, indent=-1)
