"""The authorization policy: the caller, the rule that applies to it, and the decision. Pure.

A caller is the process at the other end of a unix socket, the subject of a verified certificate, or
a container, which has an engine socket of its own.

If a user has a rule of its own, this rule alone applies. Otherwise the rules of all of the user's
groups are united, and if there are none, the default applies. Root (uid 0) may do everything unless
the policy has a rule for it.

The rule for a certificate is that of its fingerprint, else that of its name, else that of ``*``,
which stands for every verified certificate, else the default. For a client that comes over the
network without a certificate, only the rule for anonymous clients applies.

The rule for a container is that of the entry that was authorized at its creation. An entry is found
by the container's name, else by a label of its create request. A label of the image does not count:
the image would choose its own right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import IntEnum

import msgspec

from jaula.engine.authz import request_ceilings
from jaula.engine.authz.request_ceilings import DEFAULT_SHARES, Ceilings, Demand, Share
from jaula.engine.model.label_filters import has_label
from jaula.engine.relaxations import Privilege, Relaxation
from jaula.errors import NotAuthorized
from jaula.spec.api_params import ContainerPeer, Origin, Remote
from jaula.spec.quoted_string import quoted

ROOT = 0
ANONYMOUS = "nobody"
"""The owner in records for a client that neither the kernel nor a certificate identifies."""


# -- callers -----------------------------------------------------------------------------------


class Caller(msgspec.Struct, frozen=True):
    """One client. ``uid`` is None for a container and for a client that came over the network.

    ``groups`` are all of its group ids. ``name`` is the name of the user or container for people,
    empty if the host has none for the id. ``certificate`` is the common name of the certificate, or
    its fingerprint if it has no name; both are empty for a client without a certificate.
    ``container`` is the id of a container, and ``entry`` its entry in the policy.
    """

    uid: int | None = None
    gid: int = 0
    groups: frozenset[int] = frozenset()
    pid: int = 0
    name: str = ""
    certificate: str = ""
    fingerprint: str = ""
    container: str = ""
    entry: str = ""

    @property
    def key(self) -> str:
        """The owner of this caller's objects, in records."""
        if self.container:
            return f"container:{self.container}"
        if self.uid is not None:
            return str(self.uid)
        return f"certificate {self.certificate}" if self.certificate else ANONYMOUS

    def __str__(self) -> str:
        if self.container:
            return f"container {self.name or self.container[:12]}"
        if self.uid is None:
            if self.certificate:
                return f"certificate {self.certificate!r}"
            return "an unauthenticated client"
        return f"user {self.name} (uid {self.uid})" if self.name else f"uid {self.uid}"


def caller_of(peer: Origin | None) -> Caller:
    """Return the caller at the other end of a connection."""
    if peer is None:
        return Caller()
    if isinstance(peer, ContainerPeer):
        return Caller(pid=peer.pid, container=peer.container, entry=peer.entry)
    if isinstance(peer, Remote):
        return Caller(certificate=peer.name or peer.fingerprint, fingerprint=peer.fingerprint)
    groups = frozenset((peer.gid, *peer.groups))
    return Caller(uid=peer.uid, gid=peer.gid, groups=groups, pid=peer.pid)


# -- rules -------------------------------------------------------------------------------------


class AccessLevel(IntEnum):
    """How much of the engine a caller may use; each level includes those before it."""

    NONE = 0  # nothing: each connection is refused
    READ = 1  # list and inspect
    RUN = 2  # create and use containers, within the grants
    ALL = 3  # everything, as root


class ContainerAccess(IntEnum):
    """Rights of a caller over containers, networks and volumes of other owners."""

    LIST = 0  # list and inspect them, without the values of their environment
    READ = 1  # read their output, files and whole configuration
    CONTROL = 2  # enter, change, stop and remove them; use and remove networks and volumes


