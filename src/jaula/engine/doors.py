"""The way in: each connection gets a view of the engine, for the caller that the kernel names.

The API serves views instead of the engine itself, so there is no route around them.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING
from weakref import WeakSet

from jaula.engine.authority import caller as callers
from jaula.engine.deed import DONE
from jaula.engine.views.builds import Builds
from jaula.engine.views.containers import Containers
from jaula.engine.views.distribution import Distribution
from jaula.engine.views.execs import Execs
from jaula.engine.views.images import Images
from jaula.engine.views.networks import Networks
from jaula.engine.views.secrets import Secrets
from jaula.engine.views.system import System
from jaula.engine.views.trust import Trust
from jaula.engine.views.upkeep import Upkeep
from jaula.engine.views.volumes import Volumes
from jaula.engine.visitor import Visitor
from jaula.state.audit_entry import AuditEntry

if TYPE_CHECKING:
    from jaula.engine.authority.policy import Policy
    from jaula.engine.engine import Engine
    from jaula.spec.api_params import Origin
    from jaula.state.audit_log import AuditLog

log = logging.getLogger("jaula.engine")
_SYNC_AFTER = 1.0  # seconds that a line of the audit log may be in memory only


class View:
    """What the API serves to one connection."""

    def __init__(self, engine: Engine, visitor: Visitor) -> None:
        self.containers = Containers(engine, visitor)
        self.execs = Execs(engine, visitor)
        self.images = Images(engine, visitor)
        self.builds = Builds(engine, visitor)
        self.distribution = Distribution(engine, visitor)
        self.trust = Trust(engine, visitor)
        self.volumes = Volumes(engine, visitor)
        self.secrets = Secrets(engine.secrets, visitor)
        self.configs = Secrets(engine.configs, visitor)
        self.networks = Networks(engine, visitor)
        self.system = System(engine, visitor)
        self.upkeep = Upkeep(engine, visitor)


class Doors:
    """Lets callers in, and keeps the audit log."""

    def __init__(self, engine: Engine, policy: Policy, journal: AuditLog) -> None:
        self._engine = engine
        self._policy = policy
        self._journal = journal
        self._syncing: set[asyncio.Task[None]] = set()
        self._visitors: WeakSet[Visitor] = WeakSet()
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

    def enter(self, peer: Origin | None) -> View:
        """The engine for one connection."""
        caller = callers.of(peer)
        rule = self._policy.rule_of(caller)
        visitor = Visitor(self._engine, caller, rule, self._journal, peer)
        self._visitors.add(visitor)
        return View(self._engine, visitor)

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
