"""The target of a migration: check, create, restore, and wait for the commit.

Everything is undone when the connection ends before the commit: the processes are killed, and the
container, its new volumes and its checkpoint are removed. The commit is in the database before the
processes run. From then on nothing is undone, so the container runs here or nowhere.

Only a peer whose certificate the policy trusts gets here: an image of CRIU is code for a process
with root's rights. The images are stored as a checkpoint of this engine, with its own MAC, and
every check of a restore applies to them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from jaula.engine.model.container import HeldInit
from jaula.engine.threads import in_own_thread, in_thread, shielded
from jaula.errors import (
    Conflict,
    InvalidRequest,
    JaulaError,
    NotFound,
    RuntimeFailure,
    TooManyRequests,
)
from jaula.features.checkpoint.checkpoint_source import CheckpointSource
from jaula.features.checkpoint.checkpoint_store import CheckpointAddress, Manifest, checkpoint_store
from jaula.features.migration import host_compatibility, image_memory, migration_checks
from jaula.features.migration.changes import ContainerReceiver
from jaula.features.migration.image_transfer import FileReceiver
from jaula.features.migration.moved_networks import definition, difference
from jaula.network.network_config import check_pools
from jaula.runtime import seqpacket
from jaula.runtime.shim_protocol import COMMIT, EARLY, HELD, HELD_NAMESPACES, IMAGES, RestoredImages
from jaula.spec.api_documents import VolumeMode
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
    Prepare,
    Prepared,
    ProtocolError,
    Ready,
    Removed,
    Restore,
    RestoreBegun,
    Running,
    Transfer,
    TransferKind,
    Verdict,
)
from jaula.spec.network_record import Pool
from jaula.state.container_records import GivenMigrations, MigrationPhase, MigrationRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from jaula.caller_quota import CallerQuota
    from jaula.engine.containers.bounds import Authorize
    from jaula.engine.containers.containers import Containers
    from jaula.engine.images.images import Images
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.features.kubernetes.pods.pods import Pods
    from jaula.features.migration.migration_channel import Channel
    from jaula.images.store.image_quota import Quota
    from jaula.spec.api_documents import ContainerCreate
    from jaula.spec.api_networks import NetworkCreate
    from jaula.spec.migration import Message, MountPoint, OfferedMount, SandboxOffer
    from jaula.spec.pod import PodContainerRequest, PodSandboxRequest

log = logging.getLogger("jaula.migration")

CHECKPOINT = "migration"  # name of the checkpoint, which is removed when the container runs
COMMIT_TIMEOUT = 60.0  # seconds from Ready to the commit
GROUP_TIMEOUT = 600.0  # seconds, for a member of a group: others may be larger
_SETTING = "migrations"  # key of the ids that have been committed
_REMEMBERED = 10_000  # ids


class Access(Protocol):
    """The rights of the source engine at this one."""

    peer: str
    fingerprint: str  # of its certificate

    def owner(self, owner: str, gid: int) -> tuple[str, int]:
        """Return the owner of the container here."""
        ...

    def authorize(self, body: ContainerCreate, name: str) -> Authorize:
        """Return the check of the container's create request."""
        ...

    def authorize_pod(self, sandbox: PodSandboxRequest | None) -> Authorize:
        """Return the check of a sandbox, or of a container of a pod."""
        ...

    def quota(self) -> Quota:
        """Return the quota of images that the source brings."""
        ...

    def created(self, container: Container) -> None:
        """Record the container as the object of the caller's action."""
        ...

    async def create_network(self, body: NetworkCreate) -> str:
        """Create a network; return its id."""
        ...

    async def remove_network(self, id: str) -> None:
        """Remove a network that was created for a migration which has failed."""
        ...

    def removes_volume(self, name: str) -> AbstractContextManager[object]:
        """Record the removal of a volume that was created for a migration which has failed."""
        ...


class Transaction:
    """What the migrations in progress from one peer have created; a failed one removes it.

    The members of a group share volumes and networks, so they have one transaction. Created volumes
    have its ``word``. Networks are known by their ids.
    """

    def __init__(self) -> None:
        self.word = secrets.token_hex(16)
        self.networks: dict[str, str] = {}  # ids by name
        self.members = 0


