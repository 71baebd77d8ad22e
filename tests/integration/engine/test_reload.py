"""SIGHUP: what a running engine takes over from its configuration file, and what it does not."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import load_image
from harness import containers
from harness.engine import PrivateEngine


class Configured:
    """An engine with a configuration file of its own."""

    def __init__(self, path: Path, make: Callable[..., PrivateEngine], **settings: Any) -> None:
        self.path = path
        self.write(**settings)
        self.engine = make("--config-file", str(path), start=False)
        self.engine.start()

    def write(self, **settings: Any) -> None:
        document = {key.replace("_", "-"): value for key, value in settings.items()}
        self.path.write_text(json.dumps(document))

    def reload(self, said: str) -> None:
        """Send the signal, and wait until the log says something about it."""
        assert self.engine.process is not None
        before = self.engine.log_tail(1 << 20).count(said)
        os.kill(self.engine.process.pid, signal.SIGHUP)
        containers.eventually(
            lambda: self.engine.log_tail(1 << 20).count(said) > before, f"{said!r} in the log"
        )

    def info(self) -> Any:
        return self.engine.request("GET", "/info").json()


@pytest.fixture
def configured(
    tmp_path: Path, new_engine: Callable[..., PrivateEngine]
) -> Callable[..., Configured]:
    return lambda **settings: Configured(tmp_path / "daemon.json", new_engine, **settings)


def test_a_reload_applies_to_new_containers(configured: Callable[..., Configured]) -> None:
    made = configured(pids_limit=111, log_opts={"max-file": "2"})
    engine = made.engine
    image = load_image(engine, "busybox")

    def limits() -> tuple[int, str]:
        with containers.running(engine, image, "sleep", "600") as name:
            shown = containers.inspect(engine, name)["HostConfig"]
            pids = engine.cli("jaula", "exec", name, "cat", "/proc/1/limits").stdout
            assert "Max open files" in pids
            return shown["PidsLimit"], shown["LogConfig"]["Config"].get("max-file", "")

    assert limits() == (111, "2")
    with containers.running(engine, image, "sleep", "600") as old:
        made.write(
            pids_limit=222,
            log_opts={"max-file": "4"},
            debug=True,
            default_profile="strict",
            registry_mirrors=["https://mirror.example"],
            runtimes={"other": {"path": "/usr/bin/true"}},
        )
        made.reload("the settings are reloaded")
        assert containers.inspect(engine, old)["State"]["Running"]
    info = made.info()
    assert info["Debug"] is True
    assert "other" in info["Runtimes"]
    assert "https://mirror.example" in str(info["RegistryConfig"])
    assert limits()[1] == "4"


def test_a_reload_finds_devices_in_other_directories(
    configured: Callable[..., Configured], tmp_path: Path
) -> None:
    made = configured(cdi_spec_dirs=[str(tmp_path / "old")])
    assert made.info()["CDISpecDirs"] == [str(tmp_path / "old")]
    made.write(cdi_spec_dirs=[str(tmp_path / "new")])
    made.reload("the settings are reloaded")
    assert made.info()["CDISpecDirs"] == [str(tmp_path / "new")]


def test_a_reload_names_settings_that_need_a_restart(
    configured: Callable[..., Configured],
) -> None:
    made = configured()
    made.write(debug=True, sandbox_pool=9)
    made.reload("these settings need a restart of the engine: sandbox_pool")
    assert made.info()["Debug"] is True


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"nosuch": 1}',
        '{"default-profile": "nosuch"}',
        '{"log-opts": {"nosuch": "1"}}',
        None,
    ],
)
def test_an_invalid_file_changes_nothing(
    configured: Callable[..., Configured], text: str | None
) -> None:
    made = configured(debug=True)
    if text is None:
        made.path.unlink()
    else:
        made.path.write_text(text)
    made.reload("the settings are not reloaded")
    assert made.info()["Debug"] is True


def test_it_is_an_event_and_noted(configured: Callable[..., Configured]) -> None:
    made = configured()
    seen: list[Any] = []
    path = "/events?since=0&until=4102444800&filters=" + '{"type":["daemon"]}'

    def watch() -> None:
        from harness.engine import UnixConnection

        connection = UnixConnection(str(made.engine.socket), 20)
        connection.request("GET", path)
        seen.append(json.loads(connection.getresponse().readline()))
        connection.close()

    watcher = threading.Thread(target=watch)
    watcher.start()
    made.reload("the settings are reloaded")
    watcher.join(20)
    assert (seen[0]["Type"], seen[0]["Action"]) == ("daemon", "reload")
    lines = [
        json.loads(line)
        for file in (made.engine.root / "lib" / "audit").glob("*.log")
        for line in file.open()
    ]
    assert lines[-1]["action"] == "engine reload"