class HostMount(msgspec.Struct, frozen=True):
    """A directory of the host that may be mounted, with everything below it."""

    prefix: str
    writable: bool = True

    def covers(self, path: str, *, writable: bool) -> bool:
        """Return whether a mount of ``path`` is allowed."""
        if writable and not self.writable:
            return False
        return path == self.prefix or path.startswith(self.prefix.rstrip("/") + "/")

    def __str__(self) -> str:
        return self.prefix if self.writable else f"{self.prefix}:ro"


class PolicyRule(msgspec.Struct, frozen=True, kw_only=True):
    """The grants of one user, group or certificate. What is not granted is denied.

    The sets hold values of :class:`~jaula.engine.relaxations.Privilege`; ``*`` means any value.
    ``name`` identifies the rule in errors.
    """

    name: str
    access: AccessLevel = AccessLevel.NONE
    container_access: ContainerAccess = ContainerAccess.LIST
    images: bool = True  # load, pull, tag and remove images
    volumes: bool = True  # create and remove volumes
    host_mounts: tuple[HostMount, ...] = ()
    host_namespaces: frozenset[str] = frozenset()
    devices: frozenset[str] = frozenset()
    capabilities: frozenset[str] = frozenset()
    security_options: frozenset[str] = frozenset()
    cgroup_parents: frozenset[str] = frozenset()
    annotations: frozenset[str] = frozenset()
    network_options: frozenset[str] = frozenset()
    log_addresses: frozenset[str] = frozenset()
    checkpoint_directories: frozenset[str] = frozenset()
    remove: frozenset[str] = frozenset()  # labels of objects that may be removed
    privileged: bool = False
    oom_score: bool = False
    migrate: bool = False  # move containers to other engines, or be an engine that moves them here
    migrate_to: frozenset[str] = frozenset()  # engines to which they may be moved, HOST:PORT
    ceilings: Ceilings = Ceilings()
    shares: Mapping[Share, int] = DEFAULT_SHARES

    def allows(self, privilege: Privilege) -> bool:
        """Return whether one privilege is granted.

        Access to a container of another owner depends on the container too: the session decides.
        """
        if self.access is AccessLevel.ALL:
            return True
        match privilege.kind:
            case Relaxation.HOST_MOUNT:
                return not privilege.foreign and any(
                    mount.covers(privilege.value, writable=privilege.writable)
                    for mount in self.host_mounts
                )
            case Relaxation.PRIVILEGED:
                return self.privileged
            case Relaxation.OOM_SCORE:
                return self.oom_score
            case Relaxation.OTHER_CONTAINERS:
                return self.container_access is ContainerAccess.CONTROL
            case Relaxation.ENGINE_SOCKET:
                return False  # it depends on the entry: Policy.may_use decides
        values = _granted_values(self, privilege.kind)
        return "*" in values or privilege.value in values

    def covers(self, other: PolicyRule) -> bool:
        """Return whether this rule grants everything that ``other`` grants."""
        if self.access is AccessLevel.ALL:
            return True
        for mount in other.host_mounts:
            if not any(
                own.covers(mount.prefix, writable=mount.writable) for own in self.host_mounts
            ):
                return False
        both = union((self, msgspec.structs.replace(other, host_mounts=())))
        # The share of the machine is the ceiling without a line, for this rule and for the other.
        ceilings = msgspec.structs.replace(both.ceilings, stated=self.ceilings.stated)
        return msgspec.structs.replace(both, name=self.name, ceilings=ceilings) == self

    def may_remove(self, labels: Mapping[str, str]) -> bool:
        """Return whether objects with these labels may be removed, whoever owns them."""
        if self.access < AccessLevel.READ:
            return False
        return any(has_label(labels, text) for text in self.remove)

    def may_prune(self, selectors: Iterable[str]) -> bool:
        """Return whether a prune with these filters ``label`` removes only what may be removed."""
        if self.access < AccessLevel.READ:
            return False
        return any({text, text.partition("=")[0]} & self.remove for text in selectors)

    @property
    def mount_prefixes(self) -> tuple[str, ...]:
        """The host directories that limit the mounts of this rule; empty means no limit.

        Below them no symbolic link is followed. Files are opened with the rights of the user alone,
        not with those of root.
        """
        return () if self.access is AccessLevel.ALL else tuple(m.prefix for m in self.host_mounts)


