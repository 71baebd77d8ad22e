"""The process that follows logs is killed before the engine, and the next client gets another."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from harness import containers
from harness.containers import eventually
from harness.engine import PROJECT, PrivateEngine

LOOP = "while :; do echo line; sleep 0.2; done"


def followers(engine: PrivateEngine) -> list[int]:
    """Return the processes ``jaula-logs`` of an engine: forks of its zygote."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "comm").read_text().strip() != "jaula-logs":
                continue
            if str(engine.run).encode() in (place / "cmdline").read_bytes():
                found.append(int(place.name))
        except OSError:
            continue
    return found


def test_a_killed_follower_of_logs_is_replaced(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox, "sh", "-c", LOOP) as name:
        words = [str(PROJECT / "jaula"), "logs", "-f", name]
        for _ in range(2):
            with subprocess.Popen(
                words, env=engine.environment(), stdout=subprocess.PIPE, text=True
            ) as client:
                assert client.stdout is not None
                assert client.stdout.readline() == "line\n"
                (follower,) = followers(engine)
                assert Path(f"/proc/{follower}/oom_score_adj").read_text() == "1000\n"
                os.kill(follower, signal.SIGKILL)
                assert client.wait(20) is not None
                client.stdout.read()
            eventually(lambda: follower not in followers(engine), "it is gone")  # noqa: B023
        assert engine.request("GET", "/_ping").status == 200
