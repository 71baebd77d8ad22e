"""Rows from a twin's answers: one for each group of attempts. Pure."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

import msgspec

from jaula.features.verify.escape.attempts import SIGALRM, Attempt
from jaula.features.verify.escape.check_info import INFO
from jaula.features.verify.escape.program import ALARM, Answer
from jaula.features.verify.model.result import Result, Verdict


class AttemptResult(msgspec.Struct, frozen=True):
    """Result of an attempt; ``refused`` is None if it was not made, ``answer`` is the kernel's."""

    attempt: Attempt
    refused: bool | None
    answer: str


def evaluate(attempts: Sequence[Attempt], answers: Sequence[Answer]) -> list[AttemptResult]:
    """Return the result of each attempt, in order."""
    attempt_results, position = [], 0
    for attempt in attempts:
        length = len(attempt.steps)
        attempt_results.append(
            evaluate_attempt(
                attempt, answers[position], answers[position + 1 : position + 1 + length]
            )
        )
        position += 1 + length
    return attempt_results


def evaluate_attempt(attempt: Attempt, status: Answer, steps: Sequence[Answer]) -> AttemptResult:
    """Return the result of an attempt from its process's status and each call's result."""
    if not status.reached:
        return AttemptResult(attempt, None, f"cannot fork: {_errno(-status.value)}")
    if signal := status.value & 0x7F:
        if signal in attempt.signals:
            return AttemptResult(attempt, True, f"ended by signal {signal}")
        if signal == SIGALRM:
            return AttemptResult(attempt, None, f"no result in {ALARM} seconds")
    elif attempt.exit_code is not None and status.value >> 8 & 0xFF == attempt.exit_code:
        return AttemptResult(attempt, False, "it was executed")
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
        if (
            number == deciding
            and attempt.max_value is not None
            and attempt.min_value <= step.value <= attempt.max_value
        ):
            return AttemptResult(attempt, True, "empty")
    value = steps[deciding].value
    return AttemptResult(attempt, False, f"succeeded ({value if value >= 0 else hex(value)})")


def rows(attempt_results: Sequence[AttemptResult]) -> list[Result]:
    """Return a row for each group, with successful attempts and the flags that allow them."""
    groups = dict.fromkeys(result.attempt.group for result in attempt_results)
    return [
        _row(name, [result for result in attempt_results if result.attempt.group == name])
        for name in groups
    ]


def _row(group: str, attempt_results: Sequence[AttemptResult]) -> Result:
    succeeded = [result for result in attempt_results if result.refused is False]
    not_made = [result for result in attempt_results if result.refused is None]
    unexpected = [result for result in succeeded if result.attempt.relaxed_by is None]
    flags = sorted({result.attempt.relaxed_by for result in succeeded if result.attempt.relaxed_by})
    verdict = Verdict.HOLDS
    if unexpected:
        verdict = Verdict.FAILS
    elif not_made:
        verdict = Verdict.UNKNOWN
    elif succeeded:
        verdict = Verdict.RELAXED
    refused = sum(result.refused is True for result in attempt_results)
    effective = f"{refused} refused"
    if succeeded:
        effective += "; allowed: " + ", ".join(map(_text, succeeded))
    if not_made:
        effective += "; not tried: " + ", ".join(map(_text, not_made))
    requested = f"{len(attempt_results)} refused" + (f" ({', '.join(flags)})" if flags else "")
    return Result(f"tried: {group}", INFO.layer, requested, effective, "a twin's system calls",
               verdict, INFO.id)  # fmt: skip


def _text(result: AttemptResult) -> str:
    return f"{result.attempt.name} ({result.answer})"


def _errno(number: int) -> str:
    return f"{errno.errorcode.get(number, number)}: {os.strerror(number)}"
