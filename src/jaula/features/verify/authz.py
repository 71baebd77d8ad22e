"""Diagnostics of containers, as one caller may use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jaula.engine import relaxations
from jaula.engine.authz.authorization_policy import ContainerAccess
from jaula.errors import InvalidRequest
from jaula.features.verify.diagnostics.commands import MAX_SECONDS
from jaula.features.verify.diagnostics.processes import of_containers
from jaula.features.verify.hooks import diagnostics
from jaula.features.verify.isolation_change import report_change

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from jaula.engine.authz.caller_session import Session
    from jaula.engine.authz.gateway import EngineApi
    from jaula.engine.engine import Engine
    from jaula.spec.api_documents import ExecCreate, IsolationChange

Document = dict[str, Any]


def diagnostics_api(api: EngineApi) -> DiagnosticsApi:
    """Return the diagnostics as the caller of a connection may use them."""
    return DiagnosticsApi(api.engine, api.session)


class DiagnosticsApi:
    """Checks need the right to read a container; an explanation runs a command in it, as exec.

    An audit reads files of root on the host, so it needs access to everything. Samples are for all
    who may list containers.
    """

    def __init__(self, engine: Engine, session: Session) -> None:
        self._engine = engine
        self._service = engine.service(diagnostics)
        self._session = session

    async def observe(self) -> AsyncIterator[Document]:
        self._session.require_read()
        documents = self._service.observer.stream()
        try:
            async for document in documents:
                self._session.require_read()  # of the policy that is in force now
                if document["Type"] != "isolation" or self._may_read(document["Id"]):
                    yield document
        finally:
            await documents.aclose()  # type: ignore[attr-defined]

    async def verify(self, ref: str) -> Document:
        self._session.require_container_read(ref)
        container = self._engine.containers.find(ref)
        return await self._service.observer.ask("verify", Container=container.id)

    async def processes(self) -> Document:
        self._session.require_read()
        document = await self._service.observer.ask("processes")
        if self._session.is_admin:
            return document
        rows = of_containers(document["Processes"], self._may_read)
        return document | {"Processes": rows}

    async def history(self, refs: Sequence[str], fields: Sequence[str], points: int) -> Document:
        self._session.require_read()
        ids = [self._engine.containers.find(ref).id for ref in refs]
        return await self._service.observer.ask(
            "history", Containers=ids, Fields=list(fields), Points=points
        )

    async def why(self, ref: str, body: ExecCreate | None, timeout: float) -> bytes:
        if body is None:
            self._session.require_container_read(ref)
            container = self._engine.containers.find(ref)
            if container.live:
                raise InvalidRequest(
                    f"container {container.name} is running: name the command to explain"
                )
            return await self._service.commands.why(container.id, (), "", timeout)
        with self._session.begin("container why", ref, argv=body.cmd) as action:
            container = action.require_enter(ref)
            action.authorize(relaxations.of_exec(body))
            return await self._service.commands.why(container.id, body.cmd, body.user, timeout)

    async def record(self, ref: str, seconds: float) -> AsyncIterator[bytes]:
        if not 0 < seconds <= MAX_SECONDS:
            raise InvalidRequest(f"seconds must be between 0 and {MAX_SECONDS:g}")
        with self._session.begin("container record", ref) as action:
            container = action.require_control(ref)
        chunks = self._service.commands.record(container.id, seconds)
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()  # type: ignore[attr-defined]

    async def harden(self, record: AsyncIterator[bytes], timeout: float) -> bytes:
        self._session.require_run()
        return await self._service.commands.harden(record, timeout)

    async def audit(self, scopes: Sequence[str], profile: str, timeout: float) -> bytes:
        self._session.require_read()
        if not self._session.is_admin:
            raise self._session.denial("audit the host", line='access = "all"')
        return await self._service.commands.audit(scopes, profile, timeout)

    def isolation_changed(self, ref: str, change: IsolationChange) -> None:
        """Emit the event of a row that ``verify --watch`` has found to be different.

        :raises InvalidRequest: when the row has no name or no verdict.
        """
        if not self._session.is_admin:
            raise self._session.denial("report a change of isolation")
        report_change(self._engine.containers, ref, change)

    def _may_read(self, id: str) -> bool:
        container = self._session.services.container_store.get(id)
        return container is not None and self._session.can_access(container, ContainerAccess.READ)
