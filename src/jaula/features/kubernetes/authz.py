"""Pods, as one caller may use them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaula import trusted_file
from jaula.engine import relaxations
from jaula.engine.authz import request_ceilings
from jaula.engine.authz.request_ceilings import Share
from jaula.engine.authz.use_case import Right, use_case
from jaula.engine.model.seal import request_seal
from jaula.engine.relaxations import Privilege, Relaxation
from jaula.errors import NotFound
from jaula.features.kubernetes.hooks import pods
from jaula.features.kubernetes.pods.pods import Pods
from jaula.spec.api_documents import ExecCreate
from jaula.state.container_records import MigrationPhase, log_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

    from jaula.engine.authz.caller_session import AuditedAction, Session
    from jaula.engine.authz.gateway import EngineApi
    from jaula.engine.containers.bounds import Authorize, Bounds
    from jaula.engine.engine import Engine
    from jaula.engine.model.container import Container
    from jaula.features.kubernetes.pods.exec_sync import ExecResult
    from jaula.features.metrics.pod_samples import SandboxSample
    from jaula.features.metrics.pod_usage import ContainerUsage, SandboxUsage
    from jaula.spec.api_documents import ContainerCreate
    from jaula.spec.pod import PodContainerRequest, PodLimits, PodSandboxRequest
    from jaula.state.container_records import ContainerRecord, ResolvedRequest


def pod_authorization(
    session: Session, action: AuditedAction, sandbox: PodSandboxRequest | None
) -> Authorize:
    """Return what authorizes ``sandbox``, or a container of a pod."""

    def authorize(body: ContainerCreate, resolved: ResolvedRequest) -> Bounds:
        host, own = body.host_config, relaxations.of_request(body, resolved)
        if sandbox is None:
            action.authorize((*own, *session.inherited_mounts(host, resolved)))
            session.check_pod_request(host, resolved)
        else:
            action.authorize(relaxations.of_sandbox(sandbox, body, resolved))
            session.check_ceilings(request_ceilings.of_sandbox(sandbox, host))
            _check_path(session, sandbox.log_directory, "the log directory")
        action.reserve(Share.CONTAINERS)
        action.reserve(Share.VOLUMES, session.authorize_volumes(resolved))
        return session.bounds(log_of(body, resolved), own, "", action.reserve_container)

    return authorize


def _check_path(session: Session, path: str, description: str) -> None:
    """Check a path that the engine follows as root for a caller that is not root's equal.

    :raises InvalidRequest: when another user could make it lead elsewhere.
    """
    if path and not session.is_admin:
        trusted_file.check_path(path, description)


def pods_api(api: EngineApi) -> PodsApi:
    """Return the pods as the caller of a connection may use them."""
    return PodsApi(api.engine, api.session)


class PodsApi:
    """Pods and their containers may be changed by their owner, as every container."""

    def __init__(self, engine: Engine, session: Session) -> None:
        self._service = engine.service(pods)
        self._session = session

    handler_names = use_case(Pods.handler_names, Right.READ)
    runtime_handlers = use_case(Pods.runtime_handlers, Right.READ)
    systemd_cgroups = use_case(Pods.systemd_cgroups, Right.READ)
    network_state = use_case(Pods.network_state, Right.READ)

    def require_host_file(self, path: str, description: str) -> None:
        """Check that the caller may have a file of the host read as root; a refusal is logged.

        :raises NotAuthorized: when it may not.
        :raises InvalidRequest: when another user could make the path lead elsewhere.
        """
        if self._session.is_admin:
            return
        with self._session.begin("host file", path) as action:
            privilege = Privilege(Relaxation.HOST_MOUNT, path, writable=False)
            action.authorize((privilege,))
            _check_path(self._session, path, description)

    async def run(self, request: PodSandboxRequest) -> str:
        with self._session.begin("pod run", request.metadata.name) as action:
            action.pod = request.metadata
            container = await self._service.run(
                request,
                owner=self._session.owner,
                authorize=pod_authorization(self._session, action, request),
            )
            action.describe(container)
            action.seal = request_seal(container.record)
            return container.id

    async def update(
        self, ref: str, resources: PodLimits | None, overhead: PodLimits | None
    ) -> None:
        with self._session.begin("pod update", ref) as action:
            action.require_control(self._service.sandbox(ref).id)
            await self._service.update(ref, resources, overhead)

    async def stop(self, ref: str) -> None:
        with self._session.begin("pod stop", ref, revokes=True) as action:
            if self._service.has_sandbox(ref):
                action.require_remove(ref)
                await self._service.stop(ref)

    async def remove(self, ref: str) -> None:
        with self._session.begin("pod remove", ref, revokes=True) as action:
            if self._service.has_sandbox(ref):
                action.require_remove(ref)
                await self._service.remove(ref)

    def sandbox(self, ref: str) -> ContainerRecord:
        self._session.require_container_read(self._service.sandbox(ref).id)
        return self._service.sandbox(ref).record

    def sandboxes(self) -> list[ContainerRecord]:
        self._session.require_read()
        return [c.record for c in self._service.sandboxes() if self._listed(c)]

    def _listed(self, container: Container) -> bool:
        """Return whether a list has a container: a pod that is received is one at its commit."""
        migration = container.record.migration
        if migration is not None and migration.phase is MigrationPhase.INCOMING:
            return False
        return self._readable(container)

    def _readable(self, container: Container) -> bool:
        from jaula.engine.authz.authorization_policy import ContainerAccess

        return self._session.can_access(container, ContainerAccess.READ)

    async def create_container(self, request: PodContainerRequest) -> str:
        with self._session.begin(
            "container create", request.name, image=request.body.image
        ) as action:
            sandbox = self._session.require_control(self._service.sandbox(request.sandbox).id)
            action.pod = self._session.services.container_store.pod_of(sandbox.record)
            container = await self._service.create_container(
                request,
                owner=self._session.owner,
                authorize=pod_authorization(self._session, action, None),
            )
            action.describe(container)
            action.seal = request_seal(container.record)
            return container.id

    async def start_container(self, ref: str) -> None:
        with self._session.begin("container start", ref) as action:
            action.authorize_start(self._service.container(ref).id)
            await self._service.start_container(ref)

    async def stop_container(self, ref: str, seconds: int) -> None:
        with self._session.begin("container stop", ref, revokes=True) as action:
            if self._service.has_container(ref):
                action.require_remove(ref)
                await self._service.stop_container(ref, seconds)

    async def reopen_log(self, ref: str) -> None:
        with self._session.begin("container reopen log", ref) as action:
            action.require_control(self._service.container(ref).id)
            await self._service.reopen_log(ref)

    async def connect(self, ref: str, port: int) -> socket.socket:
        with self._session.begin(
            "pod port-forward", ref, argv=(str(port),), repeated=True
        ) as action:
            action.require_enter(self._service.sandbox(ref).id)
            return await self._service.connect(ref, port)

    async def usage(self, ref: str) -> ContainerUsage:
        container = self._service.container(ref)
        self._session.require_container_read(container.id)
        return (await self._service.usages([container]))[0]

    async def usages(self, refs: Sequence[str]) -> list[ContainerUsage]:
        """Skip containers that were removed meanwhile."""
        self._session.require_read()
        return await self._service.usages(self._present(self._service.container, refs))

    async def sandbox_usage(self, ref: str) -> SandboxUsage:
        sandbox = self._service.sandbox(ref)
        self._session.require_container_read(sandbox.id)
        return (await self._service.sandbox_usages([sandbox]))[0]

    async def sandbox_usages(self, refs: Sequence[str]) -> list[SandboxUsage]:
        """Skip pods that were removed meanwhile."""
        self._session.require_read()
        return await self._service.sandbox_usages(self._present(self._service.sandbox, refs))

    async def samples(self, refs: Sequence[str]) -> list[SandboxSample]:
        """Skip pods that were removed meanwhile."""
        self._session.require_read()
        return await self._service.samples(self._present(self._service.sandbox, refs))

    def _present(self, find: Callable[[str], Container], refs: Sequence[str]) -> list[Container]:
        found = []
        for ref in refs:
            try:
                container = find(ref)
            except NotFound:
                continue
            if self._readable(container):
                found.append(container)
        return found

    async def remove_container(self, ref: str) -> None:
        with self._session.begin("container remove", ref, revokes=True) as action:
            if self._service.has_container(ref):
                action.require_remove(ref)
                await self._service.remove_container(ref)

    def container(self, ref: str) -> ContainerRecord:
        self._session.require_container_read(self._service.container(ref).id)
        return self._service.container(ref).record

    def containers(self) -> list[ContainerRecord]:
        self._session.require_read()
        return [c.record for c in self._service.containers() if self._listed(c)]

    def members(self, sandbox_id: str) -> list[ContainerRecord]:
        self._session.require_read()
        return [c.record for c in self._service.members(sandbox_id) if self._readable(c)]

    async def exec_sync(
        self, ref: str, command: tuple[str, ...], seconds: float | None
    ) -> ExecResult:
        with self._session.begin("exec", ref, argv=command, repeated=True) as action:
            action.require_enter(self._service.container(ref).id)
            action.authorize(relaxations.of_exec(ExecCreate(cmd=command)))
            return await self._service.exec_sync(ref, command, seconds)

    async def checkpoint(self, ref: str, location: str, seconds: float | None) -> None:
        """Write an archive at a path of the host, as root."""
        with self._session.begin("checkpoint create", ref, argv=(location,)) as action:
            action.require_enter(self._service.container(ref).id)
            if not self._session.is_admin:
                action.authorize((Privilege(Relaxation.HOST_MOUNT, location, writable=True),))
                _check_path(self._session, location, "the location of the checkpoint")
            await self._service.checkpoint(ref, location, seconds)

    def request_exec(self, ref: str, command: tuple[str, ...]) -> str:
        """Check an exec before it has a URL; return the id of the container."""
        with self._session.begin("exec request", ref, argv=command) as action:
            container = action.require_enter(self._service.container(ref).id)
            action.authorize(relaxations.of_exec(ExecCreate(cmd=command)))
            return container.id

    def request_attach(self, ref: str) -> ContainerRecord:
        """Check an attach before it has a URL; return the record of the container."""
        with self._session.begin("attach request", ref) as action:
            return action.require_enter(self._service.container(ref).id).record

    def request_port_forward(self, ref: str, ports: tuple[int, ...]) -> str:
        """Check a port-forward before it has a URL; return the id of the sandbox."""
        with self._session.begin(
            "port-forward request", ref, argv=tuple(map(str, ports))
        ) as action:
            return action.require_enter(self._service.sandbox(ref).id).id

    def update_runtime_config(self, pod_cidr: str) -> None:
        """Record the addresses of pods that the kubelet announces; CNI plugins have their own."""
        with self._session.begin("runtime update", pod_cidr) as action:
            action.require_run()
