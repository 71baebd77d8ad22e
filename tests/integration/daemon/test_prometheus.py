"""The packaged files for monitoring with a real Prometheus that scrapes a real engine."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from conftest import load_image
from harness import containers, leaks
from harness.builds import build
from harness.engine import PROJECT, SLOW, PrivateEngine
from harness.registry import PROGRAM as REGISTRY
from harness.registry import Registry, free_port

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600 * SLOW),
    pytest.mark.skipif(
        shutil.which("prometheus") is None, reason="needs Debian's package prometheus"
    ),
    pytest.mark.skipif(shutil.which(REGISTRY) is None, reason="needs a registry: a pull is shown"),
]

MONITORING = PROJECT / "packaging" / "monitoring"
STRANGER = 54_341  # a uid that the policy does not admit
INTERVAL = "20s"  # of rates; Grafana takes four scrape intervals at least
DEADLINE = 180.0 * SLOW  # seconds until each query has data
MEMORY = "while :; do tail -c 100000000 /dev/zero | tail >/dev/null 2>&1; sleep 1; done"
REFUSED = "while :; do nc -w 1 192.0.2.77 80 </dev/null; ping -c 1 -W 1 192.0.2.77; sleep 0.2; done"
# cgroup v1 attributes only direct I/O to the container.
DISK = """
while :; do
    dd if=/dev/zero of=/data bs=64k count=4 oflag=direct
    dd if=/data of=/dev/null bs=64k iflag=direct
    sleep 0.2
