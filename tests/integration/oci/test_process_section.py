"""The section ``process`` of a spec, from the default spec to the running process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.engine import PROJECT

Told = Callable[..., "subprocess.CompletedProcess[str]"]
SCRIPT = """
busybox grep -E '^Cap(Bnd|Amb)|^NoNewPrivs' /proc/self/status
echo oom $(busybox cat /proc/self/oom_score_adj)
echo nice $(busybox cut -d' ' -f19 /proc/self/stat) policy $(busybox cut -d' ' -f41 /proc/self/stat)
echo machine $(busybox uname -m)
echo locks $(busybox grep 'Max file locks' /proc/self/limits)
busybox ionice
"""
DEVICES = [{"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666}]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with busybox, and the config.json that ``spec`` writes."""
    for name in ("bin", "dev", "proc", "sys"):
        (tmp_path / "rootfs" / name).mkdir(parents=True)
    for name in ("sh", "busybox"):
        shutil.copy("/bin/busybox", tmp_path / "rootfs/bin" / name)
    subprocess.run([PROJECT / "jaula-runtime", "spec"], cwd=tmp_path, check=True, timeout=60)
    return tmp_path


@pytest.fixture
def run(bundle: Path) -> Iterator[Told]:
    """Run the bundle's container with parts of its config replaced."""
    name = f"jlt-process-{os.getpid()}"

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROJECT / "jaula-runtime", "--root", str(bundle / "state"), *words],
            cwd=bundle,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def told(process: dict[str, Any], linux: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        config = bundle / "config.json"
        document = json.loads(config.read_text())
        document["process"] |= {"terminal": False, **process}
        document["linux"] |= {"devices": DEVICES, **linux}
        config.write_text(json.dumps(document))
        return command("run", name)

    yield told
    assert command("delete", "--force", name).returncode == 0


def test_each_process_field_takes_effect(run: Told) -> None:
    done = run(
        {
            "args": ["sh", "-c", SCRIPT],
            "oomScoreAdj": 50,
            "scheduler": {"policy": "SCHED_BATCH", "nice": 5},
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 6},
            "rlimits": [{"type": "RLIMIT_LOCKS", "soft": 8, "hard": 9}],
            "capabilities": {
                "bounding": ["CAP_KILL", "CAP_FLY"],
                "permitted": ["CAP_KILL"],
                "effective": ["CAP_KILL"],
                "ambient": ["CAP_KILL"],
            },
        },
        {"personality": {"domain": "LINUX32"}},
    )
    assert done.returncode == 0, done.stderr
    machine = {"x86_64": "i686", "aarch64": "armv8l"}.get(os.uname().machine, os.uname().machine)
    assert done.stdout.splitlines() == [
        "CapBnd:\t0000000000000020",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "oom 50",
        "nice 5 policy 3",
        f"machine {machine}",
        "locks Max file locks 8 9 locks",
        "best-effort: prio 6",
    ]
    assert "unknown capability 'CAP_FLY' is ignored" in done.stderr


@pytest.mark.parametrize(
    ("process", "linux", "text"),
    [
        ({"cwd": "x"}, {}, "process.cwd: 'x' is not an absolute path"),
        ({"args": []}, {}, "process.args: is empty"),
        ({}, {"intelRdt": {}}, "intel rdt is not supported by this runtime"),
        ({}, {"sysctl": {"vm.swappiness": "1"}}, "'vm.swappiness' does not belong to a namespace"),
    ],
)
def test_an_impossible_value_is_refused_before_anything_is_created(
    run: Told, bundle: Path, process: dict[str, Any], linux: dict[str, Any], text: str
) -> None:
    done = run(process, linux)
    assert done.returncode == 1
    assert text in done.stderr
    assert not list(bundle.glob("state/*"))
