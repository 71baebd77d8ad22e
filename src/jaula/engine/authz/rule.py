"""What somebody may ask for, and whether one request is within it. Pure."""

from __future__ import annotations

from enum import IntEnum

import msgspec

from jaula.engine.authz.caller import Caller
from jaula.engine.relaxations import Privilege, Relaxation
from jaula.errors import NotAuthorized


class AccessLevel(IntEnum):
    """How much of the engine somebody has; each includes the ones before."""

    NONE = 0  # ask for the version
    READ = 1  # look
    RUN = 2  # make and use containers, without more than the grants say
    ALL = 3  # everything, as root


class ContainerAccess(IntEnum):
    """What may be done with containers of other owners."""

    LIST = 0  # see that they are there, and how they are configured, but not their environment
    READ = 1  # read their output, files and whole configuration
    CONTROL = 2  # enter, change, stop and remove them


class HostMount(msgspec.Struct, frozen=True):
    """A directory of the host that may be mounted, with all below it."""

    prefix: str
    writable: bool = True

    def covers(self, path: str, *, writable: bool) -> bool:
        if writable and not self.writable:
            return False
        return path == self.prefix or path.startswith(self.prefix.rstrip("/") + "/")

    def __str__(self) -> str:
        return self.prefix if self.writable else f"{self.prefix}:ro"


class PolicyRule(msgspec.Struct, frozen=True, kw_only=True):
    """The grants of one user, group or certificate. Everything is refused that is not named.

    The sets hold values of :class:`~jaula.engine.relaxations.Privilege`; ``*`` stands for any.
    ``name`` says in refusals which rule it is.
    """

    name: str
    access: AccessLevel = AccessLevel.NONE
    others: ContainerAccess = ContainerAccess.LIST
    images: bool = True  # load, pull, name and remove images
    volumes: bool = True  # make and remove volumes
    host_mounts: tuple[HostMount, ...] = ()
    host_namespaces: frozenset[str] = frozenset()
    devices: frozenset[str] = frozenset()
    capabilities: frozenset[str] = frozenset()
    security_options: frozenset[str] = frozenset()
    cgroup_parents: frozenset[str] = frozenset()
    annotations: frozenset[str] = frozenset()
    network_options: frozenset[str] = frozenset()
    privileged: bool = False
    oom_score: bool = False

    def allows(self, ask: Privilege) -> bool:
        """Whether one relaxation is granted. Another's container is not a matter of grants."""
        if self.access is AccessLevel.ALL:
            return True
        match ask.kind:
            case Relaxation.HOST_MOUNT:
                return not ask.foreign and any(
                    mount.covers(ask.value, writable=ask.writable) for mount in self.host_mounts
                )
            case Relaxation.PRIVILEGED:
                return self.privileged
            case Relaxation.OOM_SCORE:
                return self.oom_score
            case Relaxation.OTHER_CONTAINERS:
                return self.others is ContainerAccess.CONTROL
        granted = _granted(self, ask.kind)
        return "*" in granted or ask.value in granted

    @property
    def prefixes(self) -> tuple[str, ...]:
        """Host directories that bound the mounts of this rule's people; empty for no bounds.

        Below them no symbolic link is followed, and files are reached with the rights of the person
        alone, not with those of root.
        """
        return () if self.access is AccessLevel.ALL else tuple(m.prefix for m in self.host_mounts)


def union(rules: tuple[PolicyRule, ...]) -> PolicyRule:
    """The rule of somebody who is in several groups: what any of them grants."""
    if len(rules) == 1:
        return rules[0]
    sets = {field: frozenset().union(*(getattr(rule, field) for rule in rules)) for field in _SETS}
    return PolicyRule(
        name=" + ".join(rule.name for rule in rules),
        access=max(rule.access for rule in rules),
        others=max(rule.others for rule in rules),
        images=any(rule.images for rule in rules),
        volumes=any(rule.volumes for rule in rules),
        host_mounts=tuple(mount for rule in rules for mount in rule.host_mounts),
        privileged=any(rule.privileged for rule in rules),
        oom_score=any(rule.oom_score for rule in rules),
        **sets,
    )


def judge(caller: Caller, rule: PolicyRule, asks: tuple[Privilege, ...]) -> None:
    """Raise ``NotAuthorized`` for the first thing that the rule does not grant."""
    for ask in asks:
        if ask.kind is not Relaxation.OTHER_CONTAINERS and not rule.allows(ask):
            raise refusal(caller, rule, f"ask for {ask}", _advice(ask, rule))


def refusal(caller: Caller, rule: PolicyRule, what: str, advice: str) -> NotAuthorized:
    """One line: who, what, which rule, what to do."""
    return NotAuthorized(
        f"{caller} may not {what}: rule {rule.name} does not allow it", hint=advice
    )


_SETS = (
    "host_namespaces",
    "devices",
    "capabilities",
    "security_options",
    "cgroup_parents",
    "annotations",
    "network_options",
)
_FIELDS = {
    Relaxation.HOST_NAMESPACE: "host_namespaces",
    Relaxation.DEVICE: "devices",
    Relaxation.CAPABILITY: "capabilities",
    Relaxation.SECURITY_OPTION: "security_options",
    Relaxation.CGROUP_PARENT: "cgroup_parents",
    Relaxation.ANNOTATION: "annotations",
    Relaxation.NETWORK_OPTION: "network_options",
}


def _granted(rule: PolicyRule, kind: Relaxation) -> frozenset[str]:
    found: frozenset[str] = getattr(rule, _FIELDS[kind])
    return found


def _advice(ask: Privilege, rule: PolicyRule) -> str:
    """What the person can do instead."""
    if ask.kind is Relaxation.HOST_MOUNT:
        if ask.foreign:
            return "mounts of the host need the engine's own runtime"
        if rule.host_mounts:
            return f"allowed are {', '.join(map(str, rule.host_mounts))}; or use a volume"
        return "use a volume, or ask the operator for a host-mounts grant"
    granted = _granted(rule, ask.kind) if ask.kind in _FIELDS else frozenset()
    if granted:
        return f"allowed are {', '.join(sorted(granted))}"
    return f"leave it out, or ask the operator to grant {ask.kind}"
