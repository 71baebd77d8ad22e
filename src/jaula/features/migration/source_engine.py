"""The source of a migration: check, send, hold the container, give it away, and let it exit.

Before the record says ``given``, every failure ends with the container running here: the target is
told, the hold is answered, the ports come back. After it the container never runs here again unless
the target says that it has received no commit (``Migration.resume``).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol

import msgspec

from jaula.engine.containers.container_cgroup import open_cgroup
from jaula.engine.containers.container_liveness import check_running
from jaula.engine.containers.named_references import NAMESPACE_MODES
from jaula.engine.networks.endpoints import settings_of, shares_network
from jaula.engine.threads import in_own_thread, in_thread, shielded
from jaula.errors import (
    Conflict,
    InvalidRequest,
    JaulaError,
    NotFound,
    RuntimeFailure,
    Unavailable,
)
from jaula.features.checkpoint import checkpoint_binds
from jaula.features.checkpoint.checkpoint_store import checkpoint_store
from jaula.features.checkpoint.checkpoints import (
    check_record,
    check_rounds,
    stdio_inodes,
    tracks_memory,
)
from jaula.features.migration import host_compatibility, image_memory, migration_checks
from jaula.features.migration.changes import ContainerSender, mount_points
from jaula.features.migration.coordinator import Alone, Step
from jaula.features.migration.group import joined
from jaula.features.migration.held_container import HeldContainer
from jaula.features.migration.image_transfer import FileSender
from jaula.features.migration.migration_channel import Channel, LinkLost, TargetFailed
from jaula.features.migration.moved_networks import definition
from jaula.features.migration.pause_estimate import FIXED, Rates
from jaula.runtime.shim_protocol import CheckpointRequest, PreDumpRound
from jaula.spec.api_documents import AddressMode, ContainerCreate, Resources, VolumeMode
from jaula.spec.api_networks import NetworkingConfig
from jaula.spec.migration import (
    DRY_RUN,
    VERSION,
    BeginRestore,
    Cancel,
    CheckRow,
    Commit,
    Keep,
    Kept,
    Offer,
    OfferedMount,
    OfferedNetwork,
    Prepare,
    Prepared,
    Ready,
    Restore,
    RestoreBegun,
    Running,
    SandboxOffer,
    SentFile,
    Transfer,
    TransferKind,
    Verdict,
)
from jaula.state.container_records import MigrationPhase, MigrationRecord, Status

if TYPE_CHECKING:
    from jaula.engine.containers.containers import Containers
    from jaula.engine.images.images import Images
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.features.migration.coordinator import Coordinator
    from jaula.features.migration.data_stream import DataWriter
    from jaula.spec.api_documents import HostConfig
    from jaula.spec.api_networks import NetworkCreate
    from jaula.spec.pod import PodContainerRequest
    from jaula.state.container_records import ContainerRecord

log = logging.getLogger("jaula.migration")
_REASON_TIMEOUT = 10.0  # seconds in which a target that has failed says why
_RUNNING_TIMEOUT = 60.0  # seconds from the commit to the container's continuation


class MigrationOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of one migration; ``target`` is HOST:PORT of the other engine."""

    target: str
    address: AddressMode = AddressMode.AUTO
    volumes: VolumeMode = VolumeMode.COPY
    dry_run: bool = False
    end_execs: bool = False
    remove: bool = False
    create_networks: bool = False
    pre_copy: int = 0  # rounds, at most


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a migration. ``sent`` are bytes so far in this stage, 0 if it sends none."""

    stage: str  # check, image, create, network, files, pre-copy, dump, restore, continue, done
    detail: str = ""
    sent: int = 0
    rows: tuple[CheckRow, ...] = ()


class MigrationResult(msgspec.Struct, frozen=True, kw_only=True):
    """A container that runs at the target. Times are seconds, sizes bytes.

    ``pause`` is from the request to stop the processes to the target's report that they run. Its
    parts: ``dump`` until they are held with all images written, ``transfer`` of images and files,
    ``restore`` until the target has verified them, and the rest until they run there.
    """

    container: str  # id at the target
    target: str
    pause: float
    dump: float
    transfer: float
    restore: float
    total: float
    sent: int
    keeps_address: bool


OnProgress = Callable[[Progress], None]


class Held(Protocol):
    """A container that is held at the source."""

    def check(self) -> None:
        """Check that it is still held.

        :raises JaulaError: when it is not.
        """
        ...

    async def resume(self) -> None:
        """Continue it."""
        ...

    async def let_go(self) -> None:
        """Let it exit: it runs at the target."""
        ...


class Outgoing:
    """One migration away from this engine."""

    def __init__(
        self,
        services: Services,
        containers: Containers,
        images: Images,
        container: Container,
        options: MigrationOptions,
        report: OnProgress,
        open_stream: Callable[[str], DataWriter],
        rates: Rates,
        memory: image_memory.ImageMemory,
        coordinator: Coordinator | None = None,
        group: frozenset[str] = frozenset(),
    ) -> None:
        self._open_stream = open_stream
        self._rates = rates
        self._image_memory = memory
        self._sender: FileSender | None = None
        self._coordinator = coordinator or Alone()
        self._group = group | {container.id}
        self._services = services
        self._containers = containers
        self._images = images
        self._container = container
        self._options = options
        self._report = report
        self.id = secrets.token_hex(16)
        self._begun = time.monotonic()
        self._stopped_at = 0.0
        self._held_at = self._sent_at = self._ready_at = 0.0
        self._running_at = 0.0
        self._channel: Channel | None = None
        self._keeps_address = True
        self.held: Held | None = None
        self.given = False
        self._stopped = False
        self._memory = 0  # bytes

    # -- checks ----------------------------------------------------------------------------------

    async def check(self, channel: Channel) -> Verdict:
        """Send the offer and report the rows of both engines.

        :raises InvalidRequest: with the first row that has not passed.
        """
        check_rounds(self._options.pre_copy)
        rows = [*await self._check_here()]
        offer = await self._offer()
        rows.append(
            migration_checks.check_mounts(self._container.record.mounts, self._options.volumes)
        )
        await channel.send(offer)
        verdict = await channel.expect(Verdict)
        rows += verdict.rows
        if isinstance(offer, Offer) and not self._stopped:
            expected = str(self._rates.expect(self._options.target, offer.memory))
            if self._options.pre_copy:
                expected = f"less than without rounds, {expected}"
            rows.append(CheckRow("pause", True, expected))
        self._report(Progress(stage="check", rows=tuple(rows)))
        if self._options.dry_run:
            with contextlib.suppress(LinkLost):  # it has refused
                await channel.send(Cancel(DRY_RUN))
        else:
            for row in rows:
                if not row.passed:
                    raise InvalidRequest(
                        f"cannot migrate container {self._container.name}: {row.check}:"
                        f" {row.detail}",
                        hint=row.hint or None,
                    )
        return verdict

    async def _check_here(self) -> list[CheckRow]:
        """Return the rows about the container itself."""
        container = self._container
        rows = []
        try:
            if not container.live:
                return [_check_stopped(container.record)]
            migration_checks.check_record(container.record)
            owners = {
                owner: self._services.container_store.find(owner).record
                for owner in joined(container.record)
            }
            others = [each.record for each in self._services.container_store if each.live]
            migration_checks.check_namespaces(container.record, owners, others, self._group)
            check_record(self._services, container)
            for each in container.record.endpoints:
                driver = self._services.network_store.driver_of(each.network)
                if driver != "bridge":  # the interface of a held container would answer ARP
                    problem = (
                        f"its network {each.network} ({driver}) cannot be cut off while it is held"
                    )
                    raise InvalidRequest(problem, hint="use a bridge network")
            if container.record.status is Status.PAUSED:
                raise InvalidRequest("it is paused", hint="unpause it first")
            if container.execs and not self._options.end_execs:
                raise InvalidRequest(
                    f"{len(container.execs)} exec'd processes would be lost",
                    hint="end them first, or use --end-execs",
                )
            await asyncio.to_thread(self._check_processes)
        except JaulaError as error:
            rows.append(CheckRow("container", False, error.message, error.hint or ""))
        else:
            rows.append(CheckRow("container", True, "can be saved"))
        return rows

    def _check_processes(self) -> None:
        from jaula.features.checkpoint.runtime import dump, expected
        from jaula.spec.runtime_spec import decode

        record = self._container.record
        checkpoint_binds.check_unchanged(
            record.mounts, record.pid, self._services.runtime.host_mounts
        )
        with open(f"{self._bundle()}/config.json", "rb") as file:
            spec = decode(file.read())
        expected.check_spec(spec)
        with open_cgroup(self._services, record) as cgroup:
            pids = cgroup.pids()
        inherited = expected.inherited_namespaces(spec)
        dump.check_container(record.pid, pids, tcp=True, inherited=inherited)

    def _bundle(self) -> str:
        container = self._container
        return container.bundle or str(self._services.config.paths.container(container.id))

    async def _offer(self) -> Offer | SandboxOffer:
        record, options = self._container.record, self._options
        self._stopped = not self._container.live
        memory = 0
        with contextlib.suppress(NotFound), open_cgroup(self._services, record) as cgroup:
            stats = cgroup.stats().memory
            memory = max(0, stats.usage - stats.inactive_file)
        self._memory = memory
        return Offer(
            version=VERSION,
            id=self.id,
            name=record.name,
            body=ContainerCreate(),  # the request is in Prepare
            image=record.image,
            asked_image=record.asked_image,
            host=await asyncio.to_thread(host_compatibility.describe, self._services.host),
            owner=record.owner,
            owner_gid=record.owner_gid,
            memory=memory,
            networks=self._networks(record),
            volumes=tuple(
                OfferedMount(mount.destination, "" if mount.anonymous else mount.name)
                for mount in record.mounts
                if mount.type == "volume"
            ),
            address=options.address,
            volume_mode=options.volumes,
            members=self._coordinator.members,
            stopped=self._stopped,
            pre_copy=options.pre_copy,
        )

    def _request(self) -> Prepare:
        """Return the create request, which only a target that has accepted receives."""
        record = self._container.record
        if record.pod is not None:
            return Prepare(pod=self._pod_request(record, record.pod))
        body = record.body
        if not shares_network(body.host_config.network_mode):
            networks = NetworkingConfig(endpoints_config=settings_of(record))
            body = msgspec.structs.replace(body, networking_config=networks)
        body = msgspec.structs.replace(body, host_config=self._with_names(body.host_config))
        if record.resolved.namespaces.net.container:
            body = msgspec.structs.replace(body, domainname="")  # the owner's
        elif record.resolved.namespaces.uts.private:
            body = msgspec.structs.replace(body, hostname=record.hostname)
        return Prepare(body=body)

    def _pod_request(
        self, record: ContainerRecord, pod: PodContainerRequest
    ) -> PodContainerRequest:
        """Return the request with the name of the sandbox, and the limits of later updates."""
        sandbox = self._services.container_store.find(pod.sandbox)
        limits = {
            field: getattr(record.body.host_config, field)
            for field in (*Resources.__struct_fields__, "oom_score_adj")
        }
        host = msgspec.structs.replace(pod.body.host_config, **limits)
        return msgspec.structs.replace(
            pod,
            sandbox=sandbox.name,
            checkpoint="",
            body=msgspec.structs.replace(pod.body, host_config=host),
        )

    def _with_names(self, host: HostConfig) -> HostConfig:
        """Return the modes with names of containers: the ids at the target are others."""
        changed = {}
        for field in NAMESPACE_MODES:
            kind, _, ref = getattr(host, field).partition(":")
            if kind == "container" and (owner := self._services.container_store.get(ref)):
                changed[field] = f"container:{owner.name}"
        return msgspec.structs.replace(host, **changed)

    def _networks(self, record: ContainerRecord) -> tuple[OfferedNetwork, ...]:
        if self._container.live:
            return tuple(
                OfferedNetwork(
                    each.network, each.ipv4, each.ipv6, each.mac, self._definition(each.network)
                )
                for each in record.endpoints
            )
        if shares_network(record.body.host_config.network_mode):
            return ()
        return tuple(
            OfferedNetwork(name, definition=self._definition(name)) for name in settings_of(record)
        )

    def _definition(self, network: str) -> NetworkCreate | None:
        record = self._services.network_store.get(network)
        if record is None or not self._options.create_networks:
            return None
        request = definition(record)
        return msgspec.structs.replace(request, labels={}) if self._options.dry_run else request

    # -- the move --------------------------------------------------------------------------------

    async def run(self, channel: Channel) -> MigrationResult:
        """Move the container.

        :raises JaulaError: when a step fails. Unless the error is :class:`Undecided`, the container
            runs on here.
        """
        verdict = await self.check(channel)
        self._channel = channel
        self._coordinator.keeps_address(own=verdict.keep_address)
        try:
            prepared = await self._prepare(channel, verdict)
            changes = ContainerSender(self._services, self._container, channel)
            self._report(Progress(stage="files"))
            await changes.send(
                volumes=self._copies_volumes,
                last=self._stopped,
                without=self._coordinator.sent_by_others | set(prepared.volumes_there),
            )
            await self._coordinator.reach(Step.CREATED)
            self._keeps_address = self._coordinator.keeps_address(own=verdict.keep_address)
            if self._stopped:
                return await self._move_stopped(channel, prepared)
            async with self._container.lock:
                return await self._move(channel, prepared, changes)
        except BaseException as error:
            if not self.given:
                await self._cancel(channel, error)
                if isinstance(error, JaulaError) and self._container.live:
                    raise self._not_moved(error) from error
            raise

    def _not_moved(self, error: JaulaError) -> JaulaError:
        """Return the error of a step, with the place at which the container runs."""
        name, alone = self._container.name, self._coordinator.members == 1
        text = f"container {name} was not moved, and runs on here: {error.message}"
        return RuntimeFailure(text, hint=error.hint) if alone else error

    def result(self) -> MigrationResult:
        """Return the result of a container that runs at the target."""
        migration = self._container.record.migration
        return MigrationResult(
            container=migration.container if migration is not None else "",
            target=self._options.target,
            pause=(self._running_at or time.monotonic()) - self._stopped_at,
            dump=self._held_at - self._stopped_at,
            transfer=self._sent_at - self._held_at,
            restore=self._ready_at - self._sent_at,
            total=time.monotonic() - self._begun,
            sent=(self._channel.sent if self._channel is not None else 0)
            + (self._sender.sent if self._sender is not None else 0),
            keeps_address=self._keeps_address,
        )

    async def _cancel(self, channel: Channel, error: BaseException) -> None:
        reason = str(error) or "the client has cancelled"
        with contextlib.suppress(LinkLost, asyncio.CancelledError):
            await shielded(channel.send(Cancel(reason[:500])))

    async def _prepare(self, channel: Channel, verdict: Verdict) -> Prepared:
        image = self._container.record.image
        async with self._coordinator.creation(image) as sends:
            if verdict.image_missing and sends:
                await channel.send(Transfer(TransferKind.IMAGE, image))
                before = channel.sent
                async for chunk in self._images.save([self._image_name()]):
                    await channel.send_data(chunk)
                    self._report(Progress(stage="image", sent=channel.sent - before))
                await channel.end_data()
            self._report(Progress(stage="create"))
            await channel.send(self._request())
            return await channel.expect(Prepared)

    def _image_name(self) -> str:
        """Return the name under which the image is sent; its id if it has none."""
        record = self._container.record
        names = self._services.images.resolve(record.image).names
        asked = record.asked_image
        return next((name for name in names if name in (asked, f"{asked}:latest")), record.image)

    async def _move_stopped(self, channel: Channel, prepared: Prepared) -> MigrationResult:
        """Let the target keep a container that does not run; all its files have been sent."""
        container = self._container
        async with container.lock:
            if container.live:
                raise Conflict(f"container {container.name} was started meanwhile")
            await channel.send(Keep())
            await channel.expect(Kept)
            self.given = True
            self._mark(MigrationPhase.MOVED, prepared.container)
        self._stopped_at = self._held_at = self._sent_at = time.monotonic()
        self._ready_at = self._running_at = self._stopped_at
        return self.result()

    async def _move(
        self, channel: Channel, prepared: Prepared, changes: ContainerSender
    ) -> MigrationResult:
        """Stop the container, and let it go on at the target. The caller holds its lock."""
        container, services = self._container, self._services
        check_running(container)
        shim = container.shim
        if shim is None:
            raise Unavailable("its shim is not connected yet")
        images = await in_thread(
            services.service(checkpoint_store).begin_sent, container.id, self._reserve_memory()
        )
        self.held = held = HeldContainer(services, container, shim)
        try:
            self._mark(MigrationPhase.MOVING, prepared.container)
            before, rounds = channel.sent, await self._rounds()
            sender = self._sender = FileSender(await self._connect(prepared), images)
            alone = self._coordinator.members == 1
            if rounds or alone:
                self._report(Progress(stage="pre-copy" if rounds else "dump"))
            try:
                if alone:
                    await self._begin_restore(channel)
                self._stopped_at, self._held_at = await held.stop(
                    CheckpointRequest(
                        0,
                        str(images),
                        tcp_established=self._keeps_address,
                        tcp_close=not self._keeps_address,
                        end_execs=self._options.end_execs,
                        hold=True,
                        pre_copy=rounds,
                        group=not alone,
                    ),
                    sender,
                    self._report_round,
                    functools.partial(self._wait_for_group, channel),
                )
                await held.during(self._coordinator.reach(Step.HELD))
                others = self._coordinator.sent_by_others
                await held.during(
                    changes.send(volumes=self._copies_volumes, last=True, without=others)
                )
                files = await held.during(sender.wait())
            except LinkLost as error:
                raise await _reason(channel, error) from error
            await held.during(self._coordinator.reach(Step.SENT))
            self._sent_at = time.monotonic()
            await held.during(self._coordinator.namespaces())
            if self._joins_restored:
                await held.during(self._begin_restore(channel))
            self._report(Progress(stage="restore", sent=channel.sent - before + sender.sent))
            await channel.send(self._restore_message(files))
            await held.during(channel.expect(Ready))
            await self._give_with_group(channel, held, held.during(self._coordinator.give(self)))
        except BaseException:
            await self._resume(held)
            raise
        else:
            if not rounds:
                pause = self._running_at - self._stopped_at
                self._rates.add(self._options.target, sender.sent, pause)
        finally:
            if self._sender is not None:
                await self._sender.close()
            await asyncio.to_thread(services.service(checkpoint_store).discard, images)
            self._image_memory.release(self.id)
        return self.result()

    async def _wait_for_group(self, channel: Channel) -> None:
        if not self._joins_restored:
            await self._begin_restore(channel)
        await self._coordinator.reach(Step.STOP)
        self._report(Progress(stage="dump"))

    async def _begin_restore(self, channel: Channel) -> None:
        """Let the target do what it can do without the images."""
        points = mount_points(self._container.record.pid)
        await channel.send(BeginRestore(points, keep_address=self._keeps_address))
        await channel.expect(RestoreBegun)

    @property
    def _joins_restored(self) -> bool:
        """Whether it joins namespaces that the target restores; those of a pod exist already."""
        record = self._container.record
        return record.pod is None and bool(joined(record))

    def _reserve_memory(self) -> int:
        """Return the bytes of memory that the images may have; 0: they are on the disk."""
        if not image_memory.has_mounts_of(self._container.record.shim_pid):
            return 0  # a shim that was started in another mount namespace
        return self._image_memory.reserve(self._services.host, self.id, self._memory)

    async def _connect(self, prepared: Prepared) -> DataWriter:
        """Connect to the target for the files of the checkpoint.

        :raises Unavailable: when it does not accept the connection.
        """
        connecting = in_own_thread(lambda: self._open_stream(prepared.token))
        try:
            return await shielded(connecting)
        except asyncio.CancelledError:
            if connecting.exception() is None:
                connecting.result().close()
            raise

    async def _rounds(self) -> int:
        """Return the number of rounds of the pre-copy, 0 on a kernel that does not track pages."""
        count = self._options.pre_copy
        if not count:
            return 0
        if await asyncio.to_thread(tracks_memory):
            return count
        detail = "no rounds: this kernel does not track written pages"
        self._report(Progress(stage="pre-copy", detail=detail))
        return 0

    def _report_round(self, done: PreDumpRound) -> None:
        """Report a round, and the pause if the dump had to write and send as much again."""
        if done.failure:
            detail = f"round {done.number} failed, the stop copies all memory: {done.failure}"
            self._report(Progress(stage="pre-copy", detail=detail))
            return
        pause = FIXED + 2 * done.duration / 1e9
        detail = f"round {done.number}, a stop now would be for about {pause:.1f} s"
        self._report(Progress(stage="pre-copy", detail=detail, sent=done.bytes))

    @property
    def _copies_volumes(self) -> bool:
        return self._options.volumes is VolumeMode.COPY

    def _restore_message(self, files: tuple[SentFile, ...]) -> Restore:
        record = self._container.record
        return Restore(
            created=time.time_ns(),
            files=files,
            mount_points=mount_points(record.pid),
            stdio=stdio_inodes(record.pid),
        )

    def check_held(self) -> None:
        """Check that the container is still held.

        :raises JaulaError: when it is not.
        """
        if self.held is None:
            raise RuntimeFailure("the container is not held")
        self.held.check()

    def record_given(self) -> None:
        """Record that the container is given away; the caller sets ``given`` then."""
        self._mark(MigrationPhase.GIVEN)

    async def _give_with_group(self, channel: Channel, held: Held, given: Awaitable[None]) -> None:
        """Give it away when the target is ready; ``given`` ends when all members are given."""
        self._ready_at = time.monotonic()
        try:
            await given
        except BaseException:
            if not self.given:
                raise
        await shielded(self._give(channel, held))

    async def _resume(self, held: Held) -> None:
        """Let it run on here, unless it was given away."""
        if not self.given:
            await shielded(held.resume())
            self._mark(None)

    async def _give(self, channel: Channel, held: Held) -> None:
        """Send the commit, once it is on the disk that there is no way back, and let it exit here.

        :raises Undecided: when the target does not confirm.
        """
        container, services = self._container, self._services
        try:
            await services.group_commit.wait()
            async with self._coordinator.continuation():
                self._report(Progress(stage="continue"))
                await channel.send(Commit(self._coordinator.migrations))
                async with asyncio.timeout(_RUNNING_TIMEOUT):
                    await channel.expect(Running)
            self._running_at = time.monotonic()
        except (JaulaError, TimeoutError) as error:
            reason = str(error) or "the target does not answer"
            raise Undecided(container.name, self._options.target, reason) from error
        await held.let_go()

    def _mark(self, phase: MigrationPhase | None, other: str = "") -> None:
        """Record the phase; None: as before the migration."""
        container = self._container
        if phase is None:
            container.change(migration=None)
        else:
            known = container.record.migration
            other = other or (known.container if known is not None else "")
            peer, group = self._options.target, self._coordinator.group
            container.change(migration=MigrationRecord(self.id, phase, peer, other, group=group))
        if container.id in self._services.container_store:
            self._services.container_store.save(container)


async def _reason(channel: Channel, error: LinkLost) -> JaulaError:
    """Return why the target has closed the connection of the files; ``error`` if it is silent."""
    try:
        async with asyncio.timeout(_REASON_TIMEOUT):
            await channel.expect(Ready)
    except TargetFailed as failed:
        return failed
    except (JaulaError, TimeoutError):
        return error
    return error


def _check_stopped(record: ContainerRecord) -> CheckRow:
    if record.in_pod or record.build:
        hint = "let the cluster or the builder create it again"
        return CheckRow("container", False, "it belongs to a pod or a build", hint)
    if record.status is Status.RESTARTING:
        return CheckRow("container", False, "it waits for a restart", "stop it first")
    return CheckRow("container", True, "does not run; its files move")


class Undecided(RuntimeFailure):
    """The container was given away, and the target has not confirmed that it runs."""

    def __init__(self, name: str, target: str, reason: str) -> None:
        super().__init__(
            f"container {name} was given to {target}, which has not confirmed it: {reason}",
            hint=f"jaula container migrate --resume {name} asks it again; until then the container"
            " is held here and does not run",
        )
        self.reason = reason
