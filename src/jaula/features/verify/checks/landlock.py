"""Landlock: the spec has the rules that follow from the flags, on a kernel with Landlock.

Evidence: the version that landlock_create_ruleset(2) returns, and the spec. The kernel shows the
domain of no other process, in /proc or elsewhere, and a process cannot leave its domain. The
runtime refuses to run a program unless its process was restricted: a test mount(2) must fail. That
is the extent to which this can be proven.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import structs

from jaula.config import OWN_RUNTIME
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, verdict_of
from jaula.security.landlock_ruleset import DEFAULT_FROM, Landlock, default_off_reason, parse
from jaula.security.lsm.interface import LabelRequest
from jaula.spec.annotations import LANDLOCK_ANNOTATION
from jaula.spec.runtime_spec import Spec

INFO = CheckInfo(
    id="landlock",
    layer="lsm",
    title="Landlock",
    reason=("A restriction of files and ports that is independent of namespaces."),
    references=("I9", "landlock(7)"),
    evidence="landlock_create_ruleset(2), the spec's rules",
    advice="start it without landlock=off",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield one row."""
    module = Landlock.from_host()
    bare = _without(container.spec)
    runtime = container.text("Runtime")
    is_external = runtime not in ("", OWN_RUNTIME)
    options = ("off",) if is_external else container.security_option("landlock")
    request = LabelRequest(options, container.privileged)
    confined = module.confine(bare, request)
    expected, actual = module.requested(confined), module.requested(container.spec)
    same = _rules(confined) == _rules(container.spec)
    if container.starter is not None and actual:
        expected, same = actual, True
    parsed = parse(request.options)
    by = None
    if is_external:
        by = f"--runtime {runtime}"
    elif parsed.off:
        by = "landlock=off"
    elif not expected and container.privileged:
        by = container.flag("--privileged")
    elif not expected and module.abi >= DEFAULT_FROM:
        by = default_off_reason(bare, abi=module.abi)
    if not module.enabled():
        effective = "the kernel has no Landlock"
    elif actual:
        effective = f"{actual} (version {module.abi}; verified before the program ran)"
    else:
        effective = "none"
    requested = expected or f"none ({by or default_off_reason(bare, abi=module.abi)})"
    yield Result(
        "landlock", "lsm", requested, effective,
        "landlock_create_ruleset(2), config.json", verdict_of(same, by),
    )  # fmt: skip


def _rules(spec: Spec) -> str | None:
    return spec.annotations.get(LANDLOCK_ANNOTATION)


def _without(spec: Spec) -> Spec:
    """Return the spec without Landlock rules."""
    annotations = {
        name: text for name, text in spec.annotations.items() if name != LANDLOCK_ANNOTATION
    }
    return structs.replace(spec, annotations=annotations)
