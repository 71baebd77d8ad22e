"""Measures of OCI runtimes alone, on the same bundle: jaula-runtime, runc, crun.

The elapsed time of a command is that from its start to its exit, as conmon or containerd's shim
wait for it. The processor time is that of the command and of the processes that it waited for: of
``run`` all, of ``create`` not that of init. Rounds alternate between the runtimes. A runtime that
does not run on this host is skipped, with a message. With ``JAULA_BENCH_BASELINE`` the runtime of
another checkout is measured too.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from engines import PROJECT, Rootfs, sbin_path

BASELINE = "runc"
PROGRAMS = {"jaula-runtime": str(PROJECT / "jaula-runtime"), "runc": "runc", "crun": "crun"}
if os.environ.get("JAULA_BENCH_BASELINE"):
    PROGRAMS["before"] = os.path.join(os.environ["JAULA_BENCH_BASELINE"], "jaula-runtime")
Samples = dict[str, list[float]]


class Cost(NamedTuple):
    """The cost of a command in milliseconds."""

    elapsed: float
    processor: float


@dataclass(frozen=True)
class Runtime:
    """A runtime with its own state directory and bundles."""

    name: str
    program: str
    base: Path
    rootfs: Path

    def bundle(self, container: str, *words: str) -> tuple[str, ...]:
        """Return the arguments for a container: runc's default spec without a terminal."""
        directory = self.base / f"{self.name}-{container}"
        directory.mkdir(exist_ok=True)
        if not (directory / "config.json").exists():
            subprocess.run([_path(BASELINE), "spec", "--bundle", directory], check=True)
            document = json.loads((directory / "config.json").read_text())
            document["process"] |= {"args": list(words), "terminal": False}
            document["root"] = {"path": str(self.rootfs), "readonly": True}
            document["linux"]["cgroupsPath"] = f"/{self.base.name}/{directory.name}"
            (directory / "config.json").write_text(json.dumps(document))
        return ("--bundle", str(directory), container)

    def __call__(self, *words: str, check: bool = True) -> Cost:
        """Run a command.

        :raises RuntimeError: when it fails
        """
        command = [self.program, "--root", str(self.base / f"{self.name}.state"), *words]
        with (self.base / f"{self.name}.log").open("wb") as log:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            start = time.perf_counter()
            # No timeout: with one, subprocess polls for the exit in steps of up to 50 ms.
            status = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            ).returncode
            elapsed = (time.perf_counter() - start) * 1e3
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if check and status:
            text = (self.base / f"{self.name}.log").read_text(errors="replace").strip()
            raise RuntimeError(f"{self.name} {' '.join(words)}: {text[-300:]}")
        processor = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
        return Cost(elapsed, processor * 1e3)


def _path(program: str) -> str:
    return shutil.which(program, path=sbin_path()) or ""


def run(runtime: Runtime) -> dict[str, Cost]:
    """Measure `run` of a program that exits at once."""
    return {"run": runtime("run", *runtime.bundle("once", "/bin/true"))}


def life(runtime: Runtime) -> dict[str, Cost]:
    """Measure the commands of one container, in the order in which callers use them."""
    costs = {
        "create": runtime("create", *runtime.bundle("life", "/bin/sleep", "1000")),
        "start": runtime("start", "life"),
        "state": runtime("state", "life"),
        "list": runtime("list"),
        "exec": runtime("exec", "life", "/bin/true"),
        "kill": runtime("kill", "life", "KILL"),
    }
    time.sleep(0.05)  # until init has exited
    return {**costs, "delete": runtime("delete", "life")}


def forced(runtime: Runtime) -> dict[str, Cost]:
    """Measure `delete --force` of a running container."""
    runtime("run", "--detach", *runtime.bundle("life", "/bin/sleep", "1000"))
    return {"delete --force": runtime("delete", "--force", "life")}


MEASURES: tuple[Callable[[Runtime], dict[str, Cost]], ...] = (run, life, forced)


def measure(base: Path, rootfs: Rootfs, rounds: int) -> dict[str, Samples]:
    """Return ``{title: {runtime: [milliseconds]}}``."""
    base = base / f"{base.name}r"  # a unique name: it is also that of a cgroup
    base.mkdir()
    runtimes = [runtime for name in PROGRAMS if (runtime := _usable(name, base, rootfs))]
    results: dict[str, Samples] = {}
    try:
        for once in MEASURES:
            for number in range(rounds + 1):  # the first round warms caches and is not counted
                for runtime in runtimes:
                    costs = once(runtime)
                    for command, cost in costs.items() if number else ():
                        for title, value in (
                            (f"`{command}` (ms)", cost.elapsed),
                            (f"`{command}`, processor time (ms)", cost.processor),
                        ):
                            samples = results.setdefault(title, {})
                            samples.setdefault(runtime.name, []).append(value)
    finally:
        for runtime in runtimes:
            for name in ("life", "once"):
                runtime("delete", "--force", name, check=False)
        for group in Path("/sys/fs/cgroup").glob(f"**/{base.name}"):
            with contextlib.suppress(OSError):
                group.rmdir()
    return results


def _usable(name: str, base: Path, rootfs: Rootfs) -> Runtime | None:
    runtime = Runtime(name, _path(PROGRAMS[name]), base, rootfs.directory)
    if not runtime.program:
        print(f"runtimes: {name} is not installed", file=sys.stderr)
        return None
    try:
        run(runtime)
    except RuntimeError as error:
        print(f"runtimes: skipped: {error}", file=sys.stderr)
        runtime("delete", "--force", "once", check=False)
        return None
    return runtime


def table(results: dict[str, Samples]) -> str:
    """Return a Markdown table of the median of each runtime, and its ratio to runc's."""
    names = [name for name in PROGRAMS if any(name in samples for samples in results.values())]
    others = [name for name in names if name != BASELINE]
    heads = [*names, *(f"{BASELINE} : {name}" for name in others)]
    lines = [
        "| one command of an OCI runtime | " + " | ".join(heads) + " |",
        "| --- |" + " ---: |" * len(heads),
    ]
    for title, samples in results.items():
        medians = {name: statistics.median(values) for name, values in samples.items()}
        cells = [f"{medians[name]:.1f}" for name in names]
        cells += [f"{medians[BASELINE] / medians[name]:.1f}" for name in others]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
