"""Signal, stop, kill, pause and unpause running containers.

The shim delivers signals, or the external runtime that created the container.
:mod:`jaula.engine.containers.containers` decides whether an action is allowed, and what it means
for restart policies.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Protocol

from jaula.cgroups.cgroup_files import is_removed
from jaula.engine import oci_runtimes
from jaula.engine.containers.container_cgroup import open_cgroup
from jaula.engine.containers.container_liveness import has_exited, while_running
from jaula.engine.model.container import StateAction, next_status
from jaula.engine.threads import in_thread, shielded
from jaula.engine.userns import join
from jaula.errors import (
    Conflict,
    JaulaError,
    NotFound,
    RuntimeFailure,
    Unavailable,
    Unsupported,
)
from jaula.runtime.runtime_client import kill_child
from jaula.spec import signals
from jaula.state.container_records import Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.runtime.runtime_client import Shim

log = logging.getLogger("jaula.containers")

STOP_TIMEOUT = 10  # seconds; Docker's
_KILL_TIMEOUT = 10.0  # seconds for a killed process to exit
_KILL_INTERVAL = 0.01  # seconds between two checks of it
_FREEZE_TIMEOUT = 5.0  # seconds for the freezer, once a runtime has reported a pause
_FREEZE_INTERVAL = 0.01  # seconds between two checks of it


class Emit(Protocol):
    """Emits an event of a container."""

    def __call__(
        self, container: Container, action: str, more: dict[str, str] | None = None
    ) -> None: ...


class ProcessControl:
    """Controls the processes of running containers."""

    def __init__(self, services: Services, emit: Emit, save: Callable[[Container], bool]) -> None:
        """``save`` writes a record, later if the disk is full."""
        self._services = services
        self._emit = emit
        self._save = save

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
            with open_cgroup(self._services, record) as cgroup:
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
            if not await has_exited(container, shim):
                raise
        if container.live and (container.record.status is Status.PAUSED or self.frozen(container)):
            with contextlib.suppress(Conflict):  # it has just exited
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
            if join.init_exits(container):
                return  # the shim reports it
            log.warning("container %s: its runtime reports an exit that is none", container.name)
            await shim.signal(number)
        except RuntimeFailure as error:
            if number != 9:
                raise
            log.warning("container %s: %s; killing its process", container.name, error)
            await shim.signal(number)

    def frozen(self, container: Container) -> bool:
        """Return whether the kernel has frozen the processes, whichever program requested it."""
        try:
            with open_cgroup(self._services, container.record) as cgroup:
                return cgroup.frozen()
        except NotFound:
            return False  # it has exited
        except OSError as error:
            if not is_removed(error):
                raise
            return False

    def refresh(self, container: Container) -> None:
        """Set the status of a live container to the state that the kernel reports.

        Another program may have frozen or thawed the cgroup. While the lock is held, the status
        belongs to the use case that holds it.
        """
        record = container.record
        if container.lock.locked() or not container.live:
            return
        status = Status.PAUSED if self.frozen(container) else Status.RUNNING
        if status is not record.status:
            container.change(status=status)
            self._save(container)

    async def restore(self, container: Container) -> None:
        """Thaw what a commit of the previous engine has frozen; else the kernel's state is kept."""
        if container.record.frozen_by_commit:
            await self._thaw_cgroup(container)
            container.change(frozen_by_commit=False)
            self._save(container)
        self.refresh(container)

    async def freeze(self, container: Container) -> None:
        """Pause a container. The caller holds its lock.

        :raises Conflict: when it exits meanwhile.
        :raises Unavailable: when the disk is full. The container then runs on.
        """
        paused_status = next_status(container.record.status, StateAction.PAUSE, container.name)
        try:
            await self._freeze_cgroup(container)
            if not container.live:
                return
            container.change(status=paused_status, paused_by_client=True)
            self._services.container_store.save(container)
        except BaseException:
            if container.live:
                container.change(status=Status.RUNNING, paused_by_client=False)
                with contextlib.suppress(Conflict, Unsupported):
                    await self._thaw_cgroup(container)
            raise
        self._emit(container, "pause")

    @contextlib.asynccontextmanager
    async def frozen_for_commit(self, container: Container) -> AsyncIterator[None]:
        """Freeze a running container during a commit. The caller holds its lock.

        The record says so before the kernel does it, so that the next engine thaws the container if
        this one is killed. A container that exits meanwhile is not frozen.

        :raises Unsupported: when its processes cannot be frozen.
        :raises Unavailable: when the disk is full.
        """
        record = container.record
        if record.status is not Status.RUNNING or self.frozen(container):
            yield
            return
        container.change(frozen_by_commit=True)
        try:
            self._services.container_store.save(container)
            try:
                await self._freeze_cgroup(container)
            except Unsupported as error:
                hint = "commit without a pause (--pause=false)"
                raise Unsupported(error.message, hint=hint) from None
            except Conflict:
                pass  # it has exited, and its files stay
            if container.live:
                container.change(status=Status.PAUSED)
                self._emit(container, "pause")
            yield
        finally:
            if container.live:
                with contextlib.suppress(Conflict, Unsupported):  # it has exited, or never froze
                    await self._thaw_cgroup(container)
            if container.record.status is Status.PAUSED:
                container.change(status=Status.RUNNING)
                self._emit(container, "unpause")
            container.change(frozen_by_commit=False)
            self._save(container)

    async def _freeze_cgroup(self, container: Container) -> None:
        runtime = oci_runtimes.external_container(self._services.config.paths, container.id)
        async with while_running(container):
            if runtime is not None:
                await shielded(runtime.pause())
                await self._confirm_pause(container, runtime)
                return
            with open_cgroup(self._services, container.record) as cgroup:
                await in_thread(cgroup.freeze)

    async def _confirm_pause(
        self, container: Container, runtime: oci_runtimes.ExternalContainer
    ) -> None:
        """Wait until the kernel has frozen what a runtime reports as paused.

        :raises RuntimeFailure: when it has not; the runtime is told to resume.
        """
        deadline = time.monotonic() + _FREEZE_TIMEOUT
        while container.live and not self.frozen(container):
            if time.monotonic() > deadline:
                with contextlib.suppress(RuntimeFailure):
                    await shielded(runtime.resume())
                raise RuntimeFailure(
                    f"the runtime {runtime.runtime.name} reports that container {container.name} is"
                    " paused, but its processes run"
                )
            await asyncio.sleep(_FREEZE_INTERVAL)

    async def thaw(self, container: Container) -> None:
        """Resume the processes of a paused container.

        :raises Conflict: when it has just exited.
        """
        await self._thaw_cgroup(container)
        container.change(paused_by_client=False)
        if container.record.status is not Status.PAUSED:
            return
        container.change(
            status=next_status(container.record.status, StateAction.UNPAUSE, container.name)
        )
        self._save(container)

    async def _thaw_cgroup(self, container: Container) -> None:
        if (
            runtime := oci_runtimes.external_container(self._services.config.paths, container.id)
        ) is not None:
            try:
                await runtime.resume()
            except RuntimeFailure as error:
                log.warning("container %s: %s; thawing its cgroup", container.name, error)
        async with while_running(container):
            try:
                with open_cgroup(self._services, container.record) as cgroup:
                    cgroup.thaw()
            except NotFound:
                if runtime is None:
                    raise
