"""Assessment as JUnit XML, the form that CI servers read: a suite for each section.

A test case is a control for one subject. What fails is a failure, what cannot be read an error;
what a person decides, an exception and what does not apply are skipped.

XML 1.0 has no control characters and no lone surrogates, not even as references, so they are
replaced.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from xml.sax.saxutils import escape, quoteattr

from jaula.features.audit.benchmark.assessment import Assessment, Finding, Outcome
from jaula.features.audit.benchmark.control import State

_INVALID = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SKIPPED = (State.MANUAL, State.EXCEPTED, State.NOT_APPLICABLE)


def render(assessment: Assessment) -> str:
    """Return the document, without a final newline."""
    suites = []
    for section, name in assessment.profile.sections.items():
        outcomes = [o for o in assessment.outcomes if o.control.section == section]
        if outcomes:
            title = f"{section} {name}" if section.isdigit() else name
            suites.append(_suite(title, assessment, outcomes))
    total = _counts(f for o in assessment.outcomes for f in o.findings)
    return "\n".join(
        (
            '<?xml version="1.0" encoding="UTF-8"?>',
            f'<testsuites name="{assessment.command}" {total}>',
            *suites,
            "</testsuites>",
        )
    )


def _counts(findings: Iterable[Finding]) -> str:
    states = [finding.state for finding in findings]
    skipped = sum(state in _SKIPPED for state in states)
    return (
        f'tests="{len(states)}" failures="{states.count(State.FAIL)}" '
        f'errors="{states.count(State.UNKNOWN)}" skipped="{skipped}"'
    )


def _suite(name: str, assessment: Assessment, outcomes: list[Outcome]) -> str:
    profile = assessment.profile.name
    cases = [
        _case(profile, outcome, finding) for outcome in outcomes for finding in outcome.findings
    ]
    counts = _counts(finding for outcome in outcomes for finding in outcome.findings)
    timestamp = assessment.time.rstrip("Z")
    head = f'  <testsuite name={quoteattr(name)} timestamp="{timestamp}" time="0" {counts}>'
    return "\n".join((head, *cases, "  </testsuite>"))


def _case(profile: str, outcome: Outcome, finding: Finding) -> str:
    control = outcome.control
    name = _attribute(f"{control.id} {control.title}: {finding.subject}")
    class_name = _attribute(f"{profile}.{finding.kind}.{finding.subject}")
    head = f'    <testcase name={name} classname={class_name} time="0"'
    message = _attribute(finding.note or finding.evidence)
    body = escape(_valid(f"{finding.evidence}\n{finding.remediation}\n{finding.note}".strip()))
    if finding.state is State.FAIL:
        return f'{head}><failure message={message} type="fail">{body}</failure></testcase>'
    if finding.state is State.UNKNOWN:
        return f'{head}><error message={message} type="unknown">{body}</error></testcase>'
    if finding.state in _SKIPPED:
        return f"{head}><skipped message={message}/></testcase>"
    return f"{head}/>"


def _valid(text: str) -> str:
    return _INVALID.sub("\N{REPLACEMENT CHARACTER}", text)


def _attribute(text: str) -> str:
    return quoteattr(_valid(text))
