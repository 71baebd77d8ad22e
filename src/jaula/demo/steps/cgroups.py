"""Step 5: limits, one container that keeps to them and one that does not."""

from __future__ import annotations

import time

from jaula.demo import kernel
from jaula.demo.runner import TourRunner

HOG = ("dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1")  # touches 100 MB at once


def show(tour: TourRunner) -> None:
    """Memory with and without a limit, then the other limits, then live views."""
    began = time.time()
    tour.text("A program that touches 100 MB, without a limit:")
    free = tour.name("free")
    lives = tour.jaula("run", "--name", free, tour.image, *HOG)
    tour.check(lives.status == 0, "it lives")
    tour.text("The same with 64 MB:")
    small = tour.name("small")
    limit = ("-m", "64mb", "--memory-swap", "64mb")
    dies = tour.jaula("run", "--name", small, *limit, tour.image, *HOG)
    tour.check(dies.status == 137, f"it is killed (137, seen {dies.status})")
    killed = tour.jaula("inspect", "-f", "{{.State.OOMKilled}}", small)
    tour.check(killed.output.strip() == "true", "inspect says OOMKilled")
    since = f"{began - 1:.3f}"
    oom = tour.jaula(
        "events", "--since", since, "--until", f"{time.time() + 0.1:.3f}",
        "--filter", "event=oom", "--filter", f"container={small}",
    )  # fmt: skip
    tour.check(" oom " in oom.output, "the log of events has it")
    digits = [
        word
        for word in oom.output.replace("=", " ").replace(",", " ").split()
        if word.strip("()").isdigit()
    ]
    tour.check(len(digits) >= 2, "with the memory used and the limit")
    _others(tour)


def _others(tour: TourRunner) -> None:
    tour.text("Half a CPU, only the first one, twenty processes at most:")
    limits = ("--cpus", "0.5", "--cpuset-cpus", "0", "--pids-limit", "20", "-m", "64mb")
    name = tour.start("limited", *limits)
    pid = tour.pid(name)
    allowed = kernel.status(pid, "Cpus_allowed_list")["Cpus_allowed_list"]
    place, most = kernel.cgroup_file(pid, "pids", "pids.max")
    tour.show(f"/proc/{pid}/status: Cpus_allowed_list: {allowed}\n{place}: {most}")
    tour.check(allowed == "0", "the kernel lets it run on CPU 0 alone")
    tour.check(most == "20", "and with twenty processes")
    try:
        place, quota = kernel.cgroup_file(pid, "cpu", "cpu.cfs_quota_us")
        half = quota == "50000"
    except FileNotFoundError:
        place, quota = kernel.cgroup_file(pid, "cpu", "cpu.max")
        half = quota == "50000 100000"
    tour.show(f"{place}: {quota}")
    tour.check(half, "for half of the time")
    full = tour.jaula(
        "exec", name, "sh", "-c", "i=0; while [ $i -lt 30 ]; do sleep 1 & i=$((i+1)); done; wait"
    )
    tour.check(full.status != 0, "the twenty-first process is refused")
    stats = tour.jaula("stats", "--no-stream", name)
    tour.check("64MiB" in stats.output, "stats shows the limit")
    top = tour.jaula("cgtop", "--batch", "--iterations", "1")
    tour.check(name in top.output, "cgtop shows its cgroup")
