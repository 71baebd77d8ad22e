"""Seal of the request: the documents that the report compares with are those of the creation.

Evidence: the lines of the audit log, read from its files, and their chain of hashes up to the head.
The engine gives the seal of the request that it has in its database. A container that was created
by an engine without seals, or whose line was removed with the oldest files, is relaxed.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.container import AuditedContainer
from jaula.audit.model.result import Result, verdict_of

INFO = CheckInfo(
    id="seal",
    layer="profile",
    title="Seal of the request",
    reason="A report that compares the kernel with a request that was changed afterwards proves "
    "nothing.",
    references=("I16",),
    evidence="the audit log's files, the seal that the engine computes of its record",
    advice="recreate the container; find who wrote to the engine's database",
)


def check(container: AuditedContainer) -> Iterator[Result]:
    """Yield one row; none if the reader may not read the audit log."""
    root = container.state_directory
    actual = str(container.inspect.get("RequestSeal") or "")
    if root is None or not actual:
        return
    try:
        log = container.snapshot.sealed_requests(root)
    except (FileNotFoundError, PermissionError):
        return
    sealed = log.seals.get(container.container_id)
    by = None if sealed else "no line of the audit log has a seal"
    effective = actual[:12]
    if log.error:
        effective += f"; the audit log is damaged: {log.error}"
    elif sealed and sealed != actual:
        effective += "; the record was changed without the engine"
    yield Result(
        "request seal", "profile", sealed[:12] if sealed else f"none ({by})", effective,
        f"{root}/audit", verdict_of(not log.error and sealed in (None, actual), by),
    )  # fmt: skip
