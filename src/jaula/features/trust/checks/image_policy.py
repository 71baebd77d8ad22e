"""The image of the container, and the operator's rule for it.

Evidence: the policy file, the image layout, and the signatures stored at the pull.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaula.errors import InvalidRequest
from jaula.features.trust.checks.policy_files import reader_of
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, Verdict, verdict_of

INFO = CheckInfo(
    id="image",
    layer="image",
    title="Image policy",
    reason="Isolation restricts what a program does, not which program runs.",
    references=("CIS 4.2", "CIS 4.5"),
    evidence="the policy's table [images], and the signatures, verified again",
    advice="recreate the container from an image that the rule accepts",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield one row; none if the engine reports no policy."""
    if container.snapshot.image_policy is None:
        return
    policy = container.snapshot.service(reader_of)
    image_name = str((container.inspect.get("Config") or {}).get("Image") or "")
    path = policy.path or "no policy is configured"
    try:
        rules = policy.rules
    except InvalidRequest as error:
        yield Result("image policy", "image", "readable rules", error.message, path,
                  Verdict.FAILS)  # fmt: skip
        return
    if not rules.in_force:
        yield Result("image policy", "image", "no policy is in effect",
                  f"any image may run: {image_name}", path, Verdict.HOLDS)  # fmt: skip
        return
    rule = policy.rule_of(image_name, rules)
    holds, result, evidence = policy.evaluate(
        rule, image_name, str(container.inspect.get("Image") or "")
    )
    yield Result("image policy", "image", str(rule), result, evidence, verdict_of(holds, None))
