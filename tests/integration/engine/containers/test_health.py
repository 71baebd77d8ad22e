"""Health checks of real containers: states, output, time-outs, restarts of the engine."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import docker as sdk
import pytest

from harness import containers
from harness.engine import PrivateEngine

FAST = ("--health-interval", "200ms")


def health(engine: PrivateEngine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = containers.inspect(engine, name)["State"]["Health"]
    return found


def becomes(engine: PrivateEngine, name: str, status: str) -> None:
    containers.eventually(lambda: health(engine, name)["Status"] == status, status)


def processes(engine: PrivateEngine, name: str) -> list[str]:
    told = engine.request("GET", f"/containers/{name}/top").json()
    column = told["Titles"].index("CMD")
    return [row[column] for row in told["Processes"]]


@pytest.mark.parametrize("program", ["docker", "jaula"])
def test_the_states_follow_the_probe(engine: PrivateEngine, busybox: str, program: str) -> None:
    since = time.time()
    name = containers.unique("h")
    done = engine.cli(
        *(program, "run", "-d", "--name", name, *FAST, "--health-retries", "2"),
        *("--health-cmd", "echo looked; echo too >&2; test -e /ok"),
        *(busybox, "sleep", "600"),
    )
    assert done.returncode == 0, done.stderr
    try:
        assert "(health: starting)" in engine.cli(program, "ps").stdout
        becomes(engine, name, "unhealthy")
        found = health(engine, name)
        assert found["FailingStreak"] >= 2
        last = found["Log"][-1]
        assert last["ExitCode"] == 1
        assert sorted(last["Output"].split()) == ["looked", "too"]
        assert last["Start"] < last["End"]
        assert "(unhealthy)" in engine.cli(program, "ps").stdout
        engine.cli("jaula", "exec", name, "touch", "/ok")
        becomes(engine, name, "healthy")
        assert health(engine, name)["FailingStreak"] == 0
        listed = engine.cli(program, "ps", "--filter", "health=healthy", "-q").stdout.split()
        assert len(listed) == 1
        assert "(healthy)" in engine.cli(program, "ps").stdout
        time.sleep(1.5)
        assert len(health(engine, name)["Log"]) == 5
        told = containers.events(engine, since, event="health_status", container=name)
        actions = [event["Action"] for event in told]
        assert actions == ["health_status: unhealthy", "health_status: healthy"]
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


def test_a_probe_that_hangs_is_killed_with_its_children(
    engine: PrivateEngine, busybox: str
) -> None:
    command = "echo begun; sleep 1111 & sleep 1112"
    flags = (*FAST, "--health-timeout", "300ms", "--health-cmd", command)
    with containers.running(engine, busybox, flags=flags) as name:
        containers.eventually(lambda: len(health(engine, name)["Log"]) >= 3, "three results")
        last = health(engine, name)["Log"][-1]
        assert last["ExitCode"] == -1
        assert last["Output"] == "Health check exceeded timeout (300ms): begun\n"
        assert sum("111" in command for command in processes(engine, name)) <= 3
        engine.cli("jaula", "exec", name, "true")


def test_processes_that_a_probe_leaves_behind_are_killed(
    engine: PrivateEngine, busybox: str
) -> None:
    flags = (*FAST, "--health-cmd", "sleep 1113 >/dev/null 2>&1 & true")
    with containers.running(engine, busybox, flags=flags) as name:
        becomes(engine, name, "healthy")
        containers.eventually(lambda: len(health(engine, name)["Log"]) >= 4, "four results")
        assert sum("1113" in command for command in processes(engine, name)) <= 1


def test_much_output_is_cut(engine: PrivateEngine, busybox: str) -> None:
    flags = (*FAST, "--health-cmd", "yes | head -c 3000000")
    with containers.running(engine, busybox, flags=flags) as name:
        becomes(engine, name, "healthy")
        output = health(engine, name)["Log"][-1]["Output"]
        assert len(output) == 4096 + 3
        assert output.endswith("...")


def test_a_missing_probe_program_is_reported(engine: PrivateEngine, busybox: str) -> None:
    client = sdk.DockerClient(base_url=engine.host)
    check = {"test": ["CMD", "/no/such/program"], "interval": 200_000_000, "retries": 1}
    container = client.containers.run(busybox, "sleep 600", detach=True, healthcheck=check)
    try:
        becomes(engine, container.id, "unhealthy")
        assert "/no/such/program" in health(engine, container.id)["Log"][0]["Output"]
    finally:
        container.remove(force=True)
        client.close()


def test_a_paused_container_is_not_probed(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox, flags=(*FAST, "--health-cmd", "true")) as name:
        becomes(engine, name, "healthy")
        engine.cli("jaula", "pause", name)
        time.sleep(0.5)
        before = health(engine, name)
        time.sleep(1)
        assert health(engine, name) == before
        engine.cli("jaula", "unpause", name)
        containers.eventually(lambda: health(engine, name) != before, "a new result")
        assert health(engine, name)["Status"] == "healthy"


def test_a_stopped_container_is_unhealthy_and_starts_anew(
    engine: PrivateEngine, busybox: str
) -> None:
    with containers.running(engine, busybox, flags=(*FAST, "--health-cmd", "true")) as name:
        becomes(engine, name, "healthy")
        engine.cli("jaula", "stop", "-t", "0", name)
        assert health(engine, name)["Status"] == "unhealthy"
        engine.cli("jaula", "start", name)
        becomes(engine, name, "healthy")


def test_no_healthcheck_and_conflicts(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox, flags=("--no-healthcheck",)) as name:
        assert "Health" not in containers.inspect(engine, name)["State"]
    refused = engine.cli(
        *("jaula", "run", "--no-healthcheck", "--health-cmd", "true", busybox, "true")
    )
    assert refused.returncode == 125
    assert "conflicts" in refused.stderr
    refused = engine.cli("jaula", "run", "--health-interval", "1us", busybox, "true")
    assert "cannot be less than 1ms" in refused.stderr


def test_the_start_interval_finds_health_early(engine: PrivateEngine, busybox: str) -> None:
    flags = (
        *("--health-interval", "1h", "--health-start-period", "1h"),
        *("--health-start-interval", "200ms", "--health-cmd", "test -e /ok"),
    )
    with containers.running(engine, busybox, flags=flags) as name:
        time.sleep(1)
        assert health(engine, name)["Status"] == "starting"
        assert health(engine, name)["FailingStreak"] == 0
        engine.cli("jaula", "exec", name, "touch", "/ok")
        becomes(engine, name, "healthy")


def test_health_goes_on_after_the_engine_was_killed(
    new_engine: Callable[..., PrivateEngine], busybox_archive: Path
) -> None:
    engine = new_engine()
    image = "busybox"
    engine.cli("jaula", "load", "-i", str(busybox_archive))
    hanging = "test -e /hang && sleep 1114; true"
    flags = (*FAST, "--health-cmd", hanging, "--health-timeout", "10m")
    with containers.running(engine, image, flags=flags) as name:
        becomes(engine, name, "healthy")
        engine.cli("jaula", "exec", name, "touch", "/hang")
        containers.eventually(
            lambda: any("1114" in c for c in processes(engine, name)), "a probe that hangs"
        )
        engine.cli("jaula", "exec", name, "rm", "/hang")
        engine.kill()
        engine.start()
        assert health(engine, name)["Status"] == "healthy"
        containers.eventually(
            lambda: not any("1114" in c for c in processes(engine, name)), "it was ended"
        )
        before = health(engine, name)["Log"]
        containers.eventually(lambda: health(engine, name)["Log"] != before, "a new result")


@pytest.mark.needs("docker-compose")
def test_compose_waits_for_a_healthy_service(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    (tmp_path / "compose.yaml").write_text(
        f"""
