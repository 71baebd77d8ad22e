"""Security options by their effect inside a container."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from harness import containers
from harness.engine import PrivateEngine


def run(engine: PrivateEngine, image: str, script: str, *options: str, **more: Any) -> str:
    words = [word for option in options for word in ("--security-opt", option)]
    flags = more.get("flags", ())
    done = engine.cli("jaula", "run", "--rm", *words, *flags, image, "sh", "-c", script)
    return str(done.stdout + done.stderr).strip()


def test_a_masked_file_is_empty_and_a_masked_directory_too(
    engine: PrivateEngine, busybox: str
) -> None:
    script = "wc -c < /proc/version; ls /etc | wc -l; touch /etc/x; umount /etc"
    told = run(engine, busybox, script, "mask=/proc/version:/etc")
    assert told.split()[:2] == ["0", "0"]
    assert "Read-only file system" in told
    assert told.count("not permitted") == 1


def test_unmask_opens_only_the_named_paths(engine: PrivateEngine, busybox: str) -> None:
    script = "wc -l < /proc/timer_list; wc -c < /proc/interrupts; wc -c < /proc/keys"
    closed = run(engine, busybox, script).split()
    assert closed == ["0", "0", "0"]
    opened = run(engine, busybox, script, "unmask=/proc/interrupts").split()
    assert opened[0] == opened[2] == "0"
    assert int(opened[1]) > 0


@pytest.mark.parametrize("option", ["unmask=ALL", "systempaths=unconfined"])
def test_everything_can_be_unmasked(engine: PrivateEngine, busybox: str, option: str) -> None:
    with containers.running(engine, busybox, flags=("--security-opt", option)) as name:
        mounts = containers.mountinfo(containers.pid(engine, name))
        document = containers.inspect(engine, name)
        assert engine.cli("jaula", "verify", name).returncode == 0
    assert not [place for place in mounts if place.startswith("/proc/")]
    assert document["HostConfig"]["MaskedPaths"] == []
    assert document["HostConfig"]["ReadonlyPaths"] == []


def test_masks_are_verified_and_relaxations_shown(engine: PrivateEngine, busybox: str) -> None:
    words = ("--security-opt", "mask=/proc/version", "--security-opt", "unmask=/proc/interrupts")
    with containers.running(engine, busybox, flags=words) as name:
        done = engine.cli("jaula", "verify", "--format", "json", name)
        rows = {row["id"]: row for row in json.loads(done.stdout)}
        told = containers.inspect(engine, name)["Relaxations"]
    assert done.returncode == 0
    assert rows["masked paths"]["verdict"] == "relaxed"
    assert told == ["security-option=unmask=/proc/interrupts"]


def test_hidepid_hides_processes_of_other_users(engine: PrivateEngine, busybox: str) -> None:
    flags = ("--user", "0")
    script = "sleep 30 & su -s /bin/sh nobody -c 'ls -d /proc/[0-9]*' 2>/dev/null | wc -l"
    seen = int(run(engine, busybox, script, flags=flags))
    hidden = int(run(engine, busybox, script, "proc-opts=hidepid=2", flags=flags))
    assert 0 < hidden < seen


def test_subset_pid_leaves_processes_only(engine: PrivateEngine, busybox: str) -> None:
    told = run(engine, busybox, "ls /proc; cat /proc/self/comm", "proc-opts=subset=pid")
    names = told.split()
    assert "meminfo" not in names
    assert "sys" not in names
    assert "self" in names
    assert names[-1] == "cat"


def test_no_new_privileges_is_set_and_can_be_denied(engine: PrivateEngine, busybox: str) -> None:
    script = "grep NoNewPrivs /proc/self/status"
    assert run(engine, busybox, script, "no-new-privileges").split()[-1] == "1"
    assert run(engine, busybox, script, "no-new-privileges:true").split()[-1] == "1"
    assert run(engine, busybox, script, "no-new-privileges=false").split()[-1] == "0"
    assert run(engine, busybox, script).split()[-1] == "0"


# -- seccomp=FILE ---------------------------------------------------------------------------------

MKDIR = ["mkdir", "mkdirat"]


def profile(tmp_path: Path, **conditions: Any) -> str:
    """Everything is allowed but making directories, if the conditions hold."""
    rule = {"names": MKDIR, "action": "SCMP_ACT_ERRNO", "errnoRet": 30, **conditions}
    path = tmp_path / "profile.json"
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    return f"seccomp={path}"


def major() -> str:
    return ".".join(os.uname().release.split(".")[:2])


@pytest.mark.parametrize(
    ("conditions", "flags", "refused"),
    [
        ({}, (), True),
        ({"includes": {"caps": ["CAP_NET_ADMIN"]}}, (), False),
        ({"includes": {"caps": ["CAP_NET_ADMIN"]}}, ("--cap-add", "NET_ADMIN"), True),
        ({"excludes": {"caps": ["CAP_CHOWN"]}}, (), False),
        ({"excludes": {"caps": ["CAP_CHOWN"]}}, ("--cap-drop", "CHOWN"), True),
        ({"includes": {"arches": ["amd64", "arm64"]}}, (), True),
        ({"includes": {"arches": ["s390x"]}}, (), False),
        ({"excludes": {"arches": ["amd64", "arm64"]}}, (), False),
        ({"includes": {"minKernel": "4.8"}}, (), True),
        ({"includes": {"minKernel": major()}}, (), True),
        ({"includes": {"minKernel": "99.0"}}, (), False),
        ({"excludes": {"minKernel": "4.8"}}, (), False),
        ({"includes": {"caps": ["CAP_NET_ADMIN"], "minKernel": "4.8"}}, (), False),
    ],
)
def test_a_rule_of_a_profile_counts_where_its_conditions_hold(
    engine: PrivateEngine,
    busybox: str,
    tmp_path: Path,
    conditions: dict[str, Any],
    flags: tuple[str, ...],
    refused: bool,
) -> None:
    script = "mkdir /tried && echo made"
    told = run(engine, busybox, script, profile(tmp_path, **conditions), flags=flags)
    assert ("Read-only file system" in told) is refused, told
    assert ("made" in told.split()) is not refused


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "seccomp profile"),
        ("{}", "seccomp"),
        ('{"defaultAction": "SCMP_ACT_NOTHING"}', "SCMP_ACT_NOTHING"),
        ("[1, 2]", "seccomp"),
        ('{"defaultAction": 5}', "seccomp"),
    ],
)
def test_a_missing_profile_prevents_the_start(
    engine: PrivateEngine, busybox: str, tmp_path: Path, text: str, reason: str
) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    done = engine.cli("jaula", "create", "--security-opt", f"seccomp={path}", busybox)
    assert done.returncode != 0
    assert reason in done.stderr
