"""Assessment as SARIF 2.1.0: a rule for each control, a result for each finding.

A finding of an exception is a suppressed result (SARIF 3.35).
"""

from __future__ import annotations

from typing import Any

from jaula.features.audit.benchmark.assessment import Assessment, Finding
from jaula.features.audit.benchmark.control import Control, Profile, State
from jaula.features.verify.reports import sarif_log

KINDS: dict[State, tuple[str, str]] = {
    State.PASS: ("pass", "none"),
    State.FAIL: ("fail", "error"),
    State.EXCEPTED: ("fail", "error"),
    State.MANUAL: ("review", "none"),
    State.UNKNOWN: ("open", "none"),
    State.NOT_APPLICABLE: ("notApplicable", "none"),
}
"""(kind, level) of SARIF 3.27.9 and 3.27.10."""


def document(assessment: Assessment) -> dict[str, Any]:
    """Return the log file as Python values, with one run."""
    return sarif_log.log(
        assessment.command,
        assessment.time,
        [_rule(assessment.profile, outcome.control) for outcome in assessment.outcomes],
        [
            _result(outcome.control, finding, number)
            for number, outcome in enumerate(assessment.outcomes)
            for finding in outcome.findings
        ],
    )


def render(assessment: Assessment) -> str:
    """Return indented JSON."""
    return sarif_log.render(document(assessment))


def _rule(profile: Profile, control: Control) -> dict[str, Any]:
    number = f"CIS {control.id}" if profile.name == "cis" else f"{profile.name} {control.id}"
    text = f"{profile.title}, {control.id}, level {control.level}"
    return sarif_log.rule(control.id, control.title, text, (number, f"level {control.level}"))


def _result(control: Control, finding: Finding, number: int) -> dict[str, Any]:
    result = sarif_log.result(
        (control.id, number),
        KINDS[finding.state],
        f"{finding.subject}: {control.title}: {finding.evidence}",
        sarif_log.resource(finding.subject, f"{finding.kind}/{finding.subject}"),
        {
            "subjectAndControl/v1": sarif_log.fingerprint(
                str(finding.kind), finding.subject, control.id
            )
        },
        {"state": str(finding.state), "remediation": finding.remediation},
    )
    if finding.state is State.EXCEPTED:
        result["suppressions"] = [{"kind": "external", "justification": finding.note}]
    return result
