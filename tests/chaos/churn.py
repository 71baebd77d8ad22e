"""Clients at work on an engine for hours, without kills: nothing that the engine holds may grow.

The clients are those of the campaign. A sample is taken at equal intervals. The first quarter of
the time warms caches up. The median of the second quarter is compared with that of the last.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from chaos import roles
from chaos.campaign import Campaign
from chaos.target import Target

SAMPLES = 240
TOLERANCE = {
    "memory of the engine (kB)": (0.03, 1024),
    "memory of the zygote (kB)": (0.03, 512),
    "descriptors of the engine": (0.0, 8),
    "threads of the engine": (0.0, 2),
    "database (bytes)": (0.05, 262_144),
    "files of the engine": (0.02, 50),
    "layers": (0.0, 20),
}
"""Growth that is not counted: a share of the earlier value, and an amount. The larger one holds.

Clients that are at work at the moment of a sample hold some descriptors, files and records.
"""


def sample(target: Target) -> dict[str, int]:
    """Return what the engine holds now, by the names of TOLERANCE."""
    engine = target.engine
    assert engine.process is not None
    pid = engine.process.pid
    return {
        "memory of the engine (kB)": _pss(pid),
        "memory of the zygote (kB)": _pss(roles.zygote(engine)),
        "descriptors of the engine": len(os.listdir(f"/proc/{pid}/fd")),
        "threads of the engine": len(os.listdir(f"/proc/{pid}/task")),
        "database (bytes)": sum(f.stat().st_size for f in (engine.root / "lib").glob("*.db*")),
        "files of the engine": _files(engine.root) + _files(engine.run),
        "layers": len(os.listdir(engine.root / "lib" / "layers")),
    }


def grown(samples: Sequence[Mapping[str, int]]) -> list[str]:
    """Return a line for each value that grew, from the second quarter to the last one."""
    quarter = len(samples) // 4
    lines = []
    for name, (share, amount) in TOLERANCE.items():
        before = statistics.median(s[name] for s in samples[quarter : 2 * quarter])
        after = statistics.median(s[name] for s in samples[-quarter:])
        if after - before > max(share * before, amount):
            lines.append(f"{name} grew from {before:.0f} to {after:.0f}")
    return lines


def churn(target: Target, seed: int, clients: int, seconds: float) -> int:
    """Let clients work; print samples, and return the exit status."""
    campaign = Campaign(target, seed, clients)
    campaign.begin()
    samples: list[dict[str, int]] = []
    begin = time.monotonic()
    for number in range(1, SAMPLES + 1):
        while time.monotonic() < begin + seconds * number / SAMPLES and campaign.goes_on():
            time.sleep(0.1)
        if not campaign.goes_on():
            break
        samples.append(sample(target))
        if number % (SAMPLES // 12) == 0:
            _print(time.monotonic() - begin, campaign, samples[-1])
    campaign.end()
    if len(samples) == SAMPLES:
        for line in grown(samples):
            campaign.fault(line)
    return campaign.report()


def _print(seconds: float, campaign: Campaign, values: Mapping[str, int]) -> None:
    row = ", ".join(f"{name} {value}" for name, value in values.items())
    print(f"{seconds:.0f} s, {campaign.done.total()} actions: {row}", flush=True)


def _pss(pid: int) -> int:
    """Return the proportional set size in kB (proc_pid_smaps_rollup(5))."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise AssertionError(f"process {pid} has no Pss")


def _files(directory: Path) -> int:
    """Return the number of files below a directory, without those of containers and layers."""
    number = 0
    with contextlib.suppress(FileNotFoundError):
        for _, names, files in os.walk(directory):
            names[:] = [name for name in names if name not in ("layers", "containers")]
            number += len(files)
    return number
