"""The kernel's version against the table of known holes (statement I25)."""

from __future__ import annotations

from collections.abc import Iterator

from jaula.audit.host.host import Host
from jaula.audit.host.kernel_cves import KERNEL_CVES, affecting_cves, identify
from jaula.audit.model.check_info import CheckInfo
from jaula.audit.model.result import Result, Verdict

INFO = CheckInfo(
    id="host-kernel",
    layer="host",
    title="Kernel version",
    reason="Every container speaks to the host's kernel; a hole in it is a way out of all of them.",
    references=("I25", "CIS 1.2.1", "CVE-2022-0847", "CVE-2022-0185", "CVE-2026-31431"),
    evidence="uname(2), /proc/version_signature",
    advice="install the distribution's newest kernel and boot it; until then, no container of "
    "someone you do not trust",
)


def check(host: Host) -> Iterator[Result]:
    """One row."""
    try:
        signature = (host.proc / "version_signature").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        signature = None
    known = identify(host.release, host.version, signature)
    found = affecting_cves(known.version)
    number = ".".join(map(str, known.version))
    verdict = Verdict.HOLDS
    effective = f"{number}: none"
    if found:
        effective = f"{number}: " + "; ".join(f"{hole.cve} {hole.what}" for hole in found)
        verdict = Verdict.FAILS if known.reliable else Verdict.UNKNOWN
        if not known.reliable:
            effective += "; this distribution repairs without a new number: ask its advisories"
    yield Result("kernel", "host", f"none of {len(KERNEL_CVES)} known holes", effective, known.source,
              verdict)  # fmt: skip
