"""The entry of each connection: identify the caller, and give it an authorized engine.

The kernel or a certificate identifies the caller. The API serves :class:`EngineApi` instead of the
engine itself, so no route bypasses authorization.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakSet

from jaula import feature
from jaula.engine.authz.authorization_policy import caller_of
from jaula.engine.authz.caller_session import DONE, Session
from jaula.state.audit_log import AuditEntry
from jaula.state.audit_trail import WINDOW
from jaula.tasks import BackgroundTasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.engine.authz.api.access import AccessApi
    from jaula.engine.authz.api.container_rights import ContainersApi
    from jaula.engine.authz.api.exec_rights import ExecsApi
    from jaula.engine.authz.api.fsck_rights import FsckApi
    from jaula.engine.authz.api.image_rights import ImagesApi
    from jaula.engine.authz.api.network_rights import NetworksApi
    from jaula.engine.authz.api.registry_rights import RegistryApi
    from jaula.engine.authz.api.system_rights import SystemApi
    from jaula.engine.authz.api.volume_rights import VolumesApi
    from jaula.engine.authz.authorization_policy import Policy
    from jaula.engine.authz.head_log import HeadLog
    from jaula.engine.authz.request_ceilings import Share
    from jaula.engine.engine import Engine
    from jaula.spec.api_params import Origin
    from jaula.state.audit_trail import AuditTrail
    from jaula.state.container_records import ContainerRecord

log = logging.getLogger("jaula.engine")
Service = TypeVar("Service")
_SYNC_DELAY = 1.0  # seconds until an entry of the audit log is forced to disk


class EngineApi:
    """The engine as one connection sees it.

    A request needs one or two services. Each is created at its first use on the connection, and its
    module is imported at the first use in the engine.
    """

    def __init__(self, engine: Engine, session: Session, gateway: Gateway | None = None) -> None:
        self._engine = engine
        self._session = session
        self._gateway = gateway
        self._of_features = feature.ServiceCache()

    @property
    def engine(self) -> Engine:
        """The engine itself, for the authorised services of features."""
        return self._engine

    @property
    def session(self) -> Session:
        """The caller with its rights, for the authorised services of features."""
        return self._session

    def service(self, make: Callable[[EngineApi], Service]) -> Service:
        """Return an authorised service of a feature, by the function that makes it."""
        return self._of_features.service(self, make)

    def act_for(self, user: str) -> EngineApi:
        """Return the engine as a user of the web view has it. ``user`` is a JSON document.

        :raises NotAuthorized: when the caller may not speak for that user.
        :raises InvalidRequest: when the document is not valid.
        """
        assert self._gateway is not None
        hooks = self._engine.services.hooks
        return self._gateway.enter(hooks.user_named(self._session, user))

    async def sync(self) -> None:
        """Wait until everything recorded so far is on the disk.

        :raises Unavailable: when the disk does not take it.
        """
        await self._engine.services.group_commit.wait()

    @cached_property
    def access(self) -> AccessApi:
        from jaula.engine.authz.api.access import AccessApi

        return AccessApi(self._session)

    @cached_property
    def containers(self) -> ContainersApi:
        from jaula.engine.authz.api.container_rights import ContainersApi

        return ContainersApi(self._engine, self._session)

    @cached_property
    def execs(self) -> ExecsApi:
        from jaula.engine.authz.api.exec_rights import ExecsApi

        return ExecsApi(self._engine, self._session)

    @cached_property
    def images(self) -> ImagesApi:
        from jaula.engine.authz.api.image_rights import ImagesApi

        return ImagesApi(self._engine, self._session)

    @cached_property
    def distribution(self) -> RegistryApi:
        from jaula.engine.authz.api.registry_rights import RegistryApi

        return RegistryApi(self._engine, self._session)

    @cached_property
    def volumes(self) -> VolumesApi:
        from jaula.engine.authz.api.volume_rights import VolumesApi

        return VolumesApi(self._engine, self._session)

    @cached_property
    def networks(self) -> NetworksApi:
        from jaula.engine.authz.api.network_rights import NetworksApi

        return NetworksApi(self._engine, self._session)

    @cached_property
    def system(self) -> SystemApi:
        from jaula.engine.authz.api.system_rights import SystemApi

        return SystemApi(self._engine, self._session)

    @cached_property
    def fsck(self) -> FsckApi:
        from jaula.engine.authz.api.fsck_rights import FsckApi

        return FsckApi(self._engine, self._session)


class Gateway:
    """Makes a session for each connection, and writes the audit log to disk."""

    def __init__(
        self,
        engine: Engine,
        policy: Policy,
        audit_trail: AuditTrail,
        head_log: HeadLog | None = None,
        head_interval: float = 300.0,  # seconds
    ) -> None:
        self._engine = engine
        self._policy = policy
        self._audit_trail = audit_trail
        self._flushing = False
        self._syncing = BackgroundTasks(log, "audit log")
        self._sessions: WeakSet[Session] = WeakSet()
        self._reserved: Counter[tuple[Share, str]] = Counter()  # objects that are being created
        audit_trail.set_on_dirty(self._sync_soon)
        audit_trail.on_counted = self._flush_soon
        self._head_log = head_log
        self._head_interval = head_interval
        engine.containers.starter.on_spec = self._record_spec
        self._record("engine start")

    def _record(self, action: str) -> None:
        self._audit_trail.append(
            AuditEntry(
                uid=os.getuid(),
                pid=os.getpid(),
                command="jaula",
                action=action,
                object=self._engine.services.identity,
                name=self._policy.source,
                status=DONE,
            )
        )

    def _record_spec(self, record: ContainerRecord, seal: str) -> None:
        """Log the seal of a spec. A restart by policy has no caller, so the engine logs it."""
        pod = self._engine.services.container_store.pod_of(record)
        self._audit_trail.append_own(
            AuditEntry(
                uid=os.getuid(),
                pid=os.getpid(),
                command="jaula",
                action="container spec",
                object=record.id,
                name=record.name,
                pod=f"{pod.namespace}/{pod.name}" if pod else "",
                pod_uid=pod.uid if pod else "",
                status=DONE,
                spec_seal=seal,
            ),
            record.owner,
        )

    def follow(self, policy: Policy) -> None:
        """Apply another policy, to open connections too."""
        self._policy = policy
        for session in self._sessions:
            session.follow(policy)
        self._record("engine reload")

    def enter(self, peer: Origin | None) -> EngineApi:
        """Return the engine for one connection."""
        session = Session(
            self._engine, caller_of(peer), self._policy, self._audit_trail, peer, self._reserved
        )
        self._sessions.add(session)
        return EngineApi(self._engine, session, self)

    def _sync_soon(self) -> None:
        self._syncing.spawn(self._sync())

    async def _sync(self) -> None:
        await asyncio.sleep(_SYNC_DELAY)
        try:
            await asyncio.to_thread(self._audit_trail.syncer())
        except OSError as error:
            log.error("the audit log cannot be written to disk: %s", error)

    def start(self) -> None:
        """Begin to send the heads of the audit logs; the event loop must run."""
        if self._head_log is not None:
            self._syncing.spawn(self._send_heads(self._head_log))

    async def _send_heads(self, head_log: HeadLog) -> None:
        while True:
            await asyncio.to_thread(head_log.send, self._audit_trail.heads)
            await asyncio.sleep(self._head_interval)

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._syncing.spawn(self._flush())

    async def _flush(self) -> None:
        """Write the counts of refused requests when their minute is over."""
        try:
            left = True
            while left:
                await asyncio.sleep(WINDOW)
                left = self._audit_trail.flush()
        finally:
            self._flushing = False

    async def close(self) -> None:
        """Write the rest of the audit log; call it when nothing is served any more."""
        self._syncing.cancel()
        self._audit_trail.close()
        if self._head_log is not None:
            await asyncio.to_thread(self._head_log.send, self._audit_trail.heads)
