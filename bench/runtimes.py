"""Measures of OCI runtimes alone, on the same bundle: jaula-runtime, runc, crun.

The time of a command is that from its start to its exit, as conmon or containerd's shim wait for
it. Rounds alternate between the runtimes. A runtime that does not run on this host is skipped, with
a message.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engines import PROJECT, Rootfs, sbin_path

BASELINE = "runc"
PROGRAMS = {"jaula-runtime": str(PROJECT / "jaula-runtime"), "runc": "runc", "crun": "crun"}
Samples = dict[str, list[float]]


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

    def __call__(self, *words: str, check: bool = True) -> float:
        """Run a command and return its milliseconds.

        :raises RuntimeError: when it fails
        """
        command = [self.program, "--root", str(self.base / f"{self.name}.state"), *words]
        with (self.base / f"{self.name}.log").open("wb") as log:
            start = time.perf_counter()
            # No timeout: with one, subprocess polls for the exit in steps of up to 50 ms.
            status = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            ).returncode
            elapsed = (time.perf_counter() - start) * 1e3
        if check and status:
            text = (self.base / f"{self.name}.log").read_text(errors="replace").strip()
            raise RuntimeError(f"{self.name} {' '.join(words)}: {text[-300:]}")
        return elapsed


def _path(program: str) -> str:
    return shutil.which(program, path=sbin_path()) or ""


def run(runtime: Runtime) -> float:
    """`run` of a program that exits at once (ms)"""
    return runtime("run", *runtime.bundle("once", "/bin/true"))


def life(runtime: Runtime) -> float:
    """`create`, `start` and `delete --force`, one after the other (ms)"""
    created = runtime("create", *runtime.bundle("life", "/bin/sleep", "1000"))
    return created + runtime("start", "life") + runtime("delete", "--force", "life")


def state(runtime: Runtime) -> float:
    """`state` of a running container (ms)"""
    return runtime("state", "lasting")


def execute(runtime: Runtime) -> float:
    """`exec` of a program that exits at once (ms)"""
    return runtime("exec", "lasting", "/bin/true")


MEASURES: tuple[Callable[[Runtime], float], ...] = (run, life, state, execute)


def measure(base: Path, rootfs: Rootfs, rounds: int) -> dict[str, Samples]:
    """Return ``{title: {runtime: [milliseconds]}}``."""
    base = base / f"{base.name}r"  # a unique name: it is also that of a cgroup
    base.mkdir()
    runtimes = [runtime for name in PROGRAMS if (runtime := _usable(name, base, rootfs))]
    results: dict[str, Samples] = {}
    try:
        for runtime in runtimes:
            runtime("create", *runtime.bundle("lasting", "/bin/sleep", "1000"))
            runtime("start", "lasting")
        for once in MEASURES:
            samples: Samples = {runtime.name: [] for runtime in runtimes}
            for number in range(rounds + 1):  # the first round warms caches and is not counted
                for runtime in runtimes:
                    value = once(runtime)
                    if number:
                        samples[runtime.name].append(value)
            results[once.__doc__ or once.__name__] = samples
    finally:
        for runtime in runtimes:
            for name in ("lasting", "life", "once"):
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
