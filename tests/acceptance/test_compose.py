"""docker compose on this engine: networks, a volume, order, names, and removal."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness.containers import eventually, unique
from harness.engine import PrivateEngine

pytestmark = [pytest.mark.client(name="docker compose"), pytest.mark.needs("docker-compose")]

FILE = """
services:
  store:
    image: busybox
    command: sh -c 'echo stock > /data/index.html; exec httpd -f -p 80 -h /data'
    init: true
    volumes: [data:/data]
    networks: [inner]
  shop:
    image: busybox
    command: sh -c 'until wget -qO- http://store/; do sleep 0.2; done; exec sleep 600'
    init: true
    depends_on: [store]
    environment: {GREETING: hello}
    networks:
      inner: {aliases: [front]}
      outer: {ipv4_address: {subnet}.5}
networks:
  inner: {internal: true, labels: {kind: inner}}
  outer:
    ipam: {config: [{subnet: {subnet}.0/24}]}
volumes:
  data: {}
"""


@dataclass
class Project:
    engine: PrivateEngine
    directory: Path
    name: str

    @property
    def subnet(self) -> str:
        """Return the first three numbers of a subnet that no other engine uses."""
        return f"10.198.{self.engine.index}"

    def write(self, text: str) -> None:
        chosen = text.replace("{subnet}", self.subnet)
        (self.directory / "compose.yaml").write_text(chosen)

    def run(self, *words: str) -> str:
        done = self.try_(*words)
        assert done.returncode == 0, done.stdout + done.stderr + self.engine.log_tail()
        return done.stdout

    def try_(self, *words: str) -> subprocess.CompletedProcess[str]:
        where = ("--project-directory", str(self.directory), "-p", self.name)
        return self.engine.cli("docker-compose", *where, *words, timeout=120)

    def inside(self, service: str, *words: str) -> str:
        return self.run("exec", "-T", service, *words)


@pytest.fixture
def project(engine: PrivateEngine, busybox: str, tmp_path: Path) -> Iterator[Project]:
    made = Project(engine, tmp_path, unique("shop"))
    made.write(FILE)
    yield made
    made.try_("down", "-v", "-t", "1")


def test_up_ps_exec_logs_and_down_work(project: Project) -> None:
    engine, name = project.engine, project.name
    project.run("up", "-d")
    rows = [json.loads(line) for line in project.run("ps", "--format", "json").splitlines()]
    assert {row["Service"]: row["State"] for row in rows} == {
        "store": "running",
        "shop": "running",
    }
    assert project.inside("shop", "wget", "-qO-", "http://store/") == "stock\n"
    assert project.inside("shop", "wget", "-qO-", f"http://store.{name}_inner/") == "stock\n"
    assert project.inside("shop", "sh", "-c", "echo $GREETING") == "hello\n"
    assert f"{project.subnet}.5/" in project.inside("shop", "ip", "-4", "addr")
    assert "front" in project.inside("store", "nslookup", "front")
    eventually(lambda: "stock" in project.run("logs", "shop"), "the log of shop")

    networks = engine.request("GET", "/networks").json()
    inner = next(n for n in networks if n["Name"] == f"{name}_inner")
    assert inner["Internal"] is True
    assert inner["Labels"]["kind"] == "inner"
    assert inner["Labels"]["com.docker.compose.project"] == name

    project.run("down", "-v", "-t", "1")
    left = [n["Name"] for n in engine.request("GET", "/networks").json()]
    assert not [n for n in left if n.startswith(name)]
    volumes = engine.request("GET", "/volumes").json()["Volumes"]
    assert not [v for v in volumes if v["Name"].startswith(name)]
    assert not [
        c
        for c in engine.request("GET", "/containers/json?all=1").json()
        if c["Labels"].get("com.docker.compose.project") == name
    ]


def test_scaled_services_share_a_name_and_up_is_idempotent(project: Project) -> None:
    project.run("up", "-d", "--scale", "store=3")
    before = project.run("ps", "-q")
    addresses = set()
    for line in project.inside("shop", "nslookup", "store").splitlines():
        if line.startswith("Address") and "127.0.0.11" not in line:
            addresses.add(line.split()[-1])
    assert len(addresses) == 3
    project.run("up", "-d", "--scale", "store=3")
    assert project.run("ps", "-q") == before
    project.run("up", "-d", "--scale", "store=1")
    assert project.inside("shop", "nslookup", "store").count("10.") <= 2
    project.run("restart", "-t", "1", "shop")
    assert project.inside("shop", "wget", "-qO-", "http://store/") == "stock\n"


def test_a_changed_service_is_recreated_with_its_networks(project: Project) -> None:
    project.run("up", "-d")
    project.write(FILE.replace("GREETING: hello", "GREETING: goodbye"))
    project.run("up", "-d", "-t", "1")
    assert project.inside("shop", "sh", "-c", "echo $GREETING") == "goodbye\n"
    assert project.inside("shop", "wget", "-qO-", "http://store/") == "stock\n"
    assert f"{project.subnet}.5/" in project.inside("shop", "ip", "-4", "addr")


def test_run_stop_start_and_kill_work(project: Project) -> None:
    project.run("up", "-d", "store")
    result = project.run("run", "--rm", "-T", "--no-deps", "shop", "wget", "-qO-", "http://store/")
    assert result == "stock\n"
    project.run("stop", "-t", "1")
    project.run("start", "store")
    project.run("kill", "store")
    assert "store" in project.run("ps", "-a", "--format", "{{.Service}}")


CONFIDENTIAL = """
services:
  box:
    image: busybox
    init: true
    command: sleep 600
    secrets:
      - of_file
      - source: of_environment
        target: /etc/renamed
        mode: 0440
        uid: "7"
    configs:
      - source: of_content
        target: /etc/site.conf
      - of_environment
secrets:
  of_file: {file: ./password.txt}
  of_environment: {environment: PASSWORD}
configs:
  of_content:
    content: |
      port = 80
  of_environment: {environment: PASSWORD}
"""


def test_secrets_and_configs_come_from_every_source(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PASSWORD", "hunter2")
    (project.directory / "password.txt").write_text("of the file")
    project.write(CONFIDENTIAL)
    project.run("up", "-d")
    assert project.inside("box", "cat", "/run/secrets/of_file") == "of the file"
    assert project.inside("box", "cat", "/etc/renamed") == "hunter2"
    assert project.inside("box", "stat", "-c", "%a %u", "/etc/renamed") == "440 7\n"
    assert project.inside("box", "cat", "/etc/site.conf") == "port = 80\n"
    assert project.inside("box", "cat", "/of_environment") == "hunter2"
    assert "hunter2" not in project.inside("box", "env")
