"""Changes after the creation: what ``jaula edit`` has changed, when, and for whom.

Evidence: the engine's record; the audit log has a line for each change. The rows of ports, mounts,
networks and limits compare the kernel with the request as it is now. This row tells that it was
another one. There is none for a container that was not changed.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, Verdict, plain, quantity

INFO = CheckInfo(
    id="changes",
    layer="profile",
    title="Changes after the creation",
    reason="A container that was reviewed when it was created may have other ports and mounts now.",
    references=("I16",),
    evidence="the engine's record of the container, and the lines container edit of the audit log",
    advice="compare with jaula audit log; create the container again to start from a known request",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield a row with the last change and the number of all."""
    changes = container.inspect.get("Changes") or ()
    if not changes:
        return
    last = changes[-1]
    words = "; ".join(str(word) for word in last.get("Changes") or ())
    when = "" if last.get("Running", True) else ", for the next start"
    root = container.state_directory
    yield Result(
        "changes", "profile", "those of jaula edit",
        plain(f"{quantity(len(changes), 'change')}, the last {last.get('At')} by {last.get('By')}"
              f"{when}: {words}"),
        f"inspect, {root}/audit" if root else "inspect", Verdict.HOLDS,
    )  # fmt: skip
