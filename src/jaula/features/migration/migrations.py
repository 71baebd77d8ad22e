"""Live migration of containers: :class:`Migration` is the use case, of both ends.

``migrate`` moves one container to another engine, ``accept`` serves another engine that moves one
here, ``resume`` asks how an interrupted migration ended. The protocol is in
:mod:`jaula.spec.migration`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import logging
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from jaula import tls
from jaula.caller_quota import CallerQuota
from jaula.engine.threads import in_thread, shielded
from jaula.errors import Conflict, InvalidRequest, JaulaError, NotFound, RuntimeFailure
from jaula.features.checkpoint.checkpoint_store import checkpoint_store
from jaula.features.migration import (
    container_hold,
    data_stream,
    host_compatibility,
    image_memory,
    migration_channel,
    migration_checks,
)
from jaula.features.migration.group import PROJECT, Group, dependencies, joined, ordered
from jaula.features.migration.held_container import end, mark_moved
from jaula.features.migration.image_memory import ImageMemory
from jaula.features.migration.migration_channel import LinkLost
from jaula.features.migration.pause_estimate import Rates
from jaula.features.migration.sandbox_source import OutgoingSandbox
from jaula.features.migration.sandbox_target import IncomingSandbox
from jaula.features.migration.source_engine import (
    Held,
    MigrationOptions,
    MigrationResult,
    OnProgress,
    Outgoing,
    Progress,
    Undecided,
)
from jaula.features.migration.target_engine import (
    CHECKPOINT,
    Access,
    Incoming,
    IncomingMigration,
    Transaction,
    finish,
    given_migrations,
    remove_volumes,
)
from jaula.runtime.shim_protocol import COMMIT, RESUME
from jaula.spec.migration import (
    TOKEN_SIZE,
    VERSION,
    CheckRow,
    Commit,
    Failed,
    HostAnswer,
    HostQuery,
    Inquiry,
    Offer,
    Outcome,
    ProtocolError,
    Report,
    SandboxOffer,
)
from jaula.spec.migration_target import parse_target
from jaula.state.container_records import MigrationPhase
from jaula.tasks import BackgroundTasks
from jaula.tls import TlsError

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping, Sequence
    from ssl import SSLContext

    from jaula.engine.containers.containers import Containers
    from jaula.engine.images.images import Images
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.features.kubernetes.pods.pods import Pods
    from jaula.features.migration.coordinator import Coordinator
    from jaula.features.migration.data_stream import DataWriter
    from jaula.features.migration.migration_channel import Channel
    from jaula.features.migration.migration_checks import HostComparison
    from jaula.spec.api_params import Remote
    from jaula.tls import TlsCodec

log = logging.getLogger("jaula.migration")
PATH = "/jaula/migrations"
_TOKEN_TIMEOUT = 10.0  # seconds
_SETTLE_TIMEOUT = 15.0  # seconds in which the target of an undecided migration is asked
_SETTLE_INTERVAL = 2.0  # seconds
_LONGEST_PAUSE = 60.0  # seconds between two questions
_RESTORE_TIMEOUT = 60.0  # seconds for a restore after the commit

OnMember = Callable[["Container", Progress], None]


class Migration:
    """Moves containers between this engine and others."""

    def __init__(
        self, services: Services, containers: Containers, images: Images, pods: Pods
    ) -> None:
        self._services = services
        self._containers = containers
        self._images = images
        self._pods = pods
        self._outgoing: set[str] = set()  # ids of containers
        # By migration.
        self._incoming: dict[str, tuple[IncomingMigration, asyncio.Task[None]]] = {}
        self._transactions: dict[str, Transaction] = {}  # by fingerprint of the peer
        self._sizes = CallerQuota(image_memory.total_received(), 0)  # of files that arrive
        self._restoring = asyncio.Lock()
        self._rates = Rates()
        self._image_memory = ImageMemory()
        self._held: dict[str, Held] = {}  # given away and undecided, by container
        self._tasks = BackgroundTasks(log, "the end of a migration")

    # -- source ----------------------------------------------------------------------------------

    async def migrate(
        self,
        ref: str,
        options: MigrationOptions,
        report: OnProgress,
        coordinator: Coordinator | None = None,
        group: frozenset[str] = frozenset(),
    ) -> MigrationResult | None:
        """Move a container to another engine; return None after a dry run.

        A cancellation before the container is given away leaves it running here. A member of a
        group has a ``coordinator``, and ``group`` are the ids of all.

        :raises NotFound: when there is no such container.
        :raises InvalidRequest: when a check has not passed, or this engine has no certificate.
        :raises Conflict: when it is being moved already.
        :raises Unavailable: when the target cannot be reached.
        :raises Undecided: when it was given away, and the target does not answer.
        :raises RuntimeFailure: when a step fails; the container runs on here.
        """
        container = self._containers.find(ref)
        with self._exclusive(container):
            self._check_not_given(container)
            outgoing = self._outgoing_of(container, options, report, coordinator, group)
            channel = await self._connect(options.target)
            try:
                if options.dry_run:
                    await outgoing.check(channel)
                    return None
                result = await outgoing.run(channel)
            except Undecided as error:
                assert outgoing.held is not None
                self._held[container.id] = outgoing.held
                result = await shielded(self._settle(container, outgoing, error))
            finally:
                await channel.close()
        self._services.events.emit(
            "container",
            "migrate",
            container.id,
            container.record.event_attributes | {"target": options.target},
        )
        if options.remove and (coordinator is None or not container.record.in_pod):
            await self._remove(container)
        return result

    def _outgoing_of(
        self,
        container: Container,
        options: MigrationOptions,
        report: OnProgress,
        coordinator: Coordinator | None,
        group: frozenset[str],
    ) -> Outgoing:
        outgoing = (
            Outgoing
            if container.record.sandbox is None
            else functools.partial(OutgoingSandbox, self._pods)
        )
        return outgoing(
            self._services,
            self._containers,
            self._images,
            container,
            options,
            report,
            functools.partial(self._open_stream, options.target),
            self._rates,
            self._image_memory,
            coordinator,
            group,
        )

    async def _remove(self, container: Container) -> None:
        if container.id not in self._services.container_store:
            return
        if container.record.sandbox is not None:
            await self._pods.remove(container.id)
        else:
            await self._containers.remove(container.id, force=False, volumes=False)

    def members(self, refs: Sequence[str], project: str, pod: str) -> list[Container]:
        """Return the containers of a group: those of ``refs``, or the running ones of the others.

        The sandbox of a pod is the first one.

        :raises NotFound: when there is no such container, or the project has none that runs.
        """
        if pod:
            sandbox = self._pods.find_pod(pod)
            return [sandbox, *(each for each in self._pods.members(sandbox.id) if each.live)]
        if not project:
            return list({each.id: each for each in map(self._containers.find, refs)}.values())
        found = [
            each
            for each in self._services.container_store
            if each.live and each.record.body.labels.get(PROJECT) == project
        ]
        if not found:
            raise NotFound(f"no container of the project {project} is running")
        return found

    async def migrate_group(
        self, containers: Sequence[Container], options: MigrationOptions, report: OnMember
    ) -> dict[str, MigrationResult]:
        """Move containers as one; return the results by id, none after a dry run.

        All are checked before anything is done. A failure or a cancellation before they are given
        away leaves all of them running here.

        :raises Conflict: when one does not run.
        :raises InvalidRequest: with all checks that have not passed.
        :raises JaulaError: as of :meth:`migrate`.
        """
        for each in containers:
            if not each.live:
                raise Conflict(
                    f"container {each.record.name} is not running",
                    hint="a group has running containers only: move it alone",
                )
        await self._check_group(containers, options, report)
        if options.dry_run:
            return {}
        records = [each.record for each in containers]
        volumes = {
            record.id: frozenset(m.name for m in record.mounts if m.type == "volume")
            for record in records
        }
        owners = {each.id: joined(each) for each in records}
        group = Group(self._services.database, dependencies(records), owners, volumes)
        tasks = {
            each.id: asyncio.ensure_future(
                self.migrate(
                    each.id,
                    options,
                    functools.partial(report, each),
                    group.members[each.id],
                    frozenset(group.order),
                )
            )
            for each in containers
        }
        try:
            await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_EXCEPTION)
        finally:
            failures = await shielded(_end_group(group, tasks))
        if failures:
            names = {each.id: each.record.name for each in containers}
            key, error = next(iter(failures.items()))
            state = "" if group.given else "; all containers of the group run on here"
            reason = error.message if isinstance(error, JaulaError) else str(error) or repr(error)
            hint = error.hint if isinstance(error, JaulaError) else None
            raise RuntimeFailure(f"container {names[key]}: {reason}{state}", hint=hint) from error
        for each in containers:
            if options.remove and each.record.sandbox is not None:
                await self._remove(each)
        return {key: result for key, task in tasks.items() if (result := task.result())}

    async def _check_group(
        self, containers: Sequence[Container], options: MigrationOptions, report: OnMember
    ) -> None:
        """Report the rows of all members.

        :raises InvalidRequest: with the rows that have not passed.
        """
        refusals: list[str] = []
        group = frozenset(each.id for each in containers)

        async def check(container: Container) -> None:
            rows: list[CheckRow] = []

            def collect(progress: Progress) -> None:
                rows.extend(progress.rows)
                report(container, progress)

            dry_run = msgspec.structs.replace(options, dry_run=True)
            await self.migrate(container.id, dry_run, collect, group=group)
            refusals.extend(
                f"{container.record.name}: {row.check}: {row.detail}"
                + (f" ({row.hint})" if row.hint else "")
                for row in rows
                if not row.passed
            )

        await asyncio.gather(*map(check, containers))
        if refusals and not options.dry_run:
            raise InvalidRequest("the group cannot move: " + "; ".join(sorted(refusals)))

    async def compare(self, target: str) -> HostComparison:
        """Compare this host with the one of another engine, for moves in both directions.

        :raises InvalidRequest: when it is not an address, or this engine has no certificate.
        :raises Unavailable: when the other engine cannot be reached.
        :raises RuntimeFailure: when it does not let this engine move containers to it.
        """
        channel = await self._connect(target)
        try:
            await channel.send(HostQuery(VERSION))
            there = await channel.expect(HostAnswer)
        finally:
            await channel.close()
        return migration_checks.compare(await self._describe_host(), there)

    async def _describe_host(self) -> HostAnswer:
        return HostAnswer(
            VERSION, await in_thread(host_compatibility.describe, self._services.host)
        )

    @contextlib.contextmanager
    def _exclusive(self, container: Container) -> Iterator[None]:
        if container.id in self._outgoing:
            raise Conflict(f"container {container.name} is being migrated already")
        self._outgoing.add(container.id)
        try:
            yield
        finally:
            self._outgoing.discard(container.id)

    def _check_not_given(self, container: Container) -> None:
        record = container.record.migration
        if record is not None and record.phase is MigrationPhase.GIVEN:
            raise Conflict(
                f"container {container.name} was given to {record.peer}",
                hint=f"jaula container migrate --resume {container.name} asks how that ended",
            )

    async def _settle(
        self, container: Container, outgoing: Outgoing, error: Undecided
    ) -> MigrationResult:
        """Ask the target some times how it ended.

        :raises Undecided: when it does not answer.
        :raises RuntimeFailure: when it has not run; the container runs on here.
        """
        end = time.monotonic() + _SETTLE_TIMEOUT
        while True:
            try:
                outcome = await self._finish(container)
            except JaulaError:
                if time.monotonic() > end:
                    raise error from None
                await asyncio.sleep(_SETTLE_INTERVAL)
                continue
            if outcome is Outcome.NEVER_RAN:
                raise RuntimeFailure(
                    f"container {container.name} did not run at the target and runs on here:"
                    f" {error.reason}"
                )
            return outgoing.result()

    async def resume(self, ref: str) -> Outcome:
        """Ask the target of an interrupted migration how it ended, and finish it here.

        The other members of its group are finished too. If the target has the container, it exits
        here. If the target never received the commit, it runs on here.

        :raises Conflict: when no migration of it is undecided.
        :raises Unavailable: when the target cannot be reached.
        :raises RuntimeFailure: when the target has it, and it does not run there.
        """
        container = self._containers.find(ref)
        group = container.record.migration.group if container.record.migration is not None else ""
        others = [
            other
            for other in self._services.container_store
            if (record := other.record.migration) is not None
            and record.group == group != ""
            and record.phase is MigrationPhase.GIVEN
            and other is not container
        ]
        failures = []
        for other in others:
            try:
                await self._resume(other)
            except JaulaError as error:
                failures.append(error)
        outcome = await self._resume(container)
        if failures:
            raise failures[0]
        return outcome

    async def _resume(self, container: Container) -> Outcome:
        record = container.record.migration
        if record is None or record.phase is not MigrationPhase.GIVEN:
            raise Conflict(f"no migration of container {container.name} is undecided")
        with self._exclusive(container):
            return await shielded(self._finish(container))

    async def _finish(self, container: Container) -> Outcome:
        record = container.record.migration
        assert record is not None
        channel = await self._connect(record.peer)
        try:
            await channel.send(Inquiry(VERSION, record.id))
            report = await channel.expect(Report)
        finally:
            await channel.close()
        async with container.lock:
            if report.outcome is Outcome.NEVER_RAN:
                await self._run_on(container)
            elif report.outcome is Outcome.RUNNING:
                await self._let_go(container)
            else:
                raise RuntimeFailure(
                    f"{record.peer} has container {container.name}, and it does not run there:"
                    f" {report.detail}",
                    hint=f"there: jaula start --checkpoint {CHECKPOINT} {container.name}",
                )
        return report.outcome

    async def _run_on(self, container: Container) -> None:
        held = self._held.pop(container.id, None)
        if held is not None:
            await held.resume()
        else:
            await self._resume_held(container)
        container.change(migration=None)
        self._services.container_store.save(container)

    async def _let_go(self, container: Container) -> None:
        held = self._held.pop(container.id, None)
        if held is not None and container.live:
            await held.let_go()
            return
        mark_moved(self._services, container)
        if container.record.sandbox is not None:
            await self._pods.release(container)
        elif container.live:
            container_hold.decide(self._run_dir(container), COMMIT)
            await end(self._services, container)

    async def _resume_held(self, container: Container) -> None:
        """Continue a container that an earlier engine has held."""
        if not container.live:
            return
        if container.record.sandbox is not None:
            await self._pods.connect_network(container)
            return
        container_hold.decide(self._run_dir(container), RESUME)
        if container.shim is not None:
            with contextlib.suppress(JaulaError):  # it has ended
                await container.shim.hello(timeout=None)  # answered after the end of the helper
        await container_hold.release(self._services, container)

    def _run_dir(self, container: Container) -> str:
        return str(self._services.config.paths.container_run(container.id))

    async def _connect(self, target: str) -> Channel:
        address, port = parse_target(target)
        return await migration_channel.connect(address, port, self._context(), PATH)

    def _open_stream(self, target: str, token: str) -> DataWriter:
        """Connect to the target for the files of a checkpoint. Blocks."""
        return data_stream.connect(*parse_target(target), self._context(), token)

    def _context(self) -> SSLContext:
        """Return the context of a client with the files of the listener.

        :raises InvalidRequest: when this engine has none.
        """
        config = self._services.config.tls
        if config is None:
            raise InvalidRequest(
                "this engine has no certificate to identify itself to another engine",
                hint="start it with --tlsverify and the three files of certificates",
            )
        return tls.client_context(config.authority, config.certificate, config.key)

    # -- target ----------------------------------------------------------------------------------

    async def accept(self, descriptor: int, early: bytes, access: Access) -> None:
        """Serve another engine that moves a container here; owns the descriptor.

        :raises JaulaError: when the container has not arrived; the other engine was told.
        """
        channel = await migration_channel.adopt(descriptor, early)
        try:
            first = await channel.receive()
            if isinstance(first, Offer | SandboxOffer):
                await self._serve(channel, access, first)
            elif isinstance(first, Inquiry):
                await channel.send(await self._report(first))
            elif isinstance(first, HostQuery):
                await channel.send(await self._describe_host())
            else:
                raise ProtocolError(f"{type(first).__name__} is not how a migration begins")
        except JaulaError as error:
            log.info("migration from %s: %s", access.peer, error)
            with contextlib.suppress(LinkLost):
                await channel.send(Failed(error.message, error.hint or ""))
            raise
        finally:
            await channel.close()

    async def accept_data(self, client: socket.socket, codec: TlsCodec, peer: Remote) -> None:
        """Receive the files of a checkpoint from the source of a migration to this engine.

        A client without the token of a migration of its certificate is dropped.
        """
        try:
            async with asyncio.timeout(_TOKEN_TIMEOUT):
                token = await _receive_token(client, codec)
        except (OSError, TimeoutError, TlsError):
            return
        for incoming, _ in self._incoming.values():
            files = incoming.files
            if (
                files is not None
                and hmac.compare_digest(files.token, token)
                and files.fingerprint == peer.fingerprint
            ):
                await files.serve(client, codec)
                return
        log.info("%s has sent files without a migration", peer.name or peer.address)

    async def _serve(self, channel: Channel, access: Access, offer: Offer | SandboxOffer) -> None:
        if offer.id in self._incoming or offer.id in given_migrations(self._services):
            raise Conflict("this migration is in progress, or has ended")
        with self._transaction(access.fingerprint) as transaction:
            await self._serve_in(transaction, channel, access, offer)

    @contextlib.contextmanager
    def _transaction(self, fingerprint: str) -> Iterator[Transaction]:
        """Yield what the migrations of one peer have created; it is open while one is served."""
        transaction = self._transactions.setdefault(fingerprint, Transaction())
        transaction.members += 1
        try:
            with self._services.volume_references.transaction(transaction.word):
                yield transaction
        finally:
            transaction.members -= 1
            if not transaction.members:
                del self._transactions[fingerprint]

    async def _serve_in(
        self,
        transaction: Transaction,
        channel: Channel,
        access: Access,
        offer: Offer | SandboxOffer,
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        incoming: IncomingMigration
        if isinstance(offer, SandboxOffer):
            incoming = IncomingSandbox(
                self._services, self._pods, channel, access, offer, self._accept_commit
            )
        else:
            incoming = Incoming(
                self._services,
                self._containers,
                self._images,
                self._pods,
                channel,
                access,
                offer,
                transaction,
                self._sizes,
                self._accept_commit,
            )
        self._incoming[offer.id] = incoming, task
        try:
            await incoming.run()
        finally:
            del self._incoming[offer.id]

    def _accept_commit(self, commit: Commit, incoming: IncomingMigration) -> None:
        """Record the commit for a container, or for all members of its group in one transaction.

        :raises Conflict: when a member is not ready: none of them has received the commit.
        """
        members = [incoming]
        if commit.group:
            found = (self._incoming.get(each, (None, None))[0] for each in commit.group)
            members = [each for each in found if each is not None]
            ready = all(each.ready and each.source == incoming.source for each in members)
            if len(members) != len(commit.group) or not ready or incoming not in members:
                raise Conflict("another container of the group is not ready at the target")
        with self._services.database.transaction():
            for each in members:
                each.record_commit()
        for each in members:
            each.set_given()

    async def _report(self, inquiry: Inquiry) -> Report:
        """Return how a migration to this engine ended. One without a commit is cancelled."""
        if inquiry.id in self._incoming:
            incoming, task = self._incoming[inquiry.id]
            if not incoming.given:
                task.cancel()
            await asyncio.wait((task,), timeout=_RESTORE_TIMEOUT)
        if inquiry.id not in given_migrations(self._services):
            return Report(Outcome.NEVER_RAN)
        container = self._received(inquiry.id)
        if container is None:
            return Report(Outcome.RUNNING, detail="it has been removed")
        if not container.live and not container.record.started_at:
            try:
                await self._restore(container)
            except JaulaError as error:
                return Report(Outcome.GIVEN, container.id, str(error))
        return Report(Outcome.RUNNING, container.id)

    def _received(self, migration: str) -> Container | None:
        for container in self._services.container_store:
            record = container.record.migration
            if record is not None and record.id == migration:
                return container
        return None

    async def _restore(self, container: Container) -> None:
        """Restore a container that has received the commit, and whose processes have never run.

        :raises RuntimeFailure: when they may have run already.
        """
        async with self._restoring:
            await self._restore_with_owners(container)

    async def _restore_with_owners(self, container: Container) -> None:
        if container.live:
            return
        for each in joined(container.record):
            owner = self._services.container_store.get(each)
            if owner is not None and owner.record.migration is not None:
                await self._restore_with_owners(owner)
        record = container.record.migration
        continued = self._services.service(checkpoint_store).is_continued(container.id, CHECKPOINT)
        if continued or record is None or record.boot != host_compatibility.boot_id():
            raise RuntimeFailure("its processes may have run already, and have ended")
        await self._containers.start(container.id, checkpoint=CHECKPOINT)
        await finish(self._services, container)

    # -- the next engine -------------------------------------------------------------------------

    def resume_held(self) -> None:
        """Continue what an earlier engine has held without giving it away; before the restore."""
        for container in self._services.container_store:
            record = container.record.migration
            if container.live and record is not None and record.phase is MigrationPhase.MOVING:
                container_hold.decide(self._run_dir(container), RESUME)

    async def recover(self) -> None:
        """Finish or undo the migrations of an earlier engine; after the restore of containers."""
        received: dict[str, Container] = {}
        sandboxes: list[Container] = []
        undone: list[tuple[Container, str]] = []
        for container in list(self._services.container_store):
            record = container.record.migration
            if record is None:
                continue
            if record.phase is MigrationPhase.MOVING:
                self._tasks.spawn(self._run_on(container))
            elif record.phase is MigrationPhase.GIVEN:
                self._tasks.spawn(self._ask_again(container))
            elif record.phase is MigrationPhase.INCOMING:
                log.info("the migration of %s was interrupted and is undone", container.name)
                with contextlib.suppress(JaulaError):
                    if container.record.sandbox is None:
                        undone.append((container, record.transaction))
                        await self._containers.remove(container.id, force=True, volumes=True)
                    elif not self._services.config.cri:  # the network of pods removes it otherwise
                        await self._pods.undo(container)
            elif container.live and container.record.sandbox is not None:
                sandboxes.append(container)
            elif container.live:
                await finish(self._services, container)
            elif record.phase is MigrationPhase.RECEIVED and not container.record.started_at:
                received[container.id] = container
        for container, transaction in undone:  # members of a group share volumes
            if transaction:
                await remove_volumes(self._services, container, transaction, contextlib.nullcontext)
        if received or sandboxes:
            self._tasks.spawn(self._restore_again(received, sandboxes))

    async def _restore_again(
        self, received: Mapping[str, Container], sandboxes: Sequence[Container]
    ) -> None:
        """Restore containers that have received the commit, each after those that it joins.

        The network of a pod is connected when its containers are there.
        """
        for each in ordered(dependencies([each.record for each in received.values()])):
            container = received[each]
            try:
                await self._restore(container)
            except JaulaError as error:
                log.error("container %s was received and cannot go on: %s", container.name, error)
        for sandbox in sandboxes:
            try:
                await self._pods.connect_network(sandbox)
            except JaulaError as error:
                log.error("the network of sandbox %s is not connected: %s", sandbox.name, error)

    async def _ask_again(self, container: Container) -> None:
        """Ask the target of a container that an earlier engine gave away, until it answers."""
        pause = _SETTLE_INTERVAL
        while (record := container.record.migration) and record.phase is MigrationPhase.GIVEN:
            try:
                outcome = await self._resume(container)
            except JaulaError as error:
                log.warning("migration of %s: %s", container.name, error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
                continue
            log.info("migration of %s: %s", container.name, outcome)

    async def close(self) -> None:
        """End the background work; containers that are held stay so."""
        await self._tasks.close()


async def _receive_token(client: socket.socket, codec: TlsCodec) -> bytes:
    """Return the bytes that a client sends until it waits for an answer, a few too many at most."""
    loop, token = asyncio.get_running_loop(), codec.read()
    while len(token) < TOKEN_SIZE and not codec.ended:
        data = await loop.sock_recv(client, TOKEN_SIZE * 4)
        codec.feed(data)
        token += codec.read()
        if not data:
            break
    return token


async def _end_group(
    group: Group, tasks: dict[str, asyncio.Task[MigrationResult | None]]
) -> dict[str, BaseException]:
    """Wait for all members; cancel them if one has not ended and none is given away.

    Return the failures by id, without those that the cancellation has caused.
    """
    failures = {
        key: error
        for key, task in tasks.items()
        if task.done() and not task.cancelled() and (error := task.exception()) is not None
    }
    if not group.given:
        for task in tasks.values():
            task.cancel()
    await asyncio.wait(tasks.values())
    if not failures:
        for key, task in tasks.items():
            if not task.cancelled() and (error := task.exception()) is not None:
                failures[key] = error
    return failures