def union(rules: tuple[PolicyRule, ...]) -> PolicyRule:
    """Return the rule of a user in several groups: it grants what any of theirs grants."""
    if len(rules) == 1:
        return rules[0]
    sets = {field: frozenset().union(*(getattr(rule, field) for rule in rules)) for field in _SETS}
    return PolicyRule(
        name=" + ".join(rule.name for rule in rules),
        access=max(rule.access for rule in rules),
        container_access=max(rule.container_access for rule in rules),
        images=any(rule.images for rule in rules),
        volumes=any(rule.volumes for rule in rules),
        host_mounts=tuple(mount for rule in rules for mount in rule.host_mounts),
        privileged=any(rule.privileged for rule in rules),
        oom_score=any(rule.oom_score for rule in rules),
        migrate=any(rule.migrate for rule in rules),
        ceilings=request_ceilings.union(tuple(rule.ceilings for rule in rules)),
        shares={share: max(rule.shares[share] for rule in rules) for share in DEFAULT_SHARES},
        **sets,
    )


def denial(
    caller: Caller, rule: PolicyRule, action: str, advice: str, line: str = "", file: str = ""
) -> NotAuthorized:
    """Return the error of a denied action: the caller, the action, the rule and the remedy.

    ``line`` of the policy would allow the action, and ``file`` is the policy's.
    """
    if line:
        advice += f"; the line {line} below {_title(caller, rule)} in {file} allows it"
    return NotAuthorized(
        f"{caller} may not {action}: rule {rule.name} does not allow it", hint=advice
    )


def privilege_denial(
    caller: Caller, rule: PolicyRule, privilege: Privilege, file: str
) -> NotAuthorized:
    """Return the error for a privilege that a rule does not grant."""
    line = privilege_line(privilege, rule)
    return denial(caller, rule, f"ask for {privilege}", _advice(privilege, rule), line, file)


def demand_denial(
    caller: Caller, rule: PolicyRule, demand: Demand, ceilings: Ceilings, file: str
) -> NotAuthorized:
    """Return the error for a demand above the ceilings of a rule, with those of the machine."""
    advice, line = ceilings.advice(demand), ceilings.line(demand)
    return denial(caller, rule, f"ask for {demand}", advice, line, file)


def _title(caller: Caller, rule: PolicyRule) -> str:
    """Return the heading of the table of the policy that a line for the caller belongs to.

    It is that of its rule, if the file has it, since another rule would replace that one. The rule
    of every user is no place for the right of one.
    """
    name = rule.name.partition(" + ")[0]
    if caller.container:
        return entry_title(caller.entry)
    if name.startswith("[") and not name.endswith(" (built in)") and name != DEFAULT_RULE.name:
        return name
    if caller.uid is not None:
        return f"[user.{_toml_key(caller.name or str(caller.uid))}]"
    return f"[certificate.{_toml_key(caller.certificate)}]"


def _toml_key(text: str) -> str:
    plain = text.isascii() and all(c.isalnum() or c in "-_" for c in text)
    return text if plain else quoted(text)


