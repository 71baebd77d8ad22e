"""``jaula stop`` of many containers."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

from harness.engine import SLOW

Run = Callable[..., "subprocess.CompletedProcess[str]"]
COUNT, TIMEOUT = 4, 4 * SLOW
DEAF = "trap '' TERM; echo ready; while :; do sleep 1; done"


def test_containers_that_ignore_the_signal_end_after_one_time_out(jaula: Run, busybox: str) -> None:
    """As with docker, whose client waits for all of them at a time."""
    names = [f"deaf{number}" for number in range(COUNT)]
    for name in names:
        done = jaula("run", "-d", "--init", "--name", name, busybox, "sh", "-c", DEAF)
        assert done.returncode == 0, done.stderr
    begin = time.monotonic()
    stopped = jaula("stop", "-t", str(TIMEOUT), names[0], "missing", *names[1:])
    seconds = time.monotonic() - begin
    assert stopped.stdout.split() == names
    assert stopped.returncode == 1
    assert "No such container: missing" in stopped.stderr
    assert TIMEOUT <= seconds < 2 * TIMEOUT
    states = jaula("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", *names).stdout
    assert states.splitlines() == ["exited 137"] * COUNT
    assert jaula("rm", *names).returncode == 0
