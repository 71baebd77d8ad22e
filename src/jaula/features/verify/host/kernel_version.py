"""The kernel's version compared with the table of known CVEs (statement I25)."""

from __future__ import annotations

from collections.abc import Iterator

from jaula.features.verify.host.host import Host
from jaula.features.verify.host.kernel_cves import KERNEL_CVES, affecting_cves, identify
from jaula.features.verify.model.check_info import CheckInfo
from jaula.features.verify.model.result import Result, Verdict

INFO = CheckInfo(
    id="host-kernel",
    layer="host",
    title="Kernel version",
    reason="All containers use the host's kernel; a flaw in it allows an escape from any of them.",
    references=("I25", "CIS 1.2.1", "CVE-2022-0847", "CVE-2022-0185", "CVE-2026-31431"),
    evidence="uname(2), /proc/version_signature",
    advice="install and boot the distribution's newest kernel; until then, run no untrusted "
    "containers",
)


def check(host: Host) -> Iterator[Result]:
    """Yield one row."""
    try:
        signature = (host.proc / "version_signature").read_text(encoding="ascii", errors="replace")
    except FileNotFoundError:
        signature = None
    kernel = identify(host.release, host.version, signature)
    cves = affecting_cves(kernel.version)
    number = ".".join(map(str, kernel.version))
    verdict = Verdict.HOLDS
    effective = f"{number}: none"
    if cves:
        effective = f"{number}: " + "; ".join(f"{hole.cve} {hole.what}" for hole in cves)
        verdict = Verdict.FAILS if kernel.reliable else Verdict.UNKNOWN
        if not kernel.reliable:
            effective += "; this distribution fixes without a new number: see its advisories"
    yield Result("kernel", "host", f"none of {len(KERNEL_CVES)} known CVEs", effective,
              kernel.source, verdict)  # fmt: skip
