"""One caller in the engine: what it may see and do. What it does is a :class:`AuditedAction`."""

from __future__ import annotations

import pwd
from typing import TYPE_CHECKING, Any

import msgspec

from jaula.engine import relaxations as asking
from jaula.engine.authz import rule as rules
from jaula.engine.authz.audited_action import AuditedAction
from jaula.engine.authz.rule import AccessLevel, ContainerAccess
from jaula.engine.relaxations import Relaxation
from jaula.engine.secrets.store import SecretKind as Secret
from jaula.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jaula.engine.authz.caller import Caller
    from jaula.engine.authz.rule import PolicyRule
    from jaula.engine.engine import Engine
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services
    from jaula.engine.relaxations import Privilege
    from jaula.errors import NotAuthorized
    from jaula.spec.api_params import Origin
    from jaula.state.audit_log import AuditLog
    from jaula.state.records import ResolvedRequest

_OPERATOR = "ask the operator, whose policy decides it"


class Session:
    """A caller, its rule, and where its deeds are noted."""

    def __init__(
        self,
        engine: Engine,
        caller: Caller,
        rule: PolicyRule,
        journal: AuditLog,
        peer: Origin | None,
    ) -> None:
        self._engine = engine
        self.caller = caller
        self.rule = rule
        self.journal = journal
        self.peer = peer

    @property
    def parts(self) -> Services:
        """What the decisions depend on."""
        return self._engine.parts

    @property
    def owner(self) -> tuple[str, int]:
        """Whose a container is that the caller makes, with its group."""
        return self.caller.key, self.caller.gid

    def refusal(self, what: str, advice: str = _OPERATOR) -> NotAuthorized:
        """The error for something that the rule does not allow."""
        return rules.refusal(self._named(), self.rule, what, advice)

    def _named(self) -> Caller:
        if self.caller.uid is None:
            return self.caller
        try:
            name = pwd.getpwuid(self.caller.uid).pw_name
        except KeyError:
            return self.caller
        return msgspec.structs.replace(self.caller, name=name)

    # -- seeing ----------------------------------------------------------------------------------

    def look(self) -> None:
        """Raise ``NotAuthorized`` unless the caller may look around."""
        if self.rule.access < AccessLevel.READ:
            raise self.refusal("use this engine")

    def has(self, container: Container, level: ContainerAccess) -> bool:
        """Whether a container is the caller's, or its rule reaches to others' like that."""
        return self.reaches(container.record.owner, level)

    def reaches(self, owner: str, level: ContainerAccess) -> bool:
        """Whether something of that owner is the caller's, or within its reach."""
        return (
            owner == self.caller.key
            or self.rule.access is AccessLevel.ALL
            or self.rule.others >= level
        )

    def read(self, ref: str) -> None:
        """Raise unless the caller may read what is in a container."""
        self.look()
        self._reach(self._engine.containers.find(ref), ContainerAccess.READ, "read")

    def control(self, ref: str) -> Container:
        """The container; raise unless the caller may do with it what it likes."""
        self.run()
        container = self._engine.containers.find(ref)
        self._reach(container, ContainerAccess.CONTROL, "control")
        return container

    def _reach(self, container: Container, level: ContainerAccess, verb: str) -> None:
        if not self.has(container, level):
            raise self.refusal(
                f"{verb} container {container.name} of {_whose(container.record.owner)}",
                f'that owner may, or the operator grants others = "{level.name.lower()}"',
            )

    async def own_events(self, events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[Any]:
        """Events, without those of containers that the caller may not read."""
        mine: set[str] = set()
        everything = self.rule.access is AccessLevel.ALL or self.rule.others >= ContainerAccess.READ
        try:
            async for event in events:
                if everything or event.get("Type") != "container":
                    yield event
                    continue
                about = event.get("Actor", {}).get("ID", "")
                container = self._engine.parts.registry.get(about)
                if container is not None and self.has(container, ContainerAccess.READ):
                    mine.add(about)
                if about in mine:
                    yield event
        finally:
            await events.aclose()  # type: ignore[attr-defined]

    # -- doing -----------------------------------------------------------------------------------

    def run(self) -> None:
        """Raise unless the caller may change anything at all."""
        if self.rule.access < AccessLevel.RUN:
            raise self.refusal("change anything" if self.rule.access else "use this engine")

    def judge(self, asks: tuple[Privilege, ...]) -> None:
        """Raise for the first relaxation that is not granted."""
        self.run()
        for ask in asks:
            if ask.kind is not Relaxation.OTHER_CONTAINERS:
                if not self.rule.allows(ask):
                    rules.judge(self._named(), self.rule, (ask,))
                if ask.kind is Relaxation.HOST_MOUNT and not self._has_rights_on_disk():
                    advice = "mounts need a user of this host; use a volume"
                    raise self.refusal(f"ask for {ask}", advice)
                continue
            try:
                container = self._engine.containers.find(ask.value)
            except NotFound:
                continue  # the use case says so in its own words
            self._reach(container, ContainerAccess.CONTROL, "share with")

    def own_secret(self, kind: Secret, ref: str) -> None:
        """Raise unless the caller may use and change a secret or config. Unknown ones are none."""
        try:
            record = self.parts.secrets.find(kind, ref)
        except NotFound:
            return  # the use case says so in its own words
        if not self.reaches(record.owner, ContainerAccess.CONTROL):
            raise self.refusal(
                f"use {kind} {record.name} of {_whose(record.owner)}",
                'that owner may, or the operator grants others = "control"',
            )

    def given(self, resolved: ResolvedRequest) -> None:
        """Raise unless the caller may use all secrets and configs that a container is to have."""
        for kind, references in (
            (Secret.SECRET, resolved.secrets),
            (Secret.CONFIG, resolved.configs),
        ):
            for reference in references:
                self.own_secret(kind, reference.source)

    @property
    def mighty(self) -> bool:
        """Whether the caller has root's power over the host anyway."""
        return self.rule.access is AccessLevel.ALL

    def _has_rights_on_disk(self) -> bool:
        return self.caller.uid is not None or self.mighty

    def inherited(self, resolved: ResolvedRequest) -> tuple[Privilege, ...]:
        """Return the mounts of the host that ``--volumes-from`` brings along."""
        asks: list[Privilege] = []
        for source in resolved.volumes_from:
            try:
                record = self._engine.containers.find(source.container).record
            except NotFound:
                continue  # the use case says so in its own words
            foreign, read_only = resolved.external_runtime, source.mode == "ro"
            asks += asking.of_mounts(record.mounts, foreign=foreign, read_only=read_only)
        return tuple(asks)

    def prefixes(self, asks: tuple[Privilege, ...]) -> tuple[str, ...]:
        """Where mounts may follow no links, if any host directory was asked for."""
        return self.rule.prefixes if any(ask.kind is Relaxation.HOST_MOUNT for ask in asks) else ()

    def deed(
        self,
        action: str,
        about: str,
        *,
        argv: tuple[str, ...] = (),
        image: str = "",
        lessens: bool = False,
    ) -> AuditedAction:
        """Begin a request that changes something; ``lessens``: it only takes away."""
        return AuditedAction(self, action, about, argv, image, lessens)


def _whose(owner: str) -> str:
    return f"uid {owner}" if owner.isdigit() else owner
