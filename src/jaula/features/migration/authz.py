"""Migrations between engines, as one caller may use them."""

from __future__ import annotations

import asyncio
import os
from contextlib import AbstractContextManager, aclosing, suppress
from typing import TYPE_CHECKING, Any

import msgspec

from jaula.engine import relaxations
from jaula.engine.authz.api.container_rights import create_authorization
from jaula.engine.authz.authorization_policy import ContainerAccess
from jaula.engine.authz.request_ceilings import Share
from jaula.engine.model.seal import request_seal
from jaula.features.kubernetes.authz import pod_authorization
from jaula.features.migration.hooks import migrations
from jaula.features.migration.source_engine import MigrationOptions

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable

    from jaula.engine.authz.caller_session import AuditedAction, Session
    from jaula.engine.authz.gateway import EngineApi
    from jaula.engine.containers.bounds import Authorize
    from jaula.engine.engine import Engine
    from jaula.engine.model.container import Container
    from jaula.engine.networks.networks import Networks
    from jaula.features.migration.source_engine import MigrationResult, Progress
    from jaula.images.store.image_quota import Quota
    from jaula.spec.api_documents import ContainerCreate, ContainerMigrate, GroupMigrate
    from jaula.spec.api_networks import NetworkCreate
    from jaula.spec.migration import CheckRow, HostAnswer
    from jaula.spec.pod import PodSandboxRequest

Document = dict[str, Any]


def migrations_api(api: EngineApi) -> MigrationsApi:
    """Return the migrations as the caller of a connection may use them."""
    return MigrationsApi(api.engine, api.session)


class MigrationsApi:
    """Containers may be moved by callers that may enter them and have the right ``migrate``."""

    def __init__(self, engine: Engine, session: Session) -> None:
        self._service = engine.service(migrations)
        self._networks = engine.networks
        self._session = session

    async def migrate(self, ref: str, body: ContainerMigrate) -> AsyncIterator[Document]:
        with self._session.begin("container migrate", ref) as action:
            self._session.require_migrate()
            action.require_enter(ref)
            if not body.resume:
                self._session.require_migration_target(body.to)
            else:
                yield {"Stage": "resumed", "Outcome": str(await self._service.resume(ref))}
                return
            options = _options(body, create_networks=body.create_networks)

            async def move(report: Callable[[Document], None]) -> list[Document]:
                result = await self._service.migrate(
                    ref, options, lambda progress: report(_document(progress))
                )
                return [] if result is None else [_result(result)]

            async with aclosing(_steps(move)) as steps:
                async for document in steps:
                    yield document

    async def migrate_group(self, body: GroupMigrate) -> AsyncIterator[Document]:
        members = self._service.members(body.containers, body.project, body.pod)
        names = {each.id: each.record.name for each in members}
        with self._session.begin("container migrate", " ".join(names.values())) as action:
            self._session.require_migration_target(body.to)
            for each in members:
                action.require_enter(each.id)
            options = _options(body, create_networks=True)

            async def move(report: Callable[[Document], None]) -> list[Document]:
                results = await self._service.migrate_group(
                    members,
                    options,
                    lambda each, progress: report(
                        {"Name": each.record.name, **_document(progress)}
                    ),
                )
                return [{"Name": names[id], **_result(each)} for id, each in results.items()]

            async with aclosing(_steps(move)) as steps:
                async for document in steps:
                    yield document

    async def compare_hosts(self, target: str) -> Document:
        with self._session.begin("host compare", target):
            self._session.require_migration_target(target)
            comparison = await self._service.compare(target)
        return {
            "Here": _host(comparison.here),
            "There": _host(comparison.there),
            "ToThere": _rows(comparison.to_there),
            "ToHere": _rows(comparison.to_here),
        }

    async def accept(self, fd: int, early: bytes) -> None:
        try:
            with self._session.begin("container receive", "") as action:
                access = PeerAccess(self._session, action, self._networks)
                owned, fd = fd, -1
                await self._service.accept(owned, early, access)
        finally:
            if fd >= 0:
                os.close(fd)

    def require_peer(self) -> None:
        with self._session.begin("container receive", ""):
            self._session.require_migration_peer()


