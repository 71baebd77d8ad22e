"""The cost of a record: a server with and without one, in alternating rounds (``bench/record``)."""

from __future__ import annotations

import argparse
import json
import re
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import engines
import report

from jaula.features.record import recorded_cgroup

IMAGE = "bench-servers"
DOCKERFILE = """
FROM debian
RUN apt-get update && apt-get install -y --no-install-recommends \\
    redis-server redis-tools postgresql postgresql-contrib && apt-get clean
"""
POSTGRES = """
set -e
bin=$(echo /usr/lib/postgresql/*/bin)
install -d -o postgres /data
su postgres -c "$bin/initdb -D /data -A trust" >/dev/null
exec su postgres -c "exec $bin/postgres -D /data -k /tmp -c shared_buffers=256MB"
"""


class Sample(NamedTuple):
    """One run of a client. ``cpu``: microseconds of the server's container for each request."""

    requests: float  # for each second
    cpu: float


class Workload(NamedTuple):
    """A client: its command and how many requests it makes. ``rate`` finds requests per second."""

    title: str
    server: tuple[str, ...]
    prepare: str
    client: str
    requests: int
    rate: str


REDIS = ("redis-server", "--save", "", "--protected-mode", "no")
REDIS_READY = "until redis-cli ping >/dev/null 2>&1; do sleep 0.1; done"
REDIS_RATE = r'"(?:SET|GET)","([0-9.]+)"'
PGBENCH = "cd /tmp && $(echo /usr/lib/postgresql/*/bin)/pgbench -h 127.0.0.1 -U postgres"
WORKLOADS = {
    "redis": Workload(
        "Redis, SET and GET of 50 connections",
        REDIS,
        REDIS_READY,
        "redis-benchmark -q --csv -t set,get -n 40000 -c 50",
        80_000,
        REDIS_RATE,
    ),
    "redis-pipeline": Workload(
        "Redis, as above with 16 requests in a pipeline",
        REDIS,
        REDIS_READY,
        "redis-benchmark -q --csv -t set,get -n 400000 -c 50 -P 16",
        800_000,
        REDIS_RATE,
    ),
    "pgbench-select": Workload(
        "pgbench, select only, 4 connections",
        ("sh", "-c", POSTGRES),
        f"until {PGBENCH} -i -s 5 postgres >/dev/null 2>&1; do sleep 0.3; done",
        f"{PGBENCH} -n -S -c 4 -t 5000 postgres",
        20_000,
        r"tps = ([0-9.]+)",
    ),
    "pgbench-tpcb": Workload(
        "pgbench, TPC-B, 4 connections",
        ("sh", "-c", POSTGRES),
        f"until {PGBENCH} -i -s 5 postgres >/dev/null 2>&1; do sleep 0.3; done",
        f"{PGBENCH} -n -c 4 -t 500 postgres",
        2_000,
        r"tps = ([0-9.]+)",
    ),
}


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Measure what a record costs a server.")
    parser.add_argument("--pairs", type=int, default=10, help="rounds with and without (10)")
    parser.add_argument("--only", default=",".join(WORKLOADS), help="names of workloads")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(words)
    results: dict[str, dict[str, list[list[float]]]] = {}
    with tempfile.TemporaryDirectory(prefix="jb", dir="/var/tmp") as name:
        engine = engines.Jaula(Path(name) / "engine")
        engine.start()
        try:
            build(engine, Path(name))
            for key in options.only.split(","):
                results[key] = measure(engine, WORKLOADS[key], options.pairs, Path(name))
                print(line(key, results[key]), flush=True)
        finally:
            engine.stop()
    write(options.output, results)
    return 0


