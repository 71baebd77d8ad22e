"""Kernel features that are missing, as findings: the report of ``jaula check`` for a doctor."""

from __future__ import annotations

from collections.abc import Sequence

from jaula.audit.kernel.check_config import SupportRow
from jaula.doctor.checks import Finding, State


def findings(rows: Sequence[SupportRow]) -> list[Finding]:
    """What is missing, and one line for the rest. Pure.

    What could not be tried, for want of rights, is said by ``jaula check`` run as root.
    """
    found = [
        Finding(
            f"kernel: {row.feature}",
            State.HINDERS if row.fatal else State.COSTS,
            f"missing ({_why(row)}): {row.consequence}",
        )
        for row in rows
        if row.support == "no"
    ]
    there = sum(row.support == "yes" for row in rows)
    text = f"{there} of {len(rows)} are there, {len(rows) - there - len(found)} could not be tried"
    return [*found, Finding("kernel features", State.OK, text)]


def _why(row: SupportRow) -> str:
    return row.tried if row.tried != "-" else row.config
