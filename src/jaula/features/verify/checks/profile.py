"""The confinement preset, and every relaxation by name.

Evidence: the request, in the names of the policy and the audit log. The rows of the other checks
show the effect in the kernel.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, verdict_of

INFO = CheckInfo(
    id="profile",
    layer="profile",
    title="Profile and relaxations",
    reason="Each relaxation of the defaults weakens isolation and should be known.",
    references=("I16",),
    evidence="the request",
    advice="start it with --profile strict, and without relaxations that it does not need",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield one row."""
    requested = container.text("Profile") or "default"
    if digest := container.text("ProfileDigest"):
        requested = f"{container.text('ProfileName')} ({digest[:19]})"
    relaxations = tuple(str(name) for name in container.inspect.get("Relaxations") or ())
    yield Result(
        "relaxations", "profile", requested,
        ", ".join(relaxations) or "none", "the request, in inspect",
        verdict_of(True, "the request" if relaxations else None),
    )  # fmt: skip
