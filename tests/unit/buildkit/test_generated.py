"""The generated modules belong to their sources."""

from __future__ import annotations

import subprocess
import sys

from harness.engine import PROJECT


def test_the_generated_modules_are_those_of_the_proto_files() -> None:
    command = [sys.executable, str(PROJECT / "scripts" / "protobuf"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_an_engine_that_never_builds_loads_neither_grpc_nor_protobuf() -> None:
    script = (
        "import sys, jaula.api.http.api_server, jaula.api.routes, jaula.engine.engine\n"
        "print([n for n in ('h2', 'google.protobuf', 'jaula.grpc', "
        "'jaula.features.build.buildkit', 'jaula.features.kubernetes.cri') "
        "if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        env={"PYTHONPATH": str(PROJECT / "src")},
    )
    assert done.stdout == "[]\n", done.stderr