class _Restoring(NamedTuple):
    """A restore in progress; ``sock`` is our end of the hold."""

    sock: socket.socket
    task: asyncio.Future[None]
    manifest: Manifest
    mount_points: tuple[MountPoint, ...]  # that exist


class IncomingMigration:
    """One migration to this engine: what containers and sandboxes of pods have in common."""

    def __init__(
        self,
        services: Services,
        channel: Channel,
        access: Access,
        offer: Offer | SandboxOffer,
        accept: Callable[[Commit, IncomingMigration], None],
    ) -> None:
        self._services = services
        self._channel = channel
        self._access = access
        self._accept = accept
        self._accepted = asyncio.Event()
        self._container: Container | None = None
        self._id, self._members = offer.id, offer.members
        self.files: FileReceiver | None = None  # None: it has no images, or is not created yet
        self.ready = False
        self.given = False

    @property
    def source(self) -> str:
        """The engine that moves it here."""
        return self._access.peer

    async def run(self) -> None:
        """Serve the migration to its end. Undo everything if it does not receive the commit.

        :raises JaulaError: when a step fails; the source is to be told.
        :raises LinkLost: when the source has ended the connection.
        """
        try:
            await self._serve()
        finally:
            if not self.given:
                await shielded(self._undo())

    async def _serve(self) -> None:
        verdict = await self._check()
        await self._channel.send(verdict)
        if not all(row.passed for row in verdict.rows):
            return
        while True:
            message = await self._next()
            if isinstance(message, Cancel) and message.reason == DRY_RUN:
                return
            check_not_cancelled(message)
            if await self._handle(message):
                return

    async def _next(self) -> Message:
        """Return the next message.

        :raises JaulaError: when the files of the checkpoint cannot be received.
        """
        return await self._channel.receive()

    async def _check(self) -> Verdict:
        """Return whether this engine can take it."""
        raise NotImplementedError

    async def _handle(self, message: Message) -> bool:
        """Handle a message of the source; return whether the migration has ended.

        :raises ProtocolError: when it is out of order.
        """
        raise NotImplementedError

    async def _undo(self) -> None:
        """Remove everything that this migration has made."""
        raise NotImplementedError

    def record_commit(self) -> None:
        """Record the commit; the caller sets it with :meth:`set_given` then."""
        container = self._container
        assert container is not None
        assert container.record.migration is not None
        remember(self._services, self._id)
        received = msgspec.structs.replace(
            container.record.migration,
            phase=MigrationPhase.RECEIVED,
            boot=host_compatibility.boot_id(),
        )
        container.change(migration=received)
        self._services.container_store.save(container)

    def set_given(self) -> None:
        """Continue: the commit is recorded."""
        self.given = True
        self._accepted.set()


def whole_offer(offer: Offer, message: Prepare) -> Offer:
    """Return an offer with the request of the container, which follows the verdict. Pure."""
    if message.pod is not None:
        return msgspec.structs.replace(offer, body=message.pod.body, pod=message.pod)
    return offer if message.body is None else msgspec.structs.replace(offer, body=message.body)