done
"""
RESTART = "sleep 4; exit 1"  # it is sampled while it runs


def dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    return document


def panels() -> list[tuple[str, str]]:
    """Return title and expression of each query of the dashboard."""
    found = [
        (panel["title"], target["expr"])
        for panel in dashboard()["panels"]
        for target in panel.get("targets", ())
    ]
    assert len(found) > 25
    return found


class Prometheus:
    """A server with the packaged scrape configuration, for the engine on ``port``."""

    def __init__(self, directory: Path, port: int) -> None:
        self.port = free_port()
        self.target = f"127.0.0.1:{port}"
        document = yaml.safe_load((MONITORING / "prometheus-scrape.yml").read_text())
        (job,) = document["scrape_configs"]
        job["scrape_interval"] = "1s"
        job["static_configs"] = [{"targets": [self.target]}]
        shutil.copy(MONITORING / "prometheus-alerts.yml", directory)
        (directory / "prometheus.yml").write_text(yaml.safe_dump(document))
        self._log = directory / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def ask(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of the HTTP API."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request("GET", f"/api/v1/{path}?{urlencode(parameters)}")
            document = json.loads(connection.getresponse().read())
        assert document["status"] == "success", document
        return document["data"]

    def query(self, expression: str) -> list[float]:
        """Return the values of a query; variables are those of the dashboard with all chosen."""
        for name, value in (
            ("$__rate_interval", INTERVAL),
            ("$instance", ".*"),
            ("$project", ".*"),
            ("$name", ".*"),
            ("$job", ".*"),
        ):
            expression = expression.replace(name, value)
        assert "$" not in expression, expression
        result = self.ask("query", query=expression)["result"]
        return [float(sample["value"][1]) for sample in result]

    def wait(self) -> None:
        """Wait until it has scraped the engine."""
        deadline = time.monotonic() + DEADLINE
        while True:
            assert self._process.poll() is None, self._log.read_text()
            with contextlib.suppress(OSError, ValueError):  # it answers 503 in text at first
                if self.query("jaula_build_info"):
                    return
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.5)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)


@pytest.fixture(scope="module")
def engine(worker_index: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    """Yield an engine with each kind of workload that the dashboard shows."""
    directory = tmp_path_factory.mktemp("monitored")
    policy = directory / "policy.toml"
    policy.write_text("")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = ("--metrics-addr", f"127.0.0.1:{port}", "--metrics-verify-interval", "10",
             "--policy", str(policy))  # fmt: skip
    private = PrivateEngine((worker_index + 143) % 250 + 1, extra_flags=flags)
    with leaks.nothing_left(private), Registry(directory / "registry") as registry:
        load_image(private, "busybox")
        os.chmod(private.run, 0o711)
        os.chmod(private.socket, 0o666)
        limits = ("--memory", "24m", "--memory-swap", "24m", "--cpus", "0.05")
        label = ("--label", "com.docker.compose.project=shop")
        run(private, "load", *limits, *label, "busybox", "sh", "-c", MEMORY)
        run(private, "disk", "busybox", "sh", "-c", DISK)
        run(private, "lists", "--egress", "tcp:192.0.2.1:443", "busybox", "sh", "-c", REFUSED)
        run(private, "again", "--restart", "always", "busybox", "sh", "-c", RESTART)
        run(private, "relaxed", "--cap-add", "SYS_TIME", "busybox", "sleep", "1000")
        image = f"{registry.name}/shown:1"
        for words in (("tag", "busybox", image), ("push", image)):
            done = private.cli("jaula", *words)
            assert done.returncode == 0, done.stderr
        private.metrics_port, private.image = port, image  # type: ignore[attr-defined]
        yield private


def run(engine: PrivateEngine, name: str, *words: str) -> None:
    done = engine.cli("jaula", "run", "-d", "--name", name, "--stop-timeout", "0", *words)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def prometheus(
    engine: PrivateEngine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    port = engine.metrics_port  # type: ignore[attr-defined]
    server = Prometheus(tmp_path_factory.mktemp("prometheus"), port)
    try:
        server.wait()
        yield server
    finally:
        server.stop()


def act(engine: PrivateEngine, number: int) -> None:
    """Do once what only clients cause: requests, a start, a pull, a build, refusals, failures."""
    run(engine, f"short-{number}", "--rm", "busybox", "true")
    assert engine.request("DELETE", "/containers/absent").status == 404
    image = engine.image  # type: ignore[attr-defined]
    engine.request("DELETE", f"/images/{image}?force=1")
    assert engine.cli("jaula", "pull", image).returncode == 0
    build(engine, {"Dockerfile": f"FROM busybox\nRUN echo {number} > /x\n"})
    subprocess.run(
        ["curl", "-s", "--unix-socket", str(engine.socket), "http://jaula/containers/json"],
        user=STRANGER, group=STRANGER, extra_groups=[], check=True, capture_output=True,
    )  # fmt: skip


def test_each_query_of_the_dashboard_returns_data(
    engine: PrivateEngine, prometheus: Prometheus
) -> None:
    limit = _limit_file(containers.pid(engine, "relaxed"))
    before = limit.read_text()
    limit.write_text(str(512 << 20))  # a protection is removed: rows of the container fail
    waiting, number = dict.fromkeys(panels()), 0
    if not _counts_disk(containers.pid(engine, "disk")):
        waiting = {key: None for key in waiting if key[0] != "Disk"}
    deadline = time.monotonic() + DEADLINE
    try:
        while waiting:
            number += 1
            act(engine, number)
            time.sleep(2)
            for title, expression in tuple(waiting):
                if prometheus.query(expression):
                    del waiting[title, expression]
            if time.monotonic() >= deadline:
                shown = engine.cli("jaula", "ps", "--all").stdout
                pytest.fail(f"no data for {[title for title, _ in waiting]}:\n{shown}")
    finally:
        limit.write_text(before)


def test_each_variable_of_the_dashboard_has_values(prometheus: Prometheus) -> None:
    values = {}
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] != "query":
            continue
        query = variable["query"]["query"].removeprefix("label_values(").removesuffix(")")
        selector, _, label = query.rpartition(", ")
        for name in ("$job", "$instance"):
            selector = selector.replace(name, ".*")
        values[variable["name"]] = prometheus.ask(f"label/{label}/values", **{"match[]": selector})
    assert values["job"] == ["jaula"]
    assert values["instance"] == [prometheus.target]
    assert "shop" in values["project"]
    assert {"load", "relaxed"} <= set(values["name"])


def test_each_rule_is_evaluated_and_that_of_a_failed_row_fires(
    engine: PrivateEngine, prometheus: Prometheus
) -> None:
    limit = _limit_file(containers.pid(engine, "relaxed"))
    before = limit.read_text()
    limit.write_text(str(512 << 20))
    deadline = time.monotonic() + DEADLINE
    try:
        while True:
            groups = prometheus.ask("rules")["groups"]
            rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
            assert len(rules) > 15
            evaluated = all(rule["health"] == "ok" for rule in rules.values())
            firing = [
                alert["labels"]["name"]
                for alert in rules["JaulaIsolationFails"]["alerts"]
                if alert["state"] == "firing"
            ]
            if evaluated and firing:
                break
            assert time.monotonic() < deadline, {n: r["lastError"] for n, r in rules.items()
                                                 if r["health"] != "ok"}  # fmt: skip
            time.sleep(1)
    finally:
        limit.write_text(before)
    assert firing == ["relaxed"]


def _counts_disk(process: int) -> bool:
    """Return whether the kernel counts transfers of a process's cgroup to any device."""
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if "blkio" in names.split(","):
            file = Path(f"/sys/fs/cgroup/blkio{path}/blkio.throttle.io_service_bytes")
            return file.exists() and ":" in file.read_text()
    file = Path(f"/sys/fs/cgroup{path}/io.stat")
    return file.exists() and ":" in file.read_text()


def _limit_file(process: int) -> Path:
    """Return the file with the memory limit of a process's cgroup."""
    for line in Path(f"/proc/{process}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if "memory" in names.split(","):
            return Path(f"/sys/fs/cgroup/memory{path}/memory.limit_in_bytes")
    return Path(f"/sys/fs/cgroup{path}/memory.max")
