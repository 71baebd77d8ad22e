"""dockerode, the unmodified client for Node: a script and its output."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from harness import client_packages
from harness.engine import PrivateEngine

pytestmark = [pytest.mark.client(name="dockerode"), pytest.mark.needs("npm")]

SCRIPT = Path(__file__).with_name("script.js")
PACKAGE = "dockerode@5.0.1"


@pytest.fixture(scope="session")
def modules() -> Path:
    return client_packages.npm("node", PACKAGE)


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
