"""Attach clients to a container's streams: now, or when it starts.

The client's socket is passed to the shim, which copies the container's output to it and its input
to the container; the engine is not in the data path. A client that attaches to a created container
waits in ``container.pending`` and is passed on by the start, before the first output.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING

from jaula.engine.containers.container_liveness import not_running, while_running
from jaula.errors import Conflict, JaulaError
from jaula.runtime.shim_protocol import AttachStream
from jaula.spec import detach_keys
from jaula.spec.api_params import AttachOptions, LogOptions
from jaula.state.container_records import Status

if TYPE_CHECKING:
    from jaula.engine.containers.query import ContainerQueries
    from jaula.engine.model.container import Container

log = logging.getLogger("jaula.containers")

PENDING_LIMIT = (
    32  # clients that wait for the start of one container; the runtime accepts 60 sockets
)


async def attach(
    queries: ContainerQueries, container: Container, fd: int, options: AttachOptions
) -> None:
    """Pass a client's socket to the shim, or keep it until the container starts.

    This function or its receiver closes ``fd``. With ``logs`` the client first gets the log.

    :raises Conflict: when the container is paused, or too many clients wait.
    """
    owned = True
    try:
        check(container)
        if options.logs:
            await _replay(queries, container, fd, options)
        if not options.stream:
            return
        stream = stream_of(container, options)
        if container.live and container.shim is not None:
            owned = False
            async with while_running(container):
                await container.shim.attach(fd, stream)
        else:
            if len(container.pending) >= PENDING_LIMIT:
                raise Conflict(f"{PENDING_LIMIT} clients wait for container {container.name}")
            owned = False
            container.pending.append((fd, stream))
        queries.services.events.emit(
            "container", "attach", container.id, container.record.event_attributes
        )
    finally:
        if owned:
            os.close(fd)


def check(container: Container) -> None:
    """Check that a container can be attached, before the connection is given away.

    :raises Conflict: when the container is paused or waits for its restart.
    """
    if container.record.status is Status.PAUSED:
        raise Conflict(f"container {container.name} is paused, unpause the container before attach")
    if container.record.status is Status.RESTARTING:
        raise not_running(container)


async def join_late(container: Container) -> None:
    """Pass on the clients that attached while the container was being started."""
    for fd, stream in container.take_pending():
        if container.shim is None:
            os.close(fd)
            continue
        try:
            await container.shim.attach(fd, stream)
        except JaulaError as error:  # it has exited already; the shim closed the connection
            log.info("container %s: a client attached too late: %s", container.name, error)


def stream_of(container: Container, options: AttachOptions) -> AttachStream:
    """Return the shim's attach request; the output of a terminal is one raw stream."""
    body = container.record.body
    keys = detach_keys.DEFAULT if options.detach_keys is None else options.detach_keys
    return AttachStream(
        stdin=options.stdin and body.open_stdin,
        stdout=options.stdout,
        stderr=options.stderr,
        framed=options.framed and not body.tty,
        detach_keys=keys,
        early=options.early if options.stdin and body.open_stdin else b"",
    )


async def _replay(
    queries: ContainerQueries, container: Container, fd: int, options: AttachOptions
) -> None:
    client = socket.socket(fileno=os.dup(fd))
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        log_options = LogOptions(stdout=options.stdout, stderr=options.stderr)
        async for stream, data in queries.logs(container.id, log_options):
            if options.framed and not container.record.body.tty:
                number = 1 if stream == "stdout" else 2
                await loop.sock_sendall(client, bytes((number, 0, 0, 0)))
                await loop.sock_sendall(client, len(data).to_bytes(4, "big"))
            await loop.sock_sendall(client, data)
    finally:
        client.close()
