"""Spare inits of an engine: ids, limits, expiry, and nothing left after any end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine

NewEngine = Callable[..., PrivateEngine]
LIMIT = 20.0  # seconds


def cgroup_ids(engine: PrivateEngine) -> set[str]:
    """Return the names of the cgroups below the engine's parent."""
    roots = [Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")]
    parent = next(root for root in roots if (root / "cgroup.procs").exists()) / engine.cgroup_parent
    return {path.name for path in parent.iterdir() if path.is_dir()} if parent.exists() else set()


def spare_id(engine: PrivateEngine, *known: str) -> str:
    """Wait for a spare init, and return the id of its container."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        ids = [each for each in cgroup_ids(engine) - set(known) if has_init(engine, each)]
        if len(ids) == 1:
            return ids[0]
        time.sleep(0.02)
    raise AssertionError(f"no spare init: {engine.log_tail()}")


def has_init(engine: PrivateEngine, container_id: str) -> bool:
    """Return whether the only process of a cgroup is in a pid namespace of its own."""
    pids = processes(engine, container_id)
    try:
        spaces = {os.readlink(f"/proc/{pid}/ns/pid") for pid in pids}
    except FileNotFoundError:
        return False
    return len(pids) == 1 and os.readlink("/proc/self/ns/pid") not in spaces


def processes(engine: PrivateEngine, container_id: str) -> list[int]:
    for root in ("/sys/fs/cgroup/pids", "/sys/fs/cgroup"):
        try:
            text = Path(f"{root}/{engine.cgroup_parent}/{container_id}/cgroup.procs").read_text()
        except FileNotFoundError:
            continue
        return [int(line) for line in text.split()]
    return []


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def loaded(new_engine: NewEngine, busybox_archive: Path) -> PrivateEngine:
    engine = new_engine("--spare-inits", "1")
    done = engine.cli("jaula", "load", "-q", "-i", str(busybox_archive))
    assert done.returncode == 0, done.stderr
    return engine


def test_a_container_gets_the_id_and_the_process(loaded: PrivateEngine) -> None:
    expected = spare_id(loaded)
    (pid,) = processes(loaded, expected)
    with containers.running(loaded, "busybox", flags=("-m", "64m", "--pids-limit", "33")) as name:
        document = containers.inspect(loaded, name)
        assert document["Id"] == expected
        assert document["State"]["Pid"] == pid
        assert document["Config"]["Hostname"] == expected[:12]
        done = loaded.cli("jaula", "exec", name, "cat", "/proc/1/comm", "/proc/self/uid_map")
        assert done.stdout.splitlines()[0] == "sleep"
        checks = loaded.cli("jaula", "verify", name)
        assert checks.returncode == 0, checks.stdout
        limits = loaded.cli("jaula", "stats", "--no-stream", "--format", "{{.MemUsage}}", name)
        assert "64MiB" in limits.stdout


def test_it_is_no_container_and_no_problem(loaded: PrivateEngine) -> None:
    identity = spare_id(loaded)
    assert loaded.request("GET", f"/containers/{identity}/json").status == 404
    assert identity not in loaded.cli("jaula", "ps", "-a", "-q", "--no-trunc").stdout
    done = loaded.cli("jaula", "system", "check")
    assert done.returncode == 0, done.stdout
    assert identity[:12] not in done.stdout


@pytest.mark.slow
def test_a_container_that_is_not_started_soon_loses_it(loaded: PrivateEngine) -> None:
    identity = spare_id(loaded)
    body = {"Image": "busybox", "Cmd": ["true"]}
    reply = loaded.request("POST", "/containers/create?name=late", body)
    assert reply.json()["Id"] == identity
    (pid,) = processes(loaded, identity)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    wait_until(lambda: identity not in cgroup_ids(loaded))
    assert loaded.request("POST", "/containers/late/start").status == 204
    assert loaded.request("POST", "/containers/late/wait").json()["StatusCode"] == 0
    loaded.request("DELETE", "/containers/late?force=1")


def test_a_container_that_is_removed_unstarted_ends_it(loaded: PrivateEngine) -> None:
    known: list[str] = []
    for _ in range(3):
        identity = spare_id(loaded, *known)
        (pid,) = processes(loaded, identity)
        body = {"Image": "busybox", "Cmd": ["true"]}
        reply = loaded.request("POST", "/containers/create", body)
        assert reply.json()["Id"] == identity
        reply = loaded.request("DELETE", f"/containers/{identity}")
        assert reply.status == 204, reply
        assert not Path(f"/proc/{pid}").exists()
        assert identity not in cgroup_ids(loaded)
        known.append(identity)
        # The sandbox is in the pool again: it gets another spare init with the next start.
        assert loaded.cli("jaula", "run", "--rm", "busybox", "true").returncode == 0
    assert "WARNING" not in loaded.log_tail()


def test_a_container_of_another_shape_has_another_id(loaded: PrivateEngine) -> None:
    identity = spare_id(loaded)
    with containers.running(loaded, "busybox", flags=("--privileged",)) as name:
        assert containers.inspect(loaded, name)["Id"] != identity
        assert processes(loaded, identity)


def test_a_wrong_guess_of_the_shape_costs_no_start(loaded: PrivateEngine, tmp_path: Path) -> None:
    identity = spare_id(loaded)
    (pid,) = processes(loaded, identity)
    flags = ("-v", f"{tmp_path}:/dev/data")
    with containers.running(loaded, "busybox", flags=flags) as name:
        document = containers.inspect(loaded, name)
        assert document["Id"] == identity
        assert document["State"]["Pid"] != pid
        assert loaded.cli("jaula", "exec", name, "ls", "-d", "/dev/data").returncode == 0
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_the_engine_ends(loaded: PrivateEngine, number: int) -> None:
    (pid,) = processes(loaded, spare_id(loaded))
    assert loaded.process is not None
    os.kill(loaded.process.pid, number)
    loaded.process.wait(LIMIT)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    wait_until(lambda: not cgroup_ids(loaded))
    loaded.process = None
    loaded.start()


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["shim", "helper", "init"])
def test_an_engine_ends_beside_one_that_is_stopped(loaded: PrivateEngine, victim: str) -> None:
    identity = spare_id(loaded)
    (pid,) = processes(loaded, identity)
    helper = containers.parent(pid)
    stopped = {"shim": containers.parent(helper), "helper": helper, "init": pid}[victim]
    assert loaded.process is not None
    os.kill(stopped, signal.SIGSTOP)
    try:
        loaded.process.send_signal(signal.SIGTERM)
        loaded.process.wait(2 * LIMIT)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(stopped, signal.SIGCONT)
    loaded.process = None
    loaded.start()
    wait_until(lambda: identity not in cgroup_ids(loaded))
    wait_until(lambda: not Path(f"/proc/{pid}").exists())


@pytest.mark.parametrize("victims", ["init", "helper", "shim", "init helper shim"])
def test_nothing_is_left_of_one_that_is_killed(loaded: PrivateEngine, victims: str) -> None:
    """As the OOM killer does, which prefers these processes."""
    identity = spare_id(loaded)
    (pid,) = processes(loaded, identity)
    helper = containers.parent(pid)
    by_name = {"init": pid, "helper": helper, "shim": containers.parent(helper)}
    for name in reversed(victims.split()):
        os.kill(by_name[name], signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    wait_until(lambda: identity not in cgroup_ids(loaded))
    for _ in range(2):
        done = loaded.cli("jaula", "run", "--rm", "busybox", "echo", "runs")
        assert (done.returncode, done.stdout) == (0, "runs\n"), done.stderr
    assert identity not in cgroup_ids(loaded)


def test_a_container_whose_spare_init_is_killed_is_started(loaded: PrivateEngine) -> None:
    """Its cgroup is not removed under its start."""
    identity = spare_id(loaded)
    (pid,) = processes(loaded, identity)
    shim = containers.parent(containers.parent(pid))
    body = {"Image": "busybox", "Cmd": ["sleep", "600"]}
    reply = loaded.request("POST", "/containers/create?name=robbed", body)
    assert reply.json()["Id"] == identity
    os.kill(shim, signal.SIGKILL)
    assert loaded.request("POST", "/containers/robbed/start").status == 204
    time.sleep(0.5)  # an attempt to remove the cgroup would come now
    assert containers.inspect(loaded, "robbed")["State"]["Running"]
    assert loaded.request("DELETE", "/containers/robbed?force=1").status == 204
    wait_until(lambda: identity not in cgroup_ids(loaded))


def test_the_next_engine_removes_what_a_kill_of_all_its_processes_leaves(
    loaded: PrivateEngine,
) -> None:
    identity = spare_id(loaded)
    (pid,) = processes(loaded, identity)
    helper = containers.parent(pid)
    shim = containers.parent(helper)
    assert loaded.process is not None
    loaded.process.send_signal(signal.SIGSTOP)  # it sees no end
    for each in (shim, helper, pid):
        os.kill(each, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    assert identity in cgroup_ids(loaded)
    loaded.kill()
    loaded.start()
    wait_until(lambda: identity not in cgroup_ids(loaded))


def test_zero_turns_them_off(new_engine: NewEngine) -> None:
    engine = new_engine("--spare-inits", "0")
    time.sleep(1.0)  # the pool of sandboxes is filled by then
    assert not cgroup_ids(engine)
