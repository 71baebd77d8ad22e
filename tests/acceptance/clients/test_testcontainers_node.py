"""Unmodified testcontainers for Node, with a program in the role of Ryuk.

Ryuk gets the engine's socket by an entry of the policy, and removes what the script has left.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from harness import client_packages
from harness.containers import eventually, left_by_testcontainers
from harness.engine import PrivateEngine

pytestmark = [
    pytest.mark.client(name="testcontainers (npm)"),
    pytest.mark.needs("npm"),
    pytest.mark.slow,
    pytest.mark.needs("docker-compose"),
    pytest.mark.timeout(300),
]

SCRIPT = Path(__file__).parent / "testcontainers" / "script.js"
PACKAGE = "testcontainers@11.11.0"
DOCKERFILE = 'FROM busybox\nARG WORD\nRUN echo "$WORD" > /word\nCMD ["cat", "/word"]\n'
COMPOSE = """
services:
  one:
    image: busybox
    command: sh -c 'echo kept > /kept/file; echo up; exec sleep 600'
    volumes: [kept:/kept]
volumes: {kept: {}}
"""


@pytest.fixture(scope="module")
def modules() -> Path:
    return client_packages.npm("node-testcontainers", PACKAGE)


def test_a_script_runs_and_ryuk_removes_what_it_leaves(
    ryuk_engine: PrivateEngine, ryuk: dict[str, str], modules: Path, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    done = subprocess.run(
        ["node", str(SCRIPT), "busybox", str(tmp_path)],
        env=ryuk | {"NODE_PATH": str(modules)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr + ryuk_engine.log_tail()
    assert json.loads(done.stdout) == {
        "page": "hello\n",
        "exec": [3, "green\n1024\n", "err\n"],
        "restarted": "hello\n",
        "alias": "hello\n",
        "committed": True,
        "built": "built\n",
        "compose": "kept\n",
        "absent": True,
    }
    eventually(lambda: not left_by_testcontainers(ryuk_engine), "Ryuk has removed everything", 30)
    assert ryuk_engine.cli("docker", "image", "inspect", "busybox").returncode == 0
