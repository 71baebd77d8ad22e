"""Which rule is whose. Pure.

A user's own rule decides alone where there is one. Otherwise the rules of all of the user's groups
count together, and where there is none, the default. Root (uid 0) has everything unless the policy
has a rule for it.
"""

from __future__ import annotations

import msgspec

from jaula.engine.authority.caller import ROOT, Caller
from jaula.engine.authority.rule import Access, Rule, union

NOBODY = Rule(name="[default]")
EVERYTHING = Rule(name="root", access=Access.ALL)


class Policy(msgspec.Struct, frozen=True):
    """All rules; keys are ids of the host and names of certificates."""

    users: dict[int, Rule] = {}
    groups: dict[int, Rule] = {}
    certificates: dict[str, Rule] = {}
    default: Rule = NOBODY
    source: str = "built in"  # a file's name and digest

    def rule_of(self, caller: Caller) -> Rule:
        """The rule that decides about a caller."""
        if caller.uid is None:
            return self.certificates.get(caller.certificate, self.default)
        if (own := self.users.get(caller.uid)) is not None:
            return own
        if caller.uid == ROOT:
            return EVERYTHING
        rules = tuple(self.groups[gid] for gid in sorted(caller.groups) if gid in self.groups)
        return union(rules) if rules else self.default


def without_file(group: str | None, gid: int | None) -> Policy:
    """Where no file says anything: root has everything, the socket's group no power over the host.

    Its members run containers with the defaults and cannot enter those of others.
    """
    if group is None or gid is None:
        return Policy()
    return Policy(groups={gid: Rule(name=f"[group.{group}] (built in)", access=Access.RUN)})
