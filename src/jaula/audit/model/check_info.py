"""What a check is for: the text beside its rows, in every report and in ``verify --list``.

References are statements of this project (``I1`` to ``I25``, docs/security.md), numbers of the CIS
Docker Benchmark 1.6.0 (``CIS 5.4``), CVE and GHSA numbers, and pages of the manual.
"""

from __future__ import annotations

import msgspec


class CheckInfo(msgspec.Struct, frozen=True, kw_only=True):
    """``id`` is the check's file name; ``advice`` says what to do where a row does not hold."""

    id: str
    layer: str
    title: str
    reason: str
    references: tuple[str, ...]
    evidence: str
    advice: str


def describe(info: CheckInfo) -> str:
    """A paragraph for ``--list``."""
    return "\n".join(
        (
            f"{info.id} ({info.layer}): {info.title}",
            f"    why        {info.reason}",
            f"    evidence   {info.evidence}",
            f"    references {', '.join(info.references)}",
            f"    advice     {info.advice}",
        )
    )
