"""The tracer of files: its log, and the names of processes."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts/trace-files"
CLOSED, OPEN = 0, 1


@pytest.fixture(scope="module")
def trace_files() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("trace_files", str(SCRIPT))
    spec = importlib.util.spec_from_loader("trace_files", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["trace_files"] = module
    keep, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = keep
    return module


def line(
    slot: int,
    path: str,
    *,
    state: int = OPEN,
    parent: int = 0,
    pid: int = 100,
    comm: str = "python",
    function: bool = True,
    time: int = 0,
) -> str:
    return json.dumps([state, time, slot, parent, pid, comm, path, function, "f"])


def test_files_are_in_order_of_entry_and_counted_once(trace_files: ModuleType) -> None:
    lines = [
        line(1, "engine/authz/gateway.py", state=CLOSED),
        line(2, "cli/main.py", function=False, time=3_000_000),
        line(1, "api/http/api_server.py", time=4_000_000),
        line(1, "engine/authz/gateway.py", time=5_000_000),
        line(2, "cli/main.py", time=6_000_000),
    ]
    client, engine = trace_files.processes(lines, begin=1_000_000)
    assert (client.name, engine.name) == ("client", "engine")
    assert [(entry.path, entry.time) for entry in client.entries] == [("cli/main.py", 2.0)]
    assert [entry.path for entry in engine.entries] == [
        "api/http/api_server.py",
        "engine/authz/gateway.py",
    ]
    assert trace_files.report([client, engine], count_only=True).splitlines() == [
        "    1  client",
        "    2  engine",
        "    3  distinct files in 2 processes",
        "    2  distinct files without the client's",
    ]
    assert json.loads(trace_files.as_json([client, engine]))["files_without_client"] == 2


def test_imports_count_in_the_client_only(trace_files: ModuleType) -> None:
    lines = [
        line(1, "engine/a.py", state=CLOSED),
        line(1, "engine/b.py", function=False),
        line(2, "cli/__init__.py", function=False),
        line(2, "cli/run.py", function=False),
    ]
    (client,) = trace_files.processes(lines, begin=0)
    assert [entry.path for entry in client.entries] == ["cli/run.py"]


def test_processes_have_the_names_that_ps_shows(trace_files: ModuleType) -> None:
    zygote, shim = "jaula-zygote", "jaula-shim"
    lines = [
        line(1, "api/http/api_server.py", state=CLOSED),
        line(2, "runtime/zygote.py", state=CLOSED, parent=1, comm=zygote),
        line(3, "runtime/shim/shim.py", parent=2, comm=zygote),
        line(3, "runtime/shim/shim.py", parent=2, comm=shim),
        line(4, "runtime/shim/shim.py", parent=3, comm=shim),
        line(5, "runtime/init/init.py", parent=4, comm=shim),
        line(6, "runtime/init/init.py", parent=5, comm=shim, pid=1),
        line(7, "runtime/exec_process.py", parent=5, comm=shim, pid=7),
        line(8, "logs/helper.py", parent=3, comm=shim),
        line(9, "kernel/process_calls.py", parent=2, comm=zygote),
    ]
    names = [process.name for process in trace_files.processes(lines, begin=0)]
    assert names == ["shim", "helper", "stage", "init", "exec", "log helper", "child of zygote"]


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["run", "-it", "busybox"], True),
        (["exec", "--tty", "NAME", "sh"], True),
        (["exec", "-i", "NAME", "cat"], False),
        (["run", "-d", "--restart", "no", "busybox"], False),
        (["build", "-t", "name", "."], False),
    ],
)
def test_commands_that_need_a_terminal_get_one(
    trace_files: ModuleType, words: list[str], answer: bool
) -> None:
    assert trace_files.needs_terminal(words) is answer


PROGRAM = """
import os, {package}.other
def child():
    {package}.other.function()
def main():
    pid = os.fork()
    if pid == 0:
        os.closerange(3, 1000)
        child()
        os._exit(0)
    os.waitpid(pid, 0)
main()
"""


def test_a_fork_without_descriptors_writes_to_the_log(
    trace_files: ModuleType, tmp_path: Path
) -> None:
    package = tmp_path / "traced"
    package.mkdir()
    (package / "other.py").write_text("def function():\n    pass\n")
    main = package / "__main__.py"
    main.write_text(PROGRAM.format(package="traced"))
    log = trace_files.Log.create(tmp_path / "log")
    log.words[trace_files.STATE] = OPEN
    subprocess.run(
        [sys.executable, str(SCRIPT), "--into", str(tmp_path / "log"), str(main)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=True,
    )
    rows = [trace_files.Row(*json.loads(text)) for text in log.text().splitlines()]
    assert [(row.slot, row.parent, row.path) for row in rows if row.function] == [
        (1, 0, "__main__.py"),
        (2, 1, "__main__.py"),
        (2, 1, "other.py"),
    ]
