"""The report of which process changes owner or mode of a file of the host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.attribute_watch import AttributeWatch


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ("os.chown(path, 7, 8)", "7:8 600"),
        ("os.chmod(path, 0o604)", "0:0 604"),
        ("os.fchown(os.open(path, os.O_RDONLY), 7, -1)", "7:0 600"),
    ],
)
def test_the_process_that_changes_a_file_is_named(tmp_path: Path, change: str, state: str) -> None:
    watched = tmp_path / "watched"
    watched.touch(0o600)
    with AttributeWatch(str(watched), tmp_path / "report") as watch:
        program = f"import os; path = {str(watched)!r}; {change}; print(flush=True); input()"
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        first = watch.changes_until(process.pid)
        os.chmod(watched, 0o777)
        both = watch.changes_until(os.getpid())
        process.communicate(b"\n")
    assert first.startswith(f"{watched} is {state} after a change by {process.pid} ")
    assert f"{program}] < {os.getpid()} " in first
    assert both.startswith(first)
    assert f"after a change by {os.getpid()} " in both
