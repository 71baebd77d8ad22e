"""Run the test suites that need a virtual machine, one after another, and record the results.

    VMLAB="my-vm-command" ./test --vm-all [NAME...] [--write docs/vm-results.md] [--logs DIRECTORY]
    VMLAB="my-vm-command" ./test --vm

The second form runs the short runs, twenty minutes together, and writes their rows.

``$VMLAB`` names a command that boots a machine with cgroup v2 and this directory at the same path,
and runs a command in it. A run adds its ``--lsm``, ``--init`` and ``--timeout``. The
command may read ``$VMLAB_PACKAGES`` (Debian packages of the machine) and ``$VMLAB_SEMODULES``
(modules for SELinux's policy).

A run that is not selected keeps its row in the table. The exit status is 0 if nothing failed.
"""

from __future__ import annotations

import argparse
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

import result_table

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = "runc crun tini gcc libc6-dev criu openssl iproute2 nftables"
MODULE = "packaging/selinux/jaula.cil"
ARCHIVE = ROOT / "dist/vm-tree.tar"
LIMIT = 5400  # seconds of one run; emulation on a busy machine is slow
SETTINGS = ("JAULA_UPGRADE_CONTAINERS", "JAULA_INSTALL_LIMIT", "JAULA_TEST_SPARE_SHIMS")
"""Variables that tests read, which are passed to the machine and named in the table."""
SUMMARY = re.compile(r"^=* ?((?:\d+ \w+,? ?)+) in [\d.]+s")
MACHINE = re.compile(r"^machine: (.*)$", re.MULTILINE)


PARALLEL = ("-n", "2", "--dist", "loadfile")


class Run(NamedTuple):
    """One boot: the options of the machine, and the tests and options of pytest.

    ``preparation`` is a command that runs on this host first. ``./test --vm`` runs what is
    ``short``: one boot for each machine, with what only that machine shows.
    """

    name: str
    machine: tuple[str, ...]
    tests: tuple[str, ...]
    options: tuple[str, ...] = PARALLEL
    preparation: tuple[str, ...] = ()
    short: bool = False


