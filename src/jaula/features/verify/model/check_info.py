"""Description of a check, shown with its rows in every report and in ``verify --list``.

References are statements of this project (``I1`` to ``I32``, docs/security.md), numbers of the CIS
Docker Benchmark 1.6.0 (``CIS 5.4``), CVE and GHSA numbers, and manual pages.
"""

from __future__ import annotations

import msgspec


class CheckInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Description of a check; ``advice`` is shown with each row that does not hold.

    ``id`` is stable: it names the check in reports.
    """

    id: str
    layer: str
    title: str
    reason: str
    references: tuple[str, ...]
    evidence: str
    advice: str


def describe(info: CheckInfo) -> str:
    """Return a paragraph for ``--list``."""
    return "\n".join(
        (
            f"{info.id} ({info.layer}): {info.title}",
            f"    why        {info.reason}",
            f"    evidence   {info.evidence}",
            f"    references {', '.join(info.references)}",
            f"    advice     {info.advice}",
        )
    )
