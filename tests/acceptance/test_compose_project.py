"""A compose project of five services, from build to down."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.containers import eventually, unique
from harness.engine import PrivateEngine

pytestmark = [pytest.mark.client(name="docker compose"), pytest.mark.needs("docker-compose")]

FILE = """
services:
  store:                       # keeps the stock in a volume; built from a directory
    build:
      context: ./store
      args: {FLAVOUR: plain}
      labels: {part: store}
    init: true
    volumes: [stock:/data]
    networks: [back]
    healthcheck:
      test: [CMD, wget, -qO-, http://127.0.0.1/stock]
      interval: 1s
      timeout: 5s
      retries: 30
  prices:                      # gets its numbers from a config, its key from a secret
    image: busybox
    init: true
    command: sh -c 'mkdir /w && cp /etc/prices /w/list && exec httpd -f -p 80 -h /w'
    configs: [{source: prices, target: /etc/prices}]
    secrets: [key]
    networks: [back]
  shop:                        # waits for a healthy store
    build:
      context: .
      dockerfile: shop.Dockerfile
    init: true
    depends_on:
      store: {condition: service_healthy}
      prices: {condition: service_started}
    ports: ["127.0.0.1::8080"]
    networks: [back, front]
    restart: on-failure
  worker:                      # many of them
    image: busybox
    init: true
    command: sh -c 'while :; do echo work; sleep 0.5; done'
    networks: [back]
    deploy: {resources: {limits: {memory: 32M}}}
  debug:                       # only when asked for
    image: busybox
    init: true
    command: sleep 600
    profiles: [debugging]
    networks: [front]
networks:
  back: {internal: true}
  front: {}
volumes:
  stock: {}
configs:
  prices: {content: "apple 3\\n"}
secrets:
  key: {file: ./key}
"""
STORE = """
FROM busybox
ARG FLAVOUR
RUN mkdir /data && echo "$FLAVOUR apples" > /data/stock
HEALTHCHECK NONE
CMD ["httpd", "-f", "-p", "80", "-h", "/data"]
"""
SHOP = """
FROM busybox AS base
RUN mkdir /site
FROM base
COPY --chmod=644 page /site/index.html
CMD ["httpd", "-f", "-p", "8080", "-h", "/site"]
"""


class Project:
    """The directory of the project, and compose in it."""

    def __init__(self, engine: PrivateEngine, directory: Path) -> None:
        self.engine, self.directory, self.name = engine, directory, unique("team")
        (directory / "compose.yaml").write_text(FILE)
        (directory / "store").mkdir()
        (directory / "store" / "Dockerfile").write_text(STORE)
        (directory / "shop.Dockerfile").write_text(SHOP)
        (directory / "page").write_text("welcome\n")
        (directory / "key").write_text("s3cret")

    @property
    def environment(self) -> dict[str, str]:
        return self.engine.environment()

    def words(self, *words: str) -> list[str]:
        where = ("--project-directory", str(self.directory), "-p", self.name)
        return ["docker-compose", "--ansi", "never", *where, *words]

    def run(self, *words: str, expect: int = 0) -> str:
        done = subprocess.run(
            self.words(*words),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        printed = done.stdout + done.stderr
        assert done.returncode == expect, printed + self.engine.log_tail()
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command that runs until it is interrupted; its output is both streams."""
        return subprocess.Popen(
            self.words(*words),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def states(self, *words: str) -> dict[str, str]:
        rows = [
            json.loads(line)
            for line in self.run("ps", *words, "--format", "json").split("\n")
            if line
        ]
        return {row["Name"].removeprefix(f"{self.name}-"): row["State"] for row in rows}


@pytest.fixture
def project(engine: PrivateEngine, busybox: str, tmp_path: Path) -> Iterator[Project]:
    made = Project(engine, tmp_path)
    yield made
    made.run("--profile", "*", "down", "-v", "-t", "1")
    for service in ("store", "shop"):
        engine.request("DELETE", f"/images/{made.name}-{service}")


def ended(process: subprocess.Popen[str]) -> str:
    """Interrupt the command with SIGINT and return its output."""
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=30)
    return out


def test_a_project_is_built_started_and_removed(project: Project) -> None:
    engine, name = project.engine, project.name
    began = time.time()
    project.run("build")
    project.run("up", "-d", "--scale", "worker=2")
    running = {"store-1", "prices-1", "shop-1", "worker-1", "worker-2"}
    assert project.states() == dict.fromkeys(running, "running")

    inside = ("exec", "-T", "shop")
    assert project.run(*inside, "wget", "-qO-", "http://store/stock") == "plain apples\n"
    assert project.run(*inside, "wget", "-qO-", "http://prices/list") == "apple 3\n"
    assert project.run("exec", "-T", "prices", "cat", "/run/secrets/key") == "s3cret"
    project.run("exec", "-T", "-u", "33", "shop", "sh", "-c", "exit 9", expect=9)
    host, _, port = project.run("port", "shop", "8080").strip().rpartition(":")
    assert host == "127.0.0.1"
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        assert answer.read() == b"welcome\n"

    assert "httpd" in project.run("top", "shop")
    images = project.run("images", "--format", "json")
    assert f"{name}-store" in images
    assert "limits" not in project.run("config", "--services")
    follower = project.start("logs", "-f", "worker")
    time.sleep(2)
    output = ended(follower)
    assert output.count("work\n") >= 4
    assert "worker-1" in output
    assert "worker-2" in output

    project.run("--profile", "debugging", "up", "-d", "debug")
    assert project.states()["debug-1"] == "running"
    project.run("exec", "-T", "debug", "ping", "-c", "1", "shop")

    project.run("restart", "-t", "1", "store")
    project.run("pause", "prices")
    assert project.states()["prices-1"] == "paused"
    project.run("unpause", "prices")
    project.run("kill", "-s", "KILL", "prices")
    eventually(lambda: project.states("-a")["prices-1"] == "exited", "prices has ended")
    project.run("rm", "-f", "prices")
    assert "prices-1" not in project.states("-a")
    project.run("up", "-d", "--scale", "worker=1")
    assert "worker-2" not in project.states()
    project.run("cp", "shop:/site/index.html", str(project.directory / "copy"))
    assert (project.directory / "copy").read_text() == "welcome\n"

    seen = engine.cli(
        *("docker", "events", "--since", str(int(began)), "--until", str(int(time.time()) + 1)),
        *("--filter", f"label=com.docker.compose.project={name}", "--format", "{{.Action}}"),
    ).stdout.split("\n")
    assert {"create", "start", "kill", "die", "destroy", "restart", "pause"} <= set(seen)

    project.run("--profile", "*", "down", "-v", "-t", "1")
    for path in ("/containers/json?all=1", "/networks"):
        assert name not in engine.request("GET", path).body.decode(), path
    volumes = engine.request("GET", "/volumes").json()["Volumes"]
    assert not [v for v in volumes if v["Name"].startswith(name)]


def test_jaula_compose_uses_this_engine(project: Project) -> None:
    where = ("--project-directory", str(project.directory), "-p", project.name)
    done = project.engine.cli("jaula", "compose", *where, "up", "-d", "--build", "store")
    assert done.returncode == 0, done.stderr
    assert project.states() == {"store-1": "running"}


def test_up_in_the_foreground_exits_with_its_services(project: Project) -> None:
    process = project.start("up", "--build", "store", "worker")
    try:
        eventually(lambda: project.states().get("worker-1") == "running", "the services are up", 60)
        time.sleep(1)
    finally:
        output = ended(process)
    assert "work" in output
    assert set(project.states("-a").values()) == {"exited"}


def test_a_failed_build_is_reported_and_creates_nothing(project: Project) -> None:
    (project.directory / "store" / "Dockerfile").write_text("FROM busybox\nRUN echo on; exit 4\n")
    done = subprocess.run(
        project.words("up", "-d"),
        env=project.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode != 0
    assert "returned a non-zero code: 4" in done.stdout + done.stderr
    assert project.states("-a") == {}
