"""The use cases of containers that change one: the routes of ``/containers/...``.

Queries (inspect, list, logs, stats) are in :mod:`jaula.engine.containers.query`. Every change of a
container happens under its lock, so that two clients cannot interleave.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from jaula import feature, metrics
from jaula.engine import oci_runtimes
from jaula.engine.containers import container_attach, inherit, oom_score, restart_policy
from jaula.engine.containers import create as container_create
from jaula.engine.containers.bounds import Authorize, allow_all
from jaula.engine.containers.container_cgroup import open_cgroup
from jaula.engine.containers.container_liveness import check_running, has_exited, while_running
from jaula.engine.containers.copy_archive import ContainerCopy
from jaula.engine.containers.exit import ExitHandler
from jaula.engine.containers.log_config import pod_log
from jaula.engine.containers.query import ContainerQueries
from jaula.engine.containers.start import Starter
from jaula.engine.containers.stop import ProcessControl
from jaula.engine.model.container import LIVE, Container
from jaula.engine.model.container_store import check_name
from jaula.engine.networks import container_links
from jaula.engine.threads import in_thread
from jaula.engine.userns.container_ids import ids_of
from jaula.errors import (
    Conflict,
    InvalidRequest,
    JaulaError,
    NotFound,
    NotModified,
    RuntimeFailure,
    Unavailable,
)
from jaula.request_context import check_client
from jaula.runtime.shim_protocol import Detached, Event, ExecExited, ExitRecord, OutOfMemory
from jaula.spec import signals
from jaula.spec.api_documents import (
    ContainerCreate,
    ContainerUpdate,
    LogConfig,
)
from jaula.spec.api_params import AttachOptions, CommitOptions, ContainerCreated, WaitResult
from jaula.spec.pod import PodContainerUpdate
from jaula.state.container_records import MigrationPhase, Status

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from jaula.engine.containers.health_monitor import HealthMonitor
    from jaula.engine.containers.restore_source import RestoreSource
    from jaula.engine.containers.user_lookup import UserLookup
    from jaula.engine.model.services import Services
    from jaula.images.store.image_quota import Quota
    from jaula.spec.pod import PodContainerRequest
    from jaula.spec.runtime_spec import Resources
    from jaula.storage.path_resolve import DirectoryListing, PathStat

log = logging.getLogger("jaula.containers")
Service = TypeVar("Service")


class Containers(ContainerQueries):
    """All containers of an engine."""

    def __init__(self, services: Services, users: UserLookup) -> None:
        super().__init__(services)
        self._users = users
        self.exit_handler = ExitHandler(services, self.start_container)
        self._process_control = ProcessControl(services, self.emit, self.exit_handler.save)
        self.starter = Starter(
            services,
            users,
            self.on_event,
            self.exit_handler.save,
            self.exit_handler.clean_up,
            self.exit_handler.remove_run_dir,
        )
        self.on_exec: Callable[[str, int], None] = lambda exec_id, code: None
        self._early_exits: dict[str, ExitRecord] = {}
        self._copy = ContainerCopy(services, ids_of)
        self._of_features = feature.ServiceCache()
        self.health: HealthMonitor  # set by the engine: a probe is an exec, which needs this object

    def service(self, make: Callable[[Containers], Service]) -> Service:
        """Return a service of a feature for containers, by the function that makes it."""
        return self._of_features.service(self, make)

    # -- events from shims ---------------------------------------------------------------------

    def on_event(self, container: Container, event: Event) -> None:
        """Handle an event that a container's shim reported."""
        if isinstance(event, ExitRecord):
            if container.live:
                self.exit_handler.exited(container, event)
            else:
                self._early_exits[container.id] = event  # the start has not returned yet
        elif isinstance(event, ExecExited):
            self.on_exec(event.exec_id, event.exit_code)
        elif isinstance(event, OutOfMemory):
            container.change(oom_killed=True)  # the record of the exit has it, too
            attributes = {"memoryUsage": str(event.usage), "memoryLimit": str(event.limit)}
            metrics.OUT_OF_MEMORY.add()
            self.emit(container, "oom", attributes)
        elif isinstance(event, Detached):
            self.emit(container, "detach")

    def emit(self, container: Container, action: str, more: dict[str, str] | None = None) -> None:
        """Emit an event of a container; ``more`` are attributes beside its own."""
        self.services.events.emit(
            "container", action, container.id, container.record.event_attributes | (more or {})
        )

    # -- life cycle ----------------------------------------------------------------------------

    async def create(
        self,
        body: ContainerCreate,
        name: str | None,
        platform: str | None,
        *,
        owner: tuple[str, int] = ("0", 0),
        authorize: Authorize = allow_all,
        log: LogConfig | None = None,
        pod: PodContainerRequest | None = None,
        transaction: str = "",
    ) -> ContainerCreated:
        """Create a container; see :func:`jaula.engine.containers.create.create`."""
        return await container_create.create(
            self.services,
            body,
            name,
            platform,
            owner=owner,
            authorize=authorize,
            log=log,
            pod=pod,
            user_of=self._users.of if pod is not None else None,
            transaction=transaction,
        )

    async def start(self, ref: str, *, checkpoint: str = "", checkpoint_dir: str = "") -> None:
        """Start a container, or continue it from a checkpoint.

        :raises NotFound: when there is no such container.
        :raises NotModified: when it runs already.
        :raises Conflict: when it is paused.
        :raises RuntimeFailure: when the checkpoint cannot be used.
        """
        container = self.find(ref)
        self.starter.connector.identify(container)
        await self._cgroup_gone(container)
        async with container.lock:
            self._check_exists(container)
            if container.record.status is Status.PAUSED:
                raise Conflict("cannot start a paused container, try unpause instead")
            if container.live:
                raise NotModified(f"container {container.name} is already running")
            _check_migration(container)
            source = None
            if checkpoint:
                source = await self.services.hooks.checkpoint_opened(
                    self, container, checkpoint, checkpoint_dir
                )
            container.change(restart_count=0, restart_delay=0.0)
            await self.start_container(container, source)

    async def restore(self, container: Container, source: RestoreSource) -> None:
        """Continue a container from saved processes; see :meth:`Starter.start`.

        :raises JaulaError: when it cannot be restored.
        """
        async with container.lock:
            self._check_exists(container)
            await self.start_container(container, source)

    async def _cgroup_gone(self, container: Container) -> None:
        """Wait until the cgroup of the previous run is removed; most often none is left."""
        if self.exit_handler.cgroup_reaper.removals:
            await self.exit_handler.cgroup_reaper.gone(container)

    async def start_container(
        self, container: Container, source: RestoreSource | None = None
    ) -> None:
        container.removing = False
        if source is None:
            await self.services.hooks.start_requested(self, container)
        try:
            await self.starter.start(container, source)
        except BaseException as error:
            self._early_exits.pop(container.id, None)
            self.exit_handler.cgroup_reaper.remove(container)  # if the shim was killed, it is left
            if container.record.status is Status.RESTARTING:
                self.exit_handler.give_up(container)
            container.notify(("next-exit",), _failure(error))
            is_removed = container.record.body.host_config.auto_remove
            if is_removed and container.record.rollback_state is None:
                await self.exit_handler.remove(container, volumes=True)
            raise
        if container.pending:
            await container_attach.join_late(container)
        self.health.started(container)
        self.watch(container)

    def watch(self, container: Container) -> None:
        """Watch a container's shim.

        An exit that was reported before the start was recorded is handled at once.
        """
        shim = container.shim
        if (end := self._early_exits.pop(container.id, None)) is not None:
            self.exit_handler.exited(container, end)
        elif shim is not None:
            shim.on_gone = lambda: self.exit_handler.shim_lost(container)
            if shim.gone:
                self.exit_handler.shim_lost(container)
            else:
                self.health.watch(container)

    async def stop(self, ref: str, timeout: int | None, signal: str | None) -> None:
        """Ask a container to exit, and kill it after ``timeout`` seconds (-1: never).

        :raises NotModified: when it does not run.
        """
        container = self.find(ref)
        if container.record.status is Status.RESTARTING:
            container.change(manually_stopped=True)
            await self.exit_handler.cancel_restart(container)
            if not container.live:
                return
        if not container.live:
            raise NotModified(f"container {container.name} is not running")
        await self._stop(container, timeout, signal)
        self.emit(container, "stop")

    async def end_unhealthy(self, container: Container, action: str) -> None:
        """End an unhealthy container; ``action`` is ``restart``, ``kill`` or ``stop``.

        The exit handler starts it again after ``restart``, and after ``kill`` if its restart
        policy says so.
        """
        log.warning("container %s is unhealthy: %s", container.name, action)
        if action == "kill":
            await self._process_control.kill(container)
            return
        if action == "stop":
            await self._stop(container, None, None)
            return
        container.change(renewing=True)
        self.exit_handler.save(container)
        await self._process_control.end(container, None, None)

    async def _stop(self, container: Container, timeout: int | None, signal: str | None) -> None:
        if signal:
            signals.parse(signal)  # raises before the record says that the container was stopped
        container.change(manually_stopped=True)
        self.exit_handler.save(container)
        await self._process_control.end(container, timeout, signal)

    async def end(self, container: Container) -> None:
        """Kill a running container and wait for its exit."""
        await self._process_control.kill(container)

    async def restart(self, ref: str, timeout: int | None, signal: str | None) -> None:
        """Stop a container if it runs, and start it."""
        container = self.find(ref)
        self.starter.connector.identify(container)
        if container.record.status is Status.RESTARTING:
            await self.exit_handler.cancel_restart(container)
        container.removing = True  # neither the restart policy nor --rm applies to this exit
        try:
            if container.live:
                await self._stop(container, timeout, signal)
                self.emit(container, "stop")
        finally:
            container.removing = False
        await self._cgroup_gone(container)
        async with container.lock:
            self._check_exists(container)
            if not container.live:
                await self.start_container(container)
        self.emit(container, "restart")

    async def kill(self, ref: str, signal: str | None) -> None:
        """Send a signal to init; after SIGKILL wait for the exit.

        :raises Conflict: when the container does not run.
        """
        container = self.find(ref)
        number = signals.parse(signal or "SIGKILL")
        if container.record.status is Status.RESTARTING:
            container.change(manually_stopped=True)
            await self.exit_handler.cancel_restart(container)
            if not container.live:
                return
        if not container.live:
            raise Conflict(f"cannot kill container: {ref}: container {container.id} is not running")
        stop = container.record.body.stop_signal or "SIGTERM"
        if number in (9, signals.parse(stop)):
            container.change(manually_stopped=True)
            self.exit_handler.save(container)
        self.emit(container, "kill", {"signal": str(number)})
        if number == 9:
            await self._process_control.kill(container)  # Docker: the client may remove it now
        else:
            await self._process_control.signal(container, number)

    async def pause(self, ref: str) -> None:
        """Freeze every process of a container.

        :raises Conflict: when it does not run or is paused already.
        """
        container = self.find(ref)
        async with container.lock:
            check_running(container)
            if container.record.status is Status.PAUSED or self._process_control.frozen(container):
                raise Conflict(f"Container {container.id} is already paused")
            await self._process_control.freeze(container)

    async def unpause(self, ref: str) -> None:
        """Resume the processes of a paused container.

        :raises Conflict: when it is not paused.
        """
        container = self.find(ref)
        async with container.lock:
            if container.record.status is not Status.PAUSED and not (
                container.live and self._process_control.frozen(container)
            ):
                raise Conflict(f"Container {container.id} is not paused")
            await self._process_control.thaw(container)
            self.emit(container, "unpause")

    async def reopen_log(self, ref: str) -> None:
        """Open the log of a pod's container again, whose file the kubelet has renamed.

        :raises Conflict: when the container does not run, or its log driver rotates its own files.
        :raises Unavailable: when its shim does not answer.
        :raises RuntimeFailure: when the file cannot be opened. The log goes on in the present file.
        """
        container = self.find(ref)
        if pod_log(container.record.log) is None:
            raise Conflict(
                f"the log of container {container.name} is not rotated by another program",
                hint="only the log of a pod's container can be opened again",
            )
        async with while_running(container):
            if container.shim is None:
                raise Unavailable(f"the shim of container {container.name} is not connected yet")
            await container.shim.reopen_log()

    async def inspect(self, ref: str, *, size: bool) -> dict[str, Any]:
        """Return Docker's document of one container, with the freezer's state as its status."""
        self.refresh_status(self.find(ref))
        return await super().inspect(ref, size=size)

    def refresh_status(self, container: Container) -> None:
        """Set the status of a running container, paused or not, to the state of its freezer."""
        self._process_control.refresh(container)

    async def restore_frozen(self, container: Container) -> None:
        """Thaw a container that a commit of the previous engine has frozen."""
        await self._process_control.restore(container)

    async def import_(
        self, ref: str, name: str, created: int | None, stream: AsyncIterator[bytes]
    ) -> None:
        """Give a container that never ran its files, its name and the time of its creation.

        ``stream`` is the tar of a layer with the changes of the root; without a byte there are
        none. ``created`` is nanoseconds since 1970. The files are in place before the container
        has the name. A container that keeps its present name was not completed.

        :raises Conflict: when the container has run, or another one has the name.
        :raises InvalidRequest: when the name or the archive is not valid.
        """
        from jaula.engine.containers.container_import import replace_files

        container = self.find(ref)
        async with container.lock:
            if container.record.status is not Status.CREATED or container.record.started_at:
                raise Conflict(f"container {container.name} has run, and takes no other files")
            await replace_files(self.services, container.id, stream)
            if created is not None:
                container.change(created=created)  # written with the name
            await self.rename(ref, name)

    async def rename(self, ref: str, new: str) -> None:
        """Rename a container.

        :raises InvalidRequest: when the new name is empty, invalid or the present name.
        :raises Conflict: when another container has the name.
        """
        container = self.find(ref)
        if not new:
            raise InvalidRequest("Neither old nor new names may be empty")
        name, old = check_name(new), container.name
        if name == old:
            raise InvalidRequest("Renaming a container with the same name as its current name")
        try:
            self.services.container_store.reserve(name, container.id)
        except Conflict as error:
            raise Conflict(f"Error when allocating new name: {error.message}") from None
        container.change(name=name)
        try:
            self.services.container_store.save(container)
        except JaulaError:
            container.change(name=old)
            self.services.container_store.release(name, container.id)
            raise
        self.services.container_store.release(old, container.id)
        self.starter.connector.rename(container)
        self.emit(container, "rename", {"oldName": f"/{old}"})

    async def remove(self, ref: str, *, force: bool, volumes: bool) -> None:
        """Remove a container; ``force`` kills a running one first.

        :raises Conflict: when it runs and ``force`` is not set, or its files cannot be removed.
        """
        container = self.find(ref)
        if force and (starting := container.starting) is not None:
            await starting.kill()  # the start fails, and cleans up
        while True:
            await self._end_for_removal(container, force=force)
            async with container.lock:
                # --rm may have removed it while this waited for the lock.
                if container.id not in self.services.container_store:
                    return
                if not container.live:
                    await self.exit_handler.remove(container, volumes=volumes)
                    return
            # Another client has started it while this waited for the lock.

    async def _end_for_removal(self, container: Container, *, force: bool) -> None:
        """Kill a running container, and give up a restart.

        :raises Conflict: when there is something to end and ``force`` is not set.
        """
        if container.live or container.record.status is Status.RESTARTING:
            if not force:
                state = str(container.record.status)
                remedy = "stop the container before removing or force remove"
                raise Conflict(
                    f'cannot remove container "/{container.name}": container is {state}'
                    + (" and must be unpaused first" if state == Status.PAUSED else f": {remedy}")
                )
            if container.record.status is Status.RESTARTING:
                await self.exit_handler.cancel_restart(container)
            if container.live:
                container.removing = True
                self.emit(container, "kill", {"signal": "9"})
                await self._process_control.kill(container)

    def parent_of_link(self, name: str) -> Container:
        """Return the container that has a legacy link: ``web`` for ``web/db``.

        :raises NotFound: when there is no such link.
        """
        return container_links.link_parent(self.services, name)

    async def remove_link(self, name: str) -> None:
        """Remove a legacy link from a container, which may run."""
        container = self.parent_of_link(name)
        async with container.lock:
            container_links.remove_link(self.services, name)

    async def wait(self, ref: str, condition: str) -> asyncio.Future[WaitResult]:
        """Return a future that is resolved when ``condition`` is met.

        It is resolved at once for the id of a container with ``--rm`` that was removed lately.

        :raises InvalidRequest: when the condition is unknown.
        :raises NotFound: when there is no such container.
        """
        future: asyncio.Future[WaitResult]
        if (status := self.exit_handler.removed_statuses.get(ref)) is not None:
            future = asyncio.get_running_loop().create_future()
            future.set_result(WaitResult(status))
            return future
        container = self.find(ref)
        condition = condition or "not-running"
        if condition not in ("not-running", "next-exit", "removed"):
            raise InvalidRequest(
                f'invalid condition: "{condition}"',
                hint="the conditions are not-running, next-exit and removed",
            )
        running = container.record.status in LIVE | {Status.RESTARTING}
        if condition == "not-running" and not running:
            future = asyncio.get_running_loop().create_future()
            future.set_result(WaitResult(container.record.exit_code))
            return future
        return container.wait(condition)

    # -- streams -------------------------------------------------------------------------------

    async def attach(self, ref: str, fd: int, options: AttachOptions) -> None:
        """Attach a client to a container's streams; this method owns ``fd``."""
        await container_attach.attach(self, self.find_or_close(ref, fd), fd, options)

    async def give_descriptors(self, ref: str, fds: Sequence[int]) -> None:
        """Keep descriptors for the program of the next start; this method owns ``fds``.

        :raises NotFound: when there is no such container.
        :raises Conflict: when it runs.
        :raises InvalidRequest: when one is not a socket that a program may inherit.
        """
        try:
            container = self.find(ref)
            async with container.lock:
                self._check_exists(container)
                inherit.check(container, fds)
                container.close_inherited()
                container.inherited, fds = list(fds), []
        finally:
            for fd in fds:
                os.close(fd)

    def tty(self, ref: str, *, control: bool = False) -> bool:
        """Return whether a container has a terminal.

        :raises Conflict: when ``control`` is set and the container cannot be attached.
        """
        container = self.find(ref)
        if control:
            container_attach.check(container)
        return container.record.body.tty

    async def resize(self, ref: str, h: int, w: int) -> None:
        """Set the size of a container's terminal.

        :raises Conflict: when it does not run.
        """
        container = self.find(ref)
        check_running(container)
        if not container.record.body.tty:
            return  # there is no terminal to resize; Docker succeeds as well
        async with while_running(container):
            assert container.shim is not None
            await container.shim.resize("", h, w)
        self.emit(container, "resize", {"height": str(h), "width": str(w)})

    # -- files ---------------------------------------------------------------------------------

    async def commit(self, ref: str, options: CommitOptions, quota: Quota) -> str:
        """Create an image from a container and return the image's id."""
        from jaula.engine.containers.commit import commit

        return await commit(
            self.services, self.find(ref), options, self._process_control.frozen_for_commit, quota
        )

    async def export(self, ref: str) -> AsyncIterator[bytes]:
        """Yield the files of a container as a tar archive."""
        from jaula.engine.containers.container_export import export

        async for chunk in export(self.services, self.find(ref), self._copy.ids):
            yield chunk

    async def path_stat(self, ref: str, path: str) -> PathStat:
        """Return the file status of a path in a container."""
        return await self._copy.stat(self.find(ref), path)

    async def list_directory(self, ref: str, path: str) -> DirectoryListing:
        """Return the files in a directory of a container."""
        return await self._copy.list(self.find(ref), path)

    async def copy_out(self, ref: str, path: str) -> tuple[PathStat, AsyncIterator[bytes]]:
        """Return the status of a path in a container, and the path as a tar archive."""
        return await self._copy.out(self.find(ref), path)

    async def copy_in(
        self, ref: str, path: str, stream: AsyncIterator[bytes], *, keep_kinds: bool, as_user: bool
    ) -> None:
        """Extract a tar archive into a directory of a container."""
        await self._copy.into(self.find(ref), path, stream, keep_kinds=keep_kinds, as_user=as_user)

    # -- changes of limits ---------------------------------------------------------------------

    async def update(self, ref: str, body: ContainerUpdate) -> Sequence[str]:
        """Change the limits or the restart policy of a container and return warnings."""
        from jaula.engine.containers.update import merge_limits

        container = self.find(ref)
        async with container.lock:
            self._check_exists(container)
            policy_of = body.restart_policy
            if policy_of.name:
                auto = container.record.body.host_config.auto_remove
                restart_policy.check(policy_of, auto_remove=auto)
            if isinstance(body, PodContainerUpdate) and body.oom_score_adj is not None:
                score = oom_score.permitted(body.oom_score_adj)
                body = msgspec.structs.replace(body, oom_score_adj=score)
            updated = merge_limits(container.record, body, self.services.host)
            resources, warnings = updated.limits, updated.warnings
            other = (
                oci_runtimes.external_container(self.services.config.paths, container.id)
                if container.live
                else None
            )
            if container.live and updated.changes_processes:
                shim = container.shim
                try:
                    if other is not None and resources is not None:
                        await other.update(resources)
                        resources = None
                    warnings = (
                        *warnings,
                        *await in_thread(self._apply, container, resources, updated.oom_score_adj),
                    )
                except (JaulaError, OSError):
                    if not await has_exited(container, shim):
                        raise
                    # It has exited: the limits are those of the next start.
            container.change(body=updated.body, resolved_request=updated.resolved)
            self.services.container_store.save(container)
        self.emit(container, "update")
        return warnings

    def _apply(
        self, container: Container, limits: Resources | None, score: int | None
    ) -> tuple[str, ...]:
        """Write limits and the OOM score of a running container; return warnings."""
        with open_cgroup(self.services, container.record) as cgroup:
            warnings = cgroup.apply(limits) if limits is not None else ()
            if score is not None:
                oom_score.write(cgroup.pids, score)
        return warnings

    async def prune(
        self, filters: dict[str, list[str]], may_remove: Callable[[Container], bool] | None = None
    ) -> dict[str, Any]:
        """Remove every container that does not run, and is not of a pod.

        Containers for which ``may_remove`` is false are left.

        :raises ClientGone: when the client of the request left meanwhile. The rest stays, as with
            Docker.
        """
        from jaula.engine.model.label_filters import check_prune, prune_selects

        check_prune(filters)
        removed, freed = [], 0
        for container in self.services.container_store:
            status = container.record.status
            if status not in (Status.CREATED, Status.EXITED, Status.DEAD):
                continue
            if may_remove is not None and not may_remove(container):
                continue
            record = container.record
            if record.in_pod or not prune_selects(
                filters, record.body.labels, record.created / 1e9
            ):
                continue
            check_client()
            async with container.lock:
                if container.live or container.id not in self.services.container_store:
                    continue
                size = await asyncio.to_thread(self.size, container)
                await self.exit_handler.remove(container, volumes=False)
            removed.append(container.id)
            freed += size
        self.services.events.emit("container", "prune", "", {"reclaimed": str(freed)})
        return {"ContainersDeleted": removed or None, "SpaceReclaimed": freed}

    def _check_exists(self, container: Container) -> None:
        if container.id not in self.services.container_store:
            raise NotFound(f"No such container: {container.name}")


def _check_migration(container: Container) -> None:
    """Check that no other engine runs a container, or may run it.

    :raises Conflict: when a migration of it has not ended.
    """
    record = container.record.migration
    if record is None:
        return
    if record.phase is MigrationPhase.GIVEN:
        raise Conflict(
            f"container {container.name} was given to {record.peer}",
            hint=f"jaula container migrate --resume {container.name} asks how that ended",
        )
    if record.phase is MigrationPhase.INCOMING:
        raise Conflict(f"container {container.name} is being received from {record.peer}")


def _failure(error: BaseException) -> WaitResult:
    code = error.exit_code if isinstance(error, RuntimeFailure) else 125
    return WaitResult(code)
