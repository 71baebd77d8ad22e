"""Cost of confinement at a start: the same container with and without its layers, in turn.

One engine, one connection. The engine has no spare inits: only the container with all layers, whose
shape is the default, would get one. Two values are measured:

* The elapsed time of the start request. The table has the first decile of the rounds.
* The processor time that the cgroup has used when the program runs: the work of init before execve.

A layer is omitted by the flag that a user would set. On a busy machine the elapsed time includes
waits for processors and kernel locks. The processor time hardly does.
"""

from __future__ import annotations

import random
import statistics
import time
from pathlib import Path
from typing import Any

from engines import IMAGE, Engine

Samples = dict[str, list[float]]
GOAL = 1.5  # milliseconds that all layers together may cost
CPU = ", processor time"
ALL, NONE = "all of the default", "none of them"
NO_LAYERS = ["seccomp=unconfined", "landlock=off", "systempaths=unconfined"]

VARIANTS: dict[str, dict[str, Any]] = {
    ALL: {},
    "without the filter": {"SecurityOpt": ["seccomp=unconfined"]},
    "without Landlock": {"SecurityOpt": ["landlock=off"]},
    "without masks": {"SecurityOpt": ["systempaths=unconfined"]},
    "without a cgroup namespace": {"CgroupnsMode": "host"},
    NONE: {"SecurityOpt": NO_LAYERS, "CapAdd": ["ALL"], "CgroupnsMode": "host"},
    "none of them, in the host's user namespace": {
        "SecurityOpt": NO_LAYERS,
        "Privileged": True,
        "UsernsMode": "host",
        "CgroupnsMode": "host",
    },
    "profile strict, with the network": {
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", "landlock=exec"],
        "ReadonlyRootfs": True,
        "Tmpfs": {"/tmp": "size=64m", "/run": "size=16m"},
        "Memory": 512 << 20,
        "PidsLimit": 256,
    },
}


def measure(engine: Engine, rounds: int) -> Samples:
    """Return milliseconds of each variant, elapsed and of processor time.

    The first round is not counted.
    """
    client = engine.connect()
    samples: Samples = {name + suffix: [] for name in VARIANTS for suffix in ("", CPU)}
    try:
        for number in range(rounds + 1):
            order = list(VARIANTS.items())
            random.Random(number).shuffle(order)  # no variant always follows the same one
            for name, host in order:
                body = {"Image": IMAGE, "Cmd": ["sleep", "600"], "HostConfig": host}
                path = f"/containers/{client.call('POST', '/containers/create', body)['Id']}"
                begin = time.perf_counter()
                client.call("POST", f"{path}/start")
                elapsed = (time.perf_counter() - begin) * 1e3
                used = processor_time(client.call("GET", f"{path}/json")["State"]["Pid"])
                client.call("DELETE", f"{path}?force=1")
                if number:
                    samples[name].append(elapsed)
                    samples[name + CPU].append(used)
    finally:
        client.close()
    return samples


def processor_time(pid: int) -> float:
    """Return milliseconds that the cgroup of a process has used, on v1 or v2."""
    trees = Path("/sys/fs/cgroup")
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if "cpuacct" in names.split(","):
            usage = trees / "cpuacct" / path.lstrip("/") / "cpuacct.usage"
            return int(usage.read_text()) / 1e6
    stat = (trees / path.lstrip("/") / "cpu.stat").read_text().split()
    return int(stat[stat.index("usage_usec") + 1]) / 1e3


def table(samples: Samples) -> str:
    """Return a table of the first deciles, and the goal."""
    tenths = {name: statistics.quantiles(values, n=10)[0] for name, values in samples.items()}
    lines = [
        "| start | ms | difference | processor time (ms) | difference |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name in VARIANTS:
        wall, used = tenths[name], tenths[name + CPU]
        lines.append(
            f"| {name} | {wall:.1f} | {wall - tenths[ALL]:+.1f} "
            f"| {used:.1f} | {used - tenths[ALL + CPU]:+.1f} |"
        )
    cost, used = (tenths[ALL + suffix] - tenths[NONE + suffix] for suffix in ("", CPU))
    verdict = "reached" if cost <= GOAL else "missed"
    text = f"All layers cost {cost:.1f} ms, {used:.1f} ms of it processor time. The goal is at most"
    lines += ["", f"{text} {GOAL:g} ms: {verdict}.", ""]
    return "\n".join(lines)
