"""The budget of ``verify --watch``, and which rows it reports."""

from __future__ import annotations

import pytest

from jaula.features.verify.model.result import Result, Verdict
from jaula.features.verify.watch import INTERVAL, Budget, changes, next_interval


def rows(**verdicts: Verdict) -> dict[str, Result]:
    return {name: Result(name, "layer", "", "value", "", v) for name, v in verdicts.items()}


def test_a_budget_is_spent_at_once_and_saved_at_its_share() -> None:
    budget = Budget(0.0, share=0.01, burst=1.0)
    assert budget.wait(0.0) == 0
    budget.spend(0.0, 0.5)
    assert budget.wait(0.0) == 0
    budget.spend(0.0, 1.5)
    assert budget.wait(0.0) == pytest.approx(100, abs=0.1)
    assert budget.wait(60.0) == pytest.approx(40, abs=0.1)
    assert budget.wait(101.0) == 0


def test_a_budget_saves_no_more_than_its_burst() -> None:
    budget = Budget(0.0, share=0.01, burst=1.0)
    budget.spend(1_000_000.0, 2.0)
    assert budget.wait(1_000_000.0) == pytest.approx(100, abs=0.1)


def test_rounds_take_half_of_the_share() -> None:
    assert next_interval(0.0) == INTERVAL
    assert next_interval(1.0, share=0.01) == 200


def test_at_first_only_what_does_not_hold_is_a_change() -> None:
    first = rows(a=Verdict.HOLDS, b=Verdict.FAILS, c=Verdict.RELAXED, d=Verdict.UNKNOWN)
    assert [row.id for row in changes({}, first)] == ["b", "d"]
    assert changes(first, first) == []


@pytest.mark.parametrize(
    ("before", "after", "changed"),
    [
        (Verdict.HOLDS, Verdict.FAILS, True),
        (Verdict.RELAXED, Verdict.FAILS, True),
        (Verdict.FAILS, Verdict.HOLDS, True),
        (Verdict.FAILS, Verdict.UNKNOWN, True),
        (Verdict.UNKNOWN, Verdict.RELAXED, True),
        (Verdict.HOLDS, Verdict.RELAXED, False),
        (Verdict.FAILS, Verdict.FAILS, False),
    ],
)
def test_a_row_that_starts_or_ceases_to_fail_is_a_change(
    before: Verdict, after: Verdict, changed: bool
) -> None:
    assert bool(changes(rows(a=before), rows(a=after))) is changed


def test_a_failing_row_with_another_value_is_a_change() -> None:
    other = {"a": Result("a", "layer", "", "another", "", Verdict.FAILS)}
    assert changes(rows(a=Verdict.FAILS), other) == [other["a"]]