def build(engine: engines.Engine, base: Path) -> None:
    context = base / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE)
    engine.run("image", "bootstrap", "debian", stdout=subprocess.DEVNULL)
    words = ("build", "--network", "host", "-t", IMAGE, str(context))
    engine.run(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def measure(
    engine: engines.Engine, workload: Workload, pairs: int, base: Path
) -> dict[str, list[list[float]]]:
    """Return the samples ``without`` and ``with`` a record, of pairs of runs."""
    run = ("run", "-d", "--cpu-shares", "262144", "--network", "none")
    engine.run(*run, "--name", "server", IMAGE, *workload.server, stdout=subprocess.DEVNULL)
    words = (*run[:-1], "container:server", "--name", "client", IMAGE)
    engine.run(*words, "sleep", "100000", stdout=subprocess.DEVNULL)
    samples: dict[str, list[list[float]]] = {"without": [], "with": []}
    try:
        engine.run("exec", "client", "sh", "-c", workload.prepare)
        usage = usage_of(engine, "server")
        once(engine, workload, usage)  # caches
        for number in range(pairs):
            order = ("without", "with") if number % 2 else ("with", "without")
            for kind in order:
                if kind == "with":
                    with recorded(engine, "server", base / "record"):
                        sample = once(engine, workload, usage)
                else:
                    sample = once(engine, workload, usage)
                samples[kind].append([*sample])
    finally:
        engine.remove("client", "server")
    return samples


def usage_of(engine: engines.Engine, name: str) -> Callable[[], int]:
    """Return a function that reads the CPU time of a container in nanoseconds."""
    text = engine.run("inspect", "--format", "{{.Id}}", name, capture_output=True, text=True).stdout
    found = recorded_cgroup.directories(engine.pid_of(name), text.strip())
    if "cpuacct" in found:
        file = Path(found["cpuacct"], "cpuacct.usage")
        return lambda: int(file.read_text())
    file = Path(found["unified"], "cpu.stat")
    return lambda: int(file.read_text().split()[1]) * 1000


def once(engine: engines.Engine, workload: Workload, usage: Callable[[], int]) -> Sample:
    before = usage()
    done = engine.run("exec", "client", "sh", "-c", workload.client, capture_output=True, text=True)
    used = usage() - before
    rates = [float(each) for each in re.findall(workload.rate, done.stdout)]
    if not rates:
        raise SystemExit(f"bench: the client printed no rate:\n{done.stdout}{done.stderr}")
    return Sample(statistics.harmonic_mean(rates), used / 1000 / workload.requests)


@contextmanager
def recorded(engine: engines.Engine, name: str, path: Path) -> Iterator[None]:
    """Record a container meanwhile."""
    path.unlink(missing_ok=True)
    process = subprocess.Popen(
        engine.words("record", "-o", str(path), name),
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=engine.environment(),
    )  # fmt: skip
    try:
        assert process.stderr is not None
        text = process.stderr.readline()
        if "recording" not in text:
            raise SystemExit(f"bench: {text}")
        time.sleep(0.5)
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)


def ratios(samples: dict[str, list[list[float]]], column: int) -> tuple[float, float, float]:
    """Return lower quartile, median and upper quartile of with : without, by pairs."""
    values = [
        after[column] / before[column]
        for before, after in zip(samples["without"], samples["with"], strict=True)
    ]
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def line(key: str, samples: dict[str, list[list[float]]]) -> str:
    """Return the row of a workload."""
    cells = [WORKLOADS[key].title]
    cells += [
        f"{statistics.median(each[1] for each in samples[kind]):.2f} us"
        for kind in ("without", "with")
    ]
    for column in (1, 0):
        low, middle, high = ratios(samples, column)
        cells.append(f"{middle:.3f} ({low:.3f} to {high:.3f})")
    return "| " + " | ".join(cells) + " |"


def write(output: Path, results: dict[str, dict[str, list[list[float]]]]) -> None:
    """Write record.json and record.md."""
    document = {"machine": report.machine(), "results": results}
    output.mkdir(parents=True, exist_ok=True)
    (output / "record.json").write_text(json.dumps(document, indent=1) + "\n")
    pairs = max(len(samples["with"]) for samples in results.values())
    rows = [
        ", ".join(f"{key} {value}" for key, value in report.machine().items()),
        "",
        f"Medians of {pairs} pairs; ratios are with : without a record, with their quartiles.",
        "",
        "| | CPU for a request, without | with | CPU ratio | throughput ratio |",
        "| --- | ---: | ---: | ---: | ---: |",
        *(line(key, samples) for key, samples in results.items()),
    ]
    (output / "record.md").write_text("\n".join(rows) + "\n")
