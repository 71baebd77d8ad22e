"""The five capability sets of the first process (statement I7).

Evidence: the Cap lines of /proc/<pid>/status (capabilities(7)). A program may give up what it was
given, and one that runs as another user than root has nothing effective, so less than was asked
for holds and is told; more never does. Inheritable and ambient must be empty.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.container import AuditedContainer
from jaula.audit.model.result import Result, Verdict, verdict_of
from jaula.kernel.capabilities import SETS, parse_status_masks
from jaula.security.capabilities import DEFAULT, decode, mask

INFO = CheckInfo(
    id="capabilities",
    layer="capabilities",
    title="Capabilities",
    reason=(
        "Each capability opens a part of what root can do; a set that is larger than asked "
        "for is a privilege that nobody decided."
    ),
    references=("I7", "CIS 5.4", "CIS 5.5", "capabilities(7)"),
    evidence="/proc/<pid>/status, Cap lines",
    advice=(
        "start it with --cap-drop all and add by name what the program asks for; without "
        "--privileged"
    ),
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """One row for each set."""
    found = parse_status_masks(container.read("status"))
    asked, given = container.capabilities, container.spec_capabilities
    for name in SETS:
        wanted = mask(getattr(asked, name))
        in_spec = mask(getattr(given, name))
        actual = found[name]
        extra = actual & ~wanted
        by = _flag(container) if wanted & ~mask(DEFAULT) else None
        effective = f"{actual:016x}"
        if extra:
            effective += f", too much: {', '.join(decode(extra))}"
        elif in_spec & ~wanted:
            effective += f"; the spec has {', '.join(decode(in_spec & ~wanted))} more"
        elif actual != wanted:
            root = container.process.user.uid == 0
            effective += " (given up by the program)" if root else " (the user is not root)"
        verdict = verdict_of(not extra and not in_spec & ~wanted, by)
        requested = f"{wanted:016x}" + (f" ({by})" if by and verdict is Verdict.RELAXED else "")
        yield Result(
            f"capabilities {name}", "capabilities", requested, effective, container.path("status"),
            verdict,
        )  # fmt: skip


def _flag(container: AuditedContainer) -> str:
    return (
        "--privileged"
        if container.privileged
        else "--cap-add " + ",".join(container.names("CapAdd"))
    )
