"""After a restart of the engine: finding what runs, learning what ended, sweeping the rest.

A container of which the records say that it runs is in one of three cases: its shim answers (it
runs on, and is taken over); its shim has left ``exit.json`` (it ended meanwhile, with a known
status); neither (the machine was restarted, or somebody killed the shim: Docker's 255).
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
from jaula.engine.containers.start import cgroup_path
from jaula.engine.networks import restore as network_restore
from jaula.errors import JaulaError, NotFound
from jaula.runtime.protocol import Event, ExitRecord
from jaula.state.records import Status

if TYPE_CHECKING:
    from jaula.engine.containers.service import Containers
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services

log = logging.getLogger("jaula.engine")
_PATIENCE = 15.0  # seconds for a killed container to go


async def restore(parts: Services, containers: Containers) -> None:
    """Bring books and world together; call once, before anything is served."""
    await _end_steps(parts, containers)
    for start in ("range_start", "borrowed_start"):
        used = (getattr(container.record, start) for container in parts.registry)
        parts.ranges.hold(first for first in used if first)
    found = [c for c in parts.registry if c.live]
    await asyncio.gather(*(_reconnect(parts, containers, container) for container in found))
    living = [c for c in parts.registry if c.live and c.shim is not None]
    endpoints = [endpoint for c in living for endpoint in c.record.endpoints]
    try:
        # In this thread: nobody is served yet, and the firewall library keeps megabytes for each
        # thread that calls it.
        parts.network.take_over()
        network_restore.restore_networks(parts)
        for problem in parts.network.restore(endpoints):
            log.warning("network: %s", problem)
        parts.network.sweep({e.container_id for e in endpoints})
    except JaulaError as error:
        log.warning("the default network does not work: %s", error)
    await network_restore.restore_resolvers(parts, living)
    await _undo_starts(parts, containers)
    for container in [c for c in parts.registry if c.live and c.shim is None]:
        await _ended(parts, containers, container)
    await asyncio.to_thread(_sweep, parts)
    for path in await asyncio.to_thread(_sweep_cgroups, parts):
        containers.exit_handler.cgroup_reaper.remove_path(
            path, parts.registry.get(path.rpartition("/")[2])
        )
    await _finish_removals(parts, containers)
    await _restart(parts, containers)


async def _reconnect(parts: Services, containers: Containers, container: Container) -> None:
    run_dir = str(parts.config.paths.container_run(container.id))
    on_event = functools.partial(containers.on_event, container)
    shim = await parts.runtime.reconnect(run_dir, on_event)
    if shim is None:
        return
    container.shim = shim
    container.change(pid=shim.pid, shim_pid=shim.shim_pid)
    if not container.live:
        return
    containers.watch(container)
    if container.record.status is Status.RUNNING:
        log.info("container %s runs on", container.name)


async def _end_steps(parts: Services, containers: Containers) -> None:
    """End the steps of builds that went with the former engine, and forget them."""
    for step in parts.registry.steps():
        run_dir = parts.config.paths.container_run(step.id)
        if run_dir.exists():
            await _end(parts, step, str(run_dir))
        await containers.exit_handler.clean_up(step)
        shutil.rmtree(run_dir, ignore_errors=True)
        parts.registry.forget(step)  # its files are swept with all that no record knows


async def _undo_starts(parts: Services, containers: Containers) -> None:
    """End what a former engine was just starting when it was killed.

    Nobody was told that it runs, and which address it has is not on record.
    """
    for container in [c for c in parts.registry if not c.live]:
        run_dir = parts.config.paths.container_run(container.id)
        if not run_dir.exists():
            continue
        if await _end(parts, container, str(run_dir)):
            log.info("the start of container %s was cut off and is undone", container.name)
        if (run_dir / oci_runtimes.RUNTIME_FILE).exists():
            await containers.exit_handler.clean_up(container)
        shutil.rmtree(run_dir, ignore_errors=True)


async def _end(parts: Services, container: Container, run_dir: str) -> bool:
    """Kill what a former engine's shim runs, and wait for its end; whether there was a shim."""
    gone = asyncio.Event()

    def ended(event: Event) -> None:
        if isinstance(event, ExitRecord):
            gone.set()

    shim = await parts.runtime.reconnect(run_dir, ended)
    if shim is None:
        return False
    shim.on_gone = gone.set
    try:
        await shim.signal(9)
        await asyncio.wait_for(gone.wait(), _PATIENCE)
    except (JaulaError, TimeoutError) as error:
        log.warning("container %s, half started, does not end: %s", container.name, error)
    shim.close()
    return True


