"""Bytes of strangers are parsed by an unprivileged, filtered, bounded process (I31).

Or by code in a memory-safe language with bounds that a test states: the document lists which.
"""

from __future__ import annotations

import ast
import errno
import json
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from conftest import load_image
from harness import confined
from harness.containers import eventually
from harness.engine import PrivateEngine
from harness.images import directory, file, import_image
from harness.sandboxed import ATTEMPTS
from jaula.config import Paths, RegistryConfig
from jaula.engine.containers.profile_document import DOCUMENT, DOCUMENT_LIMITS
from jaula.errors import InvalidRequest
from jaula.features.lazy import lazy_mounts, lazy_protocol
from jaula.features.lazy.lazy_mounts import LazyLayers, _Server
from jaula.features.lazy.lazy_protocol import LayerRequest
from jaula.features.trust.sbom import sbom_worker
from jaula.features.verify.diagnostics.commands import RECORD, RECORD_LIMITS
from jaula.images.reference import parse
from jaula.images.registry.auth.token import Credentials
from jaula.kernel import capabilities
from jaula.sandbox import sandbox_worker
from jaula.sandbox.fork_server import ForkServer
from jaula.sandbox.sandbox_limits import Limits
from jaula.sandbox.sandbox_worker import Worker, WorkerEnded
from jaula.sandbox.start_sandbox import Task
from jaula.spec.image_documents import Descriptor
from jaula.storage import decompressor
from jaula.storage.layers.layer_store import LayerStore
from jaula.storage.tar import sandboxed

PROJECT = Path(__file__).parents[2]
SOURCE = PROJECT / "src/jaula"
PARSERS: dict[str, tuple[Task, Limits]] = {
    sbom_worker.TASK.name: (sbom_worker.TASK, sbom_worker.LIMITS),
    RECORD.name: (RECORD, RECORD_LIMITS),
    DOCUMENT.name: (DOCUMENT, DOCUMENT_LIMITS),
}
STREAMS: dict[str, tuple[Task, Limits]] = {
    sandboxed.TASK.name: (sandboxed.TASK, sandboxed.LIMITS),
    decompressor.TASK.name: (decompressor.TASK, decompressor.LIMITS),
}
"""They work as long as their stream has bytes, whose number is limited; a pause is not longer than
the patience (tests/integration/storage/test_sandboxed_layers.py)."""
SERVERS = {"jaula-lazy"}
"""It serves as long as its layers are in use."""


def _rows() -> Iterator[list[str]]:
    text = (PROJECT / "docs/security.md").read_text(encoding="utf-8")
    section = text.partition("(I31)\n")[2].partition("\n### ")[0]
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 3 and cells[0] not in ("bytes", "---"):
            yield cells


def _check_confined(pid: int) -> None:
    status = confined.status(pid)
    assert status["Uid"].split() == ["65534"] * 4
    assert status["Gid"].split() == ["65534"] * 4
    assert status["Groups"] == ""
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    limits = Path(f"/proc/{pid}/limits").read_text(encoding="ascii")
    for name in ("Max address space", "Max core file size", "Max cpu time"):
        assert re.search(rf"^{name} +\d+ ", limits, re.M), name
    names = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    assert not [name for name in names if name.startswith("/") and name != "/dev/null"]


def test_the_document_lists_each_parser_with_a_test() -> None:
    rows = list(_rows())
    assert len(rows) >= 8
    for bytes_, _, test in rows:
        assert (PROJECT / test.strip("`")).is_file(), bytes_
    listed = {name for row in rows for name in re.findall(r"process `([^`]+)`", row[1])}
    assert set(PARSERS) | set(STREAMS) <= listed


