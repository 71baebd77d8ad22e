"""An assessment: every selected control, judged for every subject."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from jaula.features.audit.benchmark import exceptions
from jaula.features.audit.benchmark.control import (
    Control,
    Fix,
    Judgement,
    Kind,
    Profile,
    Scope,
    State,
    unknown,
)
from jaula.features.audit.benchmark.exceptions import Exemption

ORDER = (State.FAIL, State.UNKNOWN, State.MANUAL, State.EXCEPTED, State.PASS, State.NOT_APPLICABLE)
"""States by weight: the state of a control is the first that one of its subjects has."""


class Subject(msgspec.Struct, frozen=True):
    """Subject of a judgement. ``error`` says why there is no evidence, or is empty."""

    kind: Kind
    name: str
    evidence: Any
    error: str = ""


class Finding(msgspec.Struct, frozen=True):
    """The state of a control for one subject. ``note`` is about its exception, or empty."""

    subject: str
    kind: Kind
    state: State
    evidence: str
    remediation: str = ""
    note: str = ""
    fixes: tuple[Fix, ...] = ()
    details: tuple[str, ...] = ()


class Outcome(msgspec.Struct, frozen=True):
    """A control with its findings."""

    control: Control
    findings: tuple[Finding, ...]

    @property
    def state(self) -> State:
        """Return the state of the control: the worst of its findings."""
        states = {finding.state for finding in self.findings}
        return next((state for state in ORDER if state in states), State.NOT_APPLICABLE)


class Assessment(msgspec.Struct, frozen=True):
    """The result of ``command``; ``time`` is RFC 3339 in UTC, ``engine`` its id or ''."""

    time: str
    host: str
    engine: str
    scopes: tuple[Scope, ...]
    outcomes: tuple[Outcome, ...]
    profile: Profile
    command: str = "jaula audit"

    @property
    def passed(self) -> bool:
        """Return whether no control fails and none is unknown."""
        return all(o.state not in (State.FAIL, State.UNKNOWN) for o in self.outcomes)


class Score(msgspec.Struct, frozen=True):
    """How many of the applicable controls hold."""

    holding: int
    applicable: int

    def __str__(self) -> str:
        return f"{self.holding}/{self.applicable}"


def assess(
    controls: Iterable[Control],
    scopes: Sequence[Scope],
    subjects: Sequence[Subject],
    exemptions: Sequence[Exemption],
    today: datetime.date,
) -> tuple[Outcome, ...]:
    """Return the outcome of each control of the scopes. Pure."""
    by_kind: dict[Kind, list[Subject]] = {}
    for subject in subjects:
        by_kind.setdefault(subject.kind, []).append(subject)
    outcomes = []
    for control in controls:
        if not set(control.scopes) & set(scopes):
            continue
        findings = tuple(
            _finding(control, subject, exemptions, today)
            for kind in control.judges
            for subject in by_kind.get(kind, ())
        )
        outcomes.append(Outcome(control, findings))
    return tuple(outcomes)


def _finding(
    control: Control, subject: Subject, exemptions: Sequence[Exemption], today: datetime.date
) -> Finding:
    judgement: Judgement
    if subject.error:
        judgement = unknown(subject.error)
    else:
        judgement = control.judges[subject.kind](subject.evidence)
    state, note = judgement.state, ""
    exemption = exceptions.select(exemptions, control.id, subject.name, today)
    if exemption is not None and state is State.FAIL:
        if exemption.expired(today):
            note = f"the exception ended on {exemption.until}: {exemption.reason}"
        else:
            state, note = State.EXCEPTED, f"until {exemption.until}: {exemption.reason}"
    return Finding(
        subject.name, subject.kind, state, judgement.evidence, judgement.remediation, note,
        judgement.fixes, judgement.details,
    )  # fmt: skip


def score(outcomes: Iterable[Outcome], level: int = 0) -> Score:
    """Return the score of the controls of a level; 0 is every level. Pure."""
    states = [o.state for o in outcomes if level in (0, o.control.level)]
    applicable = sum(state is not State.NOT_APPLICABLE for state in states)
    return Score(sum(state is State.PASS for state in states), applicable)


def counts(outcomes: Iterable[Outcome]) -> Mapping[State, int]:
    """Return the number of controls by state, worst first, without zeros. Pure."""
    states = [outcome.state for outcome in outcomes]
    return {state: states.count(state) for state in ORDER if state in states}
