"""A container runs as its request was resolved, over engines and whatever its stored body says."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import load_image
from harness import containers
from harness.container_records import change_records, records
from harness.engine import PrivateEngine

NewEngine = Callable[..., PrivateEngine]


@pytest.mark.parametrize("cve", ["CVE-2024-41110"])
def test_a_body_that_was_changed_in_the_database_gives_no_power(
    new_engine: NewEngine, tmp_path: Path, cve: str
) -> None:
    engine = new_engine()
    load_image(engine, "busybox")
    made = engine.cli("jaula", "create", "--name", "web", "--read-only", "busybox", "sleep", "60")
    assert made.returncode == 0, made.stderr
    before = containers.inspect(engine, "web")
    engine.stop()
    power = {
        "Privileged": True,
        "PidMode": "host",
        "UTSMode": "host",
        "UsernsMode": "host",
        "CapAdd": ["ALL"],
        "SecurityOpt": ["seccomp=unconfined"],
        "Binds": [f"{tmp_path}:/host"],
        "ReadonlyRootfs": False,
    }
    change_records(engine, lambda record: record["body"]["HostConfig"].update(power))
    engine.start()

    assert engine.cli("jaula", "start", "web").returncode == 0
    after = containers.inspect(engine, "web")
    assert after["Relaxations"] == before["Relaxations"] == []
    process = containers.pid(engine, "web")
    for namespace in ("pid", "uts", "user"):
        theirs = os.readlink(f"/proc/{process}/ns/{namespace}")
        assert theirs != os.readlink(f"/proc/self/ns/{namespace}")
    status = containers.status(process)
    assert status["CapBnd"] == "00000000a80425fb"
    assert status["Seccomp"] == "2"
    mounts = containers.mountinfo(process)
    assert "/host" not in mounts
    assert "ro" in mounts["/"].options


def test_containers_of_an_engine_without_resolved_requests_go_on(new_engine: NewEngine) -> None:
    engine = new_engine()
    load_image(engine, "busybox")
    flags = ("--memory", "64m", "--pid", "host", "-p", "127.0.0.1::80", "-v", "data:/data")
    run = engine.cli("jaula", "run", "-d", "--name", "web", *flags, "busybox", "sleep", "600")
    assert run.returncode == 0, run.stderr
    joined = ("--network", "container:web")
    made = engine.cli("jaula", "create", "--name", "other", *joined, "busybox", "sleep", "600")
    assert made.returncode == 0, made.stderr
    before = [containers.inspect(engine, name) for name in ("web", "other")]
    resolved = {record["name"]: record["resolved_request"] for record in records(engine)}
    assert set(resolved) == {"web", "other"}
    engine.kill()
    change_records(engine, lambda record: record.pop("resolved_request"))

    engine.start()
    assert {r["name"]: r["resolved_request"] for r in records(engine)} == resolved
    assert [containers.inspect(engine, name) for name in ("web", "other")] == before
    for words in (("restart", "--time", "0", "web"), ("start", "other")):
        done = engine.cli("jaula", *words)
        assert done.returncode == 0, done.stderr
    process = containers.pid(engine, "web")
    assert os.readlink(f"/proc/{process}/ns/pid") == os.readlink("/proc/self/ns/pid")
    assert "/data" in containers.mountinfo(process)
    shared = os.readlink(f"/proc/{process}/ns/net")
    assert os.readlink(f"/proc/{containers.pid(engine, 'other')}/ns/net") == shared


def test_the_next_engine_starts_with_an_update(new_engine: NewEngine) -> None:
    engine = new_engine()
    load_image(engine, "busybox")
    engine.cli("jaula", "create", "--name", "web", "--pids-limit", "9", "busybox", "sleep", "60")
    done = engine.cli("jaula", "update", "--memory", "64m", "--memory-swap", "64m", "web")
    assert done.returncode == 0, done.stderr
    (record,) = records(engine)
    limits = {"Memory": 64 << 20, "MemorySwap": 64 << 20, "PidsLimit": 9}
    assert record["resolved_request"]["resources"] == limits
    engine.stop()
    engine.start()
    assert engine.cli("jaula", "start", "web").returncode == 0
    process = containers.pid(engine, "web")
    limit = containers.cgroup_file(process, "memory", "memory.limit_in_bytes", "memory.max")
    assert limit == str(64 << 20)
