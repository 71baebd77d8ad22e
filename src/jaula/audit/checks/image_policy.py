"""The image that the container was made from, and the operator's rule about it.

Evidence: the policy's file, the image layout, and the signatures that were kept at the pull.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.container import AuditedContainer
from jaula.audit.model.result import Result, Verdict, verdict_of
from jaula.errors import InvalidRequest

INFO = CheckInfo(
    id="image",
    layer="image",
    title="Image policy",
    reason="Isolation holds back what a program does, not who wrote it.",
    references=("CIS 4.2", "CIS 4.5"),
    evidence="the policy's table [images], and the signatures, verified anew",
    advice="restart the container from an image that the rule accepts",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """One row; none where the engine does not tell of a policy."""
    policy = container.snapshot.image_rules
    if policy is None:
        return
    asked = str((container.inspect.get("Config") or {}).get("Image") or "")
    place = policy.path or "no policy is configured"
    try:
        rules = policy.rules
    except InvalidRequest as error:
        yield Result("image policy", "image", "rules that can be read", error.message, place,
                  Verdict.FAILS)  # fmt: skip
        return
    if not rules.in_force:
        yield Result("image policy", "image", "no policy is in force", f"any image may run: {asked}",
                  place, Verdict.HOLDS)  # fmt: skip
        return
    rule = policy.rule_of(asked, rules)
    holds, found, evidence = policy.evaluate(rule, asked, str(container.inspect.get("Image") or ""))
    yield Result("image policy", "image", str(rule), found, evidence, verdict_of(holds, None))
