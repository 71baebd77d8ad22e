"""Step 5: limits, and containers below and above them."""

from __future__ import annotations

import time

from jaula.features.demo import kernel
from jaula.features.demo.runner import TourRunner

HOG = ("dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1")  # touches 100 MB at once


def show(tour: TourRunner) -> None:
    """Show memory with and without a limit, then the other limits, then live views."""
    start = time.time()
    tour.text("A program that touches 100 MB, without a limit:")
    free = tour.name("free")
    unlimited = tour.jaula("run", "--name", free, tour.image, *HOG)
    tour.check(unlimited.status == 0, "it succeeds")
    tour.text("The same with 64 MB:")
    small = tour.name("small")
    limit = ("-m", "64mb", "--memory-swap", "64mb")
    limited = tour.jaula("run", "--name", small, *limit, tour.image, *HOG)
    tour.check(
        limited.status == 137, "it is killed (expected 137, got {status})", status=limited.status
    )
    killed = tour.jaula("inspect", "-f", "{{.State.OOMKilled}}", small)
    tour.check(killed.output.strip() == "true", "inspect reports OOMKilled")
    since = f"{start - 1:.3f}"
    oom = tour.jaula(
        "events", "--since", since, "--until", f"{time.time() + 0.1:.3f}",
        "--filter", "event=oom", "--filter", f"container={small}",
    )  # fmt: skip
    tour.check(" oom " in oom.output, "events reports it")
    digits = [
        word
        for word in oom.output.replace("=", " ").replace(",", " ").split()
        if word.strip("()").isdigit()
    ]
    tour.check(len(digits) >= 2, "with the memory used and the limit")
    _other_limits(tour)


def _other_limits(tour: TourRunner) -> None:
    tour.text("Half a CPU, the first one only, at most twenty processes:")
    limits = ("--cpus", "0.5", "--cpuset-cpus", "0", "--pids-limit", "20", "-m", "64mb")
    name = tour.start("limited", *limits)
    pid = tour.pid(name)
    allowed = kernel.status(pid, "Cpus_allowed_list")["Cpus_allowed_list"]
    path, pids_max = kernel.cgroup_file(pid, "pids", "pids.max")
    tour.show(f"/proc/{pid}/status: Cpus_allowed_list: {allowed}\n{path}: {pids_max}")
    tour.check(allowed == "0", "the kernel runs it on CPU 0 only")
    tour.check(pids_max == "20", "and with twenty processes")
    try:
        path, quota = kernel.cgroup_file(pid, "cpu", "cpu.cfs_quota_us")
        is_half = quota == "50000"
    except FileNotFoundError:
        path, quota = kernel.cgroup_file(pid, "cpu", "cpu.max")
        is_half = quota == "50000 100000"
    tour.show(f"{path}: {quota}")
    tour.check(is_half, "for half of the time")
    full = tour.jaula(
        "exec", name, "sh", "-c", "i=0; while [ $i -lt 30 ]; do sleep 1 & i=$((i+1)); done; wait"
    )
    tour.check(full.status != 0, "the twenty-first process is refused")
    stats = tour.jaula("stats", "--no-stream", name)
    tour.check("64MiB" in stats.output, "stats shows the limit")
    top = tour.jaula("cgtop", "--batch", "--iterations", "1")
    tour.check(name in top.output, "cgtop shows its cgroup")
