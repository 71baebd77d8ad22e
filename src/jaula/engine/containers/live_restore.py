"""Live restore: after a restart of the engine, take over what runs, record exits, sweep the rest.

A container that runs according to its record is in one of three cases:

* Its shim answers: the container still runs, and the engine takes it over.
* Its shim has left ``exit.json``: it exited meanwhile, with a known status.
* Neither: the machine was rebooted, or the shim was killed. The status is Docker's 255.

If another program has removed the run directory meanwhile, the shims are asked to make their
sockets again. What a shim that does not answer has left is killed.

A container with an intent to start is one that the previous engine asked the runtime for. It counts
as running, so the same three cases decide. Its start is undone only if no program can have run.

A shim that is stopped or busy keeps no other container waiting. It is adopted when it answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import shutil
import time
from typing import TYPE_CHECKING

from jaula.engine import oci_runtimes
from jaula.engine.containers import restart_policy
from jaula.engine.containers.cgroup_cleanup import container_cgroups
from jaula.engine.containers.container_cgroup import cgroup_path
from jaula.engine.containers.start import running_fields
from jaula.engine.model.container import StateAction, next_status
from jaula.engine.networks import restore_networks
from jaula.errors import JaulaError, NotFound, RuntimeFailure, Unavailable
from jaula.runtime.runtime_client import hang_up, kill_shim
from jaula.runtime.shim_protocol import SOCKET_NAME, Event, ExitRecord
from jaula.state.container_records import MigrationPhase, Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.engine.containers.containers import Containers
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.runtime.runtime_client import Shim
    from jaula.state.container_records import ContainerRecord

log = logging.getLogger("jaula.engine")
_KILL_TIMEOUT = 3.0  # seconds for a shim to answer, and for a killed container to exit
_AWAY = (MigrationPhase.GIVEN, MigrationPhase.MOVED)  # another engine runs it
_SOCKET_TIME, _SOCKET_INTERVAL = 1.0, 0.01  # seconds for shims to make their sockets again
_EXITED_ALONE = "it exited while neither the engine nor the shim was running"
_KILLED_SILENT = (
    "it was killed: another program removed the run directory while no engine ran, and its shim did"
    " not answer"
)
_QUIET_TIME = 0.3  # seconds without an answer of any shim; then the engine serves its clients


async def restore(services: Services, containers: Containers) -> None:
    """Reconcile the records with the running processes; call once, before anything is served."""
    await _kill_build_steps(services, containers)
    rolled_back = [each for each in services.container_store if each.record.rollback]
    for container in rolled_back:
        container.removing = True  # neither the restart policy nor --rm applies to its exit
    starts = _resume_starts(services)
    for start in ("range_start", "borrowed_start"):
        used = (getattr(container.record, start) for container in services.container_store)
        services.id_ranges.restore(first for first in used if first)
    await _reconnect_all(services, containers, starts)
    await _finish_starts(services, containers, starts)
    living = [c for c in services.container_store if c.live and c.shim is not None]
    await _thaw_commits(containers, living)
    if living:
        log.info("%d containers of the previous engine are still running", len(living))
    endpoints = [endpoint for c in living for endpoint in c.record.endpoints]
    try:
        # In this thread: no client is served yet, and the firewall library allocates megabytes
        # for each thread that calls it.
        services.network_manager.keep_firewall_rules()
        restore_networks.restore_networks(services)
        for problem in services.network_manager.restore(endpoints):
            log.warning("network: %s", problem)
        services.network_manager.sweep({e.container_id for e in endpoints})
    except JaulaError as error:
        log.warning("the default network does not work: %s", error)
    await restore_networks.restore_resolvers(services, living)
    for container in services.container_store:
        await services.hooks.processes_found(containers, container)
    await _undo_unrecorded_starts(services, containers)
    for container in [c for c in services.container_store if c.live and c.shim is None]:
        await _record_exit(services, containers, container)
    for container in services.container_store:
        await services.hooks.exit_recorded(containers, container)
    left = await asyncio.to_thread(_sweep, services) | _spare_inits(services)
    for path in await asyncio.to_thread(_sweep_cgroups, services, left):
        containers.exit_handler.cgroup_reaper.remove_path(
            path, services.container_store.get(path.rpartition("/")[2])
        )
    await _finish_removals(services, containers)
    for container in services.container_store:
        if not await services.hooks.container_restored(containers, container):
            await _restart(containers, container)
    containers.exit_handler.tasks.spawn(_refresh_status(containers, living))


async def _reconnect_all(
    services: Services, containers: Containers, starts: dict[Container, ContainerRecord]
) -> None:
    """Connect to the shims of all containers that run according to their records.

    A shim that listens exists, so its container counts as running from now on. A shim that is
    stopped or busy must not keep the engine from serving the others: if no answer has arrived for
    ``_QUIET_TIME``, the rest are adopted when they answer, which may be never.
    """
    pending: set[asyncio.Task[None]] = set()
    connected: list[Container] = []
    late = asyncio.Event()

    def connect(container: Container) -> bool:
        run_dir = str(services.config.paths.container_run(container.id))
        shim = services.runtime.connect(run_dir, functools.partial(containers.on_event, container))
        if shim is None:
            return False
        container.shim, container.run_dir = shim, run_dir
        work = _adopt(services, containers, container, shim, late, starts)
        pending.add(containers.exit_handler.tasks.spawn(work))
        connected.append(container)
        return True

    lost = [each for each in services.container_store if each.live and not connect(each)]
    await _restore_sockets(services, lost, connect)
    while pending:
        done, pending = await asyncio.wait(pending, timeout=_QUIET_TIME)
        if not done:
            break
    late.set()
    for container in connected:
        if container.shim is not None and not container.shim.pid:
            log.warning("the shim of container %s does not answer yet", container.name)


async def _restore_sockets(
    services: Services, lost: list[Container], connect: Callable[[Container], bool]
) -> None:
    """Let shims make the sockets again that were removed while no engine ran, and connect."""
    paths = services.config.paths
    asked = []
    for container in lost:
        record, directory = container.record, paths.container_run(container.id)
        if services.runtime.exit_record(str(directory)) is None:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if hang_up(record.shim_pid, record.pid):
                asked.append(container)
            else:
                with contextlib.suppress(OSError):
                    directory.rmdir()
    if not asked:
        return
    silent, end = asked, time.monotonic() + _SOCKET_TIME
    while silent and time.monotonic() < end:
        await asyncio.sleep(_SOCKET_INTERVAL)
        silent = [each for each in silent if not connect(each)]
    log.warning(
        "another program removed the run directory while no engine ran; %d of %d containers were"
        " found again",
        len(asked) - len(silent),
        len(asked),
    )
    for container in asked:
        if container not in silent and container.record.external_runtime:
            log.warning(
                "restart %s: the files of its runtime were in the run directory", container.name
            )


async def _adopt(
    services: Services,
    containers: Containers,
    container: Container,
    shim: Shim,
    late: asyncio.Event,
    starts: dict[Container, ContainerRecord],
) -> None:
    """Take over a container when its shim answers.

    A shim that exits instead, and one of ``starts``, are left to :func:`restore`, unless they are
    ``late``.
    """
    try:
        await shim.hello(timeout=None)
    except (RuntimeFailure, Unavailable):  # it has exited
        if container.shim is not shim:
            return
        if not late.is_set():
            container.shim = None
        elif not await _finish_start(services, containers, container, starts):
            containers.exit_handler.shim_lost(container)
        else:
            await _restart(containers, container)
        return
    if not container.live or container.shim is not shim:
        return
    container.change(pid=shim.pid, shim_pid=shim.shim_pid)
    if (sock := shim.take_engine_socket()) is not None:
        services.engine_sockets.adopt(container.record, sock)
    containers.watch(container)
    log.debug("container %s is still running", container.name)
    if late.is_set():
        await _finish_start(services, containers, container, starts)
        await services.hooks.processes_found(containers, container)


def _resume_starts(services: Services) -> dict[Container, ContainerRecord]:
    """Let containers with an intent to start count as running; return their former records."""
    starts = {}
    for container in services.container_store:
        record = container.record
        if container.live or record.start_intent is None:
            continue
        starts[container] = record
        container.exited.clear()
        container.change(
            status=next_status(record.status, StateAction.START, record.name),
            **running_fields(record.start_intent),
        )
    return starts


async def _finish_starts(
    services: Services, containers: Containers, starts: dict[Container, ContainerRecord]
) -> None:
    """Finish the starts of ``starts``, but not those whose shim may still answer."""
    for container in list(starts):
        if container.shim is None or container.shim.pid:
            await _finish_start(services, containers, container, starts)


async def _finish_start(
    services: Services,
    containers: Containers,
    container: Container,
    starts: dict[Container, ContainerRecord],
) -> bool:
    """Record the start of a container whose shim answers; undo it if no program can have run.

    A shim removes its socket when a start has failed, and writes the failure. So a socket without a
    shim, as an exit record with a time of start, may belong to a program that ran: the exit is
    recorded with the others. Each of ``starts`` is removed here and finished once. Return whether
    its start was undone.
    """
    before = starts.pop(container, None)
    if before is None or not container.live:
        return False  # its exit was reported meanwhile, and is recorded
    if container.shim is not None and not container.shim.gone:
        log.info("container %s was started by a previous engine", container.name)
        containers.health.started(container)
        containers.exit_handler.save(container)
        services.events.emit("container", "start", container.id, before.event_attributes)
        return False
    run_dir = services.config.paths.container_run(container.id)
    end = services.runtime.exit_record(str(run_dir))
    if end.started_at if end is not None else (run_dir / SOCKET_NAME).exists():
        return False
    log.info("the start of container %s was interrupted and is undone", container.name)
    await containers.exit_handler.clean_up(container)
    containers.exit_handler.release(container)
    containers.exit_handler.remove_run_dir(container)
    container.shim = None
    assert before.start_intent is not None
    former = {name: getattr(before, name) for name in running_fields(before.start_intent)}
    container.change(**former | {"status": before.status, "start_intent": None})
    if before.rollback_state is not None:
        container.change(rollback_state=before.rollback_state.without_start)
    if end is not None:
        container.change(exit_code=end.exit_code, error=end.error, finished_at=time.time_ns())
    container.exited.set()
    containers.exit_handler.save(container)
    return True


async def _thaw_commits(containers: Containers, living: list[Container]) -> None:
    """Thaw the containers that an interrupted commit has frozen."""
    for container in living:
        if not container.record.frozen_by_commit:
            continue
        try:
            await containers.restore_frozen(container)
        except JaulaError as error:
            log.warning("container %s: %s", container.name, error)


async def _refresh_status(containers: Containers, living: list[Container]) -> None:
    """Compare the freezers with the records, while clients are served: 0.1 ms each."""
    for container in living:
        containers.refresh_status(container)
        await asyncio.sleep(0)


async def _kill_build_steps(services: Services, containers: Containers) -> None:
    """Kill the build steps of the previous engine and remove their records."""
    steps = services.container_store.steps()
    await asyncio.gather(*(_kill(services, containers, step) for step in steps))
    for step in steps:
        run_dir = services.config.paths.container_run(step.id)
        await containers.exit_handler.clean_up(step)
        shutil.rmtree(run_dir, ignore_errors=True)
        services.container_store.forget(step)  # _sweep removes its files, which have no record now


async def _undo_unrecorded_starts(services: Services, containers: Containers) -> None:
    """Remove the run directories of containers that do not run; kill what runs there.

    A start whose intent is recorded is not among them. An earlier version of the engine recorded
    none: no client was told that such a container runs, and its addresses are not recorded.
    """
    interrupted = [
        c
        for c in services.container_store
        if not c.live and services.config.paths.container_run(c.id).exists()
    ]
    killed = await asyncio.gather(*(_kill(services, containers, c) for c in interrupted))
    for container, had_shim in zip(interrupted, killed, strict=True):
        run_dir = services.config.paths.container_run(container.id)
        if had_shim:
            log.info("the start of container %s was interrupted and is undone", container.name)
        if (run_dir / oci_runtimes.RUNTIME_FILE).exists():
            await containers.exit_handler.clean_up(container)
        shutil.rmtree(run_dir, ignore_errors=True)


async def _kill(services: Services, containers: Containers, container: Container) -> bool:
    """Kill the processes of a previous engine's shim and wait; return whether there was a shim.

    A shim that does not answer is killed as well, and the processes by their cgroup.
    """
    exited = asyncio.Event()

    def on_event(event: Event) -> None:
        if isinstance(event, ExitRecord):
            exited.set()

    run_dir = str(services.config.paths.container_run(container.id))
    shim = services.runtime.connect(run_dir, on_event)
    if shim is None:
        return False
    shim.on_gone = exited.set
    try:
        await shim.signal(9, timeout=_KILL_TIMEOUT)
        await asyncio.wait_for(exited.wait(), _KILL_TIMEOUT)
    except (JaulaError, TimeoutError) as error:
        log.warning("container %s, partly started, is killed: %s", container.name, error)
        await shim.kill()
        await containers.exit_handler.clean_up(container)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(exited.wait(), _KILL_TIMEOUT)
    shim.close()
    return True


async def _record_exit(services: Services, containers: Containers, container: Container) -> None:
    """Record the exit of a container that ran when the previous engine stopped."""
    run_dir = str(services.config.paths.container_run(container.id))
    end = services.runtime.exit_record(run_dir)
    if end is None:
        record, error = container.record, _EXITED_ALONE
        if kill_shim(record.shim_pid, record.pid):
            error = _KILLED_SILENT
        await containers.exit_handler.clean_up(container)
        end = ExitRecord(255, finished_at=time.time(), error=error)
    containers.exit_handler.exited(container, end)


async def _finish_removals(services: Services, containers: Containers) -> None:
    for container in services.container_store:
        record = container.record
        removal_interrupted = record.status is Status.REMOVING
        creation_interrupted = record.status is Status.CREATED and not services.snapshots.exists(
            record.id
        )
        if removal_interrupted or creation_interrupted:
            container.change(status=Status.DEAD)
            await _remove(containers, container, volumes=False)


async def _remove(containers: Containers, container: Container, *, volumes: bool) -> None:
    """Remove a container that does not run. One whose files cannot be removed is dead."""
    try:
        async with container.lock:
            if container.id in containers.services.container_store and not container.live:
                await containers.exit_handler.remove(container, volumes=volumes)
    except JaulaError as error:
        log.warning("%s", error)


async def _restart(containers: Containers, container: Container) -> None:
    """Restart a container, by its policy, that exited with the machine or a previous engine."""
    record = container.record
    if record.migration is not None and record.migration.phase in _AWAY:
        return
    exited = record.status is Status.EXITED
    if record.status is Status.RESTARTING and container.restart is None:
        containers.exit_handler.resume(container)
        return
    if not exited or not record.started_at:
        return
    if record.rollback_state is not None:
        return  # a checkpoint has its former state, which a client continues
    if record.body.host_config.auto_remove:
        await _remove(containers, container, volumes=True)
        return
    if restart_policy.should_restart(
        record.body.host_config.restart_policy,
        exit_code=record.exit_code,
        count=record.restart_count,
        stopped=record.manually_stopped,
        engine_start=True,
    ):
        containers.exit_handler.tasks.spawn(_start(containers, container))


async def _start(containers: Containers, container: Container) -> None:
    try:
        await containers.start(container.id)
    except JaulaError as error:
        log.warning("container %s cannot be restarted: %s", container.name, error)


def _sweep(services: Services) -> set[str]:
    """Remove directories without a record: a create or a remove was interrupted.

    Return their names. What cannot be removed stays, and the next engine tries again.
    """
    paths = services.config.paths
    left: set[str] = set()
    for parent, remove in (
        (paths.root / "containers", services.snapshots.remove),
        (paths.run / "containers", None),
    ):
        try:
            names = os.listdir(parent)
        except FileNotFoundError:
            continue
        for name in names:
            if name in services.container_store:
                continue
            left.add(name)
            try:
                if remove is not None:
                    remove(name)
                with contextlib.suppress(FileNotFoundError):
                    shutil.rmtree(parent / name)
            except (OSError, JaulaError) as error:
                log.warning(
                    "%s is left of a container and cannot be removed: %s", parent / name, error
                )
            else:
                log.info("swept %s", parent / name)
    replaced: set[str] = set()  # volumes
    for container in services.container_store:
        if not container.record.rollback:
            services.snapshots.discard(container.id)
        else:
            replaced |= {each.name for each in container.record.mounts if each.type == "volume"}
    sweep_volumes = functools.partial(services.volumes.sweep, replaced)
    for sweep in (services.snapshots.sweep, sweep_volumes, services.images.sweep):
        try:
            sweep()
        except (OSError, JaulaError) as error:
            log.warning("incomplete files cannot be removed: %s", error)
    return left


def _sweep_cgroups(services: Services, left: set[str]) -> list[str]:
    """Kill processes of containers that do not run; return the cgroups that cannot be removed yet.

    These are the containers with a record, and those of ``left``, whose directories this engine
    had. Another program may have a container below this engine's parent, which is left alone.
    """
    known = left | {each.id for each in services.container_store}
    cgroups: set[str] = set()
    for container_id, path in container_cgroups(services):
        if container_id in known:
            cgroups.add(path)
        elif _has_processes(services, path):
            log.warning(
                "the container of cgroup %s is not one of this engine, and is left alone; jaula"
                " system check shows what belongs to no engine",
                path,
            )
    cgroups |= {cgroup_path(services, c.record) for c in services.container_store if c.record.error}
    cgroups -= {
        cgroup_path(services, c.record)
        for c in services.container_store
        if c.live and c.shim is not None
    }
    remaining = []
    for path in cgroups:
        try:
            with services.cgroups.open(path) as cgroup:
                cgroup.kill()
                cgroup.destroy()
            log.info("swept cgroup %s", path)
        except NotFound:
            continue
        except JaulaError as error:
            log.warning("cgroup %s: %s", path, error)
            remaining.append(path)
    return remaining


def _spare_inits(services: Services) -> set[str]:
    """Return the ids that the spare inits of the previous engine had; they end with it."""
    try:
        return set(services.config.paths.spare_init_ids.read_text(errors="replace").split())
    except FileNotFoundError:
        return set()


def _has_processes(services: Services, path: str) -> bool:
    try:
        with services.cgroups.open(path) as cgroup:
            return bool(cgroup.pids())
    except JaulaError:
        return False  # removed meanwhile
