"""An engine without free descriptors: clients wait, and a container can be removed."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from conftest import load_image
from harness.engine import PrivateEngine


@pytest.mark.slow
def test_a_container_is_removed_without_free_descriptors(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    engine = new_engine()
    load_image(engine, "busybox")
    assert engine.cli("jaula", "create", "--name", "old", "busybox", "true").returncode == 0
    assert engine.process is not None
    pid = engine.process.pid
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (max(used) + 1, before[1]))
    free = max(used) + 1 - len(used)
    with ExitStack() as clients:
        for _ in range(free + 10):
            client = clients.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            client.connect(str(engine.socket))
        assert engine.request("DELETE", "/containers/old").status == 204
        log = Path(engine.log).read_text()
        assert log.count("clients wait: Too many open files") == 1, log
        assert "Traceback" not in log
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert engine.request("GET", "/_ping").status == 200
