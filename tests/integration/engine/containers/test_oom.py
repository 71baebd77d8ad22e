"""``oom`` events of a container whose memory is exhausted."""

from __future__ import annotations

import json
import time

import pytest

from harness.cgroup_hierarchies import mounted_v1
from harness.containers import eventually
from harness.engine import PrivateEngine

GROW = 'BEGIN { s = "xxxxxxxx"; while (1) s = s s }'


@pytest.mark.parametrize(
    "flags",
    [
        (),
        pytest.param(
            ("--oom-kill-disable",),
            marks=pytest.mark.skipif("memory" not in mounted_v1(), reason="cgroup v1 only"),
        ),
    ],
)
def test_exhausted_memory_is_reported_while_the_container_runs(
    engine: PrivateEngine, busybox: str, flags: tuple[str, ...]
) -> None:
    shell = ("sh", "-c", f"awk '{GROW}'; sleep 99")
    words = ("-d", "--init", "-m", "20m", "--memory-swap", "20m", *flags)
    made = engine.cli("docker", "run", *words, busybox, *shell, check=True)
    ref = made.stdout.strip()
    try:
        filters = json.dumps({"container": [ref], "event": ["oom"]})
        deadline = time.monotonic() + 30
        events = b""
        while not events and time.monotonic() < deadline:
            path = f"/events?until={time.time():.3f}&filters={filters.replace(' ', '%20')}"
            events = engine.request("GET", path).body
            time.sleep(0.1)
        assert json.loads(events.splitlines()[0])["Action"] == "oom"
        state = engine.request("GET", f"/containers/{ref}/json").json()["State"]
        assert (state["OOMKilled"], state["Status"]) == (True, "running")
    finally:
        engine.cli("docker", "rm", "-f", ref, check=True)


def test_memory_that_is_exhausted_at_once_is_reported(engine: PrivateEngine, busybox: str) -> None:
    """The program runs before its shim watches the cgroup."""
    body = {
        "Image": busybox,
        "Cmd": ["sh", "-c", "dd if=/dev/zero of=/dev/null bs=100M count=1; sleep 99"],
        "HostConfig": {"Memory": 8 << 20, "MemorySwap": 8 << 20, "NetworkMode": "none"},
    }
    refs = []
    try:
        for _ in range(10):
            refs.append(engine.request("POST", "/containers/create", body).json()["Id"])
            assert engine.request("POST", f"/containers/{refs[-1]}/start").status == 204
        for ref in refs:

            def is_reported(ref: str = ref) -> bool:
                state = engine.request("GET", f"/containers/{ref}/json").json()["State"]
                assert state["Status"] == "running"
                return bool(state["OOMKilled"])

            eventually(is_reported, "the state says that memory was exhausted")
    finally:
        for ref in refs:
            engine.request("DELETE", f"/containers/{ref}?force=1")
