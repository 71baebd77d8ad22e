"""Images that the engine permits to run: the operator's rules, if any."""

from __future__ import annotations

from collections.abc import Iterator

from jaula.errors import InvalidRequest
from jaula.features.trust.checks.policy_files import ImagePolicyReader
from jaula.features.verify.host.host import Host
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.result import Result, Verdict

INFO = CheckInfo(
    id="host-images",
    layer="host",
    title="Image policy",
    reason="Without rules, a user who may pull can run any image.",
    references=("CIS 4.2", "CIS 4.5"),
    evidence="the policy's table [images]",
    advice="see docs/trust.md",
)


def check(host: Host) -> Iterator[Result]:
    """Yield one row; none if no engine runs."""
    if host.image_policy is None:
        return
    policy = ImagePolicyReader(host.image_policy)
    path = policy.path or "no policy is configured"
    try:
        rules = policy.rules
    except InvalidRequest as error:
        yield Result("image policy", "host", "readable rules", error.message, path,
                  Verdict.FAILS)  # fmt: skip
        return
    if rules.in_force:
        count = f"{len(rules.rules)} rules, everything else: {rules.general.verdict}"
        yield Result("image policy", "host", "rules", count, path, Verdict.HOLDS)
    else:
        yield Result("image policy", "host", "no policy is in effect", "any image may run", path,
                  Verdict.HOLDS)  # fmt: skip