class Incoming(IncomingMigration):
    """One migration of a container to this engine."""

    def __init__(
        self,
        services: Services,
        containers: Containers,
        images: Images,
        pods: Pods,
        channel: Channel,
        access: Access,
        offer: Offer,
        transaction: Transaction,
        sizes: CallerQuota,
        accept: Callable[[Commit, IncomingMigration], None],
    ) -> None:
        super().__init__(services, channel, access, offer, accept)
        self._transaction = transaction
        self._sizes = sizes
        self._size = 0  # bytes that its files may have
        self._containers = containers
        self._images = images
        self._pods = pods
        self._offer = offer
        self._keep_address = True
        self._image_missing = False
        self._directory: Path | None = None  # of the images; None once they are a checkpoint
        self._restoring: _Restoring | None = None

    async def _handle(self, message: Message) -> bool:
        stopped = self._offer.stopped
        if isinstance(message, Transfer):
            await self._receive(message)
        elif isinstance(message, Removed):
            await asyncio.to_thread(self._changes().remove, message)
        elif isinstance(message, Prepare):
            self._offer = whole_offer(self._offer, message)
            await self._create()
        elif isinstance(message, BeginRestore) and not stopped:
            await self._begin_restore(message)
        elif isinstance(message, Keep) and stopped:
            await self._keep()
            return True
        elif isinstance(message, Restore) and not stopped:
            await self._restore(message)
            return True
        else:
            raise ProtocolError(f"{type(message).__name__} is out of order")
        return False

    async def _next(self) -> Message:
        files = self.files.finished if self.files is not None else None
        receiving = asyncio.ensure_future(self._channel.receive())
        try:
            if files is not None and not files.done():
                await asyncio.wait((receiving, files), return_when=asyncio.FIRST_COMPLETED)
            if files is not None and files.done():
                files.result()  # they may have failed during the last message
            return await receiving
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)

    # -- checks ----------------------------------------------------------------------------------

    async def _check(self) -> Verdict:
        offer, services = self._offer, self._services
        rows = [migration_checks.check_protocol(offer.version, VERSION)]
        description = await asyncio.to_thread(host_compatibility.describe, services.host)
        rows += migration_checks.check_hosts(offer.host, description)
        rows.append(
            migration_checks.check_memory(offer.memory, host_compatibility.available_memory())
        )
        rows.append(self._check_name())
        rows.append(self._check_image())
        choice = migration_checks.choose_addresses(
            offer.address, offer.networks, self._address_problems()
        )
        self._keep_address = choice.keep
        rows += [*self._check_volumes(), *self._check_networks(), choice.row]
        return Verdict(tuple(rows), choice.keep, self._image_missing)

    def _check_name(self) -> CheckRow:
        name = self._offer.name
        try:
            self._services.container_store.check_free(name)
        except Conflict:
            hint = f"remove the container {name} at the target, or rename one of them"
            return CheckRow("name", False, f"{name} is in use at the target", hint)
        return CheckRow("name", True, name)

    def _check_image(self) -> CheckRow:
        image = self._offer.image
        try:
            self._services.images.resolve(image)
        except NotFound:
            self._image_missing = True
            return CheckRow("image", True, f"{image[7:19]} is sent")
        return CheckRow("image", True, f"{image[7:19]} is there")

    def _check_volumes(self) -> list[CheckRow]:
        """Return the rows about volumes that would be merged with others of their names."""
        return [
            CheckRow(
                "volume",
                False,
                f"{each.name} exists at the target",
                f"remove it there (jaula volume rm {each.name}), or use --volumes shared if it is"
                " the same storage",
            )
            for each in self._refused_volumes()
        ]

    def _refused_volumes(self) -> list[OfferedMount]:
        """Return the volumes whose files are copied, and that exist here with other files."""
        offer = self._offer
        if offer.volume_mode is not VolumeMode.COPY or offer.stopped:
            return []
        return [each for each in offer.volumes if self._is_foreign(each.name)]

    def _is_foreign(self, name: str) -> bool:
        """Return whether a volume exists that this transaction has not created."""
        volumes = self._services.volumes
        return volumes.exists(name) and volumes.get(name).transaction != self._transaction.word

    def _check_networks(self) -> list[CheckRow]:
        store, rows = self._services.network_store, []
        for each in self._offer.networks:
            if each.definition is not None:
                rows.append(self._check_definition(each.definition))
                continue
            try:
                name = store.find(each.name)
            except (NotFound, InvalidRequest):
                hint = f"create it there: jaula network create {each.name}"
                detail = f"{each.name} does not exist at the target"
                rows.append(CheckRow("network", False, detail, hint))
                continue
            driver = store.driver_of(name)
            hint = "" if driver == "bridge" else "use a bridge network"
            rows.append(CheckRow("network", not hint, f"{name} ({driver})", hint))
        return rows

    def _check_definition(self, offered: NetworkCreate) -> CheckRow:
        """Return the row about a network that is made here if there is none."""
        name, existing = offered.name, self._services.network_store.get(offered.name)
        if existing is not None:
            found = difference(offered, definition(existing))
            detail = f"{name} exists with {found}" if found else f"{name} ({existing.driver})"
            hint = "remove or rename one of the two networks" if found else ""
            return CheckRow("network", not found, detail, hint)
        if offered.driver != "bridge":
            return CheckRow("network", False, f"{name} ({offered.driver})", "use a bridge network")
        try:
            self._networks_fit(offered)
        except JaulaError as error:
            detail = f"{name} cannot be made at the target: {error.message}"
            return CheckRow("network", False, detail, "free its subnet there")
        return CheckRow("network", True, f"{name} is made at the target")

    def _networks_fit(self, offered: NetworkCreate) -> None:
        requested = offered.ipam.config if offered.ipam is not None else ()
        check_pools(
            [Pool(p.subnet, p.gateway, p.ip_range, p.auxiliary_addresses) for p in requested],
            self._services.network_manager.subnets(),
            ipv4=offered.enable_ipv4 is not False,
            ipv6=bool(offered.enable_ipv6),
        )

    def _address_problems(self) -> list[str]:
        """Return why this engine's networks cannot give the container its addresses."""
        problems = []
        store = self._services.network_store
        for network in self._offer.networks:
            if network.definition is not None and store.get(network.name) is None:
                continue  # a new one has all addresses
            try:
                families = self._services.network_manager.addresses(network.name)
            except JaulaError as error:
                problems.append(error.message)
                continue
            for address, addresses in zip((network.ipv4, network.ipv6), families, strict=True):
                if not address:
                    continue
                if addresses is None or not addresses.has(address):
                    subnet = addresses.subnet if addresses is not None else "no such subnet"
                    problems.append(
                        f"{address} is not in the target's network {network.name} ({subnet})"
                    )
                elif not addresses.is_free(address):
                    problems.append(f"{address} is in use at the target")
        return problems

    # -- preparation -----------------------------------------------------------------------------

    async def _receive(self, transfer: Transfer) -> None:
        if transfer.kind is TransferKind.IMAGE and self._image_missing and not self._container:
            async for progress in self._images.load(
                self._channel.data(), quiet=True, quota=self._access.quota()
            ):
                if error := progress.get("error"):
                    raise RuntimeFailure(f"the image was not accepted: {error}")
        elif transfer.kind in (TransferKind.ROOT, TransferKind.VOLUME):
            await self._changes().receive(transfer)
        else:
            raise ProtocolError(f"a transfer of the kind {transfer.kind} is out of order")

    def _changes(self) -> ContainerReceiver:
        if self._container is None:
            raise ProtocolError("files are out of order")
        word = self._transaction.word
        return ContainerReceiver(self._services, self._container, self._channel, word)

    async def _create(self) -> None:
        """Create the container, by the normal path of a create request."""
        if self._container is not None:
            raise ProtocolError("Prepare is out of order")
        offer, services = self._offer, self._services
        for network in offer.networks:
            if network.definition is not None and services.network_store.get(network.name) is None:
                identity = await self._access.create_network(network.definition)
                self._transaction.networks[network.name] = identity
        before = {each.name for each in offer.volumes if services.volumes.exists(each.name)}
        try:
            image = offer.asked_image
            if services.images.resolve(image).id != offer.image:
                image = offer.image
        except (NotFound, InvalidRequest):
            image = offer.image
        if offer.pod is not None:
            self._container = await self._create_in_pod(offer.pod)
        else:
            self._container = await self._create_alone(image)
        created = self._container
        self._access.created(self._container)
        self._container.change(
            migration=MigrationRecord(
                offer.id,
                MigrationPhase.INCOMING,
                self._access.peer,
                transaction=self._transaction.word,
            )
        )
        services.container_store.save(self._container)
        there = tuple(sorted(before)) if offer.stopped else ()
        if foreign := [each.name for each in self._refused_volumes()]:
            raise Conflict(
                f"volume {foreign[0]} was created at the target meanwhile",
                hint=f"remove it there: jaula volume rm {foreign[0]}",
            )
        token = "" if offer.stopped else await self._expect_files(self._container)
        await self._channel.send(Prepared(created.id, created.record.warnings, there, token))

    async def _create_alone(self, image: str) -> Container:
        offer = self._offer
        body = migration_checks.request_at_target(
            offer, keep_address=self._keep_address, image=image
        )
        created = await self._containers.create(
            body,
            offer.name,
            None,
            owner=self._access.owner(offer.owner, offer.owner_gid),
            authorize=self._access.authorize(body, offer.name),
            transaction=self._transaction.word,
        )
        return self._containers.find(created.id)

    async def _create_in_pod(self, request: PodContainerRequest) -> Container:
        """Create a container of a pod whose sandbox has been received.

        :raises NotFound: when it has not.
        """
        offer, store = self._offer, self._services.container_store
        sandbox = store.get(store.names.get(request.sandbox, ""))
        received = sandbox.record.migration if sandbox is not None else None
        if sandbox is None or received is None or received.phase is not MigrationPhase.INCOMING:
            raise NotFound(f"no pod {request.sandbox[:200]} is moved here")
        if received.peer != self._access.peer:
            raise NotFound(f"the pod {request.sandbox[:200]} is moved here by another engine")
        body = msgspec.structs.replace(request.body, image=offer.image)
        return await self._pods.create_container(
            msgspec.structs.replace(request, sandbox=sandbox.id, body=body, checkpoint=""),
            owner=self._access.owner(offer.owner, offer.owner_gid),
            authorize=self._access.authorize_pod(None),
            transaction=self._transaction.word,
        )

    async def _expect_files(self, container: Container) -> str:
        """Let the source send the files of the checkpoint; return the token.

        :raises TooManyRequests: when it has no share left for as much as it offers.
        """
        self._reserve_size()
        self._directory = await in_thread(
            self._services.service(checkpoint_store).begin_received, container.id, CHECKPOINT
        )
        self.files = FileReceiver(self._directory, self._access.fingerprint, self._size)
        return self.files.token.hex()

    def _reserve_size(self) -> None:
        """Take the size of the files from the share of the peer.

        :raises TooManyRequests: when that is too much.
        """
        offer, peer = self._offer, self._access.fingerprint
        least, most = image_memory.received_sizes(offer.memory, offer.pre_copy)
        size = min(most, self._sizes.available(peer))
        if size < least or not self._sizes.take(peer, size, root=False):
            raise TooManyRequests(
                f"the container's memory of {offer.memory} bytes is more than this engine may move"
                " here now",
                hint="wait for the end of other migrations",
            )
        self._size = size

    async def _keep(self) -> None:
        """Keep the container, which does not run."""
        if self._container is None:
            raise ProtocolError("Keep is out of order")
        self._container.change(migration=None)
        self._services.container_store.save(self._container)
        await self._services.group_commit.wait()
        self.set_given()
        await keep_volumes(self._services, self._container)
        await self._channel.send(Kept())

    # -- restore ---------------------------------------------------------------------------------

    async def _begin_restore(self, message: BeginRestore) -> None:
        """Let the runtime do what it can do without the images."""
        if self._container is None or self._directory is None or self._restoring is not None:
            raise ProtocolError("BeginRestore is out of order")
        await asyncio.to_thread(self._changes().make_mount_points, message.mount_points)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._keep_address = self._keep_address and message.keep_address
        manifest = self._manifest(self._container)
        restoring = asyncio.ensure_future(
            self._containers.restore(
                self._container, CheckpointSource(self._services, manifest, theirs.fileno())
            )
        )
        restoring.add_done_callback(lambda _: theirs.close())
        self._restoring = _Restoring(ours, restoring, manifest, message.mount_points)
        begun = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(ours, 64))
        try:
            await asyncio.wait((begun, restoring), return_when=asyncio.FIRST_COMPLETED)
            if not begun.done() or await begun != EARLY:
                await asyncio.wait((restoring,))
                restoring.result()
                raise RuntimeFailure("the restore has not waited for the images")
        finally:
            begun.cancel()
            await asyncio.gather(begun, return_exceptions=True)
        await self._channel.send(RestoreBegun())

    async def _restore(self, message: Restore) -> None:
        container, files, restoring = self._container, self.files, self._restoring
        if container is None or files is None or self._directory is None or restoring is None:
            raise ProtocolError("Restore is out of order")
        await self._wait_for_files(files)
        files.check(message.files)
        if message.mount_points != restoring.mount_points:
            await asyncio.to_thread(self._changes().make_mount_points, message.mount_points)
        manifest = msgspec.structs.replace(
            restoring.manifest, created=message.created, stdio=message.stdio
        )
        self._directory = None
        images = msgspec.json.encode(RestoredImages(message.stdio))
        with contextlib.suppress(OSError):  # it has failed, as _hold notices
            await asyncio.get_running_loop().sock_sendall(restoring.sock, IMAGES + images)
        cancelled = threading.Event()
        seal = self._services.service(checkpoint_store).seal
        sealing = in_own_thread(lambda: seal(manifest, cancelled.is_set))
        try:
            await self._hold(container, restoring.sock, restoring.task, sealing)
        finally:
            held, container.held = container.held, None
            for fd in held.namespaces.values() if held is not None else ():
                os.close(fd)
            cancelled.set()
            await self._end_restore()
            await asyncio.wait((sealing,))
            if not sealing.cancelled():
                sealing.exception()

    async def _wait_for_files(self, files: FileReceiver) -> None:
        """Wait until all files of the checkpoint have arrived.

        :raises JaulaError: when they cannot be received, or the source goes on without them.
        :raises LinkLost: when the source has ended.
        """
        receiving = asyncio.ensure_future(self._channel.receive())
        try:
            await asyncio.wait((files.finished, receiving), return_when=asyncio.FIRST_COMPLETED)
            if not files.finished.done():
                check_not_cancelled(await receiving)
                raise ProtocolError("a message came before the files of the checkpoint")
            files.finished.result()
        finally:
            receiving.cancel()
            await asyncio.gather(receiving, return_exceptions=True)

    async def _end_restore(self) -> None:
        """Cancel a restore that has no commit, and wait for its end."""
        if self._restoring is None:
            return
        restoring, self._restoring = self._restoring, None
        restoring.sock.close()
        await asyncio.wait((restoring.task,))
        if not restoring.task.cancelled():
            restoring.task.exception()

    async def _hold(
        self,
        container: Container,
        ours: socket.socket,
        restoring: asyncio.Future[None],
        sealing: asyncio.Future[Manifest],
    ) -> None:
        """Wait until the processes are verified, then for the commit, and continue them.

        The checkpoint is sealed before: it is needed if this engine ends after the commit.
        """
        commit = asyncio.ensure_future(self._channel.receive())
        held = asyncio.ensure_future(_receive_held(ours))
        accepted = asyncio.ensure_future(self._accepted.wait())
        try:
            await asyncio.wait((commit, held, restoring), return_when=asyncio.FIRST_COMPLETED)
            if restoring.done():
                restoring.result()
                raise RuntimeFailure("the container was continued without the commit")
            if commit.done():
                check_commit(await commit)
                raise ProtocolError("Commit is out of order")
            container.held = await held
            if container.held is None:
                await asyncio.wait((restoring,))
                restoring.result()
            await sealing
            self.ready = True
            await self._channel.send(Ready())
            await wait_for_commit((commit, accepted, restoring), self._members)
            if not self.given:
                if restoring.done():
                    restoring.result()
                self._accept(check_commit(await commit), self)
            await shielded(self._commit(container, ours, restoring))
        finally:
            self.ready = False
            tasks = (commit, held, accepted)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _commit(
        self, container: Container, ours: socket.socket, restoring: asyncio.Future[None]
    ) -> None:
        """Continue the processes, and tell the source."""
        await self._services.group_commit.wait()
        await asyncio.get_running_loop().sock_sendall(ours, COMMIT)
        await restoring
        await keep_volumes(self._services, container)
        await self._channel.send(Running(container.id))
        await finish(self._services, container)

    def _manifest(self, container: Container) -> Manifest:
        """Return the manifest of the checkpoint as far as it is known before the dump."""
        offer = self._offer
        addresses = tuple(
            CheckpointAddress(each.name, each.ipv4, each.ipv6, each.mac) for each in offer.networks
        )
        return Manifest(
            container=container.id,
            name=CHECKPOINT,
            created=time.time_ns(),
            criu=offer.host.criu,
            kernel=offer.host.kernel,
            architecture=offer.host.architecture,
            image=offer.image,
            terminal=offer.body.tty,
            tcp_established=self._keep_address,
            tcp_close=not self._keep_address,
            transaction=self._transaction.word,
            addresses=addresses if self._keep_address else (),
        )

    def set_given(self) -> None:
        """Continue: the commit is recorded. The networks stay, also if another migration fails."""
        super().set_given()
        self._give_back_size()
        for network in self._offer.networks:
            self._transaction.networks.pop(network.name, None)

    # -- the end without the commit ----------------------------------------------------------------

    def _give_back_size(self) -> None:
        self._sizes.give_back(self._access.fingerprint, self._size)
        self._size = 0

    async def _undo(self) -> None:
        await self._end_restore()
        if self.files is not None:
            await self.files.close()
        self._give_back_size()
        if self._directory is not None:
            await asyncio.to_thread(
                self._services.service(checkpoint_store).discard, self._directory
            )
        if self._container is not None:
            await self._remove_container(self._container)
        for network in self._offer.networks:
            if identity := self._transaction.networks.get(network.name):
                with contextlib.suppress(JaulaError):  # another container uses it already
                    await self._access.remove_network(identity)

    async def _remove_container(self, container: Container) -> None:
        """Remove the container, and the volumes of it that the transaction has created."""
        with contextlib.suppress(NotFound):
            await self._containers.remove(container.id, force=True, volumes=True)
        await remove_volumes(
            self._services, container, self._transaction.word, self._access.removes_volume
        )


