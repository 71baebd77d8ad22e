"""Signal, stop, kill, pause and unpause running containers.

The shim delivers signals, or the external runtime that created the container.
:mod:`jaula.engine.containers.service` decides whether an action is allowed, and what it means for
restart policies.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Protocol

from jaula.engine import oci_runtimes
from jaula.engine.containers.start import cgroup_path
from jaula.engine.model.container import StateAction, next_status
from jaula.errors import JaulaError, NotFound, RuntimeFailure, Unavailable
from jaula.runtime.client import kill_child
from jaula.spec import signals
from jaula.state.records import Status

if TYPE_CHECKING:
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.runtime.client import Shim

log = logging.getLogger("jaula.containers")

STOP_TIMEOUT = 10  # seconds; Docker's
_KILL_TIMEOUT = 10.0  # seconds for a killed process to exit
_KILL_INTERVAL = 0.01  # seconds between two checks of it


class Emit(Protocol):
    """Emits an event of a container."""

    def __call__(
        self, container: Container, action: str, more: dict[str, str] | None = None
    ) -> None: ...


class ProcessControl:
    """Controls the processes of running containers."""

    def __init__(self, services: Services, emit: Emit) -> None:
        self._services = services
        self._emit = emit

    async def end(self, container: Container, timeout: int | None, signal: str | None) -> None:
        """Ask a container to exit, and kill it after ``timeout`` seconds (-1: never)."""
        body = container.record.body
        number = signals.parse(signal or body.stop_signal or "SIGTERM")
        if timeout is None:
            timeout = STOP_TIMEOUT if body.stop_timeout is None else body.stop_timeout
        self._emit(container, "kill", {"signal": str(number)})
        try:
            await self.signal(container, number)
            await asyncio.wait_for(container.exited.wait(), None if timeout < 0 else timeout)
        except Unavailable as error:
            log.warning("container %s: %s", container.name, error)
            await self._kill_with_shim(container)
        except TimeoutError:
            self._emit(container, "kill", {"signal": "9"})
            await self.kill(container)

    async def kill(self, container: Container) -> None:
        """Kill a container and wait for its exit. A shim that does not answer is killed as well.

        :raises JaulaError: when it has not exited after 10 seconds.
        """
        try:
            await self.signal(container, 9)
            await asyncio.wait_for(container.exited.wait(), _KILL_TIMEOUT)
        except TimeoutError:
            await self._kill_with_shim(container)
        except Unavailable as error:
            log.warning("container %s: %s", container.name, error)
            await self._kill_with_shim(container)

    async def _kill_with_shim(self, container: Container) -> None:
        """Kill the processes by their cgroup, then the shim, and wait for the exit.

        :raises JaulaError: when a process remains.
        """
        shim = container.shim
        if await asyncio.to_thread(self._kill_processes, container):
            if shim is not None:
                await shim.kill()
            try:
                await asyncio.wait_for(container.exited.wait(), _KILL_TIMEOUT)
                return
            except TimeoutError:
                log.warning("the shim of container %s does not exit", container.name)
        raise JaulaError(
            f"container {container.name} was killed but does not exit",
            hint="one of its processes may hang in the kernel",
        )

    def _kill_processes(self, container: Container) -> bool:
        """Kill the processes of a container; return whether none is left."""
        record = container.record
        kill_child(record.pid, record.shim_pid)
        try:
            with self._services.cgroups.open(cgroup_path(self._services, record)) as cgroup:
                cgroup.kill()
                deadline = time.monotonic() + _KILL_TIMEOUT
                while cgroup.pids():
                    if time.monotonic() > deadline:
                        return False
                    time.sleep(_KILL_INTERVAL)
        except NotFound:
            return True
        return True

    async def signal(self, container: Container, number: int) -> None:
        """Send a signal to init; a paused container is resumed to receive it."""
        shim = container.shim
        if shim is None:
            return
        try:
            await self._deliver(container, shim, number)
        except JaulaError:
            if container.live and not shim.gone:
                raise
        if container.record.status is Status.PAUSED:
            await self.thaw(container)

    async def _deliver(self, container: Container, shim: Shim, number: int) -> None:
        """Send a signal by the runtime that created the container.

        If an external runtime fails to send SIGKILL, the shim sends it.
        """
        runtime = oci_runtimes.external_container(self._services.config.paths, container.id)
        if runtime is None:
            await shim.signal(number)
            return
        try:
            await runtime.kill(number)
        except oci_runtimes.RuntimeGone:
            return  # it has exited, and the shim reports that
        except RuntimeFailure as error:
            if number != 9:
                raise
            log.warning("container %s: %s; killing its process", container.name, error)
            await shim.signal(number)

    async def freeze(self, container: Container) -> None:
        """Freeze every process. The caller holds the container's lock."""
        paused_status = next_status(container.record.status, StateAction.PAUSE, container.name)
        if (
            runtime := oci_runtimes.external_container(self._services.config.paths, container.id)
        ) is not None:
            await runtime.pause()
        else:
            with self._services.cgroups.open(
                cgroup_path(self._services, container.record)
            ) as cgroup:
                await asyncio.to_thread(cgroup.freeze)
        if container.live:
            container.change(status=paused_status)
            self._services.container_store.save(container)
            self._emit(container, "pause")

    async def thaw(self, container: Container) -> None:
        """Resume the processes of a paused container."""
        if (
            runtime := oci_runtimes.external_container(self._services.config.paths, container.id)
        ) is not None:
            try:
                await runtime.resume()
            except RuntimeFailure as error:
                log.warning("container %s: %s; thawing its cgroup", container.name, error)
        try:
            with self._services.cgroups.open(
                cgroup_path(self._services, container.record)
            ) as cgroup:
                cgroup.thaw()
        except NotFound:
            if runtime is None:
                raise
        if container.record.status is not Status.PAUSED:
            return  # it has exited meanwhile
        container.change(
            status=next_status(container.record.status, StateAction.UNPAUSE, container.name)
        )
        self._services.container_store.save(container)
