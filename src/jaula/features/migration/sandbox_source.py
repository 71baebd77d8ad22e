"""Move the sandbox of a pod away, as a member of the group of its containers.

Its only process is ``pause``, which the target starts anew: nothing is dumped. Its network is cut
off when the containers are stopped, and its /dev/shm is sent when they are dumped.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaula.engine.containers import shm
from jaula.engine.threads import in_thread
from jaula.errors import InvalidRequest, JaulaError, RuntimeFailure, Unavailable
from jaula.features.checkpoint.checkpoint_store import SHM_TAR, checkpoint_store
from jaula.features.migration import host_compatibility, migration_checks
from jaula.features.migration.coordinator import Step
from jaula.features.migration.held_container import mark_moved
from jaula.features.migration.source_engine import MigrationResult, Outgoing, Progress
from jaula.kernel.namespace_threads import in_unshared_thread, join_namespaces
from jaula.spec.api_documents import ContainerCreate
from jaula.spec.migration import (
    VERSION,
    CheckRow,
    Prepare,
    Prepared,
    Ready,
    Restore,
    SandboxOffer,
    Transfer,
    TransferKind,
)
from jaula.spec.pod import PodSandboxRequest
from jaula.state.container_records import MigrationPhase
from jaula.storage.checkpoint_files import sparse_sink, write_shm
from jaula.storage.trees import open_directory

if TYPE_CHECKING:
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.features.kubernetes.pods.pods import Pods
    from jaula.features.migration.migration_channel import Channel

_CHUNK = 1 << 16  # bytes of one data frame
_OBJECTS = {"shm": "shared memory segment", "sem": "semaphore set", "msg": "message queue"}


class HeldSandbox:
    """A sandbox whose network is cut off."""

    def __init__(self, services: Services, pods: Pods, sandbox: Container) -> None:
        self._services = services
        self._pods = pods
        self._sandbox = sandbox
        self._cut_off = False

    async def stop(self) -> None:
        """Cut off the network.

        :raises Conflict: when the sandbox has exited.
        """
        self._cut_off = True
        await self._pods.disconnect_network(self._sandbox)

    def check(self) -> None:
        """Check that the sandbox still runs.

        :raises RuntimeFailure: when it does not.
        """
        if not self._sandbox.live or self._sandbox.removing:
            raise RuntimeFailure("the sandbox of the pod has exited")

    async def resume(self) -> None:
        """Connect the network again."""
        if self._cut_off and self._sandbox.live:
            await self._pods.connect_network(self._sandbox)

    async def let_go(self) -> None:
        """Stop the sandbox, whose containers run at the target."""
        mark_moved(self._services, self._sandbox)
        await self._pods.release(self._sandbox)


def offered(request: PodSandboxRequest) -> PodSandboxRequest:
    """Return the part of a sandbox's request that a target needs for its checks. Pure.

    Environment, labels and annotations may be secrets.
    """
    return PodSandboxRequest(
        metadata=request.metadata, body=ContainerCreate(), log_directory=request.log_directory
    )


class OutgoingSandbox(Outgoing):
    """The migration of one sandbox away from this engine."""

    def __init__(self, pods: Pods, *args: Any) -> None:
        """``args`` are those of :class:`Outgoing`."""
        super().__init__(*args)
        self._pods = pods

    async def _check_here(self) -> list[CheckRow]:
        try:
            await in_thread(self._check_pod)
        except JaulaError as error:
            return [CheckRow("pod", False, error.message, error.hint or "")]
        return [CheckRow("pod", True, "can be moved")]

    def _check_pod(self) -> None:
        """Check that the pod runs, and that a move would lose nothing of it.

        :raises InvalidRequest: with the way out.
        """
        from jaula.features.checkpoint.runtime import restore_network

        record, sandbox = self._container.record, self._container.record.sandbox
        assert sandbox is not None
        modes = record.resolved.namespaces
        running = [each.record for each in self._services.container_store if each.live]
        migration_checks.check_namespaces(record, {}, running, self._group)
        for problem, hint in (
            (
                "" if self._container.live else "it does not run",
                "its containers have exited: let the cluster run it again",
            ),
            ("it has the network of the host" if modes.net.host else "", "use a pod network"),
            (
                "its containers have one process namespace" if sandbox.request.shared_pid else "",
                "create it without shareProcessNamespace",
            ),
            (
                "it has the IPC namespace of the host" if modes.ipc.host else "",
                "create it without hostIPC",
            ),
        ):
            if problem:
                raise InvalidRequest(problem, hint=hint)
        if found := in_unshared_thread(lambda: _system_v_objects(record.pid)):
            raise InvalidRequest(
                f"its IPC namespace has a System V {found}, which would be lost",
                hint="let its programs use POSIX objects, or remove it (ipcrm)",
            )
        restore_network.check(record.pid)
        own_ids = not modes.user.host and sandbox.request.ids is None
        if own_ids and any(Path(shm.of(self._services, self._container)).iterdir()):
            raise InvalidRequest(
                "its /dev/shm has files, and their owners have other ids at the target",
                hint="let the cluster choose the ids of its user namespace (hostUsers: false)",
            )

    async def _offer(self) -> SandboxOffer:
        record, sandbox = self._container.record, self._container.record.sandbox
        assert sandbox is not None
        return SandboxOffer(
            version=VERSION,
            id=self.id,
            name=record.name,
            request=offered(sandbox.request),
            host=await asyncio.to_thread(host_compatibility.describe, self._services.host),
            addresses=sandbox.addresses,
            owner=record.owner,
            owner_gid=record.owner_gid,
            address=self._options.address,
            members=self._coordinator.members,
        )

    def _request(self) -> Prepare:
        sandbox = self._container.record.sandbox
        assert sandbox is not None
        return Prepare(sandbox=sandbox.request)

    async def run(self, channel: Channel) -> MigrationResult:
        """Move the sandbox.

        :raises JaulaError: when a step fails. Unless the error is ``Undecided``, the pod runs on
            here.
        """
        await self.check(channel)
        self._channel = channel
        try:
            async with self._coordinator.creation(""):
                self._report(Progress(stage="create"))
                await channel.send(self._request())
                prepared = await channel.expect(Prepared)
            self._keeps_address = self._coordinator.keeps_address(own=prepared.keep_address)
            if prepared.detail:
                self._report(Progress(stage="network", detail=prepared.detail))
            await self._coordinator.reach(Step.CREATED)
            async with self._container.lock:
                return await self._move_sandbox(channel, prepared)
        except BaseException as error:
            if not self.given:
                await self._cancel(channel, error)
            raise

    async def _move_sandbox(self, channel: Channel, prepared: Prepared) -> MigrationResult:
        if not self._container.live:
            raise Unavailable("the sandbox of the pod has exited")
        self.held = held = HeldSandbox(self._services, self._pods, self._container)
        try:
            self._mark(MigrationPhase.MOVING, prepared.container)
            await self._coordinator.reach(Step.STOP)
            self._stopped_at = time.monotonic()
            await held.stop()
            await self._coordinator.reach(Step.HELD)
            self._held_at = time.monotonic()
            await self._send_shm(channel)
            await self._coordinator.reach(Step.SENT)
            self._sent_at = time.monotonic()
            await channel.send(Restore(created=time.time_ns(), files=()))
            await channel.expect(Ready)
            await self._give_with_group(channel, held, self._coordinator.give(self))
        except BaseException:
            await self._resume(held)
            raise
        return self.result()

    async def _send_shm(self, channel: Channel) -> None:
        """Send the files of the pod's /dev/shm, which no process writes to now."""
        services, id = self._services, self._container.id
        images = await in_thread(
            services.service(checkpoint_store).begin, id, f"migration-{self.id[:8]}"
        )
        try:
            path = await in_thread(self._write_shm, images)
            await channel.send(Transfer(TransferKind.SHM))
            with path.open("rb") as file:
                while chunk := await in_thread(file.read, _CHUNK):
                    await channel.send_data(chunk)
            await channel.end_data()
        finally:
            await in_thread(services.service(checkpoint_store).discard, images)

    def _write_shm(self, images: Path) -> Path:
        path = images / SHM_TAR
        with (
            open_directory(shm.of(self._services, self._container)) as directory,
            path.open("wb") as file,
            sparse_sink(file) as sink,
        ):
            write_shm(directory, sink)
        return path


def _system_v_objects(pid: int) -> str:
    """Return the kind of a System V object in the IPC namespace of a process; '' for none.

    Runs in a thread of its own, whose namespace /proc/sysvipc shows.
    """
    join_namespaces(pid, ("ipc",))
    for name, kind in _OBJECTS.items():
        with open(f"/proc/sysvipc/{name}", encoding="ascii") as file:
            if len(file.read().splitlines()) > 1:
                return kind
    return ""
