"""``--systemd-cgroup``: each command with a container whose cgroup is a unit of systemd."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.private_runtime import RUNTIME, Bundle, PrivateRuntime

pytestmark = [pytest.mark.vm, pytest.mark.needs("/run/systemd/system")]

MIB = 1 << 20
FLAG = "--systemd-cgroup"


def unit(bundle: Bundle) -> str:
    return f"jlt-{bundle.id}.scope"


def shown(name: str, *properties: str) -> dict[str, str]:
    arguments = [f"--property={each}" for each in properties]
    done = subprocess.run(
        ["systemctl", "show", name, *arguments], capture_output=True, text=True, check=True
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def ok(runtime: PrivateRuntime, *words: str, seconds: float = 120) -> str:
    done = runtime.command(FLAG, *words, timeout=seconds)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def bundle(runtime: PrivateRuntime) -> Iterator[Bundle]:
    """A bundle whose cgroup is a scope in a slice of the test."""
    made = runtime.bundle({"linux": {"resources": {"memory": {"limit": 64 * MIB}}}})
    config = json.loads((made.path / "config.json").read_text())
    config["linux"]["cgroupsPath"] = f"system.slice:jlt:{made.id}"
    (made.path / "config.json").write_text(json.dumps(config))
    yield made
    runtime.command(FLAG, "delete", "--force", made.id, timeout=120)


def test_each_command_works_with_a_unit(runtime: PrivateRuntime, bundle: Bundle) -> None:
    create = [RUNTIME, "--root", runtime.root, FLAG, "create", "--bundle", bundle.path, bundle.id]
    quiet = subprocess.DEVNULL  # init keeps the descriptors of a created container
    subprocess.run(create, stdin=quiet, stdout=quiet, stderr=quiet, check=True, timeout=120)
    state = json.loads(ok(runtime, "state", bundle.id))
    assert state["status"] == "created"
    properties = shown(unit(bundle), "ActiveState", "Slice", "MemoryMax", "Delegate")
    assert properties == {
        "ActiveState": "active",
        "Slice": "system.slice",
        "MemoryMax": str(64 * MIB),
        "Delegate": "yes",
    }
    assert unit(bundle) in Path(f"/proc/{state['pid']}/cgroup").read_text()
    ok(runtime, "start", bundle.id)
    assert "yes" in ok(runtime, "exec", bundle.id, "echo", "yes")
    assert str(state["pid"]) in ok(runtime, "ps", bundle.id)
    ok(runtime, "pause", bundle.id)
    assert json.loads(ok(runtime, "state", bundle.id))["status"] == "paused"
    ok(runtime, "resume", bundle.id)
    ok(runtime, "update", "--memory", str(32 * MIB), bundle.id)
    assert shown(unit(bundle), "MemoryMax") == {"MemoryMax": str(32 * MIB)}
    assert "memory" in ok(runtime, "events", "--stats", bundle.id)
    ok(runtime, "kill", bundle.id, "KILL")
    ok(runtime, "delete", "--force", bundle.id)
    assert shown(unit(bundle), "ActiveState") == {"ActiveState": "inactive"}


def test_run_returns_the_status_of_the_program(runtime: PrivateRuntime, bundle: Bundle) -> None:
    config = json.loads((bundle.path / "config.json").read_text())
    config["process"]["args"] = ["sh", "-c", "cat /proc/self/cgroup; exit 3"]
    (bundle.path / "config.json").write_text(json.dumps(config))
    done = runtime.command(FLAG, "run", "--bundle", str(bundle.path), bundle.id, timeout=120)
    assert (done.returncode, done.stderr) == (3, "")
    assert shown(unit(bundle), "ActiveState") == {"ActiveState": "inactive"}


def test_a_path_that_is_not_a_unit_is_refused(runtime: PrivateRuntime, bundle: Bundle) -> None:
    config = json.loads((bundle.path / "config.json").read_text())
    config["linux"]["cgroupsPath"] = f"/jlt/{bundle.id}"
    (bundle.path / "config.json").write_text(json.dumps(config))
    done = runtime.command(FLAG, "create", "--bundle", str(bundle.path), bundle.id, timeout=120)
    assert done.returncode != 0
    assert "cgroupsPath" in done.stderr or "slice:prefix:name" in done.stderr