def privilege_line(privilege: Privilege, rule: PolicyRule) -> str:
    """Return the line of the policy that grants a privilege in addition to a rule's; '' if none."""
    match privilege.kind:
        case Relaxation.HOST_MOUNT:
            if privilege.foreign:
                return ""
            own = HostMount(privilege.value, privilege.writable)
            return list_line("host-mounts", [*map(str, rule.host_mounts), str(own)])
        case Relaxation.PRIVILEGED | Relaxation.OOM_SCORE:
            return f"{privilege.kind} = true"
        case Relaxation.OTHER_CONTAINERS:
            return 'others = "control"'
        case Relaxation.ENGINE_SOCKET:
            return ""  # the session names the entry
    values = sorted(_granted_values(rule, privilege.kind))
    key = _FIELDS[privilege.kind].replace("_", "-")
    return list_line(key, [*values, privilege.value])


def list_line(key: str, values: Sequence[str]) -> str:
    """Return a line with the values that a rule has and the one that it lacks; with many, this."""
    text = ", ".join(quoted(value) for value in values)
    if len(text) > _LONGEST_LINE:
        text = f"..., {quoted(values[-1])}"
    return f"{key} = [{text}]"


_LONGEST_LINE = 200  # characters


_SETS = (
    "host_namespaces",
    "devices",
    "capabilities",
    "security_options",
    "cgroup_parents",
    "annotations",
    "network_options",
    "log_addresses",
    "checkpoint_directories",
    "remove",
    "migrate_to",
)
_FIELDS = {
    Relaxation.HOST_NAMESPACE: "host_namespaces",
    Relaxation.DEVICE: "devices",
    Relaxation.CAPABILITY: "capabilities",
    Relaxation.SECURITY_OPTION: "security_options",
    Relaxation.CGROUP_PARENT: "cgroup_parents",
    Relaxation.ANNOTATION: "annotations",
    Relaxation.NETWORK_OPTION: "network_options",
    Relaxation.LOG_ADDRESS: "log_addresses",
    Relaxation.CHECKPOINT_DIRECTORY: "checkpoint_directories",
}


def _granted_values(rule: PolicyRule, kind: Relaxation) -> frozenset[str]:
    values: frozenset[str] = getattr(rule, _FIELDS[kind])
    return values


def _advice(privilege: Privilege, rule: PolicyRule) -> str:
    """Return what the user can do instead."""
    if privilege.kind is Relaxation.HOST_MOUNT:
        if privilege.foreign:
            return "mounts of the host need the engine's own runtime"
        if rule.host_mounts:
            return f"allowed are {', '.join(map(str, rule.host_mounts))}; or use a volume"
        return "use a volume, or ask the operator for a host-mounts grant"
    values = _granted_values(rule, privilege.kind) if privilege.kind in _FIELDS else frozenset()
    if values:
        return f"allowed are {', '.join(sorted(values))}"
    return f"leave it out, or ask the operator to grant {privilege.kind}"


# -- the policy --------------------------------------------------------------------------------

DEFAULT_RULE = PolicyRule(name="[default]")
ANONYMOUS_RULE = PolicyRule(name="[anonymous]")
ROOT_RULE = PolicyRule(name="root", access=AccessLevel.ALL)
ANY_CERTIFICATE = "*"


class ContainerEntry(msgspec.Struct, frozen=True):
    """An entry for containers: the right that the engine socket has, and who may create them.

    ``users`` and ``groups`` are ids. Callers whose own rule covers ``rule`` may create such a
    container too.
    """

    rule: PolicyRule
    users: frozenset[int] = frozenset()
    groups: frozenset[int] = frozenset()


SHARED_LABEL = "io.jaula.shared"
"""The label of a network or volume that callers other than its owner may use, but not remove."""

LABEL = "label="
"""The start of the key of an entry by label."""
_LONGEST_KEY = 120  # characters of a key that an error proposes


