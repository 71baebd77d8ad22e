"""Measures of Docker API clients: the docker command, lists, logs, output to the log.

Each function returns ``{engine: [samples]}`` in the unit of its title. Its docstring is the title.
The docker command is the same program for each engine.
"""

from __future__ import annotations

import os
import subprocess
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

from engines import IMAGE, Engine, Rootfs

Samples = dict[str, list[float]]
LISTED = 500  # containers
LINES = 1_000_000
OUTPUT = 300  # MB that a container prints
LINE = "0123456789012345678901234567890123456789012345678901234567890"
LARGE_LOG = ("--log-driver", "json-file", "--log-opt", "max-size=2g", "--log-opt", "max-file=1")


def _serving(engines: Sequence[Engine]) -> list[Engine]:
    return [engine for engine in engines if engine.socket]


def docker(engine: Engine, *words: str) -> float:
    """Return milliseconds of one docker command against the engine's socket."""
    command = ["docker", "-H", f"unix://{engine.socket}", *words]
    start = time.perf_counter()
    subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"DOCKER_CONFIG": str(engine.base)},
        check=True,
        timeout=300,
    )
    return (time.perf_counter() - start) * 1e3


def _in_turn(engines: Sequence[Engine], rounds: int, once: Callable[[Engine], float]) -> Samples:
    samples: Samples = {engine.name: [] for engine in engines}
    for number in range(rounds + 1):
        for engine in engines:
            value = once(engine)
            if number:  # the first round warms caches
                samples[engine.name].append(value)
    return samples


def docker_run(engines: Sequence[Engine], rootfs: Rootfs, options: Namespace) -> Samples:
    """`docker run --rm busybox true`, the docker command (ms)"""
    words = ("run", "--rm", IMAGE, "true")
    return _in_turn(_serving(engines), options.rounds, lambda e: docker(e, *words))


def docker_ps(engines: Sequence[Engine], rootfs: Rootfs, options: Namespace) -> Samples:
    """`docker ps -a` with 500 containers, the docker command (ms)"""
    serving = _serving(engines)
    names = [f"listed{number}" for number in range(LISTED)]
    body = {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {}}
    for engine in serving:
        client = engine.connect()
        for name in names:
            client.call("POST", f"/containers/create?name={name}", body)
        client.close()
    samples = _in_turn(serving, options.rounds, lambda e: docker(e, "ps", "-a"))
    for engine in serving:
        client = engine.connect()
        for name in names:
            client.call("DELETE", f"/containers/{name}")
        client.close()
    return samples


def _printed(engine: Engine, name: str, script: str) -> None:
    engine.run(
        *("run", "--name", name, "-d", *LARGE_LOG, IMAGE, "sh", "-c", script),
        stdout=subprocess.DEVNULL,
    )
    engine.run("wait", name, stdout=subprocess.DEVNULL)


def logs(engines: Sequence[Engine], rootfs: Rootfs, options: Namespace) -> Samples:
    """`docker logs` of 1,000,000 lines, the docker command (thousand lines a second)"""
    serving = _serving(engines)
    for engine in serving:
        _printed(engine, "logged", f"yes {LINE} | head -n {LINES}")
    samples = _in_turn(
        serving, max(2, options.rounds // 4), lambda e: LINES / docker(e, "logs", "logged")
    )
    for engine in serving:
        engine.remove("logged")
    return samples


def _processor_seconds(pids: Sequence[int]) -> float:
    """Return user and system time of processes and of their exited children."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += sum(int(word) for word in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK")


def output(engines: Sequence[Engine], rootfs: Rootfs, options: Namespace) -> Samples:
    """A container's output to its json-file log (MB/s)"""
    script = f"yes {LINE} | head -c {OUTPUT}m"

    def once(engine: Engine) -> float:
        start = time.perf_counter()
        _printed(engine, "output", script)
        elapsed = time.perf_counter() - start
        engine.remove("output")
        return OUTPUT * 1.048576 / elapsed

    return _in_turn(_serving(engines), max(2, options.rounds // 8), once)


def output_cost(engines: Sequence[Engine], rootfs: Rootfs, options: Namespace) -> Samples:
    """Processor time of engine and shim for a container's output to its log (s per GB)"""
    script = f"sleep 1; yes {LINE} | head -c {OUTPUT}m; sleep 2"

    def once(engine: Engine) -> float:
        engine.run(
            *("run", "--name", "output", "-d", *LARGE_LOG, IMAGE, "sh", "-c", script),
            stdout=subprocess.DEVNULL,
        )
        init = engine.pid_of("output")
        shim = int(Path(f"/proc/{init}/stat").read_text().rpartition(")")[2].split()[1])
        pids = [*engine.processes(), shim]
        before = _processor_seconds(pids)
        log = Path(
            engine.run(
                *("inspect", "--format", "{{.LogPath}}", "output"), capture_output=True, text=True
            ).stdout.strip()
        )
        while not log.exists() or log.stat().st_size < OUTPUT << 20:
            time.sleep(0.05)  # the JSON log is larger than the output
        time.sleep(0.3)
        spent = _processor_seconds(pids) - before
        engine.remove("output")
        return spent / (OUTPUT * 1.048576e-3)

    return _in_turn(_serving(engines), max(2, options.rounds // 8), once)


ALL = {
    "docker_run": docker_run,
    "docker_ps": docker_ps,
    "logs": logs,
    "output": output,
    "output_cost": output_cost,
}
HIGHER_IS_BETTER = frozenset({"logs", "output"})
