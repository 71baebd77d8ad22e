"""Step 5: limits, one container that keeps to them and one that does not."""

from __future__ import annotations

import time

from jaula.demo import kernel
from jaula.demo.runner import TourRunner

HOG = ("dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1")  # touches 100 MB at once


def show(guide: TourRunner) -> None:
    """Memory with and without a limit, then the other limits, then live views."""
    began = time.time()
    guide.say("A program that touches 100 MB, without a limit:")
    free = guide.name("free")
    lives = guide.jaula("run", "--name", free, guide.image, *HOG)
    guide.must(lives.status == 0, "it lives")
    guide.say("The same with 64 MB:")
    small = guide.name("small")
    limit = ("-m", "64mb", "--memory-swap", "64mb")
    dies = guide.jaula("run", "--name", small, *limit, guide.image, *HOG)
    guide.must(dies.status == 137, f"it is killed (137, seen {dies.status})")
    killed = guide.jaula("inspect", "-f", "{{.State.OOMKilled}}", small)
    guide.must(killed.output.strip() == "true", "inspect says OOMKilled")
    since = f"{began - 1:.3f}"
    oom = guide.jaula(
        "events", "--since", since, "--until", f"{time.time() + 0.1:.3f}",
        "--filter", "event=oom", "--filter", f"container={small}",
    )  # fmt: skip
    guide.must(" oom " in oom.output, "the log of events has it")
    digits = [
        word
        for word in oom.output.replace("=", " ").replace(",", " ").split()
        if word.strip("()").isdigit()
    ]
    guide.must(len(digits) >= 2, "with the memory used and the limit")
    _others(guide)


def _others(guide: TourRunner) -> None:
    guide.say("Half a CPU, only the first one, twenty processes at most:")
    limits = ("--cpus", "0.5", "--cpuset-cpus", "0", "--pids-limit", "20", "-m", "64mb")
    name = guide.start("limited", *limits)
    pid = guide.pid(name)
    allowed = kernel.status(pid, "Cpus_allowed_list")["Cpus_allowed_list"]
    place, most = kernel.cgroup_file(pid, "pids", "pids.max")
    guide.show(f"/proc/{pid}/status: Cpus_allowed_list: {allowed}\n{place}: {most}")
    guide.must(allowed == "0", "the kernel lets it run on CPU 0 alone")
    guide.must(most == "20", "and with twenty processes")
    try:
        place, quota = kernel.cgroup_file(pid, "cpu", "cpu.cfs_quota_us")
        half = quota == "50000"
    except FileNotFoundError:
        place, quota = kernel.cgroup_file(pid, "cpu", "cpu.max")
        half = quota == "50000 100000"
    guide.show(f"{place}: {quota}")
    guide.must(half, "for half of the time")
    full = guide.jaula(
        "exec", name, "sh", "-c", "i=0; while [ $i -lt 30 ]; do sleep 1 & i=$((i+1)); done; wait"
    )
    guide.must(full.status != 0, "the twenty-first process is refused")
    stats = guide.jaula("stats", "--no-stream", name)
    guide.must("64MiB" in stats.output, "stats shows the limit")
    top = guide.jaula("cgtop", "--batch", "--iterations", "1")
    guide.must(name in top.output, "cgtop shows its cgroup")
