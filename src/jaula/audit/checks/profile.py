"""The preset of confinement, and every relaxation by its name.

Evidence: the request, named as the policy and the audit log name it. What each of them comes to in
the kernel is in the rows of the other checks.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.container import AuditedContainer
from jaula.audit.model.result import Result, verdict_of

INFO = CheckInfo(
    id="profile",
    layer="profile",
    title="Preset and relaxations",
    reason="Each thing that was asked for beyond the defaults is a hole that somebody should know.",
    references=("I16",),
    evidence="the request",
    advice="start it with --profile strict, and without what it does not need",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """One row."""
    found = tuple(str(name) for name in container.inspect.get("Relaxations") or ())
    yield Result(
        "relaxations", "profile", container.text("Profile") or "default",
        ", ".join(found) or "none", "the request, in inspect",
        verdict_of(True, "the request" if found else None),
    )  # fmt: skip