def _names(container: Container) -> list[str]:
    """Return the names of a container's volumes."""
    return [mount.name for mount in container.record.mounts if mount.type == "volume"]


async def remove_volumes(
    services: Services,
    container: Container,
    transaction: str,
    record: Callable[[str], AbstractContextManager[object]],
) -> None:
    """Remove the volumes of a removed container that a transaction has created.

    One that another container has stays. ``record`` records a removal.
    """
    for name in _names(container):
        volumes = services.volumes
        if not volumes.exists(name) or volumes.get(name).transaction != transaction:
            continue
        if services.volume_references.users_of(name):
            continue
        try:
            with record(name):
                await services.volume_references.remove(name, transaction=transaction)
        except (Conflict, NotFound):
            continue  # another container has taken it, or another client has removed it
        except JaulaError as error:
            log.warning("volume %s of an undone migration stays: %s", name, error)
        else:
            services.events.emit("volume", "destroy", name, {"driver": "local"})


async def keep_volumes(services: Services, container: Container) -> None:
    """Let no transaction remove the volumes of a container that has arrived."""
    for name in _names(container):
        try:
            await in_thread(services.volumes.adopt, name)
        except (JaulaError, OSError) as error:
            log.warning("volume %s of the received %s: %s", name, container.name, error)


def check_not_cancelled(message: Message) -> None:
    """Check that the source goes on.

    :raises RuntimeFailure: when it has cancelled the migration.
    """
    if isinstance(message, Cancel):
        raise RuntimeFailure(f"the source has cancelled: {message.reason}")


