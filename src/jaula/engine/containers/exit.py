"""The exit of a container: record, resources, restart policy, removal.

The shim reports an exit, or a later engine reads it from ``exit.json``. Every exit passes
:meth:`ExitHandler.exited`, in this order: decide about a restart, release network, ports, ids and
mounts, save the record, emit ``die``, answer the clients that wait, then restart after a pause,
remove (``--rm``), or delete the run directory. It awaits nothing, so it cannot be interrupted
halfway; restart and removal are tasks of their own. A shim that died without reporting an exit is
handled by :meth:`ExitHandler.shim_lost`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import time
from typing import TYPE_CHECKING, Any

from jaula.engine import oci_runtimes
from jaula.engine.containers import health, restart_policy
from jaula.engine.containers.cgroup_cleanup import CgroupReaper
from jaula.engine.containers.container_cgroup import cgroup_path, open_cgroup
from jaula.engine.model.container import Container, StateAction, next_status
from jaula.engine.networks.connect import NetworkConnector
from jaula.engine.threads import shielded
from jaula.engine.volumes.volume_mount import emit_unmounts
from jaula.errors import Conflict, JaulaError, NotFound, Unavailable
from jaula.runtime.external import foreign_cgroups
from jaula.runtime.shim_protocol import ExitRecord
from jaula.spec.api_params import WaitResult
from jaula.state.container_records import Status
from jaula.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from jaula.engine.model.services import Services
    from jaula.state.container_records import ContainerRecord
    from jaula.storage.volume_directories import Volume

log = logging.getLogger("jaula.containers")
_SAVE_RETRY_DELAY = 2.0  # seconds
_REMOVED_STATUSES = 1024


class ExitHandler:
    """Handles exits of containers. A restart policy calls ``start`` to start one again."""

    def __init__(
        self, services: Services, start: Callable[[Container], Coroutine[Any, Any, None]]
    ) -> None:
        self._services = services
        self._start = start
        self._connector = NetworkConnector(services)
        self.end_execs: Callable[[Container], None] = lambda container: None
        self.tasks = BackgroundTasks(log)
        self.cgroup_reaper = CgroupReaper(services, self.tasks)
        self.removed_statuses: dict[str, int] = {}
        """Exit statuses of the last containers with ``--rm``, by id.

        A client whose wait ended with the former engine asks again after the end of the output.
        """

    def exited(self, container: Container, end: ExitRecord) -> None:
        """Record the exit of a container's init, and apply the restart policy or ``--rm``."""
        record = container.record
        if not container.live:
            return
        if container.shim is not None:
            container.shim.close()
            container.shim = None
        self.end_execs(container)
        started = end.started_at or record.started_at / 1e9
        ran_for = max(0.0, (end.finished_at or time.time()) - started)
        unhealthy = record.renewing and not record.manually_stopped
        restart = not container.removing and (
            unhealthy
            or restart_policy.should_restart(
                record.body.host_config.restart_policy,
                exit_code=end.exit_code,
                count=record.restart_count,
                stopped=record.manually_stopped,
            )
        )
        pause = restart_policy.delay(record.restart_delay, ran_for) if restart else 0.0
        action = StateAction.EXIT_TO_RESTART if restart else StateAction.EXIT
        self.release(container)
        container.change(
            status=next_status(record.status, action, record.name),
            pid=0,
            shim_pid=0,
            exit_code=end.exit_code,
            oom_killed=end.oom_killed or record.oom_killed,
            error=end.error,
            health=health.record_at_exit(record.health),
            restart_count=record.restart_count + restart,
            restart_delay=pause,
            renewing=False,
            paused_by_client=False,
            frozen_by_commit=False,
            finished_at=int((end.finished_at or time.time()) * 1e9),
            range_start=0,
            range_size=0,
            borrowed_start=0,
            borrowed_size=0,
            endpoint=None,
            more_endpoints=(),
            ports=(),
        )
        remove = record.body.host_config.auto_remove and not restart and not container.removing
        saved = remove or self.save(container)
        if end.error:  # the shim may have failed to remove the cgroup
            self.cgroup_reaper.remove(container)
        emit_unmounts(self._services.events, record)
        self._services.events.emit(
            "container",
            "die",
            container.id,
            record.event_attributes
            | {"exitCode": str(end.exit_code), "execDuration": str(int(ran_for))},
        )
        container.exited.set()
        # As in dockerd, "not-running" is met by an exit that a restart follows.
        container.notify(("next-exit", "not-running"), WaitResult(end.exit_code))
        if restart:
            container.restart = self.tasks.spawn(self._restart(container, pause))
            self.remove_run_dir(container)
            return
        if remove:
            self.tasks.spawn(self._auto_remove(container))
        elif saved:
            self.remove_run_dir(container)

    def save(self, container: Container) -> bool:
        """Write the record now, or retry until the disk accepts it; return False if it was not now.

        A full disk must not keep a client from stopping a container or from learning of its exit.
        Until the record is written, ``exit.json`` has the exit status for the next engine.
        """
        try:
            self._services.container_store.save(container)
        except Unavailable as error:
            log.error("container %s: %s; retrying", container.name, error)
            self.tasks.spawn(self._save_later(container))
            return False
        return True

    async def _save_later(self, container: Container) -> None:
        while container.id in self._services.container_store:
            await asyncio.sleep(_SAVE_RETRY_DELAY)
            with contextlib.suppress(Unavailable):
                self._services.container_store.save(container)
                if container.record.status is Status.EXITED:
                    self.remove_run_dir(container)
                return

    def release(self, container: Container) -> None:
        """Release what a running container has: engine socket, addresses, ports, volumes, ids."""
        record = container.record
        self._services.engine_sockets.close(record.id)
        self._connector.release(record)
        self._services.volume_mounts.leave(container)
        if record.range_start:
            self._services.id_ranges.release(record.range_start)
        if record.borrowed_start:
            self._services.id_ranges.release(record.borrowed_start)

    def remove_run_dir(self, container: Container) -> None:
        """Remove the run directory; the exit is in the database now."""
        directory = self._services.config.paths.container_run(container.id)
        shm = directory / "shm"
        if os.path.ismount(shm):
            from jaula.kernel import mounts

            mounts.umount2(str(shm), mounts.MNT.DETACH)
        self._services.hooks.run_dir_removed(self._services, container.record)
        shutil.rmtree(directory, ignore_errors=True)

    async def _auto_remove(self, container: Container) -> None:
        async with container.lock:
            if container.id in self._services.container_store and not container.live:
                await self.remove(container, volumes=True)

    async def _restart(self, container: Container, pause: float) -> None:
        await asyncio.sleep(pause)
        await self.cgroup_reaper.gone(container)
        async with container.lock:
            if container.record.status is not Status.RESTARTING:
                return
            container.restart = None  # from here on it runs to its end: see cancel_restart()
            try:
                await shielded(self._start(container))
            except JaulaError as error:
                log.warning("container %s cannot be restarted: %s", container.name, error)
                self.give_up(container)

    def resume(self, container: Container) -> None:
        """Wait for the rest of the pause that a previous engine began, then restart the container.

        The clock may have been set meanwhile, so the pause is never longer than the recorded delay.
        """
        record = container.record
        remaining = record.finished_at / 1e9 + record.restart_delay - time.time()
        pause = min(max(remaining, 0.0), record.restart_delay)
        container.restart = self.tasks.spawn(self._restart(container, pause))

    async def cancel_restart(self, container: Container) -> None:
        """Give up the restart of a container; a start that has begun ends first.

        A start that is interrupted halfway would leave a shim that still mounts and runs the
        container. So afterwards the container may run.
        """
        if container.restart is not None:
            self.give_up(container)
            return
        async with container.lock:
            self.give_up(container)

    def give_up(self, container: Container) -> None:
        """Cancel the restart of a container that waits for it."""
        record = container.record
        if record.status is not Status.RESTARTING:
            return
        task, container.restart = container.restart, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        container.change(status=next_status(record.status, StateAction.GIVE_UP, record.name))
        self.save(container)
        container.exited.set()
        container.notify(("not-running",), WaitResult(container.record.exit_code))

    # -- removal -------------------------------------------------------------------------------

    async def remove(self, container: Container, *, volumes: bool) -> None:
        """Remove a container that does not run. The caller holds its lock.

        :raises Conflict: when it runs, or when its processes or files cannot be removed: it is
            marked dead then.
        """
        record, services = container.record, self._services
        removing_status = next_status(record.status, StateAction.REMOVE, record.name)
        if container.restart is not None:
            container.restart.cancel()
            container.restart = None
        container.change(status=removing_status)
        container.close_pending()
        try:
            await services.sandbox_pool.take_back(container.id)
            await self._remove_leftovers(container)
            await asyncio.to_thread(self._remove_files, record)
        except (OSError, JaulaError) as error:
            container.change(
                status=next_status(removing_status, StateAction.REMOVE_FAILED, record.name)
            )
            container.change(error=str(error))
            services.container_store.save(container)
            raise Conflict(
                f"cannot remove container {record.name}: {error}",
                hint="it is marked dead; remove it again when the cause is fixed",
            ) from error
        anonymous = self._anonymous(record) if volumes else ()
        services.container_store.forget(container)
        for volume in anonymous:
            with contextlib.suppress(JaulaError):
                await services.volume_references.remove(volume.name, id=volume.id)
        services.events.emit("container", "destroy", container.id, record.event_attributes)
        if record.body.host_config.auto_remove:
            self.removed_statuses[container.id] = record.exit_code
            if len(self.removed_statuses) > _REMOVED_STATUSES:
                del self.removed_statuses[next(iter(self.removed_statuses))]
        result = WaitResult(record.exit_code)
        container.notify(("next-exit", "not-running", "removed"), result)

    def _anonymous(self, record: ContainerRecord) -> tuple[Volume, ...]:
        """Return the anonymous volumes that are removed with the last container that has them.

        ``--volumes-from`` may have brought one: a volume of another user stays. Without the record
        another client may replace one, so they are read before.
        """
        found = []
        for mount in record.mounts:
            if mount.type == "volume" and mount.anonymous:
                with contextlib.suppress(JaulaError):
                    found.append(self._services.volumes.get(mount.name))
        return tuple(volume for volume in found if volume.owner in ("", record.owner))

    def _remove_files(self, record: ContainerRecord) -> None:
        self._services.hooks.before_removal(self._services, record)
        self._services.snapshots.remove(record.id)
        directory = self._services.config.paths.container(record.id)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(directory)

    # -- a lost shim ---------------------------------------------------------------------------

    def shim_lost(self, container: Container) -> None:
        """Record the exit of a container whose shim closed its channel without reporting one.

        A shim that could still write ``exit.json`` left the status there. Otherwise the container
        counts as killed, and the engine does what the shim would have done.
        """
        if not container.live:
            return
        run_dir = self._services.config.paths.container_run(container.id)
        end = self._services.runtime.exit_record(str(run_dir))
        if end is not None:
            self.exited(container, end)
            return
        end = ExitRecord(137, 9, finished_at=time.time(), error="the container's shim was killed")
        if (run_dir / oci_runtimes.RUNTIME_FILE).exists():
            self.tasks.spawn(self._clean_up_and_exit(container, end))
            return
        self._remove_cgroup(container)
        self.exited(container, end)

    async def _clean_up_and_exit(self, container: Container, end: ExitRecord) -> None:
        await self.clean_up(container)
        self.exited(container, end)

    async def clean_up(self, container: Container) -> None:
        """Kill the processes of a container without a shim and remove its cgroup.

        An external runtime also deletes the container. Failures are logged: the container has
        exited whatever is left of it.
        """
        external = None
        try:
            external = oci_runtimes.external_container(self._services.config.paths, container.id)
            if external is not None:
                await self._kill(container, destroy=False)
                await external.delete()
        except JaulaError as error:
            log.warning("container %s: %s", container.name, error)
        await self._kill(container)
        if external is not None:
            path = cgroup_path(self._services, container.record)
            for directory in await asyncio.to_thread(foreign_cgroups.remove, path):
                log.warning("container %s: %s is in use", container.name, directory)

    async def _kill(self, container: Container, *, destroy: bool = True) -> None:
        """Remove a cgroup in a thread, since that may wait for exits; most often there is none."""
        if self._cgroup_pids(container) is not None:
            await asyncio.to_thread(self._remove_cgroup, container, destroy=destroy)

    def _cgroup_pids(self, container: Container) -> tuple[int, ...] | None:
        """Return the processes in a container's cgroup, or None if it does not exist."""
        try:
            with open_cgroup(self._services, container.record) as cgroup:
                return cgroup.pids() if cgroup.locations() else None
        except NotFound:
            return None

    async def _remove_leftovers(self, container: Container) -> None:
        """Remove what a killed shim has left: processes, cgroup, mounts.

        A cgroup without processes of the container may be kept by one that another program moved
        into one of its hierarchies. It is removed in the background.

        :raises Conflict: when a process has not exited.
        """
        await self.clean_up(container)
        pids = self._cgroup_pids(container)
        if pids:
            listed = ", ".join(map(str, pids[:8]))
            raise Conflict(f"processes that were killed have not exited: {listed}")
        if pids is not None:
            self.cgroup_reaper.remove_path(cgroup_path(self._services, container.record))
        self.remove_run_dir(container)

    def _remove_cgroup(self, container: Container, *, destroy: bool = True) -> None:
        try:
            with open_cgroup(self._services, container.record) as cgroup:
                cgroup.kill()
                if destroy:
                    cgroup.destroy()
        except NotFound:
            return
        except (JaulaError, OSError) as error:
            log.warning("cgroup of container %s: %s", container.name, error)

    async def close(self) -> None:
        """Cancel the background tasks; containers keep running."""
        await self.tasks.close()
