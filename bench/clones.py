"""Measure the time until a service answers, cold and cloned from a snapshot (``bench/clone``)."""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import statistics
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import engines
import report

IMAGE = "bench-clones"
DOCKERFILE = """
FROM debian
RUN apt-get update && apt-get install -y --no-install-recommends \\
    postgresql python3-pandas python3-scipy tomcat10 && apt-get clean
COPY service.py /service.py
"""
SERVICE = """
import http.server
import pandas, scipy.optimize, scipy.signal, scipy.stats
table = pandas.DataFrame({"x": range(500_000)})
table["y"] = (table.x * 7919 % 1000) / 1000
body = str(float(table.groupby(table.x % 1000).y.sum().sum())).encode()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.HTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
"""
POSTGRES = """
set -e
bin=$(echo /usr/lib/postgresql/*/bin)
if [ ! -e /data/PG_VERSION ]; then
    chown postgres /data
    su postgres -c "$bin/initdb -D /data -A trust" >/dev/null
    echo "host all all 0.0.0.0/0 trust" >>/data/pg_hba.conf
fi
exec su postgres -c "exec $bin/postgres -D /data -k /tmp -c listen_addresses=*"
"""
TOMCAT = """
export CATALINA_HOME=/usr/share/tomcat10 CATALINA_BASE=/var/lib/tomcat10 CATALINA_TMPDIR=/tmp
export JAVA_HOME=$(echo /usr/lib/jvm/java-21-openjdk-*)
exec /usr/share/tomcat10/bin/catalina.sh run
"""
PATIENCE = 60.0  # seconds until a service answers


def postgres_answers(address: str) -> None:
    """Log in and wait until the server is ready for a query (protocol 3.0)."""
    with socket.create_connection((address, 5432), timeout=5) as connection:
        words = b"user\0postgres\0database\0postgres\0\0"
        connection.sendall(struct.pack("!II", len(words) + 8, 196608) + words)
        file = connection.makefile("rb")
        while True:
            head = file.read(5)
            if len(head) < 5:
                raise OSError("the server has closed the connection")
            kind, size = struct.unpack("!cI", head)
            file.read(size - 4)
            if kind == b"E":
                raise OSError("the server is not ready")
            if kind == b"Z":
                return


def python_answers(address: str) -> None:
    """Get the page."""
    get(address, 8000)


def tomcat_answers(address: str) -> None:
    """Get the page."""
    get(address, 8080)


def get(address: str, port: int) -> None:
    connection = http.client.HTTPConnection(address, port, timeout=5)
    connection.request("GET", "/")
    assert connection.getresponse().read()
    connection.close()


class Workload(NamedTuple):
    """A service: the flags and the command of its container."""

    title: str
    flags: tuple[str, ...]
    command: tuple[str, ...]
    answers: Callable[[str], None]


WORKLOADS = {
    "postgres": Workload(
        "PostgreSQL 17", ("-v", "/data"), ("sh", "-c", POSTGRES), postgres_answers
    ),
    "python": Workload("Python, pandas, scipy", (), ("python3", "/service.py"), python_answers),
    "tomcat": Workload("Java 21, Tomcat 10", (), ("sh", "-c", TOMCAT), tomcat_answers),
}


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Measure how soon a clone answers.")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default=",".join(WORKLOADS), help="names of workloads")
    parser.add_argument("--image", type=Path, help="archive of the image, written if it is absent")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args(words)
    results: dict[str, dict[str, list[float]]] = {}
    with tempfile.TemporaryDirectory(prefix="jb", dir="/var/tmp") as name:
        engine = engines.Jaula(Path(name) / "engine")
        engine.start()
        try:
            if options.image and options.image.exists():
                engine.run("load", "-i", str(options.image), stdout=subprocess.DEVNULL)
            else:
                build(engine, Path(name))
                if options.image:
                    engine.run("save", "-o", str(options.image), IMAGE)
            for key in options.only.split(","):
                results[key] = measure(engine, WORKLOADS[key], options.rounds)
                print("\n".join(lines(key, results[key])), flush=True)
        finally:
            engine.stop()
    document = {"machine": report.machine(), "rounds": options.rounds, "seconds": results}
    options.output.joinpath("clone.json").write_text(json.dumps(document, indent=1) + "\n")
    rows = [row for key in results for row in lines(key, results[key])]
    head = ["| service | way | seconds until its answer | of a first start |"]
    head.append("| --- | --- | ---: | ---: |")
    options.output.joinpath("clone.md").write_text("\n".join([*head, *rows]) + "\n")
    return 0


def build(engine: engines.Engine, base: Path) -> None:
    context = base / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "service.py").write_text(SERVICE)
    engine.run("image", "bootstrap", "debian", stdout=subprocess.DEVNULL)
    words = ("build", "--network", "host", "-t", IMAGE, str(context))
    engine.run(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def timed(engine: engines.Engine, name: str, workload: Workload, *words: str) -> float:
    """Run a command that starts a container; return the seconds until its service answers."""
    begin = time.monotonic()
    engine.run(*words, stdout=subprocess.DEVNULL)
    form = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    done = engine.run("inspect", "-f", form, name, stdout=subprocess.PIPE, text=True)
    address = done.stdout.strip()
    while True:
        try:
            workload.answers(address)
            return time.monotonic() - begin
        except OSError:
            if time.monotonic() - begin > PATIENCE:
                engine.run("logs", "--tail", "20", name)
                raise
            time.sleep(0.005)


def measure(engine: engines.Engine, workload: Workload, rounds: int) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {"cold": [], "warm": [], "clone": [], "snapshot": []}
    run = ("run", "-d", "--name", "service", *workload.flags, IMAGE, *workload.command)
    for number in range(rounds + 1):
        cold = timed(engine, "service", workload, *run)
        engine.run("stop", "-t", "10", "service", stdout=subprocess.DEVNULL)
        warm = timed(engine, "service", workload, "start", "service")
        time.sleep(0.5)
        begin = time.monotonic()
        engine.run("snapshot", "service", "warm", stdout=subprocess.DEVNULL)
        snapshot = time.monotonic() - begin
        clone = timed(engine, "other", workload, "clone", "--name", "other", "service", "warm")
        engine.run("rm", "-f", "-v", "service", "other", stdout=subprocess.DEVNULL)
        if number:  # the first round fills caches
            for key, value in zip(seconds, (cold, warm, clone, snapshot), strict=True):
                seconds[key].append(value)
    return seconds


WAYS = {
    "cold": "first start",
    "warm": "start again",
    "clone": "clone",
    "snapshot": "(the snapshot itself)",
}


def lines(key: str, seconds: dict[str, list[float]]) -> list[str]:
    """Return rows of a Markdown table: the median, and its relation to the first start."""
    cold = statistics.median(seconds["cold"])
    return [
        f"| {WORKLOADS[key].title} | {title} | {statistics.median(seconds[way]):.2f} |"
        f" {statistics.median(seconds[way]) / cold:.2f} |"
        for way, title in WAYS.items()
    ]
