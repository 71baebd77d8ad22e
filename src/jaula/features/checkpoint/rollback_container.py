"""Put a container back to a checkpoint that holds its files: root, volumes, memory.

The present state is lost only when the state of the checkpoint runs. The order, under the
container's lock:

1. The checkpoint is verified, and its files are staged beside the present ones. Files of bind
   mounts must be as it expects them. The container runs on.
2. A container that runs is saved in a checkpoint of its own, the former state, and ends with it.
   Until that is complete, the phase in the record is ``keep``, and ``replace`` from then on.
3. Staged files are put in place, and the former files stay beside them.
4. The container is started from the checkpoint. The intent of this start is recorded with the phase
   ``continued``. Then the former state is removed.

If step 3 or 4 fails, the phase is ``undo``: the former files are put in place again, and the
container is continued from the former state. If that fails as well, the checkpoint of the former
state stays, and the error has its name.

An engine that finds a phase in a record goes on from there before it serves a client
(:func:`next_step`). Staged and former files are renamed only, so each phase can be repeated.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from enum import Enum, auto
from typing import TYPE_CHECKING, Protocol

import msgspec

from jaula.engine.threads import EngineStopping, in_thread, shielded
from jaula.errors import Conflict, InvalidRequest, JaulaError, NotFound, RuntimeFailure
from jaula.features.checkpoint import container_files
from jaula.features.checkpoint.checkpoint_source import CheckpointSource
from jaula.features.checkpoint.checkpoint_store import Part, checkpoint_store
from jaula.state.container_records import RollbackPhase, RollbackState, Status

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from jaula.engine.containers.exit import ExitHandler
    from jaula.engine.containers.restore_source import RestoreSource
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.features.checkpoint.checkpoint_store import Manifest
    from jaula.features.checkpoint.checkpoints import Checkpoints

log = logging.getLogger("jaula.containers")
_PREFIX = "before-rollback-"  # of the checkpoints of former states
_DUMP_TIMEOUT = 2.0  # seconds for the dump of a killed engine to kill the container, or let it go
_EXIT_TIMEOUT = 30.0  # seconds from SIGKILL to the recorded exit
_INTERVAL = 0.05  # seconds


class Start(Protocol):
    """Starts a container from a checkpoint; the caller holds its lock."""

    async def __call__(self, container: Container, source: RestoreSource | None = None) -> None: ...


class Step(Enum):
    """What an engine does with a rollback that the former engine has begun."""

    ABANDON = auto()  # the present state stays
    GO_ON = auto()  # replace the files, and continue from the checkpoint
    FINISH = auto()  # a start is recorded: its state stays
    UNDO = auto()  # put the former files in place, and continue the former state


def next_step(phase: RollbackPhase, *, live: bool) -> Step:
    """Return what an engine does with an interrupted rollback. Pure.

    ``live`` says that the container runs, and is not about to end with its former state.
    """
    if phase in (RollbackPhase.CONTINUED, RollbackPhase.UNDONE):
        return Step.FINISH
    if live or phase is RollbackPhase.KEEP:
        return Step.ABANDON
    return Step.UNDO if phase is RollbackPhase.UNDO else Step.GO_ON


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

        :raises RuntimeFailure: when the checkpoint cannot be used, or the present state cannot be
            saved. The container is as before: it runs if it ran. If it could not be continued, the
            error has the name of the checkpoint with its former state.
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
            self._check_saved(container)
            await container_files.stage_and_verify(
                services,
                container.record,
                manifest,
                lambda: checkpoints.verify(container, manifest, Part.ALL, action),
            )
            try:
                await checkpoints.check_bind_sources(container, manifest, action)
                record = container.record
                state = RollbackState(
                    RollbackPhase.KEEP if container.live else RollbackPhase.REPLACE,
                    _PREFIX + os.urandom(4).hex() if container.live else "",
                    record.ports,
                    record.restart_count,
                    record.manually_stopped,
                )
                container.change(rollback=name, rollback_directory=directory, rollback_state=state)
                services.container_store.save(container)
            except BaseException:
                container.change(rollback="", rollback_directory="", rollback_state=None)
                await in_thread(container_files.discard, services, container.record)
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
                await self._save(container)
        except EngineStopping:
            raise  # the next engine goes on
        except (JaulaError, OSError):
            await self._clear(container)
            raise
        finally:
            container.removing = False
        await self._continue(container, manifest)

    async def _save(self, container: Container) -> None:
        """End a container with a checkpoint of its state. One that exits by itself has none.

        :raises RuntimeFailure: when its state cannot be saved; it runs on.
        """
        state = _state(container)
        saved = state.at(RollbackPhase.REPLACE)
        try:
            await self._checkpoints.save_and_end(container, state.former, {"rollback_state": saved})
        except Conflict:
            container.change(
                rollback_state=RollbackState(saved.phase, restart_count=saved.restart_count)
            )
        except TimeoutError:
            try:
                await self._end(container)
            except JaulaError as error:
                container.change(rollback_state=msgspec.structs.replace(saved, former=""))
                error.hint = _hint(container.name, state.former)
                raise
        except (InvalidRequest, RuntimeFailure) as error:
            raise RuntimeFailure(
                f"cannot roll back container {container.name}: its present state cannot be saved:"
                f" {error.message}",
                hint="stop it first, if that state may be lost",
            ) from error

    async def _continue(self, container: Container, manifest: Manifest) -> None:
        """Replace the files of a container that has ended, and start it from the checkpoint.

        :raises RuntimeFailure: when that fails; the former state is back then.
        """
        state = _state(container)
        try:
            if self._exit_handler.cgroup_reaper.removals:
                await self._exit_handler.cgroup_reaper.remove_locked(container)
            self._services.container_store.save(container)
            replace = container_files.replace
            await in_thread(replace, self._services, container.record, keep=True)
            container.change(
                restart_count=0, restart_delay=0.0, manually_stopped=False, ports=state.ports
            )
            await self._start(container, CheckpointSource(self._services, manifest))
        except EngineStopping:
            raise  # the next engine goes on
        except (JaulaError, OSError) as error:
            raise await self._undo(container, error) from error
        await self._clear(container)

    async def _undo(self, container: Container, error: Exception) -> RuntimeFailure:
        """Put former files and processes back; return the error of the rollback that failed."""
        state = _state(container)
        text = f"cannot roll back container {container.name}: {_text(error)}"
        log.warning("%s", text)
        container.change(
            rollback_state=state.at(RollbackPhase.UNDO),
            restart_count=state.restart_count,
            manually_stopped=state.manually_stopped,
            ports=state.ports,
        )
        self._exit_handler.save(container)
        services, record = self._services, container.record
        try:
            if self._exit_handler.cgroup_reaper.removals:
                await self._exit_handler.cgroup_reaper.remove_locked(container)
            await in_thread(container_files.put_back, services, record)
        except OSError as failure:  # the phase stays, and the next start tries it again
            container.change(ports=())
            self._exit_handler.save(container)
            return RuntimeFailure(
                f"{text}; and its former files cannot be put back: {failure}",
                hint="mend that and start it: the start puts them back first"
                + (f"; its processes are in the checkpoint {state.former}" if state.former else ""),
            )
        if not state.former:
            await self._clear(container)
            return RuntimeFailure(
                f"{text}; its files are as before, and it does not run", hint=_hint_of(error)
            )
        try:
            manifest = await self._checkpoints.open(container, state.former)
            await self._start(container, CheckpointSource(self._services, manifest))
        except EngineStopping:
            raise  # the next engine goes on
        except (JaulaError, OSError) as failure:
            log.error("container %s: its former state: %s", container.name, failure)
            container.change(
                rollback="",
                rollback_directory="",
                rollback_state=state.at(RollbackPhase.FAILED),
                manually_stopped=True,
                ports=(),
            )
            self._exit_handler.save(container)
            await in_thread(container_files.discard, services, record)
            return RuntimeFailure(
                f"{text}; and its former state cannot be continued: {_text(failure)}",
                hint=_hint(container.name, state.former),
            )
        await self._clear(container)
        return RuntimeFailure(f"{text}; the container runs again as before", hint=_hint_of(error))

    async def _clear(self, container: Container) -> None:
        """End a rollback: remove files and checkpoint of the state that the container has not.

        The record is last: an engine that finds the phase repeats this.
        """
        state = _state(container)
        if state.phase is RollbackPhase.REPLACE:
            container.change(rollback_state=state.at(RollbackPhase.KEEP))
            self._exit_handler.save(container)
        await in_thread(self._discard, container, state.former)
        container.change(rollback="", rollback_directory="", rollback_state=None)
        if not container.live:
            container.change(ports=())
        self._exit_handler.save(container)

    def _discard(self, container: Container, former: str) -> None:
        try:
            container_files.discard(self._services, container.record)
            if former:  # its name is the word of its transaction
                self._services.service(checkpoint_store).undo(container.id, former, former)
        except (JaulaError, OSError) as error:
            log.warning("container %s: files of a rollback are left: %s", container.name, error)

    async def put_back(self, container: Container) -> None:
        """Put the former files in place before a program is started anew.

        Its rollback failed, and so did this. The caller holds the lock.

        :raises RuntimeFailure: when it fails again.
        """
        try:
            await in_thread(container_files.put_back, self._services, container.record)
        except OSError as error:
            raise RuntimeFailure(
                f"the former files of container {container.name} cannot be put back: {error}"
            ) from error
        container.change(rollback="", rollback_directory="", rollback_state=None)
        self._exit_handler.save(container)
        await in_thread(container_files.discard, self._services, container.record)

    def _check_saved(self, container: Container) -> None:
        """Check that the state of a running container can be saved.

        :raises RuntimeFailure: when it is paused.
        """
        if container.record.status is Status.PAUSED:
            raise RuntimeFailure(
                f"cannot roll back container {container.name}: it is paused",
                hint="unpause it first, or stop it if its state may be lost",
            )

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

    async def recover(self, container: Container) -> None:
        """Go on with an interrupted rollback, up to the start that :meth:`resume` makes.

        No client is served yet. The former engine may have saved the former state, without the
        container having ended: a container that is not killed by the dump runs on.
        """
        state = _state(container)
        container.change(rollback_state=state)
        if state.phase is RollbackPhase.REPLACE and container.live:
            await self._await_dump(container)
        step = next_step(state.phase, live=container.live)
        try:
            if step is Step.ABANDON or step is Step.FINISH:
                container.removing = False
                if step is Step.ABANDON:
                    container.change(manually_stopped=state.manually_stopped)
                await self._clear(container)
            elif step is Step.GO_ON:
                replace = container_files.replace
                await in_thread(replace, self._services, container.record, keep=True)
            else:
                await in_thread(container_files.put_back, self._services, container.record)
        except (JaulaError, OSError) as error:
            log.error("the rollback of container %s is not complete: %s", container.name, error)

    async def _await_dump(self, container: Container) -> None:
        """Wait until it is known whether the dump of the former engine has killed a container.

        A shim that does not answer is killed: its container is saved.
        """
        end = time.monotonic() + _DUMP_TIMEOUT
        while container.live and time.monotonic() < end:
            if _is_killed(container.record.pid):
                end = time.monotonic() + _EXIT_TIMEOUT
            await asyncio.sleep(_INTERVAL)
        if container.live and (container.shim is None or not container.shim.pid):
            try:
                await self._end(container)
            except JaulaError as error:
                log.error("container %s: %s", container.name, error)

    async def resume(self, container: Container) -> None:
        """Start a container after :meth:`recover`."""
        async with container.lock:
            container.removing = False
            state, name = _state(container), container.record.rollback
            log.info("the interrupted rollback of container %s to %s goes on", container.name, name)
            try:
                if state.phase is RollbackPhase.UNDO:
                    raise await self._undo(container, RuntimeFailure("it was interrupted"))
                directory = container.record.rollback_directory
                try:
                    manifest = await self._checkpoints.open(container, name, directory)
                except (JaulaError, OSError) as error:
                    raise await self._undo(container, error) from error
                await self._continue(container, manifest)
            except JaulaError as error:
                log.warning("%s", error)


def _state(container: Container) -> RollbackState:
    """Return the state of a rollback. An older engine has recorded none."""
    return container.record.rollback_state or RollbackState()


def _is_killed(pid: int) -> bool:
    """Return whether a process has exited, or has SIGKILL pending (proc_pid_status(5))."""
    bit = 1 << (signal.SIGKILL - 1)
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            rows = (line.split() for line in file)
            pending = [int(row[1], 16) for row in rows if row[0] in (b"SigPnd:", b"ShdPnd:")]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return any(mask & bit for mask in pending)


def _text(error: Exception) -> str:
    return error.message if isinstance(error, JaulaError) else str(error)


def _hint_of(error: Exception) -> str | None:
    return error.hint if isinstance(error, JaulaError) else None


def _hint(name: str, former: str) -> str | None:
    if not former:
        return None
    return (
        f"its processes are in the checkpoint {former}, and its files are as before: jaula start"
        f" --checkpoint {former} {name}"
    )
