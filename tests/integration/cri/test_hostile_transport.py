"""Floods on the CRI socket: the engine's memory is bounded, and other clients are answered.

The unit tests of jaula.grpc have one test for each rule. Here a process attacks a real engine as
fast as it can, while a client measures its own calls.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import leaks
from harness.engine import PROJECT, SLOW, PrivateEngine
from harness.http2_attacks import ATTACKS
from harness.pods import RUNTIME, connected
from jaula.features.kubernetes.cri.proto import api_pb2

SECONDS = 1.5
LATENCY = 5.0 * SLOW  # seconds of the slowest call of the other client
GROWTH = 64  # MiB of the engine's peak
HOLDING_GROWTH = 256  # MiB, of attacks that make the engine hold what it has a limit for
SPARE = 8  # descriptors of spare inits, which come and go by themselves
HOLDING = ("unread answers", "incomplete messages", "half-open streams")


@pytest.fixture(scope="module")
def node(worker_index: int) -> Iterator[PrivateEngine]:
    private = PrivateEngine((worker_index + 67) % 250 + 1, extra_flags=("--cri",))
    with leaks.nothing_left(private):
        asyncio.run(run_large_pod(private))
        yield private
        assert "Traceback" not in private.log.read_text(errors="replace")


async def run_large_pod(node: PrivateEngine) -> None:
    async with connected(node) as cri:
        await cri.run_pod("large", labels={f"label{n}": "x" * 1000 for n in range(400)})


def memory(node: PrivateEngine, field: str) -> int:
    """Return a value of the engine's memory in MiB."""
    assert node.process is not None
    text = Path(f"/proc/{node.process.pid}/status").read_text()
    match = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    assert match is not None
    return int(match[1]) >> 10


def descriptors(node: PrivateEngine) -> int:
    assert node.process is not None
    return len(list(Path(f"/proc/{node.process.pid}/fd").iterdir()))


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_costs_little_and_other_clients_are_answered(
    node: PrivateEngine, attack: str
) -> None:
    async def run() -> None:
        assert node.process is not None
        async with connected(node) as cri:
            (pod,) = [item.id for item in (await cri.call("ListPodSandbox")).items]
            request = api_pb2.PodSandboxStatusRequest(pod_sandbox_id=pod, verbose=True)
            await cri.call("Version")
            Path(f"/proc/{node.process.pid}/clear_refs").write_text("5")  # the peak of memory
            before, open_before = memory(node, "VmHWM"), descriptors(node)
            attacker = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "harness.http2_attacks", attack),
                *(str(node.run / "cri.sock"), str(SECONDS)),
                *(f"{RUNTIME}PodSandboxStatus", request.SerializeToString().hex()),
                cwd=PROJECT / "tests",
                stdout=asyncio.subprocess.PIPE,
            )
            slowest, calls = 0.0, 0
            while attacker.returncode is None:
                began = time.monotonic()
                await cri.call("Version")
                async with connected(node) as other:  # a new client finds a place too
                    await other.call("Status")
                slowest, calls = max(slowest, time.monotonic() - began), calls + 1
                await asyncio.sleep(0.01)
            output, _ = await attacker.communicate()
            assert attacker.returncode == 0 and int(output) > 0, (attacker.returncode, output)
            grown = memory(node, "VmHWM") - before
            assert grown < (HOLDING_GROWTH if attack in HOLDING else GROWTH), f"{grown} MiB"
            assert slowest < LATENCY and calls > 2, (slowest, calls)
            for _ in range(100):
                if descriptors(node) <= open_before + SPARE:
                    break
                await asyncio.sleep(0.1)
            assert descriptors(node) <= open_before + SPARE

    asyncio.run(run())
