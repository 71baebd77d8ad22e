"""The event of a change of isolation, which ``verify --watch`` reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaula import metrics
from jaula.errors import InvalidRequest

if TYPE_CHECKING:
    from jaula.engine.containers.containers import Containers
    from jaula.spec.api_documents import IsolationChange

_VERDICTS = ("holds", "relaxed", "fails", "unknown")
_MAX_REPORT = 512  # characters of a member of a reported change


def report_change(containers: Containers, ref: str, change: IsolationChange) -> None:
    """Emit the event of a row that ``verify --watch`` has found to be different.

    :raises InvalidRequest: when the row has no name or no verdict.
    """
    if not change.row or not change.verdict:
        raise InvalidRequest("an isolation change needs Row and Verdict")
    attributes = {
        name: getattr(change, name)[:_MAX_REPORT]
        for name in ("row", "verdict", "requested", "effective")
    }
    container = containers.find(ref)
    verdict = change.verdict.lower()
    metrics.ISOLATION_CHANGES.add(verdict if verdict in _VERDICTS else "other")
    containers.emit(container, "isolation-changed", attributes)
