"""One caller in the engine: what it may see and do. What it does is a :class:`Deed`."""

from __future__ import annotations

import pwd
from typing import TYPE_CHECKING, Any

import msgspec

from jaula.engine.authority import asks as asking
from jaula.engine.authority import rule as rules
from jaula.engine.authority.asks import Kind
from jaula.engine.authority.rule import Access, Others
from jaula.engine.deed import Deed
from jaula.engine.secret_store import Kind as Secret
from jaula.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from jaula.engine.authority.asks import Ask
    from jaula.engine.authority.caller import Caller
    from jaula.engine.authority.rule import Rule
    from jaula.engine.container import Container
    from jaula.engine.engine import Engine
    from jaula.engine.parts import Parts
    from jaula.errors import NotAuthorized
    from jaula.spec.api import ContainerCreate, HostConfig
    from jaula.spec.api_params import Origin
    from jaula.state.audit_log import AuditLog

_OPERATOR = "ask the operator, whose policy decides it"


class Visitor:
    """A caller, its rule, and where its deeds are noted."""

    def __init__(
        self, engine: Engine, caller: Caller, rule: Rule, journal: AuditLog, peer: Origin | None
    ) -> None:
        self._engine = engine
        self.caller = caller
        self.rule = rule
        self.journal = journal
        self.peer = peer

    @property
    def parts(self) -> Parts:
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
        if self.rule.access < Access.READ:
            raise self.refusal("use this engine")

    def has(self, container: Container, level: Others) -> bool:
        """Whether a container is the caller's, or its rule reaches to others' like that."""
        return self.reaches(container.record.owner, level)

    def reaches(self, owner: str, level: Others) -> bool:
        """Whether something of that owner is the caller's, or within its reach."""
        return (
            owner == self.caller.key or self.rule.access is Access.ALL or self.rule.others >= level
        )

    def read(self, ref: str) -> None:
        """Raise unless the caller may read what is in a container."""
        self.look()
        self._reach(self._engine.containers.find(ref), Others.READ, "read")

    def control(self, ref: str) -> Container:
        """The container; raise unless the caller may do with it what it likes."""
        self.run()
        container = self._engine.containers.find(ref)
        self._reach(container, Others.CONTROL, "control")
        return container

    def _reach(self, container: Container, level: Others, verb: str) -> None:
        if not self.has(container, level):
            raise self.refusal(
                f"{verb} container {container.name} of {_whose(container.record.owner)}",
                f'that owner may, or the operator grants others = "{level.name.lower()}"',
            )

    async def own_events(self, events: AsyncIterator[dict[str, Any]]) -> AsyncIterator[Any]:
        """Events, without those of containers that the caller may not read."""
        mine: set[str] = set()
        everything = self.rule.access is Access.ALL or self.rule.others >= Others.READ
        try:
            async for event in events:
                if everything or event.get("Type") != "container":
                    yield event
                    continue
                about = event.get("Actor", {}).get("ID", "")
                container = self._engine.parts.registry.get(about)
                if container is not None and self.has(container, Others.READ):
                    mine.add(about)
                if about in mine:
                    yield event
        finally:
            await events.aclose()  # type: ignore[attr-defined]

    # -- doing -----------------------------------------------------------------------------------

    def run(self) -> None:
        """Raise unless the caller may change anything at all."""
        if self.rule.access < Access.RUN:
            raise self.refusal("change anything" if self.rule.access else "use this engine")

    def judge(self, asks: tuple[Ask, ...]) -> None:
        """Raise for the first relaxation that is not granted."""
        self.run()
        for ask in asks:
            if ask.kind is not Kind.OTHERS:
                if not self.rule.allows(ask):
                    rules.judge(self._named(), self.rule, (ask,))
                if ask.kind is Kind.HOST_MOUNT and not self._has_rights_on_disk():
                    advice = "mounts need a user of this host; use a volume"
                    raise self.refusal(f"ask for {ask}", advice)
                continue
            try:
                container = self._engine.containers.find(ask.value)
            except NotFound:
                continue  # the use case says so in its own words
            self._reach(container, Others.CONTROL, "share with")

    def own_secret(self, kind: Secret, ref: str) -> None:
        """Raise unless the caller may use and change a secret or config. Unknown ones are none."""
        try:
            record = self.parts.secrets.find(kind, ref)
        except NotFound:
            return  # the use case says so in its own words
        if not self.reaches(record.owner, Others.CONTROL):
            raise self.refusal(
                f"use {kind} {record.name} of {_whose(record.owner)}",
                'that owner may, or the operator grants others = "control"',
            )

    def given(self, host: HostConfig) -> None:
        """Raise unless the caller may use all secrets and configs that a container is to have."""
        for kind, references in ((Secret.SECRET, host.secrets), (Secret.CONFIG, host.configs)):
            for reference in references:
                self.own_secret(kind, reference.source)

    @property
    def mighty(self) -> bool:
        """Whether the caller has root's power over the host anyway."""
        return self.rule.access is Access.ALL

    def _has_rights_on_disk(self) -> bool:
        return self.caller.uid is not None or self.mighty

    def inherited(self, body: ContainerCreate) -> tuple[Ask, ...]:
        """Mounts of the host that ``--volumes-from`` brings along."""
        found: list[Ask] = []
        for text in body.host_config.volumes_from:
            ref, _, mode = text.partition(":")
            try:
                record = self._engine.containers.find(ref).record
            except NotFound:
                continue  # the use case says so in its own words
            runtime = body.host_config.runtime
            found += asking.of_mounts(record.mounts, runtime, read_only=mode == "ro")
        return tuple(found)

    def prefixes(self, asks: tuple[Ask, ...]) -> tuple[str, ...]:
        """Where mounts may follow no links, if any host directory was asked for."""
        return self.rule.prefixes if any(ask.kind is Kind.HOST_MOUNT for ask in asks) else ()

    def deed(
        self,
        action: str,
        about: str,
        *,
        argv: tuple[str, ...] = (),
        image: str = "",
        lessens: bool = False,
    ) -> Deed:
        """Begin a request that changes something; ``lessens``: it only takes away."""
        return Deed(self, action, about, argv, image, lessens)


def _whose(owner: str) -> str:
    return f"uid {owner}" if owner.isdigit() else owner