class PeerAccess:
    """The rights of another engine that moves a container here."""

    def __init__(self, session: Session, action: AuditedAction, networks: Networks) -> None:
        self._networks = networks
        self.peer = session.require_migration_peer()
        self.fingerprint = session.caller.fingerprint
        self._session = session
        self._action = action

    def owner(self, owner: str, gid: int) -> tuple[str, int]:
        """Return the owner at the source if the peer controls its containers, else the peer."""
        if self._session.can_access_owner(owner, ContainerAccess.CONTROL):
            return owner, gid
        return self._session.owner

    def authorize(self, body: ContainerCreate, name: str) -> Authorize:
        self._action.object = name
        return create_authorization(self._session, self._action, body, name)

    def authorize_pod(self, sandbox: PodSandboxRequest | None) -> Authorize:
        if sandbox is not None:
            self._action.pod = sandbox.metadata
        return pod_authorization(self._session, self._action, sandbox)

    def quota(self) -> Quota:
        self._action.require_images()
        return self._action.reserve_image()

    def created(self, container: Container) -> None:
        self._action.describe(container)
        self._action.seal = request_seal(container.record)

    async def create_network(self, body: NetworkCreate) -> str:
        with self._session.begin("network create", body.name) as action:
            action.authorize(relaxations.of_network(self._networks.whole(body)))
            action.reserve(Share.NETWORKS)
            action.reserve_document(body)
            created = await self._networks.create(body, self._session.caller.key)
        return str(created["Id"])

    async def remove_network(self, id: str) -> None:
        with self._session.begin("network remove", id, revokes=True) as action:
            action.require_run()
            self._session.require_network_removal(id)
            await self._networks.remove(id)

    def removes_volume(self, name: str) -> AbstractContextManager[AuditedAction]:
        return self._session.begin("volume remove", name, revokes=True)


def _options(body: ContainerMigrate | GroupMigrate, *, create_networks: bool) -> MigrationOptions:
    return MigrationOptions(
        target=body.to,
        address=body.address,
        volumes=body.volumes,
        dry_run=body.dry_run,
        pre_copy=body.pre_copy,
        end_execs=body.end_execs,
        remove=body.remove,
        create_networks=create_networks,
    )


async def _steps(
    move: Callable[[Callable[[Document], None]], Coroutine[Any, Any, list[Document]]],
) -> AsyncGenerator[Document]:
    """Yield what a migration reports, and its results. It is cancelled if nobody reads on."""
    queue: asyncio.Queue[Document | None] = asyncio.Queue()
    moving = asyncio.ensure_future(move(queue.put_nowait))
    moving.add_done_callback(lambda _: queue.put_nowait(None))
    try:
        while (document := await queue.get()) is not None:
            yield document
        for result in await moving:
            yield result
    finally:
        if not moving.done():
            moving.cancel()
            with suppress(asyncio.CancelledError):
                await asyncio.wait((moving,))


def _rows(rows: Iterable[CheckRow]) -> list[Document]:
    return [
        {"Check": row.check, "Passed": row.passed, "Detail": row.detail, "Hint": row.hint}
        for row in rows
    ]


def _host(answer: HostAnswer) -> Document:
    host = answer.host
    return {
        "Protocol": answer.version,
        "Architecture": host.architecture,
        "PageSize": host.page_size,
        "CPUFeatures": list(host.cpu_features),
        "KernelVersion": host.kernel,
        "CRIUVersion": host.criu,
        "LandlockABI": host.landlock,
        "CgroupVersion": str(host.cgroup_version),
    }


def _document(progress: Progress) -> Document:
    rows = _rows(progress.rows)
    document: Document = {"Stage": progress.stage}
    if progress.detail:
        document["Detail"] = progress.detail
    if progress.sent:
        document["Sent"] = progress.sent
    return document | ({"Rows": rows} if rows else {})


def _result(result: MigrationResult) -> Document:
    values = msgspec.to_builtins(result)
    return {
        "Stage": "done",
        "Container": values["container"],
        "Target": values["target"],
        "PauseMilliseconds": round(result.pause * 1000),
        "DumpMilliseconds": round(result.dump * 1000),
        "TransferMilliseconds": round(result.transfer * 1000),
        "RestoreMilliseconds": round(result.restore * 1000),
        "TotalMilliseconds": round(result.total * 1000),
        "Sent": result.sent,
        "KeepsAddress": result.keeps_address,
    }
