"""The five capability sets of the init process (statement I7).

Evidence: the Cap lines of /proc/<pid>/status (capabilities(7)). A program may drop capabilities,
and a user other than root has none effective. So fewer than requested holds and is reported; more
never holds. Inheritable and ambient must be empty.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, Verdict, verdict_of
from jaula.kernel.capabilities import SETS, parse_status_masks
from jaula.security.capability_sets import DEFAULT, decode, mask

INFO = CheckInfo(
    id="capabilities",
    layer="capabilities",
    title="Capabilities",
    reason=(
        "Each capability permits a part of what root can do; a set larger than requested is an "
        "unintended privilege."
    ),
    references=("I7", "CIS 5.4", "CIS 5.5", "capabilities(7)"),
    evidence="/proc/<pid>/status, Cap lines",
    advice=(
        "start it with --cap-drop all, without --privileged, and add by name the capabilities "
        "that the program needs"
    ),
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield a row for each set."""
    masks = parse_status_masks(container.read("status"))
    requested_sets, spec_sets = container.capabilities, container.spec_capabilities
    for name in SETS:
        expected = mask(getattr(requested_sets, name))
        in_spec = mask(getattr(spec_sets, name))
        actual = masks[name]
        extra = actual & ~expected
        by = _flag(container) if expected & ~mask(DEFAULT) else None
        effective = f"{actual:016x}"
        if extra:
            effective += f", too much: {', '.join(decode(extra))}"
        elif in_spec & ~expected:
            effective += f"; the spec has {', '.join(decode(in_spec & ~expected))} more"
        elif actual != expected:
            root = container.process.user.uid == 0
            effective += " (dropped by the program)" if root else " (the user is not root)"
        verdict = verdict_of(not extra and not in_spec & ~expected, by)
        requested = f"{expected:016x}" + (f" ({by})" if by and verdict is Verdict.RELAXED else "")
        yield Result(
            f"capabilities {name}", "capabilities", requested, effective, container.path("status"),
            verdict,
        )  # fmt: skip


def _flag(container: AuditedContainer) -> str:
    return (
        container.flag("--privileged")
        if container.privileged
        else "--cap-add " + ",".join(container.names("CapAdd"))
    )
