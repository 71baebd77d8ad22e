"""The generated modules belong to their sources."""

from __future__ import annotations

import subprocess
import sys

from harness.engine import PROJECT


def test_the_generated_modules_are_those_of_the_proto_files() -> None:
    command = [sys.executable, str(PROJECT / "scripts" / "protobuf"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
