"""What probing is for."""

from __future__ import annotations

from jaula.audit.model.check_info import CheckInfo

INFO = CheckInfo(
    id="probes",
    layer="probes",
    title="What a twin tried",
    reason="A setting that is in place can still be without effect. A twin of the container, with "
    "a writable layer of its own and volumes it cannot write to, does harmlessly what must fail.",
    references=("I6", "I7", "I9", "I10", "I18", "I19", "I23", "CVE-2026-31431"),
    evidence="what the kernel answered to the twin, call by call",
    advice="find the layer whose row fails above; if none does, the kernel does not keep what it "
    "says, which is worth a report to its maintainers",
)
