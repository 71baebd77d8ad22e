"""Assessment as JSON. The history and ``jaula audit diff`` use the same document."""

from __future__ import annotations

import json
from typing import Any

from jaula import __version__
from jaula.features.audit.benchmark.assessment import Assessment, Outcome, score


def document(assessment: Assessment) -> dict[str, Any]:
    """Return the document with every finding."""
    scores = {
        name: {"holding": s.holding, "applicable": s.applicable}
        for name, level in (("all", 0), ("level1", 1), ("level2", 2))
        for s in (score(assessment.outcomes, level),)
    }
    return {
        "benchmark": assessment.profile.title,
        "profile": assessment.profile.name,
        "version": __version__,
        "time": assessment.time,
        "host": assessment.host,
        "engine": assessment.engine,
        "scopes": [str(scope) for scope in assessment.scopes],
        "score": scores,
        "controls": [_control(outcome) for outcome in assessment.outcomes],
    }


def _control(outcome: Outcome) -> dict[str, Any]:
    control = outcome.control
    return {
        "id": control.id,
        "level": control.level,
        "title": control.title,
        "state": str(outcome.state),
        "findings": [
            {
                "subject": finding.subject,
                "kind": str(finding.kind),
                "state": str(finding.state),
                "evidence": finding.evidence,
                "remediation": finding.remediation,
                "note": finding.note,
                **({"details": list(finding.details)} if finding.details else {}),
            }
            for finding in outcome.findings
        ],
    }


def render(assessment: Assessment) -> str:
    """Return indented ASCII JSON, because evidence may contain bytes that are not text."""
    return json.dumps(document(assessment), indent=2)
