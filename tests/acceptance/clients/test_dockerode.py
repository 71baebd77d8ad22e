"""dockerode, the unmodified client for Node: a script and its output."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from pathlib import Path

import pytest

from harness.engine import PROJECT, PrivateEngine

pytestmark = pytest.mark.needs("npm")

SCRIPT = Path(__file__).with_name("script.js")
PACKAGE = "dockerode@5.0.1"


@pytest.fixture(scope="session")
def modules() -> Path:
    """Return a directory with the package, installed once for this clone; no script of it runs."""
    place = PROJECT / ".venv" / "node"
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "node_modules" / "dockerode").exists():
            quiet = ("--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock")
            subprocess.run(["npm", "install", *quiet, PACKAGE], cwd=place, check=True, timeout=300)
    return place / "node_modules"


def test_a_dockerode_script_prints_the_expected_output(
    engine: PrivateEngine, busybox: str, modules: Path
) -> None:
    done = subprocess.run(
        ["node", str(SCRIPT), str(engine.socket), busybox],
        env=os.environ | {"NODE_PATH": str(modules)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr + engine.log_tail()
    assert json.loads(done.stdout) == {
        "run": [3, "out\n", "err\n"],
        "exec": [5, "inside\n"],
        "memory": 64 << 20,
        "listed": 1,
        "status": 0,
        "typed": "got words\n",
        "logs": True,
        "missing": [404, "No such container: dockerode"],
        "network": "dockerode-net",
        "volume": "dockerode-volume",
    }
