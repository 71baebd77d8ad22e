"""Assessment as a table for a terminal: controls that do not hold have their subjects below."""

from __future__ import annotations

from jaula.features.audit.benchmark.assessment import Assessment, Finding, Outcome, counts, score
from jaula.features.audit.benchmark.control import State
from jaula.features.verify.model.result import plain, quantity, table

MAX_FINDINGS = 10  # findings of a control in the table; the other formats have all
_DETAILED = (State.FAIL, State.UNKNOWN, State.MANUAL, State.EXCEPTED)


def render(assessment: Assessment) -> str:
    """Return the table, the findings that need attention, and the score."""
    rows = [_row(outcome) for outcome in assessment.outcomes]
    lines = [table(("ID", "LEVEL", "STATE", "SUBJECTS", "CONTROL"), rows)]
    for outcome in assessment.outcomes:
        if outcome.state in _DETAILED:
            lines += ["", *_details(outcome)]
    return "\n".join((*lines, "", score_line(assessment)))


def score_line(assessment: Assessment) -> str:
    """Return the score in one line."""
    outcomes = assessment.outcomes
    states = ", ".join(f"{count} {state}" for state, count in counts(outcomes).items())
    return (
        f"{assessment.profile.title}: {score(outcomes)} applicable controls hold "
        f"(level 1: {score(outcomes, 1)}, level 2: {score(outcomes, 2)}); {states}"
    )


def _row(outcome: Outcome) -> tuple[str, ...]:
    worst = sum(finding.state is outcome.state for finding in outcome.findings)
    subjects = f"{worst} of {len(outcome.findings)}" if outcome.findings else "none"
    control = outcome.control
    return control.id, str(control.level), str(outcome.state), subjects, control.title


def _details(outcome: Outcome) -> list[str]:
    findings = [f for f in outcome.findings if f.state in _DETAILED]
    lines = [f"{outcome.control.id} {outcome.control.title}"]
    for finding in findings[:MAX_FINDINGS]:
        lines.append(f"    {plain(_detail(finding))}")
        if finding.remediation:
            lines.append(f"        remediation: {plain(finding.remediation)}")
    if len(findings) > MAX_FINDINGS:
        lines.append(f"    and {quantity(len(findings) - MAX_FINDINGS, 'subject')} more")
    return lines


def _detail(finding: Finding) -> str:
    note = f" ({finding.note})" if finding.note else ""
    return f"{finding.state}: {finding.subject}: {finding.evidence}{note}"
