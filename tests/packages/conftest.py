"""Results of the package tests as they come: a time limit of the machine then loses none.

The tests run once, in one process, in an emulated machine whose time is limited. pytest itself
prints tracebacks after the last test.
"""

from __future__ import annotations

import subprocess

import pytest

UNIT = "jaula.service"
# The kernel's messages about bridge ports of 50 containers would fill the first one.
EVIDENCE = (
    ("journalctl", "--no-pager", "-n", "60", "-o", "short-monotonic", "--unit", UNIT),
    ("journalctl", "--no-pager", "-n", "40", "-o", "short-monotonic"),
    ("systemctl", "--no-pager", "show", UNIT, "--property", "Result,ExecMainStatus,NRestarts"),
)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Print the result and the time of a test at once, with the traceback of a failure."""
    if report.when == "call" or report.outcome != "passed":
        name = report.nodeid.rpartition("::")[2]
        print(f"\n{report.when} {report.outcome} ({report.duration:.0f} s): {name}", flush=True)
    if report.failed:
        print(report.longreprtext, flush=True)
        for words in EVIDENCE:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            print(done.stdout, flush=True)
