"""A short form of the campaign and of the sweep, for every test run.

The campaign avoids the moments in ``campaign.WEAK``. The sweep takes a few points of each operation
that hold. ``NOT_YET`` names points of which the behaviour is known to be wrong, each with what goes
wrong: a test of it must fail, and is taken out of the table with the change that mends it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from chaos.campaign import Campaign
from chaos.stand import Fault, Stand
from chaos.sweep import run_point

SECONDS = float(os.environ.get("JAULA_CHAOS_SECONDS", "20"))
SEED = int(os.environ.get("JAULA_CHAOS_SEED", "20261127"))


@pytest.fixture(scope="module")
def stand(worker_index: int) -> Iterator[Stand]:
    made = Stand((worker_index + 53) % 250 + 1)
    try:
        yield made
    finally:
        left = made.close()
    assert not left, f"left behind by the engine: {left}"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_random_kills_lose_nothing_and_leave_nothing(stand: Stand) -> None:
    campaign = Campaign(stand, SEED, clients=4)
    campaign.run(kills=1000, seconds=SECONDS)
    if campaign.faults:
        text = campaign.description()
        stand.reset()
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
)

NOT_YET = {
    "start/engine/pwrite64+3": "the engine dies after the program began: the record says created",
    "start/shim/clone+10": "the shim dies while its helper works: the cgroup stays",
    "start/helper/clone3+2": "the helper dies: the cgroup stays",
    "start/stage/clone3+1": "the stage dies before its report: start is never answered",
    "exec/stage/clone3+1": "the stage dies before its report: exec is never answered",
    "exec/helper/clone3+3": "the helper dies: rm -f answers that the container does not exit",
    "commit/engine/llistxattr+1": "the engine dies in commit: the container stays frozen",
}


def hold(stand: Stand, point: str) -> None:
    result = run_point(stand, *point.split("/"))
    if result.fault is not None:
        stand.reset()
        raise Fault(f"{point} ({result.call}): {result.fault}")


@pytest.mark.slow
@pytest.mark.parametrize("point", HOLDS)
def test_a_kill_at_a_system_call_loses_nothing_and_leaves_nothing(stand: Stand, point: str) -> None:
    hold(stand, point)


@pytest.fixture
def hasty(stand: Stand) -> Iterator[Stand]:
    """The stand with short limits: most answers that are missing never come."""
    kept = stand.limit, stand.settle
    stand.limit, stand.settle = kept[0] / 4, kept[1] / 4
    yield stand
    stand.limit, stand.settle = kept


@pytest.mark.slow
@pytest.mark.parametrize(
    "point",
    [
        pytest.param(point, marks=pytest.mark.xfail(raises=Fault, strict=True, reason=reason))
        for point, reason in NOT_YET.items()
    ],
)
def test_a_kill_at_a_weak_moment_loses_nothing_and_leaves_nothing(hasty: Stand, point: str) -> None:
    hold(hasty, point)
