"""Commit: the docker command, docker-py, and our own command."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from subprocess import CompletedProcess
from typing import Any

import docker as sdk
import pytest

from harness import containers
from harness.engine import PrivateEngine

Commit = Callable[..., CompletedProcess[str]]

CHANGE = (
    "rm /etc/nsswitch.conf; rm -r /home; mkdir /home; echo h > /home/h;"
    "rm -r /usr/share 2>/dev/null; mkdir -p /new/deep; echo n > /new/deep/n; chown 12:34 /new;"
    "ln /new/deep/n /new/hard; ln -s deep/n /new/soft; chmod 4711 /new/deep/n;"
    "echo x >> /etc/passwd"
)


@pytest.fixture(params=["docker", "jaula"])
def commit(request: pytest.FixtureRequest, engine: PrivateEngine) -> Commit:
    return lambda *words: engine.cli(request.param, "commit", *words)


@pytest.fixture
def changed(engine: PrivateEngine, busybox: str) -> Iterator[str]:
    with containers.running(engine, busybox, flags=("-e", "A=b", "-v", "/volume")) as name:
        done = engine.cli("jaula", "exec", name, "sh", "-c", CHANGE)
        assert done.returncode == 0, done.stderr
        yield name


@pytest.fixture
def target(engine: PrivateEngine) -> Iterator[str]:
    name = containers.unique("committed")
    yield name
    engine.request("DELETE", f"/images/{name}:v1?force=1")


def image(engine: PrivateEngine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = engine.request("GET", f"/images/{name}/json").json()
    return found


@pytest.mark.parametrize("running", [True, False])
def test_the_image_has_the_changes_and_the_configuration(
    engine: PrivateEngine, changed: str, busybox: str, target: str, commit: Commit, running: bool
) -> None:
    if not running:
        engine.cli("jaula", "stop", "-t", "0", changed)
    done = commit("-a", "Me", "-m", "why", "-c", "ENV C=d", "-c", "USER 5", changed, f"{target}:v1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("sha256:")
    made, base = image(engine, f"{target}:v1"), image(engine, busybox)
    assert made["Id"] == done.stdout.strip()
    assert (made["Author"], made["Comment"]) == ("Me", "why")
    assert made["Config"]["User"] == "5"
    assert {"A=b", "C=d"} <= set(made["Config"]["Env"])
    layers = made["RootFS"]["Layers"]
    assert layers[:-1] == base["RootFS"]["Layers"]
    history = engine.request("GET", f"/images/{target}:v1/history").json()
    assert history[0]["Comment"] == "why"
    script = (
        "stat -c '%n %u:%g %a %h' /new /new/deep/n; readlink /new/soft; cat /home/h; ls /home;"
        "ls /etc/nsswitch.conf; tail -1 /etc/passwd"
    )
    shown = engine.cli("jaula", "run", "--rm", f"{target}:v1", "sh", "-c", script)
    assert shown.stdout.splitlines() == [
        "/new 12:34 755 3",
        "/new/deep/n 0:0 4711 2",
        "deep/n",
        "h",
        "h",
        "x",
    ]
    assert "No such file" in shown.stderr
    state = containers.inspect(engine, changed)["State"]
    assert (state["Status"] == "running") is running


def test_the_same_changes_are_the_same_layer(
    engine: PrivateEngine, changed: str, target: str
) -> None:
    found = [image(engine, engine.cli("jaula", "commit", changed).stdout.strip()) for _ in range(2)]
    try:
        assert found[0]["RootFS"]["Layers"] == found[1]["RootFS"]["Layers"]
    finally:
        for one in found:
            engine.request("DELETE", f"/images/{one['Id']}?force=1")


def test_a_commit_without_changes_adds_no_layer(
    engine: PrivateEngine, busybox: str, target: str
) -> None:
    with containers.running(engine, busybox) as name:
        assert engine.cli("jaula", "commit", name, f"{target}:v1").returncode == 0
    base = image(engine, busybox)["RootFS"]
    assert image(engine, f"{target}:v1")["RootFS"] == base


def test_a_committed_image_is_committed_again_saved_and_loaded(
    engine: PrivateEngine, changed: str, target: str
) -> None:
    engine.cli("jaula", "commit", changed, f"{target}:v1")
    with containers.running(engine, f"{target}:v1", "sleep", "600") as name:
        engine.cli("jaula", "exec", name, "sh", "-c", "rm -r /new; mkdir /new; echo 2 > /new/two")
        second = engine.cli("docker", "commit", "--pause=false", name).stdout.strip()
    archive = engine.request("GET", f"/images/get?names={second}").body
    engine.request("DELETE", f"/images/{second}?force=1")
    assert engine.request("POST", "/images/load", archive).status == 200
    shown = engine.cli("jaula", "run", "--rm", second, "ls", "/new")
    assert shown.stdout == "two\n"
    engine.request("DELETE", f"/images/{second}?force=1")


def test_docker_py_commits_with_a_configuration(
    engine: PrivateEngine, changed: str, target: str
) -> None:
    client = sdk.DockerClient(base_url=engine.host)
    try:
        made = client.containers.get(changed).commit(
            repository=target, tag="v1", conf={"Cmd": ["echo", "mine"], "Labels": {"l": "1"}}
        )
        assert made.labels["l"] == "1"
        assert client.containers.run(f"{target}:v1", remove=True) == b"mine\n"
    finally:
        client.close()


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("container=none", 404),
        ("", 400),
        ("container={0}&changes=RUN%20x", 400),
        ("container={0}&repo=UPPER", 400),
        ("container={0}&tag=v1", 400),
    ],
)
def test_an_invalid_commit_is_refused(
    engine: PrivateEngine, changed: str, query: str, status: int
) -> None:
    assert engine.request("POST", f"/commit?{query.format(changed)}").status == status
    assert containers.inspect(engine, changed)["State"]["Status"] == "running"
