"""RUN: a program in a container that nobody sees, and what it changed.

The container is like every other one (user namespace, seccomp, limits); its record says which
build it belongs to, so that the engine that finds it after a crash ends it. Its output goes to the
build's client and nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import time
from typing import TYPE_CHECKING

import msgspec

from jaula.config import OWN_RUNTIME
from jaula.engine import relaxations
from jaula.engine.build_threads import in_thread, whole
from jaula.engine.builder import layers
from jaula.engine.builder.cache import key
from jaula.engine.containers import selinux
from jaula.engine.containers.resolved_request import resolve
from jaula.engine.model.container import Container
from jaula.engine.model.container_store import new_id
from jaula.engine.oci_spec.spec import arguments
from jaula.errors import JaulaError, StepFailed
from jaula.runtime.protocol import AttachStream
from jaula.spec.api import ContainerCreate, HostConfig, LogConfig
from jaula.state.records import ContainerRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from typing import Any

    from jaula.engine.builder.entitlements import Judge
    from jaula.engine.builder.image_state import ImageState, Layer
    from jaula.engine.builder.mounts.attach import StepMounts
    from jaula.engine.containers.service import Containers

HOSTNAME = "build"
"""Of all steps: a name of their own would end up in what programs write."""
_HEADER = struct.Struct("!BxxxI")  # Docker's, before each piece of output
_PIECE = 1 << 16


class RunCommand(msgspec.Struct, frozen=True, kw_only=True):
    """What a step runs. ``host`` are the build's limits with this step's network."""

    arguments: tuple[str, ...]
    environment: tuple[str, ...]
    host: HostConfig
    build: str
    newest: int | None = None


def body_of(state: ImageState, command: RunCommand) -> ContainerCreate:
    """The container of a step, as a request. Pure."""
    host = msgspec.structs.replace(
        command.host,
        runtime=OWN_RUNTIME,
        log_config=LogConfig(type="none"),
        profile="default",
        auto_remove=False,
    )
    hostname = "" if host.network_mode == "host" else HOSTNAME
    return ContainerCreate(
        hostname=hostname,
        user=state.config.user,
        env=command.environment,
        cmd=command.arguments,
        working_dir=state.config.working_dir,
        host_config=host,
    )


async def run(
    containers: Containers,
    state: ImageState,
    command: RunCommand,
    mounts: StepMounts,
    judge: Judge,
    output: Callable[[str], Awaitable[None]],
    pin: layers.Pin,
    later: Callable[[Coroutine[Any, Any, None]], object],
) -> Layer | None:
    """Run it to its end; the layer of what it changed, None where it changed nothing.

    The step is resolved once, authorised from that by ``judge``, and started from it. What is left
    to be removed then is given to ``later``.

    :raises NotAuthorized: the policy does not allow it any more.
    :raises StepFailed: its status is not 0.
    :raises RuntimeFailure: it cannot be started.
    """
    parts = containers.parts
    container = await _made(containers, state, command, judge)
    try:
        container.prepare = mounts.preparation(container)
        ours, theirs = socket.socketpair()
        with ours:
            container.pending.append((theirs.detach(), AttachStream()))
            await whole(_start(containers, container))
            async for text in _texts(ours):
                await output(text)
            await container.exited.wait()
        await in_thread(mounts.detach)
        _check(container.record, command)
        layer = await in_thread(
            layers.take,
            parts,
            container.id,
            pin,
            newest=command.newest,
            mount_points=mounts.targets,
        )
    except BaseException:
        await whole(_removed(containers, container, mounts))
        raise
    later(_removed(containers, container, mounts))
    return layer


async def _made(
    containers: Containers, state: ImageState, command: RunCommand, judge: Judge
) -> Container:
    parts = containers.parts
    body = body_of(state, command)
    resolved = resolve(body)
    judge(relaxations.of_request(resolved))
    container_id = new_id()
    record = ContainerRecord(
        id=container_id,
        name=f"build-{container_id[:12]}",
        created=time.time_ns(),
        body=body,
        image=key.of_layers(state.diff_ids),
        layers=state.diff_ids,
        args=arguments(body),
        hostname=body.hostname or parts.host.hostname,
        storage_driver=parts.snapshots.name,
        level=selinux.take_level(parts, container_id, resolved),
        build=command.build,
        resolved_request=resolved,
    )
    container = Container(record)
    parts.registry.add_step(container)
    try:
        os.makedirs(parts.config.paths.container(container_id), mode=0o710, exist_ok=True)
        await in_thread(parts.snapshots.create, container_id, record.layers)
    except BaseException:
        await whole(containers.exit_handler.remove(container, volumes=False))
        raise
    return container


async def _start(containers: Containers, container: Container) -> None:
    async with container.lock:
        await containers.starter.start(container)
        containers.watch(container)


async def _removed(containers: Containers, container: Container, mounts: StepMounts) -> None:
    """End it if it runs, and leave nothing of it."""
    if container.live:
        container.removing = True
        with contextlib.suppress(JaulaError):
            await containers.end(container)
    await in_thread(mounts.detach)
    async with container.lock:
        await containers.exit_handler.remove(container, volumes=False)


def _check(record: ContainerRecord, command: RunCommand) -> None:
    code = record.exit_code
    if record.oom_killed:
        raise StepFailed(f"The command {_shown(command)} was killed: out of memory", code or 137)
    if record.error:
        raise StepFailed(f"The command {_shown(command)} cannot be run: {record.error}", code or 1)
    if code:
        raise StepFailed(f"The command {_shown(command)} returned a non-zero code: {code}", code)


def _shown(command: RunCommand) -> str:
    """The command as Docker shows it in errors."""
    return f"'{' '.join(command.arguments)}'"


async def _texts(sock: socket.socket) -> AsyncIterator[str]:
    """A container's output, both streams, until it is closed; what is no UTF-8 is replaced."""
    import codecs

    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in range(3)]
    pending = bytearray()
    while data := await loop.sock_recv(sock, _PIECE):
        pending += data
        found: list[str] = []
        while len(pending) >= _HEADER.size:
            stream, length = _HEADER.unpack_from(pending)
            if len(pending) < _HEADER.size + length:
                break
            piece = bytes(pending[_HEADER.size : _HEADER.size + length])
            del pending[: _HEADER.size + length]
            found.append(decoders[min(stream, 2)].decode(piece))
        if text := "".join(found):
            yield text
