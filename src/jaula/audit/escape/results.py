"""From a twin's answers to rows: one for each group of attempts. Pure."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

import msgspec

from jaula.audit.escape.attempts import SIGALRM, Attempt
from jaula.audit.escape.check_info import INFO
from jaula.audit.escape.program import ALARM, Answer
from jaula.audit.model.result import Result, Verdict


class AttemptResult(msgspec.Struct, frozen=True):
    """``refused`` is None where it could not be tried; ``answer`` is what the kernel said."""

    attempt: Attempt
    refused: bool | None
    answer: str


def evaluate(attempts: Sequence[Attempt], answers: Sequence[Answer]) -> list[AttemptResult]:
    """What came of each attempt, in order."""
    found, at = [], 0
    for attempt in attempts:
        length = len(attempt.steps)
        found.append(evaluate_attempt(attempt, answers[at], answers[at + 1 : at + 1 + length]))
        at += 1 + length
    return found


def evaluate_attempt(attempt: Attempt, status: Answer, steps: Sequence[Answer]) -> AttemptResult:
    """One attempt: the status of its process, then the answer of each call."""
    if not status.reached:
        return AttemptResult(attempt, None, f"no process could be made: {_errno(-status.value)}")
    if signal := status.value & 0x7F:
        if signal in attempt.signals:
            return AttemptResult(attempt, True, f"ended by signal {signal}")
        if signal == SIGALRM:
            return AttemptResult(attempt, None, f"no answer in {ALARM} seconds")
    deciding = attempt.deciding % len(attempt.steps)
    for number, step in enumerate(steps[: deciding + 1]):
        if not step.reached:
            return AttemptResult(
                attempt, None, f"the process ended by signal {status.value & 0x7F}"
            )
        if number < deciding and -step.value in attempt.continue_on:
            continue
        if -4096 < step.value < 0:
            return AttemptResult(attempt, -step.value in attempt.refusals, _errno(-step.value))
        if number == deciding and attempt.max_value is not None and step.value <= attempt.max_value:
            return AttemptResult(attempt, True, "nothing in it")
    value = steps[deciding].value
    return AttemptResult(attempt, False, f"it worked ({value if value >= 0 else hex(value)})")


def rows(found: Sequence[AttemptResult]) -> list[Result]:
    """A row for each group, which names what went through and why it was allowed to."""
    groups = dict.fromkeys(each.attempt.group for each in found)
    return [_row(name, [each for each in found if each.attempt.group == name]) for name in groups]


def _row(group: str, found: Sequence[AttemptResult]) -> Result:
    through = [each for each in found if each.refused is False]
    untried = [each for each in found if each.refused is None]
    unasked = [each for each in through if each.attempt.relaxed_by is None]
    flags = sorted({each.attempt.relaxed_by for each in through if each.attempt.relaxed_by})
    verdict = Verdict.HOLDS
    if unasked:
        verdict = Verdict.FAILS
    elif untried:
        verdict = Verdict.UNKNOWN
    elif through:
        verdict = Verdict.RELAXED
    refused = sum(each.refused is True for each in found)
    effective = f"{refused} refused"
    if through:
        effective += "; let through: " + ", ".join(map(_text, through))
    if untried:
        effective += "; not tried: " + ", ".join(map(_text, untried))
    requested = f"{len(found)} refused" + (f" ({', '.join(flags)})" if flags else "")
    return Result(f"tried: {group}", INFO.layer, requested, effective, "a twin's system calls",
               verdict, INFO.id)  # fmt: skip


def _text(each: AttemptResult) -> str:
    return f"{each.attempt.name} ({each.answer})"


def _errno(number: int) -> str:
    return f"{errno.errorcode.get(number, number)}: {os.strerror(number)}"
