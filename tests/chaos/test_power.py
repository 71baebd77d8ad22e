"""A short form of the power failures: two at each operation, one of them after its answer."""

from __future__ import annotations

import os
import random
import subprocess
import sys

import pytest

from chaos.__main__ import NOT_POSSIBLE
from chaos.power import Change, Ledger
from harness.engine import PROJECT

CUTS = os.environ.get("JAULA_POWER_CUTS", "2")
LEDGER = Ledger(
    [
        Change("create", "volume", "a", 1, 10, 20),
        Change("create", "volume", "b", 2, 20, 30),
        Change("remove", "volume", "a", None, 30, 40),
    ]
)


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        (10, {}),
        (19, {}),
        (20, {"a": 1}),
        (30, {"a": 1, "b": 2}),
        (31, {"b": 2}),
        (40, {"a": None, "b": 2}),
    ],
)
def test_an_operation_in_progress_may_be_done_or_not(cut: int, expected: dict[str, object]) -> None:
    known = LEDGER.expected(cut)
    assert {name: value for (_, name), value in known.items()} == expected


def test_each_operation_is_cut_right_after_its_answer() -> None:
    cuts = LEDGER.cuts(2, random.Random(1))
    assert [operation for _, operation in cuts] == ["create"] * 2 + ["remove"] * 2
    assert cuts[0][0] in (20, 30)
    assert cuts[2][0] == 40


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_was_answered_survives_a_power_failure() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "--power", CUTS, "--rounds", "2"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": f"{PROJECT / 'src'}:{PROJECT / 'tests'}"},
    )
    if done.returncode == NOT_POSSIBLE:
        pytest.skip(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "power failures on ext4" in done.stdout