services:
  first:
    image: {busybox}
    network_mode: none
    command: sh -c "sleep 1; touch /ok; sleep 600"
    healthcheck: {{test: ["CMD", "test", "-e", "/ok"], interval: 200ms, retries: 100}}
  second:
    image: {busybox}
    network_mode: none
    command: sleep 600
    depends_on: {{first: {{condition: service_healthy}}}}
"""
    )
    words = ("docker-compose", "-p", containers.unique("hc"), "-f", str(tmp_path / "compose.yaml"))
    try:
        done = engine.cli(*words, "up", "-d")
        assert done.returncode == 0, done.stderr
        shown = engine.cli(*words, "ps").stdout
        assert "(healthy)" in shown
        assert shown.count("Up") == 2
    finally:
        subprocess.run(
            [*words, "down", "-t", "0"],
            env=engine.environment(),
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=True,
        )


REACTION = "io.jaula.health-on-failure"


@pytest.mark.parametrize(
    ("program", "flags"),
    [
        ("jaula", ("--health-on-failure", "restart")),
        ("docker", ("--label", f"{REACTION}=restart", "--restart", "on-failure:1")),
    ],
)
def test_an_unhealthy_container_is_started_again(
    engine: PrivateEngine, busybox: str, program: str, flags: tuple[str, ...]
) -> None:
    name = containers.unique("h")
    probe = ("--health-cmd", "! test -e /ill", *FAST, "--health-retries", "2")
    words = ("run", "-d", "--init", "--name", name, *flags, *probe, busybox, "sleep", "600")
    done = engine.cli(program, *words)
    assert done.returncode == 0, done.stderr
    try:
        becomes(engine, name, "healthy")
        first = containers.pid(engine, name)
        for count in (1, 2):
            engine.cli("docker", "exec", name, "touch", "/ill")
            renewed(engine, name, count)
            engine.cli("docker", "exec", name, "rm", "/ill")
            becomes(engine, name, "healthy")
        assert containers.pid(engine, name) != first
        engine.cli("docker", "exec", name, "touch", "/ill")
        assert engine.cli("docker", "stop", "-t", "1", name).returncode == 0
        time.sleep(1)
        assert containers.inspect(engine, name)["State"]["Status"] == "exited"
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


@pytest.mark.parametrize(("action", "status"), [("kill", 137), ("stop", 143)])
def test_an_unhealthy_container_is_ended_for_its_service_manager(
    engine: PrivateEngine, busybox: str, action: str, status: int
) -> None:
    name = containers.unique("h")
    probe = ("--health-cmd", "false", *FAST, "--health-retries", "1")
    flags = ("-d", "--init", "--name", name, "--health-on-failure", action)
    assert engine.cli("jaula", "run", *flags, *probe, busybox, "sleep", "600").returncode == 0
    try:
        assert engine.cli("jaula", "wait", name).stdout.strip() == str(status)
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


def renewed(engine: PrivateEngine, name: str, count: int) -> None:
    """Wait until it runs for another time."""

    def runs() -> bool:
        found = containers.inspect(engine, name)
        return bool(found["RestartCount"] == count and found["State"]["Pid"])

    containers.eventually(runs, f"restart {count}")


def test_without_the_option_an_unhealthy_container_runs_on(
    engine: PrivateEngine, busybox: str
) -> None:
    flags = (*FAST, "--health-cmd", "false", "--health-retries", "1")
    flags = (*flags, "--health-on-failure", "none", "--restart", "always")
    with containers.running(engine, busybox, flags=flags) as name:
        becomes(engine, name, "unhealthy")
        time.sleep(0.7)
        assert containers.inspect(engine, name)["RestartCount"] == 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--label", f"{REACTION}=explode"), "one of none, restart"),
        (("--label", f"{REACTION}=restart", "--rm", "--health-cmd", "true"), "AutoRemove"),
    ],
)
def test_a_reaction_that_cannot_be_is_refused(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...], words: str
) -> None:
    done = engine.cli("docker", "create", *flags, busybox, "true")
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr


def test_a_reaction_without_a_check_is_warned_of(engine: PrivateEngine, busybox: str) -> None:
    name = containers.unique("h")
    label = ("--label", f"{REACTION}=restart")
    done = engine.cli("docker", "create", "--name", name, *label, busybox, "true")
    try:
        assert "no health check" in done.stderr
    finally:
        engine.request("DELETE", f"/containers/{name}")
