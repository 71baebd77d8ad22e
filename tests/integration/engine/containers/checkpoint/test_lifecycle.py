"""A restored container has what its start gives it: devices, log, health, restart policy, --rm."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from harness import containers
from harness.containers import running
from harness.engine import PrivateEngine

pytestmark = pytest.mark.criu

TICK = "i=0; while :; do i=$((i+1)); echo tick $i; sleep 0.2; done"


def jaula(engine: PrivateEngine, *words: str) -> str:
    done = engine.cli("jaula", *words)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def state(engine: PrivateEngine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = containers.inspect(engine, name)["State"]
    return found


def wait_for(condition: Callable[[], bool], what: str) -> None:
    containers.eventually(condition, what, 20)


def ticks(engine: PrivateEngine, name: str, *flags: str) -> list[int]:
    lines = jaula(engine, "logs", *flags, name).splitlines()
    return [int(line.split()[1]) for line in lines if line.startswith("tick")]


def restore(engine: PrivateEngine, name: str) -> None:
    jaula(engine, "checkpoint", "create", name, "one")
    jaula(engine, "start", "--checkpoint", "one", name)


def test_a_device_that_no_process_has_open(engine: PrivateEngine, busybox: str) -> None:
    with running(engine, busybox, "sh", "-c", TICK, flags=("--device", "/dev/fuse")) as name:
        restore(engine, name)
        assert "10, 229" in jaula(engine, "exec", name, "ls", "-l", "/dev/fuse")
        jaula(engine, "exec", name, "sh", "-c", "exec 5</dev/fuse")
        jaula(engine, "verify", name)


def test_an_open_device_is_refused(engine: PrivateEngine, busybox: str) -> None:
    script = f"exec 5</dev/fuse; {TICK}"
    with running(engine, busybox, "sh", "-c", script, flags=("--device", "/dev/fuse")) as name:
        wait_for(lambda: bool(ticks(engine, name)), "the program runs")
        done = engine.cli("jaula", "checkpoint", "create", name, "one")
        assert "has the device /dev/fuse open (descriptor 5)" in done.stderr
        assert state(engine, name)["Running"]


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_the_log_goes_on_where_it_was(engine: PrivateEngine, busybox: str, driver: str) -> None:
    with running(engine, busybox, "sh", "-c", TICK, flags=("--log-driver", driver)) as name:
        wait_for(lambda: len(ticks(engine, name)) > 3, "the program runs")
        restore(engine, name)
        count = len(ticks(engine, name))
        wait_for(lambda: len(ticks(engine, name)) > count + 3, "the program goes on")
        seen = ticks(engine, name)
        assert seen == list(range(1, len(seen) + 1))
        assert ticks(engine, name, "--tail", "1")[0] >= seen[-1]


def test_health_is_checked_again_from_the_start(engine: PrivateEngine, busybox: str) -> None:
    flags = ("--health-cmd", "test -e /tmp/well", "--health-interval", "300ms",
             "--health-retries", "1")  # fmt: skip
    script = f"touch /tmp/well; {TICK}"
    with running(engine, busybox, "sh", "-c", script, flags=flags) as name:
        wait_for(lambda: state(engine, name)["Health"]["Status"] == "healthy", "it is healthy")
        deadline = time.monotonic() + 20
        while (done := engine.cli("jaula", "checkpoint", "create", name, "one")).returncode:
            # A probe was just running.
            assert "exec'd processes" in done.stderr, done.stderr
            assert time.monotonic() < deadline
        jaula(engine, "start", "--checkpoint", "one", name)
        assert state(engine, name)["Health"]["Status"] in ("starting", "healthy")
        wait_for(lambda: state(engine, name)["Health"]["Status"] == "healthy", "it is healthy")
        jaula(engine, "exec", name, "rm", "/tmp/well")
        wait_for(lambda: state(engine, name)["Health"]["Status"] == "unhealthy", "it is unhealthy")


def test_no_restart_policy_applies_to_a_checkpoint_and_it_does_after_a_restore(
    engine: PrivateEngine, busybox: str
) -> None:
    with running(engine, busybox, "sh", "-c", TICK, flags=("--restart", "always")) as name:
        jaula(engine, "checkpoint", "create", name, "one")
        time.sleep(1)
        assert state(engine, name)["Status"] == "exited"
        jaula(engine, "start", "--checkpoint", "one", name)
        first = containers.pid(engine, name)
        os.kill(first, signal.SIGKILL)
        wait_for(
            lambda: state(engine, name)["Pid"] not in (0, first),
            "it is started again, from its beginning",
        )
        wait_for(lambda: ticks(engine, name).count(1) == 2, "the program begins again")


def test_a_container_with_rm_that_is_left_running_is_removed_with_its_checkpoints(
    engine: PrivateEngine, busybox: str
) -> None:
    name = containers.unique()
    jaula(engine, "run", "-d", "--rm", "--name", name, busybox, "sh", "-c", TICK)
    jaula(engine, "checkpoint", "create", "--leave-running", name, "one")
    made = list((engine.root / "lib/checkpoints").glob("*/one"))
    assert len(made) == 1
    jaula(engine, "kill", name)
    wait_for(lambda: engine.request("GET", f"/containers/{name}/json").status == 404, "it is gone")
    wait_for(lambda: not made[0].exists(), "its checkpoint is gone")


def test_limits_are_those_of_an_update_after_the_checkpoint(
    engine: PrivateEngine, busybox: str
) -> None:
    with running(engine, busybox, "sh", "-c", TICK, flags=("--pids-limit", "40")) as name:
        jaula(engine, "checkpoint", "create", name, "one")
        jaula(engine, "update", "--pids-limit", "50", name)
        jaula(engine, "start", "--checkpoint", "one", name)
        pid = containers.pid(engine, name)
        assert containers.cgroup_file(pid, "pids", "pids.max", "pids.max") == "50"
        events = containers.events(engine, 0, container=name, event="start")
        assert len(events) == 2, json.dumps(events)
