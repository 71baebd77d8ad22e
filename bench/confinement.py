"""What confinement costs a start: the same container with and without its layers, in turn.

One engine, one connection; a container is created and removed around what is timed: the request
that starts it, and the wait until its program, which does nothing, has ended. Each layer is left
out by the flag that a user would give. Compared is what a tenth of the rounds stay below: other
work of the machine makes a start slower and never faster.
"""

from __future__ import annotations

import random
import statistics
import time
from typing import Any

from engines import IMAGE, Engine

Samples = dict[str, list[float]]
GOAL = 3.0  # milliseconds that all layers together may cost
ALL, NONE = "all of the default", "none of them"
NO_LAYERS = ["seccomp=unconfined", "landlock=off", "systempaths=unconfined"]

VARIANTS: dict[str, dict[str, Any]] = {
    ALL: {},
    "without the filter": {"SecurityOpt": ["seccomp=unconfined"]},
    "without Landlock": {"SecurityOpt": ["landlock=off"]},
    "without masks": {"SecurityOpt": ["systempaths=unconfined"]},
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
    """Milliseconds of each variant; one round that warms caches is not counted."""
    client = engine.connect()
    samples: Samples = {name: [] for name in VARIANTS}
    try:
        for number in range(rounds + 1):
            order = list(VARIANTS.items())
            random.Random(number).shuffle(order)  # what one leaves behind is not always the same's
            for name, host in order:
                body = {"Image": IMAGE, "Cmd": ["true"], "HostConfig": host}
                path = f"/containers/{client.call('POST', '/containers/create', body)['Id']}"
                begin = time.perf_counter()
                client.call("POST", f"{path}/start")
                status = client.call("POST", f"{path}/wait")["StatusCode"]
                elapsed = (time.perf_counter() - begin) * 1e3
                client.call("DELETE", path)
                if status:
                    raise RuntimeError(f"{name}: the container ended with {status}")
                if number:
                    samples[name].append(elapsed)
    finally:
        client.close()
    return samples


def table(samples: Samples) -> str:
    """What a tenth of the rounds stay below, medians, and the goal."""
    tenths = {name: statistics.quantiles(values, n=10)[0] for name, values in samples.items()}
    lines = [
        "| start and end of `true` | fastest tenth (ms) | beside the default | median (ms) |",
        "| --- | ---: | ---: | ---: |",
    ]
    for name, value in tenths.items():
        median = statistics.median(samples[name])
        lines.append(f"| {name} | {value:.1f} | {value - tenths[ALL]:+.1f} | {median:.1f} |")
    cost = tenths[ALL] - tenths[NONE]
    verdict = "reached" if cost <= GOAL else "missed"
    lines += ["", f"All layers cost {cost:.1f} ms; at most {GOAL:g} were the goal: {verdict}.", ""]
    return "\n".join(lines)
