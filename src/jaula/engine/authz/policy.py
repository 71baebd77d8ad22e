"""Which rule is whose. Pure.

A user's own rule decides alone where there is one. Otherwise the rules of all of the user's groups
count together, and where there is none, the default. Root (uid 0) has everything unless the policy
has a rule for it.

A certificate's rule is that of its fingerprint, else that of its name, else that of ``*``, which
stands for every certificate that was verified, else the default. A client that comes over the
network and proves nothing has the rule for such clients and no other.
"""

from __future__ import annotations

import msgspec

from jaula.engine.authz.caller import ROOT, Caller
from jaula.engine.authz.rule import AccessLevel, PolicyRule, union

NOBODY = PolicyRule(name="[default]")
UNPROVEN = PolicyRule(name="[anonymous]")
ANY = "*"
EVERYTHING = PolicyRule(name="root", access=AccessLevel.ALL)


class Policy(msgspec.Struct, frozen=True):
    """All rules; keys are ids of the host and names of certificates."""

    users: dict[int, PolicyRule] = {}
    groups: dict[int, PolicyRule] = {}
    certificates: dict[str, PolicyRule] = {}
    default: PolicyRule = NOBODY
    anonymous: PolicyRule = UNPROVEN
    source: str = "built in"  # a file's name and digest

    def rule_of(self, caller: Caller) -> PolicyRule:
        """The rule that decides about a caller."""
        if caller.uid is None:
            return self._of_remote(caller)
        if (own := self.users.get(caller.uid)) is not None:
            return own
        if caller.uid == ROOT:
            return EVERYTHING
        rules = tuple(self.groups[gid] for gid in sorted(caller.groups) if gid in self.groups)
        return union(rules) if rules else self.default

    def _of_remote(self, caller: Caller) -> PolicyRule:
        if not caller.certificate:
            return self.anonymous
        for name in (caller.fingerprint, caller.certificate, ANY):
            if name in self.certificates:
                return self.certificates[name]
        return self.default


def without_file(group: str | None, gid: int | None, *, certificates: bool = False) -> Policy:
    """Where no file says anything: root has everything, the socket's group no power over the host.

    Its members run containers with the defaults and cannot enter those of others. The same goes for
    ``certificates``, where the engine listens for clients that have one.
    """
    groups, proven = {}, {}
    if group is not None and gid is not None:
        groups[gid] = PolicyRule(name=f"[group.{group}] (built in)", access=AccessLevel.RUN)
    if certificates:
        proven[ANY] = PolicyRule(name='[certificate."*"] (built in)', access=AccessLevel.RUN)
    return Policy(groups=groups, certificates=proven)