PROBES = (
    "tests/security/test_i05_kernel_files.py",
    "tests/security/test_i22_namespace_join.py",
    "tests/integration/audit/test_probe.py",
)
REMOVED = "tests/integration/audit/test_removed_protections.py"
RUNS = (
    Run(
        "short-systemd",
        ("--init", "systemd"),
        ("tests/integration/oci/test_systemd_cgroup.py",
         "tests/integration/cgroups/test_contract.py",
         "tests/integration/cgroups/test_systemd.py",
         "tests/integration/cgroups/test_systemd_reexec.py",
         "tests/integration/cri/test_systemd.py", "tests/acceptance/test_rootless_delegated.py"),
        # One worker: a test restarts systemd, and the machine has one ordinary user.
        options=("-k", "not test_contract or systemd"),
        short=True,
    ),
    Run(
        "short-cgroup2",
        (),
        ("tests/integration/cgroups/test_contract.py", "tests/integration/oci/test_states.py",
         "tests/acceptance/test_tour.py", "tests/security/test_i09_confinement.py",
         "tests/integration/daemon/test_memory_limit.py"),
        (*PARALLEL, "-k", "not test_contract or v2"),  # short-systemd has the contract's other half
        short=True,
    ),
    Run(
        "short-apparmor",
        ("--lsm", "apparmor"),
        ("tests/security/test_i09_apparmor.py", "tests/integration/why/test_lsm.py"),
        short=True,
    ),
    Run(
        "short-selinux",
        ("--lsm", "selinux"),
        ("tests/security/test_i09_selinux.py", "tests/security/test_i16_engine_socket.py"),
        short=True,
    ),
    Run(
        "short-quotas",
        (),
        ("tests/integration/storage/test_limits.py",
         "tests/integration/engine/test_storage_drivers.py"),
        (*PARALLEL, "-k", "limit or caller or project or quotas"),
        short=True,
    ),
    Run(
        "short-checkpoints",
        (),
        ("tests/integration/engine/containers/test_checkpoints.py",
         "tests/integration/engine/containers/test_checkpoint_files.py",
         "tests/integration/engine/migration/test_migration.py"),
        short=True,
    ),
    Run(
        "apparmor",
        ("--lsm", "apparmor"),
        ("tests/security/test_i09_apparmor.py", REMOVED, "tests/integration/why/test_lsm.py",
         "tests/integration/daemon/test_refusals.py"),
    ),
    Run(
        "selinux",
        ("--lsm", "selinux"),
        ("tests/security/test_i09_selinux.py", "tests/security/test_i16_engine_socket.py", REMOVED),
    ),
    Run(
        "apparmor-probe",
        ("--lsm", "apparmor"),
        ("tests/security/test_i06_masks.py", *PROBES),
    ),
    Run(
        "selinux-probe",
        ("--lsm", "selinux"),
        ("tests/security/test_i03_paths.py", *PROBES),
    ),
    Run("rootless", ("--init", "systemd"), ("tests/acceptance/test_rootless_delegated.py",), ()),
    Run(
        "systemd",
        ("--init", "systemd"),
        ("tests/integration/cgroups/test_systemd.py", "tests/integration/oci/test_resources.py",
         "tests/integration/cri/test_systemd.py"),
    ),
    Run(
        "cgroup2",
        (),
        ("tests/integration/cgroups", "tests/integration/cri/test_resources.py",
         "tests/integration/runtime", "tests/integration/security",
         "tests/integration/audit", "tests/integration/engine/test_profiles.py",
         "tests/integration/engine/test_audit_log.py"),
    ),
    Run(
        "records",
        ("--init", "systemd"),
        ("tests/integration/record", "tests/integration/why", "tests/integration/harden"),
        (),  # each record verifies its programs, which takes both processors under emulation
    ),
    Run(
        "checkpoints",
        (),
        ("tests/integration/engine/containers/checkpoint",
         "tests/integration/engine/containers/test_checkpoints.py",
         "tests/integration/runtime/checkpoint",
         "tests/integration/runtime/test_verify_restored.py",
         "tests/security/test_i15_checkpoints.py"),
    ),
    Run(
        "checkpoint-files",
        (),
        ("tests/integration/engine/containers/test_checkpoint_archives.py",
         "tests/integration/engine/containers/test_checkpoint_files.py",
         "tests/integration/engine/containers/test_checkpoint_namespaces.py",
         "tests/integration/engine/test_checkpoint_location.py",
         "tests/security/test_i15_archives.py"),
    ),
    # Two engines and CRIU take both processors under emulation.
    Run("migration", (), ("tests/integration/engine/migration",), ()),
    Run(
        "checkpoints-systemd",
        ("--init", "systemd"),
        ("tests/integration/engine/containers/checkpoint/test_systemd.py",
         "tests/integration/engine/containers/test_checkpoints.py"),
    ),
    Run(
        "checkpoints-apparmor",
        ("--lsm", "apparmor"),
        ("tests/integration/engine/containers/checkpoint/test_apparmor.py",),
    ),
    Run(
        "checkpoints-selinux",
        ("--lsm", "selinux"),
        ("tests/integration/engine/containers/checkpoint/test_selinux.py",),
    ),
    Run(
        "verity",
        (),
        ("tests/integration/storage/layers/test_fs_verity.py",
         "tests/integration/engine/test_storage_drivers.py"),
        ("-k", "fs_verity or overlay-verity or changed_data"),
    ),
    Run("units", ("--init", "systemd"), ("tests/integration/cli/test_systemd_units.py",), ()),
    Run("statements", (), ("tests/security",)),
    Run("oci", (), ("tests/integration/oci", "tests/integration/oci_runtimes")),
    # 50 containers that write 1000 lines a second take both processors under emulation.
    Run(
        "packages",
        ("--init", "systemd", "--mem", "3072"),
        ("tests/packages/test_debian_packages.py",),
        ("-v", "-s"),  # print each step as it ends
        ("scripts/upgrade-debs",),
    ),
    Run(
        "packages-selinux",
        ("--lsm", "selinux", "--init", "systemd"),
        ("tests/packages/test_selinux_package.py",),
        ("-v", "-s"),
        ("scripts/upgrade-debs",),
    ),
)  # fmt: skip
TABLE = result_table.Table(
    "vm runs",
    ("run", "machine", "tests", "outcome", "date", "commit"),
    tuple(run.name for run in RUNS),
)


