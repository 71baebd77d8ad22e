"""Reports of ``record --drift``, as one caller may send them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaula import metrics
from jaula.errors import InvalidRequest

if TYPE_CHECKING:
    from jaula.engine.authz.caller_session import Session
    from jaula.engine.authz.gateway import EngineApi
    from jaula.engine.containers.containers import Containers
    from jaula.spec.api_documents import Drift

_MAX_REPORT = 512  # characters of a member of a report


def drifts_api(api: EngineApi) -> DriftsApi:
    """Return the reports as the caller of a connection may send them."""
    return DriftsApi(api.engine.containers, api.session)


class DriftsApi:
    """Administrators report drifts: an event starts programs of others."""

    def __init__(self, containers: Containers, session: Session) -> None:
        self._containers = containers
        self._session = session

    def report(self, ref: str, report: Drift) -> None:
        if not self._session.is_admin:
            raise self._session.denial("report a drift")
        report_drift(self._containers, ref, report)


def report_drift(containers: Containers, ref: str, report: Drift) -> None:
    """Emit the event of a deviation that ``record --drift`` has found.

    :raises InvalidRequest: when it has no kind or no subject.
    """
    if not report.kind or not report.subject:
        raise InvalidRequest("a drift needs Kind and Subject")
    attributes = {
        name: getattr(report, name)[:_MAX_REPORT]
        for name in ("kind", "subject", "program", "detail", "digest")
        if getattr(report, name)
    }
    container = containers.find(ref)
    metrics.DRIFTS.add()
    containers.emit(container, "drift", attributes)
