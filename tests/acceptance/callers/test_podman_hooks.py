"""Hooks that podman adds from a directory: programs of the host that the runtime runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.callers.caller import IMAGE, until
from harness.callers.podman import Podman

pytestmark = [pytest.mark.needs("podman"), pytest.mark.xdist_group("podman")]


def directory(base: Path, script: str, *stages: str) -> str:
    """Yield a directory with one hook, which runs ``script`` with the stage as its argument."""
    base.mkdir()
    for stage in stages:
        hook = {"path": "/bin/sh", "args": ["sh", "-c", script, "sh", stage], "env": ["A=b"]}
        document = {"version": "1.0.0", "hook": hook, "when": {"always": True}, "stages": [stage]}
        (base / f"{stage}.json").write_text(json.dumps(document))
    return str(base)


def test_each_stage_gets_the_state_of_the_container(podman: Podman, tmp_path: Path) -> None:
    log = tmp_path / "log"
    script = f'printf "%s %s %s\\n" "$1" "$A" "$(cat)" >>{log}'
    stages = ("prestart", "createRuntime", "poststart", "poststop")
    hooks = directory(tmp_path / "hooks", script, *stages)
    podman("--hooks-dir", hooks, "run", "--name", "hooked", IMAGE, "sleep", "0.5")
    until(lambda: log.read_text().count("\n") == len(stages), "every hook runs")
    lines = [line.split(" ", 2) for line in log.read_text().splitlines()]
    assert {stage for stage, _, _ in lines[:2]} == set(stages[:2])
    assert [stage for stage, _, _ in lines[2:]] == list(stages[2:])
    assert {variable for _, variable, _ in lines} == {"b"}
    states = [json.loads(text) for _, _, text in lines]
    name = podman.out("inspect", "-f", "{{.Id}}", "hooked")
    assert {state["id"] for state in states} == {name}
    assert {state["status"] for state in states[:2]} <= {"creating", "created"}
    assert states[2]["status"] in ("created", "running")
    assert states[3]["status"] == "stopped"
    assert all(state["pid"] > 0 for state in states[:3])
    assert all(Path(state["bundle"]).is_absolute() for state in states)
    podman("rm", "hooked")


def test_a_failed_hook_fails_the_container(podman: Podman, tmp_path: Path) -> None:
    hooks = directory(tmp_path / "hooks", "echo not today >&2; exit 3", "createRuntime")
    done = podman("--hooks-dir", hooks, "run", "--rm", IMAGE, "true", expect=None)
    assert done.returncode in (125, 126, 127)
    assert "hook" in done.stderr and "not today" in done.stderr
