"""The engine restores its firewall tables when the monitor is readable, until that succeeds."""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace

import pytest

from jaula.engine import engine as engine_module
from jaula.engine.engine import Engine
from jaula.network.firewall.nft_command import FirewallError


class Network:
    """A network manager that fails to restore its tables twice."""

    def __init__(self) -> None:
        self.read, self.write = os.pipe()
        self.attempts = 0
        self.restored = asyncio.Event()

    def watch(self) -> SimpleNamespace:
        return SimpleNamespace(fileno=lambda: self.read)

    def repair(self) -> bool:
        if self.attempts == 0:
            os.read(self.read, 1)  # the message comes once
        self.attempts += 1
        if self.attempts < 3:
            raise FirewallError("the kernel is busy")
        self.restored.set()
        return True


def test_a_restore_that_fails_is_repeated_without_another_message(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert engine_module._FIREWALL_RETRY == 5.0
    monkeypatch.setattr(engine_module, "_FIREWALL_RETRY", 0.01)

    async def run() -> int:
        network = Network()
        engine = Engine.__new__(Engine)
        engine.services = SimpleNamespace(network_manager=network)  # type: ignore[assignment]
        engine._watch_firewall()
        try:
            os.write(network.write, b"x")
            await asyncio.wait_for(network.restored.wait(), 30)
        finally:
            asyncio.get_running_loop().remove_reader(network.read)
            os.close(network.read)
            os.close(network.write)
        return network.attempts

    assert asyncio.run(run()) == 3
    assert caplog.text.count("the rules cannot be restored: the kernel is busy") == 2