class Policy(msgspec.Struct, frozen=True):
    """All rules. Keys are ids of the host, and names or fingerprints of certificates.

    The keys of ``containers`` are names, ``label=KEY`` and ``label=KEY=VALUE``.
    """

    users: dict[int, PolicyRule] = {}
    groups: dict[int, PolicyRule] = {}
    certificates: dict[str, PolicyRule] = {}
    containers: dict[str, ContainerEntry] = {}
    default: PolicyRule = DEFAULT_RULE
    anonymous: PolicyRule = ANONYMOUS_RULE
    source: str = "built in"  # or the path of the file and its digest

    def rule_of(self, caller: Caller) -> PolicyRule:
        """Return the rule that applies to a caller."""
        if caller.container:
            entry = self.containers.get(caller.entry)
            return entry.rule if entry is not None else _no_entry(caller.entry)
        if caller.uid is None:
            return self._rule_of_remote(caller)
        if (own := self.users.get(caller.uid)) is not None:
            return own
        if caller.uid == ROOT:
            return ROOT_RULE
        rules = tuple(self.groups[gid] for gid in sorted(caller.groups) if gid in self.groups)
        return union(rules) if rules else self.default

    def container_entry(self, name: str, labels: Mapping[str, str]) -> str:
        """Return the key of the entry for a new container, '' if there is none.

        The entry of the name applies, else the first one in the file whose label it has. ``labels``
        are those of the request, without the image's.
        """
        if name in self.containers:
            return name
        for key in self.containers:
            if not key.startswith(LABEL):
                continue
            if has_label(labels, key.removeprefix(LABEL)):
                return key
        return ""

    def proposed_entry(self, name: str, labels: Mapping[str, str]) -> str:
        """Return the key of the entry for a new container, or of one that would be its entry.

        It is '' for a container without a name and without a label that an error can show.
        """
        if key := self.container_entry(name, labels) or name:
            return key
        keys = (f"{LABEL}{label}={value}" for label, value in labels.items())
        return next((k for k in keys if k.isprintable() and len(k) <= _LONGEST_KEY), "")

    def describe_entry(self, key: str) -> dict[str, object]:
        """Return the right of containers with an entry, for ``inspect``."""
        entry = self.containers.get(key)
        rule = _no_entry(key) if entry is None else entry.rule
        return {
            "Entry": rule.name,
            "Access": rule.access.name.lower(),
            "Others": rule.container_access.name.lower(),
            "Remove": sorted(rule.remove),
        }

    def may_use(self, caller: Caller, rule: PolicyRule, key: str) -> bool:
        """Return whether a caller with ``rule`` may create and start a container with an entry."""
        entry = self.containers.get(key)
        if entry is None or rule.access < AccessLevel.RUN:
            return False
        if caller.uid is not None and caller.uid in entry.users:
            return True
        return bool(caller.groups & entry.groups) or rule.covers(entry.rule)

    def _rule_of_remote(self, caller: Caller) -> PolicyRule:
        if not caller.certificate:
            return self.anonymous
        for name in (caller.fingerprint, caller.certificate, ANY_CERTIFICATE):
            if name in self.certificates:
                return self.certificates[name]
        return self.default


def entry_title(key: str) -> str:
    """Return the heading of an entry for containers, as it is written in the policy file."""
    return f"[container.{quoted(key)}]"


def _no_entry(key: str) -> PolicyRule:
    """Return the rule of a container whose entry was removed from the policy."""
    return PolicyRule(name=f"{entry_title(key)} (not in the policy)")


def default_policy(group: str | None, gid: int | None, *, certificates: bool = False) -> Policy:
    """Return the policy without a file: root may do everything, the socket's group may run.

    Members of the group run containers with the defaults: they get no power over the host, and
    cannot enter containers of other users. With ``certificates``, for an engine that listens for
    clients with one, the same applies to every verified certificate.
    """
    groups, by_certificate = {}, {}
    if group is not None and gid is not None:
        groups[gid] = PolicyRule(name=f"[group.{group}] (built in)", access=AccessLevel.RUN)
    if certificates:
        name = '[certificate."*"] (built in)'
        by_certificate[ANY_CERTIFICATE] = PolicyRule(name=name, access=AccessLevel.RUN)
    return Policy(groups=groups, certificates=by_certificate)
