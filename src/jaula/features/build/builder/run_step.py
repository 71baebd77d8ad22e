"""RUN: run a program in a hidden container, and turn its changes into a layer.

The container is confined like any other (user namespace, seccomp, limits). No API request can see
it. Its record names its build, so an engine that starts after a crash ends it. Its output goes to
the client of the build only.
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
from jaula.engine.containers import selinux_labels
from jaula.engine.containers.bounds import Bounds
from jaula.engine.containers.resolved_request import resolve
from jaula.engine.containers.storage_opt import default_size
from jaula.engine.model import container_store
from jaula.engine.model.container import Container
from jaula.engine.networks import endpoints
from jaula.engine.oci_spec import start_spec
from jaula.engine.threads import in_thread, shielded
from jaula.errors import JaulaError, StepFailed
from jaula.features.build.builder.image_state import layer_of_snapshot
from jaula.features.build.builder.step_cache import layers_key
from jaula.runtime.shim_protocol import AttachStream
from jaula.spec.api_documents import ContainerCreate, HostConfig, LogConfig
from jaula.state.container_records import ContainerRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
    from typing import Any

    from jaula.engine.containers.containers import Containers
    from jaula.features.build.builder.image_state import ImageState, Layer, Pin
    from jaula.features.build.builder.job import Authorize
    from jaula.features.build.builder.mounts.mount_step import StepMounts

HOSTNAME = "build"
"""The host name of all steps: programs would write a random one into their files."""
_HEADER = struct.Struct("!BxxxI")  # Docker's stdcopy header: stream, length
_CHUNK = 1 << 16  # bytes


class RunCommand(msgspec.Struct, frozen=True, kw_only=True):
    """The command of a step. ``host`` has the limits of the build and the network of this step."""

    arguments: tuple[str, ...]
    environment: tuple[str, ...]
    host: HostConfig
    build: str
    newest: int | None = None


def body_of(state: ImageState, command: RunCommand) -> ContainerCreate:
    """Return the request for the container of a step. Pure."""
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
    authorize: Authorize,
    output: Callable[[str], Awaitable[None]],
    pin: Pin,
    defer: Callable[[Coroutine[Any, Any, None]], object],
) -> Layer | None:
    """Run the command to its end. Return the layer of its changes, None if it changed nothing.

    The step is resolved once, ``authorize`` checks the resolved request, and the start uses it.
    The removal of the container is passed to ``defer``.

    :raises NotAuthorized: when the policy does not allow it any more.
    :raises StepFailed: when its exit status is not 0.
    :raises RuntimeFailure: when it cannot be started.
    """
    services = containers.services
    container = await _create(containers, state, command, authorize)
    try:
        container.prepare = mounts.attach_on_start(container)
        ours, theirs = socket.socketpair()
        with ours:
            container.pending.append((theirs.detach(), AttachStream()))
            await shielded(_start(containers, container))
            async for text in _read_output(ours):
                await output(text)
            await container.exited.wait()
        await in_thread(mounts.detach)
        _check_exit(container.record, command)
        layer = await in_thread(
            layer_of_snapshot,
            services,
            container.id,
            pin,
            newest=command.newest,
            mount_points=mounts.targets,
        )
    except BaseException:
        await shielded(_remove(containers, container, mounts))
        raise
    defer(_remove(containers, container, mounts))
    return layer


async def _create(
    containers: Containers, state: ImageState, command: RunCommand, authorize: Authorize
) -> Container:
    services = containers.services
    body = body_of(state, command)
    resolved = resolve(body)
    bounds = Bounds(storage_size=authorize(relaxations.of_request(body, resolved)))
    container_id = container_store.new_id()
    networks = endpoints.select_networks(body, services.network_store.find)
    record = ContainerRecord(
        id=container_id,
        name=f"build-{container_id[:12]}",
        created=time.time_ns(),
        body=body,
        image=layers_key(state.diff_ids),
        layers=state.diff_ids,
        args=start_spec.arguments(body),
        hostname=body.hostname or services.host.hostname,
        networks=networks,
        network_ids={name: services.network_store.id_of(name) for name in networks},
        storage_driver=services.snapshots.name,
        level=selinux_labels.take_level(services, container_id, resolved),
        build=command.build,
        resolved_request=resolved,
    )
    container = Container(record)
    services.container_store.add_step(container)
    try:
        os.makedirs(services.config.paths.container(container_id), mode=0o710, exist_ok=True)
        size = default_size(bounds, services.snapshots)
        await in_thread(services.snapshots.create, container_id, record.layers, size=size)
    except BaseException:
        await shielded(containers.exit_handler.remove(container, volumes=False))
        raise
    return container


async def _start(containers: Containers, container: Container) -> None:
    async with container.lock:
        await containers.starter.start(container)
        containers.watch(container)


async def _remove(containers: Containers, container: Container, mounts: StepMounts) -> None:
    """End the container if it runs, and remove it with its mounts and files."""
    if container.live:
        container.removing = True
        with contextlib.suppress(JaulaError):
            await containers.end(container)
    await in_thread(mounts.detach)
    async with container.lock:
        await containers.exit_handler.remove(container, volumes=False)


def _check_exit(record: ContainerRecord, command: RunCommand) -> None:
    code = record.exit_code
    if record.oom_killed:
        raise StepFailed(f"The command {_quoted(command)} was killed: out of memory", code or 137)
    if record.error:
        raise StepFailed(f"The command {_quoted(command)} cannot be run: {record.error}", code or 1)
    if code:
        raise StepFailed(
            f"The command {_quoted(command)} returned a non-zero code: {code}",
            code,
            " ".join(command.arguments),
        )


def _quoted(command: RunCommand) -> str:
    """Return the command in the form of Docker's errors."""
    return f"'{' '.join(command.arguments)}'"


async def _read_output(sock: socket.socket) -> AsyncIterator[str]:
    """Yield the output of a container, both streams. U+FFFD replaces bytes that are not UTF-8."""
    import codecs

    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    decoders = [codecs.getincrementaldecoder("utf-8")("replace") for _ in range(3)]
    pending = bytearray()
    while received := await loop.sock_recv(sock, _CHUNK):
        pending += received
        texts: list[str] = []
        while len(pending) >= _HEADER.size:
            stream, length = _HEADER.unpack_from(pending)
            if len(pending) < _HEADER.size + length:
                break
            data = bytes(pending[_HEADER.size : _HEADER.size + length])
            del pending[: _HEADER.size + length]
            texts.append(decoders[min(stream, 2)].decode(data))
        if text := "".join(texts):
            yield text
