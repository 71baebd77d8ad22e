"""Every run in a virtual machine, one after another, and a table of what came of them.

    VMLAB="my-vm-command" ./test --vm-all [NAME...] [--write docs/security.md] [--logs DIRECTORY]

``$VMLAB`` names a command that boots a machine with cgroup v2 and this directory at the same path
and runs a command in it; ``--lsm``, ``--init`` and ``--timeout`` are added as a run needs them. It
may read ``$VMLAB_PACKAGES`` (Debian packages) and ``$VMLAB_SEMODULES`` (modules for SELinux's
policy), which name what the machine should have.

A run that is not named keeps its row in the table. The exit status is 0 if nothing failed.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- vm runs: begin -->", "<!-- vm runs: end -->"
HEAD = "| run | machine | tests | outcome | date |\n| --- | --- | --- | --- | --- |"
PACKAGES, MODULE = "runc crun tini", "packaging/selinux/jaula.cil"
LIMIT = 5400  # seconds for one run; emulation on a busy machine is slow
SUMMARY = re.compile(r"^=* ?((?:\d+ \w+,? ?)+) in [\d.]+s")
MACHINE = re.compile(r"^machine: (.*)$", re.MULTILINE)


class Run(NamedTuple):
    """One boot: the options of the machine, and what pytest is asked for."""

    name: str
    machine: tuple[str, ...]
    tests: tuple[str, ...]
    options: tuple[str, ...] = ("-n", "2")


DEEDS = (
    "tests/security/test_i05_kernel_files.py",
    "tests/security/test_i22_joining.py",
    "tests/integration/audit/test_probe.py",
)
STRIPPED = "tests/integration/audit/test_stripped.py"
RUNS = (
    Run("apparmor", ("--lsm", "apparmor"), ("tests/security/test_i09_apparmor.py", STRIPPED)),
    Run("selinux", ("--lsm", "selinux"), ("tests/security/test_i09_selinux.py", STRIPPED)),
    Run(
        "apparmor-deeds",
        ("--lsm", "apparmor"),
        ("tests/security/test_i06_masks.py", *DEEDS),
    ),
    Run(
        "selinux-deeds",
        ("--lsm", "selinux"),
        ("tests/security/test_i03_paths.py", *DEEDS),
    ),
    Run("rootless", ("--init", "systemd"), ("tests/acceptance/test_rootless_delegated.py",), ()),
    Run(
        "systemd",
        ("--init", "systemd"),
        ("tests/integration/cgroups/test_systemd.py", "tests/integration/oci/test_resources.py"),
    ),
    Run(
        "cgroup2",
        (),
        ("tests/integration/cgroups", "tests/integration/runtime", "tests/integration/security",
         "tests/integration/audit", "tests/integration/engine/test_profiles.py",
         "tests/integration/engine/test_audit_log.py"),
    ),
    Run("statements", (), ("tests/security",)),
    Run("oci", (), ("tests/integration/oci", "tests/integration/oci_runtimes")),
)  # fmt: skip


class Outcome(NamedTuple):
    """What a run said; ``summary`` is pytest's last line without its time."""

    status: int
    machine: str
    summary: str
    output: str


def carry_out(run: Run, log: Path) -> Outcome:
    """Boot, run, and wait; what it prints is in ``log`` meanwhile."""
    words = [*shlex.split(os.environ["VMLAB"]), *run.machine, "--timeout", str(LIMIT), "--"]
    words += ["scripts/in-vm", "-q", *run.options, *run.tests]
    wanted = {"VMLAB_PACKAGES": PACKAGES, "VMLAB_SEMODULES": str(ROOT / MODULE)}
    with log.open("wb") as file:
        done = subprocess.run(
            words,
            cwd=ROOT,
            env=wanted | os.environ,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    return outcome(done.returncode, log.read_text(encoding="utf-8", errors="replace"))


def outcome(status: int, output: str) -> Outcome:
    """What the table tells of a run's output."""
    machine = MACHINE.search(output)
    lines = [found[1].strip() for found in map(SUMMARY.match, output.splitlines()) if found]
    lines = [re.sub(r", \d+ warnings?$", "", line) for line in lines]
    summary = lines[-1] if lines else f"did not end by itself: status {status}"
    return Outcome(status, machine[1].strip() if machine else "did not start", summary, output)


def rows(text: str) -> dict[str, str]:
    """The table's rows by the name of their run."""
    return {
        line.split("|")[1].strip(): line for line in text.splitlines()[2:] if line.startswith("| ")
    }


def row(run: Run, told: Outcome, date: str) -> str:
    """One row of the table."""
    tests = ", ".join(name.removeprefix("tests/") for name in run.tests)
    return f"| {run.name} | {told.machine} | {tests} | {told.summary} | {date} |"


def replace(path: Path, new: dict[str, str]) -> None:
    """Put rows in their place; raises SystemExit where the document has none."""
    head, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    table, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"vm-runs: {path} has no place for the table: {BEGIN} and {END}")
    kept = rows(table.strip()) | new
    lines = [kept[run.name] for run in RUNS if run.name in kept]
    text = "\n".join([HEAD, *lines])
    path.write_text(f"{head}{begin}\n{text}\n{end}{tail}", encoding="utf-8")


def say(text: str) -> None:
    """A line for whoever waits."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(words: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="./test --vm-all", description=__doc__)
    names = [run.name for run in RUNS]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(names)}")
    parser.add_argument("--write", type=Path, help="a document whose table is to be renewed")
    parser.add_argument("--logs", type=Path, help="a directory for what each run printed")
    options = parser.parse_args(words)
    if unknown := set(options.names) - set(names):
        parser.error(f"no run is called {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    failed = False
    with tempfile.TemporaryDirectory(prefix="vm-runs-") as scratch:
        logs = options.logs or Path(scratch)
        logs.mkdir(parents=True, exist_ok=True)
        for run in RUNS:
            if options.names and run.name not in options.names:
                continue
            begun = time.monotonic()
            told = carry_out(run, logs / f"{run.name}.log")
            say(f"{run.name}: {told.summary} ({time.monotonic() - begun:.0f} s)")
            if told.status:
                failed = True
                say("\n".join(told.output.splitlines()[-60:]))
            if options.write is not None:
                today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
                replace(options.write, {run.name: row(run, told, today)})
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
