"""Put a container back to a checkpoint that holds its files: root, volumes, memory.

The order, under the container's lock:

1. The checkpoint is verified, and its files are staged beside the present ones. Files of bind
   mounts must be as it expects them. The container runs on. An engine that ends here leaves the
   old state, and the next one removes the staged files.
2. The record says that the container is rolled back (``rollback``). From here on the new state is
   reached: an engine that finds this continues at step 3 before it serves a client.
3. The container is killed. Staged files are put in place, which can be repeated.
4. The container is started from the checkpoint. The record of this start ends the rollback.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from jaula.engine.containers import checkpoint_files
from jaula.engine.threads import in_thread, shielded
from jaula.errors import Conflict, JaulaError, NotFound
from jaula.state.records import Status
from jaula.storage.checkpoints import Part

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jaula.engine.containers.checkpoint import Checkpoints
    from jaula.engine.containers.exit import ExitHandler
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.storage.checkpoints import Manifest

log = logging.getLogger("jaula.containers")


class Start(Protocol):
    """Starts a container from a checkpoint; the caller holds its lock."""

    async def __call__(self, container: Container, checkpoint: Manifest | None = None) -> None: ...


class Rollbacks:
    """Puts containers back to checkpoints. ``end`` kills a container and waits for its exit."""

    def __init__(
        self,
        services: Services,
        checkpoints: Checkpoints,
        exit_handler: ExitHandler,
        end: Callable[[Container], Awaitable[None]],
        start: Start,
    ) -> None:
        self._services = services
        self._checkpoints = checkpoints
        self._exit_handler = exit_handler
        self._end = end
        self._start = start

    async def rollback(self, container: Container, name: str, directory: str = "") -> None:
        """Put a container back to a checkpoint and continue it from there.

        ``directory`` is that of ``--checkpoint-dir``; '' for the engine's own.

        :raises RuntimeFailure: when the checkpoint cannot be used. If that is found before step 2,
            nothing has changed. Otherwise the container has the files of the checkpoint, and does
            not run.
        :raises Conflict: when another running container uses one of the volumes.
        """
        services = self._services
        if container.record.status is Status.RESTARTING:
            await self._exit_handler.cancel_restart(container)
        async with container.lock:
            if container.id not in services.container_store:
                raise NotFound(f"No such container: {container.name}")
            checkpoints, action = self._checkpoints, "roll back"
            manifest = await checkpoints.open(container, name, directory, None, action)
            self._check_users(container)
            await checkpoint_files.stage_and_verify(
                services,
                container.record,
                manifest,
                lambda: checkpoints.verify(container, manifest, Part.ALL, action),
            )
            try:
                await checkpoints.check_bind_sources(container, manifest, action)
                container.change(rollback=name, rollback_directory=directory)
                services.container_store.save(container)
            except BaseException:
                container.change(rollback="", rollback_directory="")
                await in_thread(checkpoint_files.discard, services, container.record)
                raise
            await shielded(self._complete(container, manifest))
        services.events.emit(
            "container",
            "rollback",
            container.id,
            container.record.event_attributes | {"checkpoint": name},
        )

    async def _complete(self, container: Container, manifest: Manifest) -> None:
        container.removing = True  # neither the restart policy nor --rm applies to this exit
        try:
            if container.live:
                await self._end(container)
        except JaulaError:
            container.change(rollback="", rollback_directory="")
            self._exit_handler.save(container)
            await in_thread(checkpoint_files.discard, self._services, container.record)
            raise
        finally:
            container.removing = False
        if self._exit_handler.cgroup_reaper.removals:
            await self._exit_handler.cgroup_reaper.gone(container)
        await in_thread(checkpoint_files.replace, self._services, container.record)
        await self._continue(container, manifest)

    async def _continue(self, container: Container, manifest: Manifest) -> None:
        """Start a container whose files were put in place."""
        container.change(restart_count=0, restart_delay=0.0, manually_stopped=False)
        try:
            await self._start(container, manifest)
        except BaseException:
            container.change(rollback="", rollback_directory="", manually_stopped=True)
            self._exit_handler.save(container)
            raise

    def _check_users(self, container: Container) -> None:
        """Check that no other running container uses the volumes.

        :raises Conflict: when one does.
        """
        own = {mount.name for mount in container.record.mounts if mount.type == "volume"}
        for other in self._services.container_store:
            if other is container or not other.live:
                continue
            for mount in other.record.mounts:
                if mount.type == "volume" and mount.name in own:
                    raise Conflict(
                        f"container {container.name} cannot be rolled back: the running container"
                        f" {other.name} uses its volume {mount.name}",
                        hint=f"stop {other.name} first",
                    )

    # -- after a restart of the engine -----------------------------------------------------------

    async def replace_files(self, container: Container) -> None:
        """Kill a container whose rollback was interrupted, and put its staged files in place.

        A container whose files cannot be replaced keeps the mark in its record, so each start tries
        it again before it runs a program.
        """
        try:
            if container.live:
                await self._end(container)
            await in_thread(checkpoint_files.replace, self._services, container.record)
        except (JaulaError, OSError) as error:
            log.error("the rollback of container %s is not complete: %s", container.name, error)

    async def resume(self, container: Container) -> None:
        """Continue a container after :meth:`replace_files`."""
        container.removing = False
        name, directory = container.record.rollback, container.record.rollback_directory
        log.info("the interrupted rollback of container %s to %s goes on", container.name, name)
        try:
            async with container.lock:
                manifest = await self._checkpoints.open(container, name, directory)
                await self._continue(container, manifest)
        except JaulaError as error:
            log.warning("container %s cannot be continued: %s", container.name, error)
