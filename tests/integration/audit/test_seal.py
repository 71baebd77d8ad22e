"""Seals in the audit log find a record or a spec that another program has changed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import load_image
from harness import containers
from harness.audits import Audited
from harness.engine import PrivateEngine
from jaula.features.verify.model.result import Verdict
from jaula.state import audit_log

SPEC = "spec seal"


@pytest.fixture(scope="module")
def shared(engine: PrivateEngine, busybox: str) -> Iterator[Audited]:
    with containers.running(engine, busybox) as name:
        yield Audited(engine, name)


def start(engine: PrivateEngine, name: str, *flags: str) -> None:
    done = engine.cli("jaula", "run", "-d", "--name", name, *flags, "busybox", "sleep", "600")
    assert done.returncode == 0, done.stderr


def spec_path(container: Audited) -> Path:
    return container.engine.root / "lib/containers" / container.inspect["Id"] / "config.json"


def edit(container: Audited, change: Callable[[dict[str, Any]], object]) -> bytes:
    """Change the spec on the disk; return what it was."""
    path = spec_path(container)
    former = path.read_bytes()
    document = json.loads(former)
    change(document)
    path.write_bytes(json.dumps(document, separators=(",", ":")).encode())
    return former


def edit_records(
    engine: PrivateEngine, name: str, change: Callable[[dict[str, Any]], None]
) -> None:
    """Change the record of a container in the database of an engine that does not run."""
    database = sqlite3.connect(engine.root / "lib" / "jaula.db")
    with database:
        for key, document in database.execute("SELECT id, document FROM containers").fetchall():
            record = json.loads(document)
            if record["name"] == name:
                change(record)
                values = (json.dumps(record).encode(), key)
                database.execute("UPDATE containers SET document = ? WHERE id = ?", values)
    database.close()


def test_a_record_changed_while_no_engine_runs_fails(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    engine = new_engine()
    load_image(engine, "busybox")
    for name in ("changed", "kept"):
        start(engine, name)
    assert engine.cli("jaula", "update", "--memory", "64m", "kept").returncode == 0
    for name in ("changed", "kept"):
        rows = Audited(engine, name).rows()
        assert rows["request seal"].verdict is rows[SPEC].verdict is Verdict.HOLDS
    engine.stop()
    edit_records(engine, "changed", lambda record: record.update(args=["sleep", "60"]))
    engine.start()
    assert "changed without the engine" in Audited(engine, "changed").failing()["request seal"]
    assert Audited(engine, "kept").failing() == {}


def capability(document: dict[str, Any]) -> None:
    for names in document["process"]["capabilities"].values():
        names.append("CAP_SYS_ADMIN")


@pytest.mark.parametrize(
    "change",
    [
        capability,
        lambda document: document["process"].update(noNewPrivileges=True),
        lambda document: document["process"]["env"].append("LD_PRELOAD=/x"),
        lambda document: document.update(annotations={}),
        lambda document: document,  # another form of the same document
    ],
)
def test_a_spec_changed_after_the_start_fails(
    shared: Audited, change: Callable[[dict[str, Any]], object]
) -> None:
    former = edit(shared, change)
    if spec_path(shared).read_bytes() == former:
        spec_path(shared).write_bytes(former + b"\n")
    try:
        assert "config.json was changed without the engine" in shared.failing()[SPEC]
    finally:
        spec_path(shared).write_bytes(former)
    assert shared.failing() == {}, shared.explain()


def test_a_spec_of_another_start_or_none_fails(shared: Audited) -> None:
    path = spec_path(shared)
    former = path.read_bytes()
    assert shared.engine.cli("jaula", "restart", "-t", "0", shared.name).returncode == 0
    shared.pid = containers.pid(shared.engine, shared.name)
    assert Audited(shared.engine, shared.name).failing() == {}
    present = path.read_bytes()
    path.write_bytes(former.replace(b"sleep", b"sleeq"))
    assert SPEC in shared.failing()
    path.unlink()
    assert shared.failing()[SPEC].startswith("absent")
    path.write_bytes(present)
    assert Audited(shared.engine, shared.name).failing() == {}


def test_a_spec_and_the_kernel_changed_together_fail(engine: PrivateEngine, busybox: str) -> None:
    """What inspect does not show: a read-only path that is also gone from the spec."""
    with containers.running(engine, busybox) as name:
        container = Audited(engine, name)
        edit(container, lambda document: document["linux"]["readonlyPaths"].remove("/proc/bus"))
        container.in_mounts("umount /proc/bus")
        assert SPEC in Audited(engine, name).failing()


def test_a_seal_in_the_database_does_not_excuse_a_spec(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    """The record and the spec are changed together, while no engine runs."""
    engine = new_engine()
    load_image(engine, "busybox")
    start(engine, "changed")
    container = Audited(engine, "changed")
    engine.stop()
    edit(container, capability)
    grant = lambda record: record["body"]["HostConfig"].update(CapAdd=["SYS_ADMIN"])  # noqa: E731
    edit_records(engine, "changed", grant)
    engine.start()
    assert {"request seal", SPEC} <= set(Audited(engine, "changed").failing())


def test_a_changed_line_of_the_log_fails(new_engine: Callable[..., PrivateEngine]) -> None:
    engine = new_engine()
    load_image(engine, "busybox")
    start(engine, "one")
    container = Audited(engine, "one")
    seal = container.rows()[SPEC].requested
    former = edit(container, capability)
    assert former != spec_path(container).read_bytes()
    (file,) = audit_log.files(engine.root / "lib" / "audit")
    whole = next(
        json.loads(line)["spec_seal"]
        for line in audit_log.lines(file)
        if b'"spec_seal":"' + seal.encode() in line
    )
    forged = hashlib.sha256(spec_path(container).read_bytes()).hexdigest()
    file.write_bytes(file.read_bytes().replace(whole.encode(), forged.encode()))
    assert "the audit log is damaged" in Audited(engine, "one").failing()[SPEC]


@pytest.mark.parametrize(
    "words",
    [
        ("restart", "-t", "0"),
        ("update", "--memory", "64m"),
        ("update", "--restart", "always"),
        ("pause",),
        ("exec", "", "true"),
        ("rename",),
    ],
    ids=" ".join,
)
def test_a_change_through_the_engine_is_no_failure(
    engine: PrivateEngine, busybox: str, words: tuple[str, ...]
) -> None:
    with containers.running(engine, busybox, flags=("-m", "32m", "--memory-swap", "-1")) as name:
        command, *flags = (word for word in words if word)
        more = {"rename": [f"{name}x"], "exec": flags}.get(command, [])
        before = [] if command == "exec" else flags
        done = engine.cli("jaula", command, *before, name, *more)
        assert done.returncode == 0, done.stderr
        container = Audited(engine, f"{name}x" if command == "rename" else name)
        try:
            assert container.failing() == {}, container.explain()
            assert container.rows()[SPEC].verdict is Verdict.HOLDS
        finally:
            if command == "rename":
                engine.request("DELETE", f"/containers/{name}x?force=1")


def test_a_second_start_and_a_restart_by_policy_are_sealed(
    engine: PrivateEngine, busybox: str
) -> None:
    with containers.running(engine, busybox, flags=("--restart", "always")) as name:
        assert engine.cli("jaula", "stop", "-t", "0", name).returncode == 0
        assert engine.cli("jaula", "start", name).returncode == 0
        assert Audited(engine, name).failing() == {}
        first = containers.pid(engine, name)
        os.kill(first, signal.SIGKILL)

        def is_restarted() -> bool:
            state = containers.inspect(engine, name)["State"]
            return state["Status"] == "running" and state["Pid"] not in (0, first)

        containers.eventually(is_restarted, "the restart by the policy")
        rows = Audited(engine, name).rows()
        assert rows[SPEC].verdict is Verdict.HOLDS
        log = engine.cli("jaula", "system", "audit-log", "--format", "json").stdout
        specs = [
            line
            for line in map(json.loads, log.splitlines())
            if line["action"] == "container spec" and line["name"] == name
        ]
        assert len(specs) == 3
        assert {line["command"] for line in specs} == {"jaula"}


def test_a_container_of_a_killed_engine_is_no_failure(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    engine = new_engine()
    load_image(engine, "busybox")
    start(engine, "one", "--restart", "always")
    engine.kill()
    engine.start()
    assert Audited(engine, "one").failing() == {}
    engine.kill()
    engine.start()
    assert Audited(engine, "one").rows()[SPEC].verdict is Verdict.HOLDS


def test_a_spec_without_a_line_is_relaxed(new_engine: Callable[..., PrivateEngine]) -> None:
    """As if its file had been removed with the oldest ones, or an older engine had started it."""
    engine = new_engine()
    load_image(engine, "busybox")
    start(engine, "one")
    engine.stop()
    directory = engine.root / "lib" / "audit"
    for path in (*audit_log.files(directory), directory / "head"):
        path.unlink()
    engine.start()
    row = Audited(engine, "one").rows()[SPEC]
    assert row.verdict is Verdict.RELAXED
    assert row.requested == "none (no line of the audit log has a seal)"


def test_a_seal_is_found_after_the_log_was_rotated(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    engine = new_engine()
    load_image(engine, "busybox")
    start(engine, "one")
    engine.stop()
    directory = engine.root / "lib" / "audit"
    log = audit_log.AuditLog(directory, max_file=1024)
    for number in range(50):
        log.append(audit_log.AuditEntry(action="x", object=str(number)))
    log.close()
    assert len(audit_log.files(directory)) > 2
    engine.start()
    assert Audited(engine, "one").rows()[SPEC].verdict is Verdict.HOLDS
