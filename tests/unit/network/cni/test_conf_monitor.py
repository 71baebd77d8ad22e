"""The state of the network follows the configuration directory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from jaula.errors import Unavailable
from jaula.features.kubernetes.cni import conf_monitor
from jaula.features.kubernetes.cni.cni_config import NetworkConfig
from jaula.features.kubernetes.cni.conf_monitor import REASON, ConfMonitor
from jaula.kernel import inotify

from .scripted_plugin import conflist


async def accept(network: NetworkConfig) -> NetworkConfig:
    return network


def write(directory: Path, name: str, data: bytes) -> None:
    (directory / f"{name}.new").write_bytes(data)
    (directory / f"{name}.new").chmod(0o644)
    (directory / f"{name}.new").rename(directory / name)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the monitor has no event for its state
            await asyncio.sleep(0.005)


def types(monitor: ConfMonitor) -> list[str]:
    config = monitor.state.config
    return [plugin.type for plugin in config.plugins] if config else []


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (conf_monitor._POLL, conf_monitor._WATCHED_POLL, conf_monitor._QUIET) == (5.0, 30.0, 0.1)
    monkeypatch.setattr(conf_monitor, "_QUIET", 0.01)


def test_events_of_the_directory_change_the_state(tmp_path: Path) -> None:
    async def follow() -> None:
        monitor = ConfMonitor(accept, str(tmp_path))
        assert not monitor.state.ready
        await monitor.start()
        assert monitor.state.reason == REASON
        assert f"no network configuration in {tmp_path}" in monitor.state.message
        write(tmp_path, "20.conflist", conflist("a"))
        await until(lambda: types(monitor) == ["a"])
        assert (monitor.state.ready, monitor.state.reason) == (True, "")
        write(tmp_path, "10.conflist", conflist("b"))
        await until(lambda: types(monitor) == ["b"])
        (tmp_path / "10.conflist").unlink()
        await until(lambda: types(monitor) == ["a"])
        write(tmp_path, "20.conflist", b"{")
        await until(lambda: not monitor.state.ready)
        assert "20.conflist" in monitor.state.message
        await monitor.close()

    asyncio.run(follow())


@pytest.mark.parametrize("watched", [True, False])
def test_polls_find_a_directory_that_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    monkeypatch.setattr(conf_monitor, "_POLL", 0.02)
    directory = tmp_path / "net.d"
    if not watched:

        def refuse() -> int:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr(inotify, "create", refuse)

    async def follow() -> None:
        monitor = ConfMonitor(accept, str(directory))
        await monitor.start()
        directory.mkdir()
        write(directory, "10.conflist", conflist("a"))
        await until(lambda: types(monitor) == ["a"])
        directory.rename(tmp_path / "old")
        await until(lambda: not monitor.state.ready)
        directory.mkdir()
        write(directory, "10.conflist", conflist("b"))
        await until(lambda: types(monitor) == ["b"])
        await monitor.close()

    asyncio.run(follow())


def test_a_plugin_that_is_installed_later_makes_the_network_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conf_monitor, "_POLL", 0.02)
    write(tmp_path, "10.conflist", conflist("a"))
    installed = False

    async def negotiate(network: NetworkConfig) -> NetworkConfig:
        if not installed:
            raise Unavailable("plugin a is absent", hint="install it")
        return network

    async def follow() -> None:
        nonlocal installed
        monitor = ConfMonitor(negotiate, str(tmp_path))
        await monitor.start()
        assert monitor.state.message == "plugin a is absent (install it)"
        installed = True
        await until(lambda: monitor.state.ready)
        await monitor.close()

    asyncio.run(follow())


def test_an_unchanged_configuration_is_not_read_again(tmp_path: Path) -> None:
    write(tmp_path, "10.conflist", conflist("a"))
    calls = 0

    def counted() -> Callable[[NetworkConfig], Awaitable[NetworkConfig]]:
        async def negotiate(network: NetworkConfig) -> NetworkConfig:
            nonlocal calls
            calls += 1
            return network

        return negotiate

    async def follow() -> None:
        monitor = ConfMonitor(counted(), str(tmp_path))
        for _ in range(3):
            assert (await monitor.reload()).ready
        (tmp_path / "net").mkdir()
        await monitor.reload()
        write(tmp_path / "net", "10.conf", b'{"type": "b"}')
        await monitor.reload()
        assert types(monitor) == ["a", "b"]
        await monitor.close()

    asyncio.run(follow())
    assert calls == 3
