"""The kernel's version against the table of known holes (statement I25)."""

from __future__ import annotations

from collections.abc import Iterator

from jaula.audit.about import About
from jaula.audit.host.facts import Host
from jaula.audit.host.holes import HOLES, affecting, identify
from jaula.audit.row import Row, Verdict

ABOUT = About(
    id="host-kernel",
    layer="host",
    title="Kernel version",
    reason="Every container speaks to the host's kernel; a hole in it is a way out of all of them.",
    references=("I25", "CIS 1.2.1", "CVE-2022-0847", "CVE-2022-0185", "CVE-2026-31431"),
    evidence="uname(2), /proc/version_signature",
    advice="install the distribution's newest kernel and boot it; until then, no container of "
    "someone you do not trust",
)


def check(host: Host) -> Iterator[Row]:
    """One row."""
    try:
        signature = (host.proc / "version_signature").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        signature = None
    known = identify(host.release, host.version, signature)
    found = affecting(known.version)
    number = ".".join(map(str, known.version))
    verdict = Verdict.HOLDS
    effective = f"{number}: none"
    if found:
        effective = f"{number}: " + "; ".join(f"{hole.cve} {hole.what}" for hole in found)
        verdict = Verdict.FAILS if known.told else Verdict.UNKNOWN
        if not known.told:
            effective += "; this distribution repairs without a new number: ask its advisories"
    yield Row("kernel", "host", f"none of {len(HOLES)} known holes", effective, known.source,
              verdict)  # fmt: skip
