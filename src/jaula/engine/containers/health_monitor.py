"""Health probes: one task for each running container that has a health check.

A probe is an exec'd process, a child of the container's shim like every other. At its timeout, or
when it has ended and left processes behind, all processes of its session are killed, so that
nothing accumulates in the container. The id of a probe begins with zeros. By this prefix an engine
identifies the probes of the previous engine at its start, and kills them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from typing import TYPE_CHECKING

from jaula import metrics
from jaula.engine.containers import exec_session, health
from jaula.engine.containers.health import Probe
from jaula.engine.model.container_store import new_id
from jaula.errors import JaulaError
from jaula.spec.api_documents import ExecCreate
from jaula.state.container_records import HealthRecord, HealthResult, HealthStatus, Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jaula.engine.containers.container_exec import Execs
    from jaula.engine.containers.exit import ExitHandler
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services

log = logging.getLogger("jaula.health")

PROBE_ID_PREFIX = "0" * 16  # prefix of the id of a probe
_KILL_TIMEOUT = 10.0  # seconds for a killed probe to exit
_OUTPUT_TIMEOUT = 1.0  # seconds to wait for the last output of an ended probe


class HealthMonitor:
    """The probes of an engine's containers."""

    def __init__(
        self,
        services: Services,
        exit_handler: ExitHandler,
        execs: Execs,
        end_unhealthy: Callable[[Container, str], Awaitable[None]],
    ) -> None:
        self._services = services
        self._exit_handler = exit_handler
        self._execs = execs
        self._end_unhealthy = end_unhealthy
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def started(self, container: Container) -> None:
        """Record the health of a container that was just started."""
        if health.probe_of(container.record.body) is None:
            return
        container.change(health=health.record_at_start(container.record.health))
        self._exit_handler.save(container)

    def watch(self, container: Container) -> None:
        """Probe a running container, from its start or from the start of the engine."""
        previous = self._tasks.pop(container.id, None)
        if previous is not None:
            previous.cancel()
        probe = health.probe_of(container.record.body)
        if probe is None or not container.live:
            return
        task = self._exit_handler.tasks.spawn(self._watch(container, probe))
        self._tasks[container.id] = task
        task.add_done_callback(lambda done: self._forget(container.id, done))

    def _forget(self, container_id: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(container_id) is task:
            del self._tasks[container_id]

    async def _watch(self, container: Container, probe: Probe) -> None:
        await self._kill_orphans(container)
        run = container.record.started_at
        while not await self._exited_during_pause(container, probe):
            if container.record.status is not Status.RUNNING:
                continue  # paused: the health stays as it is
            result = await self._run(container, probe)
            metrics.HEALTH_CHECKS.add()
            if result.exit_code:
                metrics.HEALTH_CHECKS_FAILED.add()
            same_run = container.live and container.record.started_at == run
            if same_run and container.record.status is Status.RUNNING:
                self._record(container, probe, result)

    async def _exited_during_pause(self, container: Container, probe: Probe) -> bool:
        """Wait for the time of the next probe; return whether the container exited before it."""
        record = container.record
        status = record.health.status if record.health else HealthStatus.STARTING
        pause = probe.pause(status, time.time_ns() - record.started_at)
        try:
            await asyncio.wait_for(container.exited.wait(), pause / 1e9)
        except TimeoutError:
            return False
        return True

    def _record(self, container: Container, probe: Probe, result: HealthResult) -> None:
        record = container.record
        previous = record.health or HealthRecord()
        record_after = health.next_record(previous, result, probe, record.started_at)
        container.change(health=record_after)
        if record_after.status is not previous.status:
            self._exit_handler.save(container)
            self._services.events.emit(
                "container",
                f"health_status: {record_after.status}",
                container.id,
                record.event_attributes,
            )
            action = health.on_failure(record.body)
            if record_after.status is HealthStatus.UNHEALTHY and action != "none":
                self._exit_handler.tasks.spawn(self._end(container, action))

    async def _end(self, container: Container, action: str) -> None:
        try:
            await self._end_unhealthy(container, action)
        except JaulaError as error:
            log.warning("container %s does not exit: %s", container.name, error)

    # -- one probe -----------------------------------------------------------------------------

    async def _run(self, container: Container, probe: Probe) -> HealthResult:
        start = time.time_ns()
        reader, writer = socket.socketpair()
        output_task = asyncio.ensure_future(_collect(reader))
        try:
            code, text = await self._run_exec(container, probe, writer.detach(), output_task)
        except JaulaError as error:
            code, text = -1, error.message
        finally:
            output_task.cancel()
            reader.close()
        return HealthResult(start, time.time_ns(), code, text)

    async def _run_exec(
        self, container: Container, probe: Probe, fd: int, output_task: asyncio.Future[bytes]
    ) -> tuple[int, str]:
        exec_id = PROBE_ID_PREFIX + new_id()[len(PROBE_ID_PREFIX) :]
        body = ExecCreate(cmd=probe.command, attach_stdout=True, attach_stderr=True)
        try:
            await self._execs.create(container.id, body, exec_id=exec_id)
        except BaseException:
            os.close(fd)
            raise
        try:
            finished = self._execs.exit_future(exec_id)
            await self._execs.start(exec_id, fd, b"", False, False, None, framed=False)
            pid = self._execs.find(exec_id).pid
            done, _ = await asyncio.wait((finished,), timeout=probe.timeout / 1e9)
            await self._kill_session(container, pid)
            if not done:
                await asyncio.wait((finished,), timeout=_KILL_TIMEOUT)
            await asyncio.wait((output_task,), timeout=_OUTPUT_TIMEOUT)
            output = health.truncate_output(output_task.result() if output_task.done() else b"")
            if not done:
                return -1, health.timeout_message(probe, output)
            return finished.result(), output
        finally:
            self._execs.forget(exec_id)

    async def _kill_session(self, container: Container, session: int) -> None:
        """Kill a probe, or the processes that it left behind."""
        try:
            await exec_session.kill_in_container(self._services, container, session)
        except JaulaError as error:
            log.warning("container %s: probe: %s", container.name, error)

    async def _kill_orphans(self, container: Container) -> None:
        """Kill probes that a previous engine began."""
        shim = container.shim
        if shim is None:
            return
        for exec_id in shim.execs:
            if not exec_id.startswith(PROBE_ID_PREFIX):
                continue
            try:
                pid = await shim.signal(9, exec_id)
            except JaulaError as error:
                log.info("container %s: probe of a previous engine: %s", container.name, error)
            else:
                await self._kill_session(container, pid)


async def _collect(sock: socket.socket) -> bytes:
    """Read until the peer closes the socket; drop the bytes beyond the output limit."""
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    output = bytearray()
    while data := await loop.sock_recv(sock, 65536):
        output += data[: health.OUTPUT_LENGTH + 1 - len(output)]
    return bytes(output)
