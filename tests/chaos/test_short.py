"""A short form of the campaign and of the sweep: a minute.

The campaign avoids the moments in ``campaign.WEAK``. The sweep takes a few points of each operation
that hold. ``NOT_YET`` names points of which the behaviour is known to be wrong, each with what goes
wrong: a test of it must fail, and is taken out of the table with the change that mends it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from chaos.campaign import Campaign
from chaos.sweep import run_point
from chaos.target import Fault, Target

SECONDS = float(os.environ.get("JAULA_CHAOS_SECONDS", "20"))
SEED = int(os.environ.get("JAULA_CHAOS_SEED", "20261127"))


@pytest.fixture(scope="module")
def target(worker_index: int) -> Iterator[Target]:
    made = Target((worker_index + 53) % 250 + 1)
    try:
        yield made
    finally:
        left = made.close()
    assert not left, f"left behind by the engine: {left}"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_random_kills_lose_nothing_and_leave_nothing(target: Target) -> None:
    campaign = Campaign(target, SEED, clients=4)
    campaign.run(kills=1000, seconds=SECONDS)
    if campaign.faults:
        text = campaign.description()
        target.reset()
        pytest.fail(text)
    assert campaign.kills.total() >= 3, campaign.kills
    assert campaign.done.total() >= 50, campaign.done


HOLDS = (
    "start/engine/20",
    "start/zygote/5",
    "start/shim/5",
    "start/helper/5",
    "start/init/100",
    "start/init/600",
    "exec/helper/20",
    "stop/engine/40",
    "rm/engine/60",
    "pull/engine/100",
    "cp/engine/60",
    "connect/engine/60",
    "start/engine/pwrite64+3",
    "start/shim/clone+10",
    "start/helper/clone3+2",
    "commit/engine/llistxattr+1",
)

NOT_YET = {
    "start/stage/clone3+1": "the stage dies before its report: start is never answered",
    "exec/stage/clone3+1": "the stage dies before its report: exec is never answered",
    "exec/helper/clone3+3": "the helper dies: rm -f answers that the container does not exit",
}


def hold(target: Target, point: str) -> None:
    result = run_point(target, *point.split("/"))
    if result.fault is not None:
        target.reset()
        raise Fault(f"{point} ({result.call}): {result.fault}")


@pytest.mark.slow
@pytest.mark.parametrize("point", HOLDS)
def test_a_kill_at_a_system_call_loses_nothing_and_leaves_nothing(
    target: Target, point: str
) -> None:
    hold(target, point)


@pytest.fixture
def short_limits(target: Target) -> Iterator[Target]:
    """The target with short limits: most answers that are missing never come."""
    kept = target.limit, target.settle
    target.limit, target.settle = kept[0] / 4, kept[1] / 4
    yield target
    target.limit, target.settle = kept


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    [
        pytest.param(point, marks=pytest.mark.xfail(raises=Fault, strict=True, reason=reason))
        for point, reason in NOT_YET.items()
    ],
)
def test_a_kill_at_a_weak_moment_loses_nothing_and_leaves_nothing(
    short_limits: Target, point: str
) -> None:
    hold(short_limits, point)