async def _ended(parts: Services, containers: Containers, container: Container) -> None:
    """A container that ran when the former engine stopped has no process now."""
    run_dir = str(parts.config.paths.container_run(container.id))
    end = parts.runtime.exit_record(run_dir)
    if end is None:
        await containers.exit_handler.clean_up(container)
        end = ExitRecord(
            255, finished_at=time.time(), error="it ended while no engine and no shim was there"
        )
    containers.exit_handler.exited(container, end)


async def _finish_removals(parts: Services, containers: Containers) -> None:
    for container in parts.registry:
        record = container.record
        half_removed = record.status is Status.REMOVING
        abandoned = record.status is Status.CREATED and not parts.snapshots.exists(record.id)
        if half_removed or abandoned:
            container.change(status=Status.DEAD)
            async with container.lock:
                await containers.exit_handler.remove(container, volumes=False)


async def _restart(parts: Services, containers: Containers) -> None:
    """Policies count for containers that ended with the machine or with a former engine."""
    for container in parts.registry:
        record = container.record
        ended = record.status is Status.EXITED
        if record.status is Status.RESTARTING and container.restart is None:
            containers.exit_handler.resume(container)
            continue
        if not ended or not record.started_at:
            continue
        if record.body.host_config.auto_remove:
            async with container.lock:
                if container.id in parts.registry and not container.live:
                    await containers.exit_handler.remove(container, volumes=True)
            continue
        if restart_policy.should_restart(
            record.body.host_config.restart_policy,
            exit_code=record.exit_code,
            count=record.restart_count,
            stopped=record.manually_stopped,
            engine_start=True,
        ):
            containers.exit_handler.tasks.spawn(_start(containers, container))


async def _start(containers: Containers, container: Container) -> None:
    await containers.exit_handler.cgroup_reaper.gone(container)
    try:
        await containers.start(container.id)
    except JaulaError as error:
        log.warning("container %s does not start again: %s", container.name, error)


def _sweep(parts: Services) -> None:
    """Remove directories that no record knows: a create or a remove that was cut off."""
    paths = parts.config.paths
    for parent, remove in (
        (paths.root / "containers", parts.snapshots.remove),
        (paths.run / "containers", None),
    ):
        try:
            names = os.listdir(parent)
        except FileNotFoundError:
            continue
        for name in names:
            if name in parts.registry:
                continue
            if remove is not None:
                remove(name)
            shutil.rmtree(parent / name, ignore_errors=True)
            log.info("swept %s", parent / name)
    parts.snapshots.sweep()
    parts.volumes.sweep()
    parts.images.sweep()


def _sweep_cgroups(parts: Services) -> list[str]:
    """End processes of containers that do not run; the cgroups that could not be removed yet.

    Below the engine's own parent that is every cgroup of a container that is there, below a
    parent that was asked for those of containers on record.
    """
    parent = f"/{parts.config.cgroup_parent.strip('/')}"
    directories: set[str] = set()
    with contextlib.suppress(NotFound), parts.cgroups.open(parent) as cgroup:
        directories = set(cgroup.locations().values())
    found = {f"{parent}/{name}" for directory in directories for name in _children(directory)}
    found |= {cgroup_path(parts, c.record) for c in parts.registry if c.record.error}
    found -= {cgroup_path(parts, c.record) for c in parts.registry if c.live and c.shim is not None}
    left = []
    for path in found:
        try:
            with parts.cgroups.open(path) as cgroup:
                cgroup.kill()
                cgroup.destroy()
            log.info("swept cgroup %s", path)
        except NotFound:
            continue
        except JaulaError as error:
            log.warning("cgroup %s: %s", path, error)
            left.append(path)
    return left


def _children(directory: str) -> list[str]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return [n for n in names if len(n) == 64 and not n.strip("0123456789abcdef")]