class Outcome(NamedTuple):
    """The result of a run; ``summary`` is pytest's last line without its time."""

    status: int
    machine: str
    summary: str
    output: str


def execute(run: Run, log: Path, *, is_prepared: bool = False) -> Outcome:
    """Boot the machine, run the tests and wait; the output goes to ``log``."""
    words = [*shlex.split(os.environ["VMLAB"]), *run.machine, "--timeout", str(LIMIT), "--"]
    words += ["env", f"JAULA_VM_ARCHIVE={ARCHIVE}", *settings()]
    words += ["scripts/in-vm", "-q", *run.options, *run.tests]
    environment = {"VMLAB_PACKAGES": PACKAGES, "VMLAB_SEMODULES": str(ROOT / MODULE)}
    with log.open("wb") as file:
        if run.preparation and not is_prepared:
            subprocess.run(run.preparation, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=file,
                           stderr=subprocess.STDOUT, check=True)  # fmt: skip
        pack(ARCHIVE)
        done = subprocess.run(
            words,
            cwd=ROOT,
            env=environment | os.environ,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    return outcome(done.returncode, log.read_text(encoding="utf-8", errors="replace"))


def pack(archive: Path) -> None:
    """Write the files that the machine copies to its memory."""
    subprocess.run([ROOT / "scripts/in-vm", "--pack", archive], check=True)


def settings() -> list[str]:
    """Return the variables of SETTINGS that are set, as arguments of env(1)."""
    return [f"{name}={os.environ[name]}" for name in SETTINGS if name in os.environ]


def outcome(status: int, output: str) -> Outcome:
    """Parse the output of a run."""
    machine = MACHINE.search(output)
    lines = [match[1].strip() for match in map(SUMMARY.match, output.splitlines()) if match]
    lines = [re.sub(r", \d+ warnings?$", "", line) for line in lines]
    summary = lines[-1] if lines else f"no summary of pytest: status {status}"
    return Outcome(status, machine[1].strip() if machine else "did not start", summary, output)


def row(run: Run, result: Outcome, date: str, commit: str) -> str:
    """Return one row of the table."""
    tests = ", ".join([*(name.removeprefix("tests/") for name in run.tests), *settings()])
    return TABLE.row(run.name, result.machine, tests, result.summary, date, commit)


def commit() -> str:
    """Return the short name of the commit; a tree with other files has a ``+``."""
    words = ["git", "describe", "--always", "--exclude=*", "--dirty=+"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def main(words: Sequence[str]) -> int:
    """Run the selected runs, and return the exit status."""
    parser = argparse.ArgumentParser(prog="./test --vm-all", description=__doc__)
    names = ", ".join(TABLE.keys)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {names}")
    parser.add_argument("--write", type=Path, help="document to update the table in")
    parser.add_argument("--logs", type=Path, help="directory for the output of each run")
    parser.add_argument("--prepared", action="store_true",
                        help="keep what the preparation of an earlier run has built")  # fmt: skip
    parser.add_argument("--short", action="store_true", help="only the short runs")
    options = parser.parse_args(words)
    if unknown := result_table.unknown(options.names, TABLE.keys):
        parser.error(unknown)
    failed = False
    prepared: set[tuple[str, ...]] = set()
    with tempfile.TemporaryDirectory(prefix="vm-runs-") as scratch:
        logs = options.logs or Path(scratch)
        logs.mkdir(parents=True, exist_ok=True)
        for run in RUNS:
            if options.names and run.name not in options.names:
                continue
            if options.short and not run.short:
                continue
            revision = commit()  # before --write changes a document
            start = time.monotonic()
            is_prepared = options.prepared or run.preparation in prepared
            result = execute(run, logs / f"{run.name}.log", is_prepared=is_prepared)
            prepared.add(run.preparation)
            result_table.report(f"{run.name}: {result.summary} ({time.monotonic() - start:.0f} s)")
            if result.status:
                failed = True
                result_table.report("\n".join(result.output.splitlines()[-60:]))
            if options.write is not None:
                rows = {run.name: row(run, result, result_table.today(), revision)}
                TABLE.replace(options.write, rows)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
