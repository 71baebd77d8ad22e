"""``/metrics`` of a real engine: both addresses, values of containers, one scrape at a time."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as text

from conftest import load_image
from harness import leaks
from harness.engine import PrivateEngine, Reply
from jaula.features.metrics.engine_metrics import names

OPENMETRICS = {"Accept": "application/openmetrics-text;version=1.0.0"}
OTHERS = {  # lints of promtool about names of cAdvisor and dockerd
    "container_fs_inodes_total",
    "container_memory_failcnt",
    "engine_daemon_events_subscribers_total",
}
Samples = dict[str, list[tuple[dict[str, str], float]]]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def measured(worker_index: int, port: int) -> Iterator[PrivateEngine]:
    flags = (
        *("--metrics-addr", f":{port}", "--metrics-label", "team"),
        *("--metrics-verify-interval", "10", "--log-format", "json", "--log-level", "debug"),
    )
    private = PrivateEngine((worker_index + 87) % 250 + 1, extra_flags=flags)
    with leaks.nothing_left(private):
        load_image(private, "busybox")
        words = ("--name", "web", "--memory", "64m", "--label", 'team=a"b', "--label", "other=x")
        done = private.cli(
            "jaula", "run", "-d", *words, "--cap-add", "SYS_TIME", "busybox", "sleep", "1000"
        )
        assert done.returncode == 0, done.stderr
        yield private


def over_tcp(port: int, path: str = "/metrics", **headers: str) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return Reply(answer.status, dict(answer.getheaders()), answer.read())


def page(engine: PrivateEngine, *, fresh: bool = True) -> Samples:
    if fresh:
        time.sleep(1.05)
    reply = engine.request("GET", "/metrics")
    assert reply.status == 200, reply
    found: Samples = {}
    for family in text(reply.body.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def of_web(samples: Samples, name: str) -> tuple[dict[str, str], float]:
    (found,) = [row for row in samples[name] if row[0].get("name") == "web"]
    return found


def test_a_container_has_the_names_and_labels_of_cadvisor(measured: PrivateEngine) -> None:
    samples = page(measured)
    labels, limit = of_web(samples, "container_spec_memory_limit_bytes")
    (listed,) = measured.request("GET", "/containers/json").json()
    assert limit == 64 << 20
    assert labels == {
        "container_label_team": 'a"b',
        "id": f"/{measured.cgroup_parent}/{listed['Id']}",
        "image": "busybox",
        "name": "web",
    }
    assert 0 < of_web(samples, "container_memory_usage_bytes")[1] < 64 << 20
    assert of_web(samples, "container_threads")[1] == 1
    assert of_web(samples, "container_start_time_seconds")[1] == pytest.approx(time.time(), abs=600)
    assert of_web(samples, "container_network_receive_bytes_total")[0]["interface"] == "eth0"


def test_the_figures_are_those_of_the_kernel(measured: PrivateEngine) -> None:
    before = of_web(page(measured), "container_cpu_usage_seconds_total")[1]
    program = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done"
    assert measured.cli("jaula", "exec", "web", "sh", "-c", program).returncode == 0
    used = of_web(page(measured), "container_cpu_usage_seconds_total")[1] - before
    stats = measured.request("GET", "/containers/web/stats?stream=0&one-shot=1").json()
    assert used > 0.005
    total = stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
    assert total == pytest.approx(before + used, rel=0.2)


def test_a_relaxation_is_named(measured: PrivateEngine) -> None:
    samples = page(measured)
    assert of_web(samples, "jaula_container_relaxation")[0]["relaxation"] == "capability"
    assert ({"relaxation": "capability"}, 1.0) in samples["jaula_relaxed_containers"]


def test_the_rows_of_verify_are_counted(measured: PrivateEngine) -> None:
    deadline = time.monotonic() + 60
    while True:
        samples = page(measured)
        rows = {
            row[0]["verdict"]: row[1]
            for row in samples.get("jaula_container_isolation_rows", ())
            if row[0]["name"] == "web"
        }
        if rows:
            break
        assert time.monotonic() < deadline, measured.log_tail()
    assert rows["holds"] > 40
    assert rows["relaxed"] >= 1
    assert "fails" not in rows
    assert samples["jaula_isolation_verification_failed"] == [({}, 0.0)]
    layers = {row[0]["layer"] for row in samples["jaula_isolation_rows"]}
    assert {"capabilities", "namespaces", "seccomp", "cgroups"} <= layers


def test_refused_forks_are_counted(measured: PrivateEngine) -> None:
    words = ("--name", "forks", "--pids-limit", "4", "busybox")
    program = "sh -c 'for i in 1 2 3 4 5; do sleep 100 & done'; exec sleep 100"
    measured.cli("jaula", "run", "-d", *words, "sh", "-c", program)
    try:
        counts: list[float] = []
        for _ in range(10):
            rows = page(measured).get("jaula_container_refusals_total", [])
            counts = [v for k, v in rows if k["name"] == "forks" and k["layer"] == "pids"]
            if counts and counts[0] > 0:
                return
        raise AssertionError(counts)
    finally:
        measured.request("DELETE", "/containers/forks?force=1")


def test_requests_and_actions_are_counted_by_route_and_outcome(measured: PrivateEngine) -> None:
    def count(samples: Samples, name: str, **labels: str) -> float:
        return sum(v for k, v in samples[name] if labels.items() <= k.items())

    before = page(measured)
    assert measured.request("POST", "/containers/nothing/start").status == 404
    assert measured.request("GET", "/containers/web/json").status == 200
    assert measured.request("GET", f"/{'x' * 50}").status == 404
    after = page(measured)
    for name, labels in (
        ("jaula_api_requests_total", {"route": "/containers/{id}/start", "code": "404"}),
        ("jaula_api_requests_total", {"route": "/containers/{id}/json", "method": "GET"}),
        ("jaula_api_requests_total", {"route": "none", "code": "404"}),
        ("jaula_actions_total", {"action": "container start", "outcome": "failed"}),
    ):
        assert count(after, name, **labels) == count(before, name, **labels) + 1, labels
    assert "nothing" not in str(after["jaula_api_requests_total"])


def test_every_name_of_a_page_is_described(measured: PrivateEngine) -> None:
    known = names()
    page(measured)
    reply = measured.request("GET", "/metrics")
    for family in text(reply.body.decode()):
        name = family.name if family.name in known else f"{family.name}_total"
        assert family.type == known[name][0], name
        assert family.documentation == known[name][2]


def test_both_formats_have_the_same_samples(measured: PrivateEngine, port: int) -> None:
    # The parser of the text format adds the suffix to each counter.
    families = text(over_tcp(port).body.decode())
    plain = {s.name.removesuffix("_total") for f in families for s in f.samples}
    reply = over_tcp(port, **OPENMETRICS)
    assert reply.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    families = openmetrics(reply.body.decode())
    assert plain == {s.name.removesuffix("_total") for f in families for s in f.samples}


def test_a_page_is_compressed_on_demand(measured: PrivateEngine, port: int) -> None:
    reply = over_tcp(port, **{"Accept-Encoding": "gzip"})
    assert reply.headers["Content-Encoding"] == "gzip"
    assert b"container_last_seen" in gzip.decompress(reply.body)


@pytest.mark.parametrize("path", ["/containers/json", "/_ping", "/", "/v1.45/info", "/events"])
def test_the_address_serves_metrics_only(measured: PrivateEngine, port: int, path: str) -> None:
    assert over_tcp(port, path).status == 404


def test_the_address_is_one_of_the_loopback_interface(measured: PrivateEngine, port: int) -> None:
    listed = subprocess.run(
        ["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True, check=True
    )
    assert listed.stdout.split()[3] == f"127.0.0.1:{port}"


def test_clients_that_ask_together_get_one_collection(measured: PrivateEngine) -> None:
    def scrapes(samples: Samples) -> float:
        return samples["jaula_scrape_duration_seconds_count"][0][1]

    before = scrapes(page(measured))  # without its own
    time.sleep(1.05)
    formats: list[dict[str, str]] = [{}, OPENMETRICS, {"Accept-Encoding": "gzip"}] * 3
    threads = [
        threading.Thread(
            target=measured.request, args=("GET", "/metrics"), kwargs={"headers": headers}
        )
        for headers in formats
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert scrapes(page(measured)) <= before + 3  # one more if they take longer than a second


def test_a_container_that_is_gone_has_no_series(measured: PrivateEngine) -> None:
    measured.cli("jaula", "run", "-d", "--name", "brief", "busybox", "sleep", "100")
    assert any(k["name"] == "brief" for k, _ in page(measured)["container_last_seen"])
    measured.request("DELETE", "/containers/brief?force=1")
    assert not any(k["name"] == "brief" for k, _ in page(measured)["container_last_seen"])


def test_the_engines_log_is_json_with_the_request(measured: PrivateEngine) -> None:
    measured.request("GET", "/containers/web/json")
    lines = [json.loads(line) for line in measured.log.read_text().splitlines()]
    (line,) = [x for x in lines if x["msg"].endswith("GET /containers/web/json")][-1:]
    assert line["level"] == "debug"
    assert line["user"] == str(os.getuid())
    assert line["request"] == "GET /containers/web/json"
    assert int(line["request_id"], 16) > 0


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs Debian's package prometheus")
def test_promtool_finds_no_fault_but_in_the_names_of_others(measured: PrivateEngine) -> None:
    body = measured.request("GET", "/metrics").body
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=body, capture_output=True, check=False
    )
    assert {line.split()[0] for line in done.stderr.decode().splitlines()} <= OTHERS
    assert done.returncode in (0, 3), done.stderr
