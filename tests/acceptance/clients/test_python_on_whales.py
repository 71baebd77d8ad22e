"""Unmodified python-on-whales, which runs the docker command and parses what it prints."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from harness import client_packages
from harness.engine import PrivateEngine

pytestmark = [
    pytest.mark.client(name="python-on-whales"),
    pytest.mark.needs("docker"),
    pytest.mark.needs("docker-compose"),
]

SCRIPT = Path(__file__).with_name("whales.py")
PACKAGE = "python-on-whales==0.81.0"
COMPOSE = """
services:
  one: {image: busybox, command: "sh -c 'echo up; exec sleep 600'", init: true}
"""


def test_a_script_prints_the_expected_output(
    engine: PrivateEngine, busybox: str, tmp_path: Path
) -> None:
    programs = client_packages.pip("python-on-whales", PACKAGE)
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    (tmp_path / "Dockerfile").write_text("FROM busybox\nARG WORD\nRUN echo $WORD > /word\n")
    variables = engine.environment()
    del variables["DOCKER_BUILDKIT"]  # its build is buildx's
    done = subprocess.run(
        [str(programs / "python"), str(SCRIPT), busybox, str(tmp_path)],
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr + engine.log_tail()
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "state": ["running", "whale", {"kind": "test"}, 64 << 20],
        "logs": "hello\n",
        "stream": [["stdout", "out\n"], ["stderr", "err\n"]],
        "executed": "green",
        "listed": ["whale"],
        "network": ["whale"],
        "volume": "copied\n",
        "memory": True,
        "exit": 3,
        "stopped": 143,
        "committed": True,
        "built": "built",
        "saved": ["whales/built:1"],
        "compose": [["one", "running"], "up\n"],
        "events": ["create", "start"],
        "missing": "NoSuchContainer",
        "absent": "NoSuchImage",
    }