def test_each_task_of_the_tree_is_checked_here() -> None:
    """A new process has to be added to the table, or it is not one of this statement."""
    names = set()
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        if "Task(" not in text or "jaula.sandbox" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                first = node.args[0] if node.args else None
                if node.func.id == "Task" and isinstance(first, ast.Constant):
                    names.add(first.value)
    assert set(PARSERS) | set(STREAMS) | SERVERS == names
    listed = {name for row in _rows() for name in re.findall(r"process `([^`]+)`", row[1])}
    assert names <= listed


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let this process have what an engine may have, and its children must not.

    A file, a variable with credentials, supplementary groups, and inheritable capabilities.
    """
    monkeypatch.setenv("JAULA_TEST_SECRET", "s")
    server = ForkServer()  # another one may have started before
    monkeypatch.setattr(sandbox_worker, "SERVER", server)
    groups, status = os.getgroups(), confined.status("self")
    effective, permitted, inheritable = (int(status[f"Cap{x}"], 16) for x in ("Eff", "Prm", "Inh"))
    try:
        os.setgroups([0, 4, 27])
        capabilities.capset(effective, permitted, permitted)
        with open("/etc/shadow", "rb") as file:
            os.set_inheritable(file.fileno(), True)
            yield
        server.end_idle()
    finally:
        capabilities.capset(effective, permitted, inheritable)
        os.setgroups(groups)


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("name", PARSERS | STREAMS)
def test_a_parser_is_confined_before_it_sees_a_byte(name: str) -> None:
    task, limits = (PARSERS | STREAMS)[name]
    with Worker(task, limits) as process:
        eventually(lambda: confined.status(process.pid)["Seccomp"] == "2", "it is confined")
        confined.check(process.pid, limits, held={"/dev/null", "socket"})
        with pytest.raises((WorkerEnded, InvalidRequest)):
            process.call(b"\xff")  # not a request: the process answers with its failure


@pytest.mark.usefixtures("secrets")
@pytest.mark.parametrize("name", PARSERS | STREAMS)
def test_a_parser_that_was_taken_over_can_do_nothing(name: str) -> None:
    task, limits = (PARSERS | STREAMS)[name]
    limits = msgspec.structs.replace(limits, result=1 << 16)
    with Worker(task._replace(function="harness.sandboxed:attempt"), limits) as process:
        results = json.loads(process.call(json.dumps(list(ATTEMPTS)).encode()))
        assert confined.status(process.pid)["Name"] == name
        confined.check(process.pid, limits, held={"/dev/null", "socket"})
    _check_refused(results, set())


@pytest.mark.usefixtures("secrets")
def test_a_lazy_server_that_was_taken_over_has_its_directory_and_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that was taken over has its directory, public files, and the network."""
    results = {}

    def wait(self: LazyLayers, server: _Server) -> None:
        assert server.process is not None
        path, pid = server.directory / "results", server.process.pid
        eventually(path.exists, "the server has tried everything", 60)
        results.update(json.loads(path.read_bytes()))
        held = {name for name in confined.descriptors(pid) if name.startswith("/")}
        request = "/memfd:request (deleted)"
        mount = "/"  # of a file system that is not mounted yet
        assert held == {"/dev/null", "/dev/fuse", str(server.directory), request, mount}
        confined.check(pid, lazy_mounts._LIMITS, held=set(confined.descriptors(pid)))
        raise ConnectionError

    monkeypatch.setattr(lazy_protocol, "SERVER_FUNCTION", "harness.sandboxed:attempt_and_wait")
    monkeypatch.setattr(LazyLayers, "_connect", wait)
    paths = Paths(tmp_path / "root", tmp_path / "run")
    lazy = LazyLayers(paths, LayerStore(paths))
    layer = LayerRequest(Descriptor("", "sha256:" + "0" * 64, 1), "sha256:" + "1" * 64)
    with pytest.raises(ConnectionError):
        lazy._start("box", parse("127.0.0.1:1/box"), RegistryConfig(), Credentials(), [layer])
    _check_refused(results, {"open", "stat", "tcp", "tcp6", "netlink"})


def _check_refused(results: dict[str, int], allowed: set[str]) -> None:
    assert set(results) == set(ATTEMPTS)
    assert {name for name, number in results.items() if number == 0} == allowed, results
    refusals = {errno.EPERM, errno.EACCES, errno.ENOSYS}
    for name in set(results) - allowed:
        expected = {errno.ENOENT} if name == "stat" else refusals
        assert results[name] in expected, (name, results)


@pytest.mark.parametrize("name", PARSERS)
def test_a_parser_has_bounds(name: str) -> None:
    _, limits = PARSERS[name]
    assert 0 < limits.memory <= 1 << 30
    assert 0 < limits.processor <= 120
    assert 0 < limits.patience <= 600
    assert 0 < limits.result <= 64 << 20


@pytest.mark.parametrize("name", STREAMS)
def test_a_parser_of_a_stream_has_bounds(name: str) -> None:
    _, limits = STREAMS[name]
    assert 0 < limits.memory <= 1 << 30
    assert 0 < limits.patience <= 600
    assert 0 <= limits.result <= 64 << 20


def test_an_engine_parses_an_image_in_such_a_process(engine: PrivateEngine) -> None:
    load_image(engine, "busybox")
    places = [directory(name) for name in ("var", "var/lib", "var/lib/dpkg")]
    lines = b"\n" * (24 << 20)  # takes the process some seconds
    image = import_image(engine, "parsed", [*places, file("var/lib/dpkg/status", lines)])
    assert engine.process is not None
    seen: list[int] = []
    thread = threading.Thread(target=lambda: engine.request("GET", f"/jaula/sbom/{image}"))
    thread.start()
    try:
        while thread.is_alive() and not seen:
            for pid in _descendants(engine.process.pid):
                try:
                    facts = confined.status(pid)
                    if facts["Name"] == sbom_worker.TASK.name and facts["Seccomp"] == "2":
                        _check_confined_with_files(facts)
                        seen.append(pid)
                except (FileNotFoundError, ProcessLookupError):
                    continue
            time.sleep(0.01)
    finally:
        thread.join(120)
        engine.cli("jaula", "rmi", image)
    assert seen
    assert not Path(f"/proc/{seen[0]}").exists()


def _descendants(pid: int) -> list[int]:
    listed: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            text = Path(f"/proc/{pid}/task/{task}/children").read_text(encoding="ascii")
            for child in map(int, text.split()):
                listed += [child, *_descendants(child)]
    except (FileNotFoundError, ProcessLookupError):
        pass
    return listed


def _check_confined_with_files(status: dict[str, str]) -> None:
    assert status["Uid"].split() == ["65534"] * 4
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
