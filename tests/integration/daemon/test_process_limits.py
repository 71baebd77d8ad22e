"""The engine's limit of open files, in a process with a low one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jaula.daemon import process_limits
from jaula.daemon.process_limits import NEEDED_FILES
from jaula.kernel import capabilities

LOW = 300
PROGRAM = """
import resource
from jaula.daemon import process_limits
process_limits.raise_file_limit()
print(*resource.getrlimit(resource.RLIMIT_NOFILE), *process_limits.file_limit_warnings())
"""


def run(*prefix: str, soft: int = LOW) -> str:
    words = (*prefix, sys.executable, "-c", PROGRAM)
    done = subprocess.run(
        ("prlimit", f"--nofile={soft}:{LOW}", *words),
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return done.stdout.strip()


def may_raise() -> bool:
    """Return whether this process has CAP_SYS_RESOURCE (bit 24), which root may lack."""
    return bool(capabilities.read_status_masks(os.getpid())["effective"] >> 24 & 1)


@pytest.mark.skipif(not may_raise(), reason="no CAP_SYS_RESOURCE here")
def test_the_limit_is_raised_to_what_the_engine_needs() -> None:
    assert run() == f"{NEEDED_FILES} {NEEDED_FILES}"


def test_a_limit_that_cannot_be_raised_is_used_whole_and_reported() -> None:
    told = run("setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource", soft=100)
    assert told.startswith(f"{LOW} {LOW} the engine may open {LOW} files")
    assert f"LimitNOFILE={NEEDED_FILES}" in told


@pytest.mark.parametrize("limit", [NEEDED_FILES, 1 << 20])
def test_a_sufficient_limit_has_no_warning(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (limit, limit))
    assert process_limits.file_limit_warnings() == ()
