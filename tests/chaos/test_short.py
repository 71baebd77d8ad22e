"""A short form of the campaign and of the sweep: a minute.

The sweep takes a few points of each operation, among them moments at which an engine once lost a
container.
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
    assert campaign.done.total() >= 30, campaign.done


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
    "exec/helper/clone3+3",
    "exec/stage/clone3+1",
    "start/stage/clone3+1",
)


POD_HOLDS = (
    "run-pod/engine/300",
    "run-pod/engine/540",
    "stop-pod/engine/250",
    "rm-pod/engine/400",
    "create-container/engine/70",
    "start-container/engine/150",
    "reopen-log/engine/10",
)


@pytest.fixture(scope="module")
def pod_target(worker_index: int) -> Iterator[Target]:
    made = Target((worker_index + 79) % 250 + 1, pods=True)
    try:
        yield made
    finally:
        left = made.close()
    assert not left, f"left behind by the engine: {left}"


def hold(target: Target, point: str) -> None:
    try:
        result = run_point(target, *point.split("/"))
        if result.fault is not None:
            raise Fault(f"{point} ({result.call}): {result.fault}")
    except BaseException:
        target.reset()  # the next point starts from nothing
        raise


@pytest.mark.slow
@pytest.mark.parametrize("point", HOLDS)
def test_a_kill_at_a_system_call_loses_nothing_and_leaves_nothing(
    target: Target, point: str
) -> None:
    hold(target, point)


@pytest.mark.needs("/usr/lib/cni/bridge")
@pytest.mark.parametrize("point", POD_HOLDS)
def test_a_call_of_cri_succeeds_again_after_a_kill(pod_target: Target, point: str) -> None:
    hold(pod_target, point)
