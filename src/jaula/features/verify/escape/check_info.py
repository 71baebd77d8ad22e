"""Description of the escape tests."""

from __future__ import annotations

from jaula.features.verify.model.check_info import CheckInfo

INFO = CheckInfo(
    id="probes",
    layer="probes",
    title="Escape attempts of a twin",
    reason="A setting can be present and still not work. A twin of the container, with its own "
    "writable layer and read-only volumes, makes harmless attempts that must fail.",
    references=("I6", "I7", "I9", "I10", "I18", "I19", "I23", "CVE-2026-31431"),
    evidence="the kernel's result of each call of the twin",
    advice="find the layer whose row fails above; if none does, the kernel does not enforce its "
    "state: report it to its maintainers",
)