def check_commit(message: Message) -> Commit:
    """Return the commit.

    :raises RuntimeFailure: when the source has cancelled the migration.
    :raises ProtocolError: when it has sent something else.
    """
    check_not_cancelled(message)
    if not isinstance(message, Commit):
        raise ProtocolError(f"{type(message).__name__} is out of order")
    return message


async def wait_for_commit(events: Iterable[asyncio.Future[Any]], members: int) -> None:
    """Wait until one of ``events`` is done.

    :raises RuntimeFailure: when none is in the time that a group of so many members may need.
    """
    timeout = COMMIT_TIMEOUT if members == 1 else GROUP_TIMEOUT
    done, _ = await asyncio.wait(events, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    if not done:
        raise RuntimeFailure(f"the source has not decided in {timeout:.0f} seconds")


async def _receive_held(sock: socket.socket) -> HeldInit | None:
    """Receive the report of a held container; None if the helper has ended."""
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sock, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(sock)
    message, fds = seqpacket.receive(sock)
    if not message.startswith(HELD):
        return None
    return HeldInit(int(message.removeprefix(HELD)), dict(zip(HELD_NAMESPACES, fds, strict=True)))


async def finish(services: Services, container: Container) -> None:
    """Remove the checkpoint of a container that runs: it must not be used again.

    Another one with its name stays, which a client has made since the container arrived.
    """
    record = container.record.migration
    if record is not None and CHECKPOINT in services.service(checkpoint_store).names(container.id):
        undo = services.service(checkpoint_store).undo
        await asyncio.to_thread(undo, container.id, CHECKPOINT, record.transaction)


def remember(services: Services, migration: str) -> None:
    """Record that a migration was committed, for as long as its source may ask."""
    known = given_migrations(services)
    ids = (*known, migration)[-_REMEMBERED:]
    services.database.put("settings", _SETTING, GivenMigrations(ids))


def given_migrations(services: Services) -> tuple[str, ...]:
    """Return the migrations that have been committed."""
    stored = services.database.get("settings", _SETTING, GivenMigrations)
    return stored.ids if stored is not None else ()
