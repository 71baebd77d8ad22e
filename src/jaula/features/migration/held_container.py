"""The container at the source while it is held: dumped, frozen, and without its bridge ports."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import msgspec

from jaula.cgroups.cgroup_files import is_removed
from jaula.engine.containers.container_cgroup import open_cgroup
from jaula.errors import NotFound, RuntimeFailure
from jaula.features.checkpoint.checkpoints import decode_round
from jaula.features.migration import container_hold
from jaula.runtime.shim_protocol import (
    COMMIT,
    HELD,
    READY,
    RESUME,
    ROUND,
    STOP,
    CheckpointRequest,
    PreDumpRound,
)
from jaula.state.container_records import MigrationPhase

if TYPE_CHECKING:
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.features.migration.image_transfer import FileSender
    from jaula.runtime.runtime_client import Shim

log = logging.getLogger("jaula.migration")
_EXIT_TIMEOUT = 30.0  # seconds from the answer to CRIU to the exit of the container
_Result = TypeVar("_Result")


class HeldContainer:
    """The dump of a container with its hold."""

    def __init__(self, services: Services, container: Container, shim: Shim) -> None:
        self._services = services
        self._container = container
        self._shim = shim
        self._sock: socket.socket | None = None
        self._dump: asyncio.Task[None] | None = None

    async def stop(
        self,
        request: CheckpointRequest,
        sender: FileSender,
        on_round: Callable[[PreDumpRound], None],
        on_ready: Callable[[], Awaitable[None]],
    ) -> tuple[float, float]:
        """Dump the container, and return when it is held. Its memory is sent while it is written.

        Return when its processes were stopped, and when the images were complete, as values of
        time.monotonic(). ``on_round`` is called after each round of a pre-copy. ``on_ready`` is
        awaited before a container of a group is stopped.

        :raises JaulaError: when CRIU or the sender fails; the container runs on.
        """
        self._sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._sock.setblocking(False)
        self._dump = asyncio.ensure_future(self._shim.checkpoint(request, theirs.detach()))
        return await self.during(self._send_dump(self._sock, sender, on_round, on_ready))

    async def _send_dump(
        self,
        sock: socket.socket,
        sender: FileSender,
        on_round: Callable[[PreDumpRound], None],
        on_ready: Callable[[], Awaitable[None]],
    ) -> tuple[float, float]:
        loop = asyncio.get_running_loop()

        async def wait_for_images() -> bytes:
            while True:
                message = await loop.sock_recv(sock, 4096)
                if message == READY:
                    await on_ready()
                    await loop.sock_sendall(sock, STOP)
                elif message.startswith(ROUND):
                    done = decode_round(message)
                    if not done.failure:
                        sender.add_round(done.number)
                    on_round(done)
                else:
                    return message

        report = asyncio.ensure_future(wait_for_images())
        try:
            await asyncio.wait((sender.finished, report), return_when=asyncio.FIRST_COMPLETED)
            if not report.done():
                sender.finished.result()  # raises: it has failed
            if not (message := await report).startswith(HELD):
                raise RuntimeFailure("the shim has not held the container")
            held_at = time.monotonic()
            sender.complete()
            await asyncio.to_thread(container_hold.set_ports, self._container.record, up=False)
            return held_at - int(message.removeprefix(HELD)) / 1e9, held_at
        finally:
            report.cancel()
            await asyncio.gather(report, return_exceptions=True)

    async def during(self, work: Awaitable[_Result]) -> _Result:
        """Return the result of ``work``.

        :raises JaulaError: when the hold ends meanwhile.
        """
        assert self._dump is not None
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait((task, self._dump), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                self.check()
            return await task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def check(self) -> None:
        """Check that the container is still held.

        :raises JaulaError: when it is not.
        """
        assert self._dump is not None
        if self._dump.done():
            self._dump.result()
            raise RuntimeFailure("the container is not held any more")
        if not self._container.live or self._container.removing:
            raise RuntimeFailure("the container has exited")

    async def resume(self) -> None:
        """Continue the container."""
        if self._sock is None or self._dump is None:
            return
        with contextlib.suppress(OSError):  # the helper is gone
            await asyncio.get_running_loop().sock_sendall(self._sock, RESUME)
        await asyncio.wait((self._dump,))
        if not self._dump.cancelled():
            self._dump.exception()
        await container_hold.release(self._services, self._container)
        self._sock.close()

    async def let_go(self) -> None:
        """Let CRIU kill the processes, and wait for the exit of the container."""
        assert self._sock is not None
        assert self._dump is not None
        mark_moved(self._services, self._container)
        with contextlib.suppress(OSError):  # the helper is gone; the engine kills
            await asyncio.get_running_loop().sock_sendall(self._sock, COMMIT)
        await asyncio.wait((self._dump,))
        if not self._dump.cancelled():
            self._dump.exception()
        self._sock.close()
        await end(self._services, self._container)


def mark_moved(services: Services, container: Container) -> None:
    """Record that a container runs at the target, before it is killed here."""
    migration = container.record.migration
    assert migration is not None
    container.change(
        manually_stopped=True,  # no restart policy applies
        migration=msgspec.structs.replace(migration, phase=MigrationPhase.MOVED),
    )
    services.container_store.save(container)


async def end(services: Services, container: Container) -> None:
    """Kill what is left of a container that runs at the target, and wait for its exit."""
    if container.live:
        with contextlib.suppress(NotFound), open_cgroup(services, container.record) as cgroup:
            cgroup.kill()
            try:
                cgroup.thaw()
            except OSError as error:
                if not is_removed(error):  # its shim is as fast
                    raise
    async with asyncio.timeout(_EXIT_TIMEOUT):
        await container.exited.wait()
