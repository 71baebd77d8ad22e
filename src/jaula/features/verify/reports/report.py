"""The rows about one container, or about the host."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from jaula.features.verify.checks import TABLE as CONTAINER_CHECKS
from jaula.features.verify.escape.check_info import INFO as PROBING
from jaula.features.verify.host import TABLE as HOST_CHECKS
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.result import Result, Verdict, passed

CHECK_INFOS: tuple[CheckInfo, ...] = (
    *(check.info for check in CONTAINER_CHECKS),
    PROBING,
    *(check.info for check in HOST_CHECKS),
)
"""Descriptions of all checks, in the order of ``--list``."""

_BY_ID = {info.id: info for info in CHECK_INFOS}
_ORDER = (Verdict.FAILS, Verdict.UNKNOWN, Verdict.RELAXED, Verdict.HOLDS)


class Report(msgspec.Struct, frozen=True):
    """A report; ``kind`` is ``container`` or ``host``, ``timestamp`` is RFC 3339 in UTC.

    ``pod`` is ``NAMESPACE/NAME`` of the pod of a container, '' without one.
    """

    name: str
    kind: str
    timestamp: str
    rows: tuple[Result, ...]
    pod: str = ""

    @property
    def passed(self) -> bool:
        """Whether the report is a proof: no row fails and none is unknown."""
        return passed(self.rows)

    def counts(self) -> dict[Verdict, int]:
        """Return the number of rows by verdict, worst first, without zeros."""
        counts = {v: sum(row.verdict is v for row in self.rows) for v in _ORDER}
        return {verdict: count for verdict, count in counts.items() if count}


def check_info(row: Result) -> CheckInfo:
    """Return the description of a row's check."""
    return _BY_ID[row.check]


def worst(rows: Sequence[Result]) -> Verdict:
    """Return the worst verdict of the rows; ``HOLDS`` without rows."""
    return next((v for v in _ORDER if any(row.verdict is v for row in rows)), Verdict.HOLDS)
