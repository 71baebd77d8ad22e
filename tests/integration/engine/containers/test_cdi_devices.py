"""Devices that CDI files define, in real containers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import load_image
from harness import containers, leaks
from harness.engine import PrivateEngine

KIND = "jaula.test/null"
DEVICE = "/dev/fuse"
GPU = """
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- name: all
  containerEdits:
    env: [GPUS=all]
"""


@pytest.fixture(scope="module")
def engine(worker_index: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateEngine]:
    directory = tmp_path_factory.mktemp("cdi")
    (directory / "library").write_text("a library of the host\n")
    document = {
        "cdiVersion": "0.6.0",
        "kind": KIND,
        "devices": [
            {
                "name": "0",
                "containerEdits": {"deviceNodes": [{"path": "/dev/inside", "hostPath": DEVICE}]},
            }
        ],
        "containerEdits": {
            "env": ["FROM_CDI=yes"],
            "mounts": [
                {
                    "hostPath": str(directory / "library"),
                    "containerPath": "/lib/of-the-host",
                    "options": ["ro", "nosuid", "nodev", "bind"],
                }
            ],
        },
    }
    (directory / "test.json").write_text(json.dumps(document))
    (directory / "gpu.yaml").write_text(GPU)
    flags = ("--cdi-spec-dir", str(directory))
    private = PrivateEngine((worker_index + 71) % 250 + 1, extra_flags=flags)
    with leaks.nothing_left(private):
        load_image(private, "busybox")
        yield private


def test_a_device_is_found_requested_and_verified(engine: PrivateEngine) -> None:
    info = engine.request("GET", "/info").json()
    assert {"Source": "cdi", "ID": f"{KIND}=0"} in info["DiscoveredDevices"]
    with containers.running(engine, "busybox", flags=("--device", f"{KIND}=0")) as name:
        shown = engine.cli(
            "jaula", "exec", name, "sh", "-c", "echo $FROM_CDI; cat /lib/of-the-host"
        )
        assert shown.stdout == "yes\na library of the host\n"
        kind = engine.cli("jaula", "exec", name, "stat", "-c", "%F %t", "/dev/inside").stdout
        assert kind == "character special file a\n"
        opened = engine.cli("jaula", "exec", name, "sh", "-c", "exec 3<>/dev/inside")
        assert opened.returncode == 0, opened.stderr
        refused = engine.cli("jaula", "exec", name, "sh", "-c", "echo x > /lib/of-the-host")
        assert "Read-only file system" in refused.stderr
        (request,) = containers.inspect(engine, name)["HostConfig"]["DeviceRequests"]
        assert (request["Driver"], request["DeviceIDs"]) == ("cdi", [f"{KIND}=0"])
        report = engine.cli("jaula", "verify", name)
        assert report.returncode == 0, report.stdout
        assert f"--device {KIND}=0" in report.stdout


def test_gpus_are_the_devices_of_their_vendor(engine: PrivateEngine) -> None:
    done = engine.cli("jaula", "run", "--rm", "--gpus", "all", "busybox", "sh", "-c", "echo $GPUS")
    assert done.stdout == "all\n", done.stderr


def test_an_unknown_device_is_refused_at_the_start(engine: PrivateEngine) -> None:
    name = containers.unique()
    words = ("run", "--name", name, "--device", f"{KIND}=7", "busybox", "true")
    done = engine.cli("jaula", *words)
    assert done.returncode == 125
    assert f"unresolvable CDI devices {KIND}=7" in done.stderr
    assert engine.request("DELETE", f"/containers/{name}").status == 204


def test_a_file_that_changes_is_read_at_the_next_start(engine: PrivateEngine) -> None:
    directory = Path(engine.extra_flags[1])
    file = directory / "gpu.yaml"
    before = file.read_text()
    words = ("run", "-d", "--gpus", "all", "busybox", "sh", "-c", "echo $GPUS; sleep 60")
    name = engine.cli("jaula", *words).stdout.strip()
    try:
        file.write_text(before.replace("GPUS=all", "GPUS=changed"))
        engine.cli("jaula", "restart", "-t", "0", name)
        containers.eventually(
            lambda: engine.cli("jaula", "logs", name).stdout == "all\nchanged\n", "the new variable"
        )
    finally:
        file.write_text(before)
        engine.request("DELETE", f"/containers/{name}?force=1")
