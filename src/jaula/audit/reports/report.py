"""What was found about one container, or about the host."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from jaula.audit.checks import TABLE as CONTAINER_CHECKS
from jaula.audit.escape.check_info import INFO as PROBING
from jaula.audit.host import TABLE as HOST_CHECKS
from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.result import Result, Verdict, passed

CHECK_INFOS: tuple[CheckInfo, ...] = (
    *(check.info for check in CONTAINER_CHECKS),
    PROBING,
    *(check.info for check in HOST_CHECKS),
)
"""Everything that can be checked, in the order of ``--list``."""

_BY_ID = {info.id: info for info in CHECK_INFOS}
_ORDER = (Verdict.FAILS, Verdict.UNKNOWN, Verdict.RELAXED, Verdict.HOLDS)


class Report(msgspec.Struct, frozen=True):
    """``kind`` is ``container`` or ``host``; ``moment`` the time in RFC 3339, UTC."""

    name: str
    kind: str
    timestamp: str
    rows: tuple[Result, ...]

    @property
    def passed(self) -> bool:
        """Whether it is a proof: no row fails and none is unknown."""
        return passed(self.rows)

    def counts(self) -> dict[Verdict, int]:
        """How many rows of each verdict, the worst first, without those that do not occur."""
        found = {v: sum(row.verdict is v for row in self.rows) for v in _ORDER}
        return {verdict: count for verdict, count in found.items() if count}


def check_info(row: Result) -> CheckInfo:
    """What the check of a row is for."""
    return _BY_ID[row.check]


def worst(rows: Sequence[Result]) -> Verdict:
    """The worst verdict among rows; ``HOLDS`` where there is none."""
    return next((v for v in _ORDER if any(row.verdict is v for row in rows)), Verdict.HOLDS)
