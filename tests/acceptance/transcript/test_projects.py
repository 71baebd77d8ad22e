"""Compose projects here and with dockerd: the same output and status of each command of a user."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from acceptance.transcript.projects import PROJECTS
from acceptance.transcript.test_transcript import compare
from conftest import load_image
from harness import leaks
from harness.callers.dockerd import BridgedDockerd
from harness.engine import PrivateEngine
from harness.transcript import Run, Scene, both, play

pytestmark = [
    pytest.mark.client(name="docker compose"),
    pytest.mark.needs("dockerd"),
    pytest.mark.needs("docker-compose"),
    pytest.mark.xdist_group("transcript"),
    pytest.mark.timeout(300),
    pytest.mark.slow,
]

POLICY = """
[container."label=role=proxy"]
access = "read"
"""
TIMEOUT = 120.0  # seconds of one command, on a machine with other work
FOLLOWED = 20.0  # seconds; commands of another client happen meanwhile


@pytest.fixture(scope="module")
def granting(
    worker_index: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrivateEngine]:
    """Yield an engine that grants its socket to containers with the proxy's label."""
    policy = tmp_path_factory.mktemp("policy") / "policy.toml"
    policy.write_text(POLICY)
    made = PrivateEngine((worker_index + 61) % 250 + 1, extra_flags=("--policy", str(policy)))
    with leaks.nothing_left(made) as private:
        load_image(private, "busybox")
        yield private


def clients(engine: PrivateEngine, dockerd: BridgedDockerd) -> tuple[Run, Run]:
    """Return the docker command as a client of this engine and of dockerd.

    The projects have variables. The subnet is one that no other engine uses.
    """
    common = {"API_TOKEN": "t0ken", "SITE": "shop", "SUBNET": f"10.193.{engine.index}"}
    here = engine.environment() | common | {"ENGINE_SOCKET": str(engine.socket)}
    socket = dockerd.address.removeprefix("unix://")
    there = dockerd.environment() | common | {"ENGINE_SOCKET": socket}
    return (
        partial(engine.cli, "docker", env=here, timeout=TIMEOUT),
        partial(dockerd, expect=None, env=there, timeout=TIMEOUT),
    )


@pytest.mark.parametrize("project", PROJECTS, ids=lambda project: project.name)
def test_the_output_is_the_same(
    project: Scene, granting: PrivateEngine, dockerd: BridgedDockerd, tmp_path: Path
) -> None:
    clean = [
        ("compose", "--project-directory", "{here}", "--profile", "*", "down", "-v", "-t", "1")
    ]
    sides = []
    for run, side in zip(clients(granting, dockerd), ("a", "b"), strict=True):
        directory = tmp_path / side / f"tr-{project.name}"  # its name is the project's
        directory.mkdir(parents=True)
        sides.append(partial(play, run, project, directory, clean))
    compare(project, *both(*sides))


def test_compose_events_follows_a_project(
    granting: PrivateEngine, dockerd: BridgedDockerd, tmp_path: Path
) -> None:
    (tmp_path / "compose.yaml").write_text(
        "services: {one: {image: busybox, command: sleep 600, stop_signal: KILL, init: true}}\n"
    )
    project = ("compose", "-p", "tr-followed", "--project-directory", str(tmp_path))
    reported = both(*(partial(_followed, run, project) for run in clients(granting, dockerd)))
    assert reported[0] == reported[1]
    actions = {(line["service"], line["action"]) for line in reported[0]}
    assert {("one", "create"), ("one", "pause"), ("one", "destroy")} <= actions


def _followed(run: Run, project: tuple[str, ...]) -> list[dict[str, Any]]:
    """Return what ``compose events`` reports of the life of a container, in an order of its own."""
    follower = threading.Thread(target=lambda: lines.append(_interrupted(run, project)))
    lines: list[str] = []
    follower.start()
    try:
        time.sleep(2)  # the follower is connected
        for words in (("up", "-d"), ("pause",), ("unpause",), ("restart",), ("down", "-t", "1")):
            done = run(*project, *words)
            assert done.returncode == 0, done.stderr
    finally:
        follower.join()
    found = [json.loads(line) for line in lines[0].splitlines()]
    for event in found:
        assert event["attributes"].pop("name") == "tr-followed-one-1"
        event["attributes"].pop("execDuration", None)
        del event["time"], event["id"]
    return sorted(found, key=json.dumps)


def _interrupted(run: Run, project: tuple[str, ...]) -> str:
    """Return the output of ``compose events`` that was interrupted after some seconds."""
    try:
        return str(run(*project, "events", "--json", timeout=FOLLOWED).stdout)
    except subprocess.TimeoutExpired as expired:
        return (expired.stdout or b"").decode()
