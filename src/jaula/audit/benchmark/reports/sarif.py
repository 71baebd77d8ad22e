"""Assessment as SARIF 2.1.0 (OASIS standard): a rule for each control, a result for each finding.

A finding of an exception is a suppressed result (SARIF 3.35).
"""

from __future__ import annotations

import json
from typing import Any

from jaula import __version__
from jaula.audit.benchmark.assessment import Assessment, Finding
from jaula.audit.benchmark.control import BENCHMARK, Control, State
from jaula.audit.reports.sarif import SCHEMA, fingerprint, semantic_version

KINDS: dict[State, tuple[str, str]] = {
    State.PASS: ("pass", "none"),
    State.FAIL: ("fail", "error"),
    State.EXCEPTED: ("fail", "error"),
    State.MANUAL: ("review", "none"),
    State.UNKNOWN: ("open", "none"),
    State.NOT_APPLICABLE: ("notApplicable", "none"),
}
"""(kind, level); a level other than none is valid with kind fail only (SARIF 3.27.10)."""


def document(assessment: Assessment) -> dict[str, Any]:
    """Return the log file as Python values, with one run."""
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "jaula audit",
                        "version": __version__,
                        "semanticVersion": semantic_version(__version__),
                        "rules": [_rule(outcome.control) for outcome in assessment.outcomes],
                    }
                },
                "invocations": [{"executionSuccessful": True, "endTimeUtc": assessment.time}],
                "results": [
                    _result(outcome.control, finding, number)
                    for number, outcome in enumerate(assessment.outcomes)
                    for finding in outcome.findings
                ],
                "columnKind": "unicodeCodePoints",
            }
        ],
    }


def render(assessment: Assessment) -> str:
    """Return indented JSON."""
    return json.dumps(document(assessment), indent=2)


def _rule(control: Control) -> dict[str, Any]:
    return {
        "id": control.id,
        "name": control.title,
        "shortDescription": {"text": control.title},
        "fullDescription": {"text": f"{BENCHMARK}, {control.id}, level {control.level}"},
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": ["security", f"CIS {control.id}", f"level {control.level}"]},
    }


def _result(control: Control, finding: Finding, number: int) -> dict[str, Any]:
    kind, level = KINDS[finding.state]
    text = f"{finding.subject}: {control.title}: {finding.evidence}"
    result: dict[str, Any] = {
        "ruleId": control.id,
        "ruleIndex": number,
        "kind": kind,
        "level": level,
        "message": {"text": text},
        "locations": [
            {
                "logicalLocations": [
                    {
                        "name": finding.subject,
                        "fullyQualifiedName": f"{finding.kind}/{finding.subject}",
                        "kind": "resource",
                    }
                ]
            }
        ],
        "partialFingerprints": {
            "subjectAndControl/v1": fingerprint(str(finding.kind), finding.subject, control.id)
        },
        "properties": {"state": str(finding.state), "remediation": finding.remediation},
    }
    if finding.state is State.EXCEPTED:
        result["suppressions"] = [{"kind": "external", "justification": finding.note}]
    return result
