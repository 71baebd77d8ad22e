"""An engine that reads its runtimes from a file like Docker's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import load_image
from harness import containers
from harness.engine import PrivateEngine
from integration.oci_runtimes.conftest import RUNTIMES, TIMEOUT

New = Callable[..., PrivateEngine]


def test_the_default_runtime_is_chosen_when_a_container_is_created(
    new_engine: New, tmp_path: Path, runtime: str
) -> None:
    file = tmp_path / "daemon.json"
    settings = {
        "runtimes": {"other": {"path": RUNTIMES[runtime]}},
        "default-runtime": "other",
        "runtime-timeout": TIMEOUT,
    }
    file.write_text(json.dumps(settings))
    engine = new_engine("--config-file", str(file))
    load_image(engine, "busybox")
    info = engine.request("GET", "/info").json()
    assert info["DefaultRuntime"] == "other"
    assert info["Runtimes"]["other"]["path"] == RUNTIMES[runtime]
    with containers.running(engine, "busybox") as name:
        assert containers.inspect(engine, name)["HostConfig"]["Runtime"] == "other"
        record = json.loads(next((engine.run / "containers").glob("*/runtime.json")).read_bytes())
        assert record["name"] == "other"
        engine.stop()
        file.write_text(json.dumps({**settings, "default-runtime": "jaula"}))
        engine.start()
        assert engine.cli("jaula", "restart", "-t", "0", name).returncode == 0
        assert containers.inspect(engine, name)["HostConfig"]["Runtime"] == "other"
    with containers.running(engine, "busybox") as name:
        assert containers.inspect(engine, name)["HostConfig"]["Runtime"] == "jaula"


@pytest.mark.parametrize(
    ("text", "output"),
    [
        ("{", "not a valid JSON document"),
        ('{"colour": 1}', "don't match any configuration option: colour"),
        ('{"cgroup-parent": "x"}', "specified both as a flag and in the configuration file"),
        ('{"default-runtime": "none"}', "default runtime 'none' does not exist"),
    ],
)
def test_an_invalid_file_stops_the_start(
    new_engine: New, tmp_path: Path, text: str, output: str
) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(text)
    engine = new_engine("--config-file", str(file), start=False)
    with pytest.raises(AssertionError, match="ended at its start"):
        engine.start()
    engine.process = None
    last = engine.log_tail().strip().splitlines()[-1]
    assert output in last
    assert last.startswith("jaula: ")
