"""``jaula verify --watch`` prints a row that changes, and the engine emits it as an event."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from harness import containers
from harness.audits import Audited
from harness.engine import PROJECT, PrivateEngine


@pytest.fixture(scope="module")
def shared(engine: PrivateEngine, busybox: str) -> Iterator[Audited]:
    with containers.running(engine, busybox) as name:
        yield Audited(engine, name)


@pytest.fixture(scope="module")
def watch(engine: PrivateEngine, shared: Audited) -> Iterator[subprocess.Popen[str]]:
    words = [str(PROJECT / "jaula"), "verify", "--watch", "--format", "json", shared.name]
    environment = engine.environment()
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.terminate()


def reported(watch: subprocess.Popen[str], row: str, verdict: str) -> dict[str, Any]:
    """Return the next line about a row; the command's lines end with the command."""
    assert watch.stdout is not None
    for line in watch.stdout:
        document: dict[str, Any] = json.loads(line)
        if (document["row"], document["verdict"]) == (row, verdict):
            return document
    raise AssertionError("the command has ended")


def emitted(engine: PrivateEngine, name: str) -> list[dict[str, str]]:
    """Return the attributes of the events about a container's isolation."""
    until = str(int(time.time()) + 1)
    words = ("events", "--since", "1", "--until", until, "--format", "{{json .}}")
    done = engine.cli("jaula", *words, "--filter", "event=isolation-changed",
                      "--filter", f"container={name}")  # fmt: skip
    return [json.loads(line)["Actor"]["Attributes"] for line in done.stdout.splitlines()]


def test_a_changed_mount_is_reported_and_emitted(
    engine: PrivateEngine, shared: Audited, watch: subprocess.Popen[str]
) -> None:
    shared.in_mounts("mount -t tmpfs x /home")
    line = reported(watch, "mount inventory", "FAILS")
    assert line["container"] == shared.name
    assert "/home" in line["effective"]
    shared.in_mounts("umount /home")
    reported(watch, "mount inventory", "holds")
    told = [(event["row"], event["verdict"]) for event in emitted(engine, shared.name)]
    assert ("mount inventory", "FAILS") in told


def test_a_changed_control_of_the_cgroup_is_reported(
    shared: Audited, watch: subprocess.Popen[str]
) -> None:
    file = shared.control("pids.max")
    before = file.read_text()
    file.write_text("max")
    assert reported(watch, "pids limit", "FAILS")["effective"] == "no limit"
    file.write_text(before)
    reported(watch, "pids limit", "holds")


def test_a_changed_network_is_reported(shared: Audited, watch: subprocess.Popen[str]) -> None:
    shared.enter("n", "ip", "link", "add", "sneak", "type", "bridge")
    assert "sneak" in reported(watch, "interfaces", "FAILS")["effective"]
    shared.enter("n", "ip", "link", "delete", "sneak")
    reported(watch, "interfaces", "holds")


def test_a_report_needs_a_row_and_a_verdict(engine: PrivateEngine, shared: Audited) -> None:
    body = {"Row": "x", "Verdict": "FAILS"}
    path = f"/jaula/containers/{shared.name}/isolation-changed"
    assert engine.request("POST", path, body).status == 204
    assert engine.request("POST", path, {"Verdict": "FAILS"}).status == 400


@pytest.mark.parametrize("flag", ["--contents", "--host", "--probe", "--format=html"])
def test_flags_that_do_not_fit_are_refused(engine: PrivateEngine, flag: str) -> None:
    done = engine.cli("jaula", "verify", "--watch", "--all", flag)
    assert done.returncode == 1
    assert "--watch needs no" in done.stderr
