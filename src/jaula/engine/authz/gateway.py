"""The way in: each connection gets a view of the engine, for the caller that the kernel names.

The API serves views instead of the engine itself, so there is no route around them.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING
from weakref import WeakSet

from jaula.engine.authz import caller as callers
from jaula.engine.authz.api.builds import BuildsApi
from jaula.engine.authz.api.containers import ContainersApi
from jaula.engine.authz.api.execs import ExecsApi
from jaula.engine.authz.api.fsck import FsckApi
from jaula.engine.authz.api.images import ImagesApi
from jaula.engine.authz.api.networks import NetworksApi
from jaula.engine.authz.api.registry import RegistryApi
from jaula.engine.authz.api.secrets import SecretsApi
from jaula.engine.authz.api.system import SystemApi
from jaula.engine.authz.api.trust import TrustApi
from jaula.engine.authz.api.volumes import VolumesApi
from jaula.engine.authz.audited_action import DONE
from jaula.engine.authz.session import Session
from jaula.state.audit_log import AuditEntry

if TYPE_CHECKING:
    from jaula.engine.authz.policy import Policy
    from jaula.engine.engine import Engine
    from jaula.spec.api_params import Origin
    from jaula.state.audit_log import AuditLog

log = logging.getLogger("jaula.engine")
_SYNC_AFTER = 1.0  # seconds that a line of the audit log may be in memory only


class EngineApi:
    """What the API serves to one connection."""

    def __init__(self, engine: Engine, visitor: Session) -> None:
        self.containers = ContainersApi(engine, visitor)
        self.execs = ExecsApi(engine, visitor)
        self.images = ImagesApi(engine, visitor)
        self.builds = BuildsApi(engine, visitor)
        self.distribution = RegistryApi(engine, visitor)
        self.trust = TrustApi(engine, visitor)
        self.volumes = VolumesApi(engine, visitor)
        self.secrets = SecretsApi(engine.secrets, visitor)
        self.configs = SecretsApi(engine.configs, visitor)
        self.networks = NetworksApi(engine, visitor)
        self.system = SystemApi(engine, visitor)
        self.upkeep = FsckApi(engine, visitor)


class Gateway:
    """Lets callers in, and keeps the audit log."""

    def __init__(self, engine: Engine, policy: Policy, journal: AuditLog) -> None:
        self._engine = engine
        self._policy = policy
        self._journal = journal
        self._syncing: set[asyncio.Task[None]] = set()
        self._visitors: WeakSet[Session] = WeakSet()
        journal.on_dirty = self._sync_soon
        self._note("engine start")

    def _note(self, action: str) -> None:
        self._journal.append(
            AuditEntry(
                uid=os.getuid(),
                pid=os.getpid(),
                command="jaula",
                action=action,
                object=self._engine.parts.identity,
                name=self._policy.source,
                status=DONE,
            )
        )

    def follow(self, policy: Policy) -> None:
        """Another policy from now on, also for those who are inside."""
        self._policy = policy
        for visitor in self._visitors:
            visitor.rule = policy.rule_of(visitor.caller)
        self._note("engine reload")

    def enter(self, peer: Origin | None) -> EngineApi:
        """The engine for one connection."""
        caller = callers.of(peer)
        rule = self._policy.rule_of(caller)
        visitor = Session(self._engine, caller, rule, self._journal, peer)
        self._visitors.add(visitor)
        return EngineApi(self._engine, visitor)

    def _sync_soon(self) -> None:
        task = asyncio.get_running_loop().create_task(self._sync())
        self._syncing.add(task)
        task.add_done_callback(self._syncing.discard)

    async def _sync(self) -> None:
        await asyncio.sleep(_SYNC_AFTER)
        try:
            await asyncio.to_thread(self._journal.syncer())
        except OSError as error:
            log.error("the audit log cannot be forced to the disk: %s", error)

    async def close(self) -> None:
        """Write down what is left; nothing is served any more."""
        for task in tuple(self._syncing):
            task.cancel()
        self._journal.close()
