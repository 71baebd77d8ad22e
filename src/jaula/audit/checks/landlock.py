"""Landlock's rules: that the spec holds those which follow from the flags, on a kernel that has it.

Evidence: the version that landlock_create_ruleset(2) answers, and the spec that the runtime was
given. The kernel shows no domain of another process, in /proc or elsewhere, and none can be left;
the runtime refuses to run a program whose process was not held by its rules (a mount(2) that it
tries must fail), which is as far as this can be proven.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import structs

from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.container import AuditedContainer
from jaula.audit.model.result import Result, judge
from jaula.config import OWN_RUNTIME
from jaula.security.landlock import DEFAULT_FROM, Landlock, default_off_reason, parse
from jaula.security.lsm.interface import LabelRequest
from jaula.spec.landlock import ANNOTATION
from jaula.spec.runtime import Spec

ABOUT = CheckInfo(
    id="landlock",
    layer="lsm",
    title="Landlock",
    reason=(
        "A second wall, independent of namespaces: what a program may do with files and ports."
    ),
    references=("I9", "landlock(7)"),
    evidence="landlock_create_ruleset(2), the spec's rules",
    advice="start it without landlock=off",
)


def check(subject: AuditedContainer) -> Iterator[Result]:
    """One row."""
    module = Landlock.from_host()
    bare = _without(subject.spec)
    runtime = subject.text("Runtime")
    foreign = runtime not in ("", OWN_RUNTIME)
    words = ("off",) if foreign else subject.security_option("landlock")
    request = LabelRequest(words, subject.privileged)
    wanted, given = module.requested(module.confine(bare, request)), module.requested(subject.spec)
    options = parse(request.options)
    by = None
    if foreign:
        by = f"--runtime {runtime}"
    elif options.off:
        by = "landlock=off"
    elif not wanted and subject.privileged:
        by = "--privileged"
    elif not wanted and module.abi >= DEFAULT_FROM:
        by = default_off_reason(bare, abi=module.abi)
    if not module.enabled():
        effective = "the kernel has no Landlock"
    elif given:
        effective = f"{given} (version {module.abi}; held before the program ran)"
    else:
        effective = "none"
    yield Result(
        "landlock", "lsm", wanted or f"none ({by or default_off_reason(bare, abi=module.abi)})", effective,
        "landlock_create_ruleset(2), config.json", judge(given == wanted, by),
    )  # fmt: skip


def _without(spec: Spec) -> Spec:
    """The spec as it was before Landlock was decided."""
    others = {name: text for name, text in spec.annotations.items() if name != ANNOTATION}
    return structs.replace(spec, annotations=others)
