"""Which images the engine lets run: the operator's rules, or none."""

from __future__ import annotations

from collections.abc import Iterator

from jaula.audit.host.host import Host
from jaula.audit.image_policy import ImagePolicyReader
from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.result import Result, Verdict
from jaula.errors import InvalidRequest

INFO = CheckInfo(
    id="host-images",
    layer="host",
    title="Image policy",
    reason="Without rules, whoever may pull may run anybody's image.",
    references=("CIS 4.2", "CIS 4.5"),
    evidence="the policy's table [images]",
    advice="see docs/trust.md",
)


def check(host: Host) -> Iterator[Result]:
    """One row; none where no engine runs that would follow a policy."""
    if host.image_policy is None:
        return
    policy = ImagePolicyReader(host.image_policy)
    place = policy.path or "no policy is configured"
    try:
        rules = policy.rules
    except InvalidRequest as error:
        yield Result("image policy", "host", "rules that can be read", error.message, place,
                  Verdict.FAILS)  # fmt: skip
        return
    if rules.in_force:
        count = f"{len(rules.rules)} rules, everything else: {rules.general.verdict}"
        yield Result("image policy", "host", "rules", count, place, Verdict.HOLDS)
    else:
        yield Result("image policy", "host", "no policy is in force", "any image may run", place,
                  Verdict.HOLDS)  # fmt: skip
