"""I30: every wait for another process ends when that process, or a holder of its descriptors, dies.

The waits are the table of docs/decisions/every-wait-ends.md. ``TESTS`` has for each row what kills
or stops the other side. Rows that have an own suite, at each step of a start for example, name its
tests. A row without a test fails, and so does a test that does not exist any more.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import containers, images
from harness.engine import PROJECT, SLOW, PrivateEngine
from jaula.errors import RuntimeFailure
from jaula.kernel import process_calls
from jaula.runtime.create import user_namespace_maps

NewEngine = Callable[..., PrivateEngine]
LIMIT = 60.0 * SLOW  # seconds for each answer; the longest limit of the table that is used is 40 s
HERE = "tests/security/test_i30_waits.py"
STARTS = "tests/integration/runtime/test_killed_starts.py"
SHIMS = "tests/integration/engine/containers/test_silent_shims.py"
HELPER = "tests/unit/runtime/shim/test_spawn_helper.py"
SPARES = "tests/integration/runtime/test_spare_shim.py"
INITS = "tests/integration/runtime/test_spare_init.py"
LAZY = "tests/integration/images/lazy/test_lazy_pull.py"
LAZY_REGISTRY = "tests/integration/images/lazy/test_registry_waits.py"
CRIU = "tests/unit/runtime/checkpoint/test_criu.py"
PARSER = "tests/integration/sandbox/test_worker.py"
FORKS = "tests/integration/sandbox/test_fork_server.py"
LAYERS = "tests/integration/storage/test_sandboxed_layers.py"
SYSTEMD = "tests/unit/cgroups/systemd/test_absent_manager.py"
HOOKS = "tests/integration/oci/test_hooks.py"
NUMBERS = [signal.SIGKILL, signal.SIGSTOP]

TESTS: dict[tuple[str, str], tuple[str, ...]] = {
    ("engine", "room in the zygote's socket; a sandbox"): (
        f"{HERE}::test_a_request_is_answered_beside_a_zygote",
        f"{HERE}::test_a_start_ends_beside_a_stopped_zygote",
        f"{SHIMS}::test_a_removal_by_force_ends_a_start_that_hangs",
    ),
    ("engine", "the report of a new shim"): (
        f"{STARTS}::test_a_start_ends_and_leaves_nothing",
        f"{STARTS}::test_an_engine_that_has_given_up_does_not_get_a_container",
    ),
    ("engine", "an answer of a running shim"): (
        f"{HERE}::test_requests_about_a_container_are_answered_beside_its_processes",
        f"{SHIMS}::test_the_container_can_be_ended",
    ),
    ("engine", "the exit of a killed container"): (
        f"{HERE}::test_requests_about_a_container_are_answered_beside_its_processes",
        f"{SHIMS}::test_the_container_can_be_ended",
    ),
    ("engine, at its start", "the shims of running containers"): (
        f"{SHIMS}::test_the_next_engine_serves_and_adopts_it_later",
    ),
    ("engine, at its start", "shims whose sockets were removed"): (
        "tests/security/test_i29_engines.py::test_a_container_whose_shim_makes_no_socket_is_reported",
    ),
    ("engine without root", "an answer of the namespace holder"): (
        (
            "tests/acceptance/test_rootless_engines.py"
            "::test_a_holder_that_does_not_answer_is_said_to_be_lost"
        ),
        (
            "tests/acceptance/test_rootless_engines.py"
            "::test_a_published_port_of_a_killed_holder_is_an_error"
        ),
    ),
    ("engine, at its start", "a start that was interrupted"): (
        (
            "tests/integration/engine/containers/test_start_interrupted.py"
            "::test_a_stopped_shim_of_a_start_does_not_hold_the_next_engine"
        ),
        (
            "tests/integration/engine/containers/test_start_interrupted.py"
            "::test_nothing_is_left_if_engine_and_shim_are_killed"
        ),
    ),
    ("engine, at its end", "the zygote"): (f"{HERE}::test_an_engine_ends_beside_a_zygote",),
    ("engine, at its end", "the work of its threads"): (
        "tests/unit/engine/test_threads.py::test_the_stop_of_the_engine_does_not_wait_for_threads",
        (
            "tests/integration/engine/migration/test_stalled_peers.py"
            "::test_seven_stalled_peers_keep_no_other_client_waiting"
        ),
    ),
    ("engine", "the first state of a lazy server"): (
        f"{LAZY}::test_a_server_that_is_stopped_at_its_begin_is_given_up",
    ),
    ("a reader of a lazy layer", "a part of a file"): (
        f"{LAZY}::test_a_killed_server_is_an_error_and_no_wait",
    ),
    ("engine", "a dead lazy server"): (
        f"{LAZY}::test_a_server_that_dies_again_and_again_is_replaced",
        f"{LAZY}::test_a_killed_server_is_an_error_and_no_wait",
    ),
    ("engine", "a layer that is not whole"): (
        f"{LAZY}::test_a_dead_network_does_not_hold_the_engine",
        f"{LAZY}::test_an_interrupted_pull_of_another_layer_ends_the_servers",
    ),
    ("lazy server", "an answer of the engine"): (
        f"{LAZY}::test_a_file_is_read_beside_a_stopped_engine",
        f"{LAZY}::test_layers_that_got_whole_without_an_engine_are_stored",
    ),
    ("engine", "a sandboxed parser"): (
        f"{PARSER}::test_the_clock_is_bounded",
        f"{PARSER}::test_the_process_ends_with_its_request",
    ),
    ("engine", "a decompressor's pipe"): (
        f"{LAYERS}::test_a_killed_process_ends_its_layer_with_one_error",
        f"{LAYERS}::test_a_source_that_fails_ends_the_processes",
    ),
    ("engine", "the fork server"): (
        f"{FORKS}::test_a_killed_server_ends_its_processes_and_the_next_request_starts_another",
        f"{FORKS}::test_a_server_that_is_killed_at_any_moment_fails_no_start",
        f"{FORKS}::test_a_stopped_server_is_replaced",
    ),
    ("fork server", "a request, the end of a process"): (
        f"{FORKS}::test_server_and_processes_end_with_their_user",
    ),
    ("sandboxed parser", "a call, an answer, a pipe"): (
        f"{PARSER}::test_a_process_without_an_engine_ends",
        f"{FORKS}::test_server_and_processes_end_with_their_user",
        f"{LAYERS}::test_the_processes_end_with_a_killed_engine",
    ),
    ("lazy server", "a registry"): (
        f"{LAZY_REGISTRY}::test_the_wait_for_a_part_ends_without_the_registry",
        f"{LAZY_REGISTRY}::test_a_read_ends_when_its_patience_does",
        f"{LAZY_REGISTRY}::test_the_background_gives_up_when_its_patience_ends",
    ),
    ("zygote", "a request"): (f"{HERE}::test_nothing_waits_for_a_killed_engine",),
    ("spare shim", "a request"): (
        f"{SPARES}::test_a_spare_shim_exits_with_its_zygote",
        f"{SPARES}::test_a_start_needs_no_spare_shim",
    ),
    ("helper of a spare shim", "a request"): (
        f"{SPARES}::test_the_helper_of_a_spare_shim_exits_with_it",
        f"{HERE}::test_nothing_waits_for_a_killed_engine",
        f"{HELPER}::test_other_work_and_the_end_of_the_shim_end_a_spare_helper",
    ),
    ("spare shim with a spare init", "a start"): (
        f"{INITS}::test_nothing_is_left_of_one_that_is_given_up",
    ),
    ("spare init", "a start"): (
        f"{INITS}::test_a_start_needs_no_spare_init",
        f"{INITS}::test_nothing_is_left_of_one_that_is_given_up",
    ),
    ("engine, at its end", "the spare inits"): (
        (
            "tests/integration/engine/test_spare_inits.py"
            "::test_an_engine_ends_beside_one_that_is_stopped"
        ),
        "tests/integration/engine/test_spare_inits.py::test_nothing_is_left_when_the_engine_ends",
        (
            "tests/integration/engine/test_spare_inits.py"
            "::test_the_next_engine_removes_what_a_kill_of_all_its_processes_leaves"
        ),
    ),
    ("helper", "the shim, which opens its log and its socket meanwhile"): (
        f"{STARTS}::test_a_start_ends_and_leaves_nothing",
        f"{HELPER}::test_a_helper_whose_start_is_given_up_undoes_its_part",
    ),
    ("zygote", "a helper that creates a namespace"): (
        f"{STARTS}::test_a_start_ends_and_leaves_nothing",
    ),
    ("helper of the next exec", "a request"): (
        f"{HERE}::test_an_exec_ends_beside_its_spare_helper",
        f"{HELPER}::test_an_exec_needs_no_spare_helper",
    ),
    ("shim", "the report of its helper"): (
        f"{HELPER}::test_a_killed_helper_is_noticed",
        f"{STARTS}::test_an_exec_ends_and_its_container_stays",
    ),
    ("shim", "the exit of its helper"): (f"{HELPER}::test_a_helper_that_hangs_is_killed",),
    ("shim", "the container, engines and clients"): (
        f"{HERE}::test_requests_about_a_container_are_answered_beside_its_processes",
        f"{HERE}::test_nothing_waits_for_a_killed_engine",
    ),
    ("helper", "the stage"): (f"{STARTS}::test_a_start_ends_and_leaves_nothing",),
    ("helper", "init, an exec process"): (
        f"{STARTS}::test_a_start_ends_and_leaves_nothing",
        f"{STARTS}::test_an_exec_ends_and_its_container_stays",
    ),
    ("helper", "a hook"): (
        f"{HOOKS}::test_a_hook_that_takes_too_long_is_killed",
        f"{HOOKS}::test_a_start_that_hangs_in_a_hook_can_be_ended",
    ),
    ("helper", "CRIU"): (
        f"{CRIU}::test_a_killed_service_is_one_error_while_a_child_holds_its_socket",
        f"{CRIU}::test_a_stopped_service_is_killed",
        f"{CRIU}::test_a_service_that_waits_for_a_stopped_child_is_killed",
        f"{CRIU}::test_a_wait_for_another_socket_ends_with_the_service",
    ),
    ("shim", "what a helper or CRIU has left"): (
        f"{HERE}::test_a_shim_ends_and_reaps_what_a_helper_has_left",
    ),
    ("helper", "an external runtime"): (
        (
            "tests/integration/oci_runtimes/test_broken_runtimes.py"
            "::test_each_broken_runtime_gives_one_clear_error_and_leaves_nothing"
        ),
        (
            "tests/integration/oci_runtimes/test_broken_runtimes.py"
            "::test_a_runtime_that_hangs_in_kill_does_not_prevent_the_kill"
        ),
    ),
    ("stage, init, exec process", "an answer of the helper"): (
        f"{STARTS}::test_a_start_ends_and_leaves_nothing",
        f"{STARTS}::test_an_exec_ends_and_its_container_stays",
    ),
    ("init of `jaula-runtime create`", "`start`"): (
        "tests/integration/oci/test_states.py::test_a_created_container_can_be_killed",
        (
            "tests/integration/oci/test_states.py"
            "::test_a_client_that_sends_nothing_does_not_prevent_the_start"
        ),
        (
            "tests/integration/oci/test_concurrency.py"
            "::test_an_init_killed_during_create_fails_the_creation"
        ),
    ),
    ("`jaula-runtime`", "the lock of a container"): (
        (
            "tests/integration/oci/test_concurrency.py"
            "::test_a_killed_command_leaves_a_container_that_can_be_removed"
        ),
    ),
    ("engine, shim, helper, `jaula-runtime`", "systemd"): (
        f"{SYSTEMD}::test_the_attempts_end",
        f"{SYSTEMD}::test_a_manager_that_is_present_but_silent_ends_the_attempts",
        f"{SYSTEMD}::test_a_unit_is_started_once",
    ),
    ("`jaula-runtime`", "newuidmap, newgidmap"): (f"{HERE}::test_the_wait_for_newuidmap_ends",),
}


def rows() -> list[tuple[str, str]]:
    """Return the processes and their waits in the table of the document."""
    text = (PROJECT / "docs/decisions/every-wait-ends.md").read_text()
    section = text.partition("\n## Waits\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (.+?) \| (.+?) \| .+ \|$", section, re.MULTILINE)
    return [row for row in cells if row[0] not in ("process", "---")]


@functools.cache
def functions(path: str) -> frozenset[str]:
    tree = ast.parse((PROJECT / path).read_text())
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_each_row_of_the_table_has_a_test() -> None:
    found = rows()
    assert len(found) > 30
    assert len(set(found)) == len(found)
    assert {row for row in found if not TESTS.get(row)} == set()
    assert TESTS.keys() - set(found) == set()


@pytest.mark.parametrize("row", TESTS, ids=lambda row: f"{row[0]}-{row[1]}")
def test_the_tests_of_a_row_exist(row: tuple[str, str]) -> None:
    for each in TESTS[row]:
        path, _, name = each.partition("::")
        assert name in functions(path), each


# -- the rows whose processes this module ends ----------------------------------------------------


@contextlib.contextmanager
def answers_in(seconds: float) -> Iterator[None]:
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < seconds


def exists(pid: int) -> bool:
    """Return whether a process has not exited; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def is_zombie(pid: int) -> bool:
    return not exists(pid) and os.path.exists(f"/proc/{pid}")


def below(pid: int) -> list[int]:
    """Return the children of a process, and theirs."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            text = Path(f"/proc/{pid}/task/{thread}/children").read_text()
            for child in map(int, text.split()):
                found += [child, *below(child)]
    return found


@pytest.fixture
def started(new_engine: NewEngine) -> tuple[PrivateEngine, str, str]:
    """An engine with a container and an image."""
    engine, image = new_engine(), "waiting"
    images.import_image(engine, image, images.busybox_entries())
    name = containers.unique()
    done = engine.cli("jaula", "run", "-d", "--name", name, image, "sleep", "600")
    assert done.returncode == 0, done.stderr
    return engine, name, image


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("victim", ["shim", "init"])
def test_requests_about_a_container_are_answered_beside_its_processes(
    started: tuple[PrivateEngine, str, str], victim: str, number: signal.Signals
) -> None:
    engine, name, image = started
    init = containers.pid(engine, name)
    os.kill({"shim": containers.shim(init), "init": init}[victim], number)
    for method, path in (
        ("GET", f"/containers/{name}/json"),
        ("GET", f"/containers/{name}/top"),
        ("GET", f"/containers/{name}/logs?stdout=1"),
        ("POST", f"/containers/{name}/kill"),
        ("DELETE", f"/containers/{name}?force=1"),
    ):
        with answers_in(LIMIT):
            assert engine.request(method, path, timeout=LIMIT).status, path
    assert engine.request("GET", f"/containers/{name}/json").status == 404
    assert engine.cli("jaula", "run", "--rm", image, "true").returncode == 0
    containers.eventually(lambda: not exists(init), "init has exited")


def test_a_request_is_answered_beside_a_zygote(started: tuple[PrivateEngine, str, str]) -> None:
    """It is stopped. One that is killed ends the engine."""
    engine, name, image = started
    zygote = containers.zygote(engine)
    os.kill(zygote, signal.SIGSTOP)
    try:
        for method, path in (
            ("GET", "/containers/json"),
            ("GET", f"/containers/{name}/json"),
            ("POST", f"/containers/{name}/kill"),
        ):
            with answers_in(LIMIT):
                assert engine.request(method, path, timeout=LIMIT).status < 400, path
    finally:
        os.kill(zygote, signal.SIGCONT)
    assert engine.cli("jaula", "run", "--rm", image, "true").returncode == 0


@pytest.mark.slow
def test_a_start_ends_beside_a_stopped_zygote(started: tuple[PrivateEngine, str, str]) -> None:
    """No sandbox of the pool fits, so the start waits for one of its own."""
    engine, _, image = started
    name = containers.unique()
    flags = ("--mac-address", "02:42:0a:00:00:17", "--name", name)
    assert engine.cli("jaula", "create", *flags, image, "sleep", "600").returncode == 0
    zygote = containers.zygote(engine)
    os.kill(zygote, signal.SIGSTOP)
    try:
        with answers_in(LIMIT):
            reply = engine.request("POST", f"/containers/{name}/start", timeout=2 * LIMIT)
            assert reply.status >= 500, reply
    finally:
        os.kill(zygote, signal.SIGCONT)
    assert engine.cli("jaula", "start", name).returncode == 0


@pytest.mark.parametrize("number", NUMBERS)
def test_an_engine_ends_beside_a_zygote(new_engine: NewEngine, number: signal.Signals) -> None:
    engine = new_engine()
    os.kill(containers.zygote(engine), number)
    assert engine.process is not None
    with answers_in(LIMIT):
        engine.process.send_signal(signal.SIGTERM)
        engine.process.wait(LIMIT)
    engine.process = None
    engine.start()


def test_nothing_waits_for_a_killed_engine(started: tuple[PrivateEngine, str, str]) -> None:
    """The zygote, its spare shims and their helpers end; the shim of the container stays."""
    engine, name, _ = started
    init = containers.pid(engine, name)
    shim = containers.shim(init)
    assert engine.process is not None
    others = {
        pid
        for pid in below(engine.process.pid)
        if pid not in (shim, init) and Path(f"/proc/{pid}/comm").read_text() == "jaula-zygote\n"
    }
    assert others
    engine.kill()
    containers.eventually(lambda: not any(map(exists, others)), "what served the engine", LIMIT)
    assert exists(shim)
    assert exists(init)
    engine.start()
    assert containers.inspect(engine, name)["State"]["Running"]


@pytest.mark.parametrize("number", NUMBERS)
def test_an_exec_ends_beside_its_spare_helper(
    started: tuple[PrivateEngine, str, str], number: signal.Signals
) -> None:
    engine, name, _ = started
    init = containers.pid(engine, name)
    shim = containers.shim(init)
    assert engine.cli("jaula", "exec", name, "true").returncode == 0
    for pid in set(below(shim)) - {init, *below(init)}:  # the helper of the next exec, if there is
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    with answers_in(LIMIT):
        engine.cli("jaula", "exec", name, "true", timeout=LIMIT)
    with answers_in(LIMIT):
        assert engine.cli("jaula", "exec", name, "true", timeout=LIMIT).returncode == 0


LEFT = """
import os, signal, sys, time
from jaula.kernel import process_calls as process
from jaula.runtime.shim import shim

shim._KILL_TIMEOUT = 20.0
helper = shim.SpawnHelper()
helper.timeout = 30.0
made = shim.Shim.__new__(shim.Shim)
made.spawn_helper = helper
left = os.memfd_create("left")

def work():
    child = os.fork()
    if child == 0:
        {child}
    os.write(left, b"%d" % child)
    os.kill(os.getpid(), signal.SIGKILL)

before = shim._children()
try:
    helper.run(work)
except shim.HelperKilled:
    begin = time.monotonic()
    made._end_new_children(before, {patience})
    print(int(time.monotonic() - begin >= {patience} > 0))
child = int(os.pread(left, 20, 0))
print(os.path.exists("/proc/%d" % child))
"""


@pytest.mark.parametrize(
    ("child", "patience", "is_awaited"),
    [
        ("signal.pause()", 0.0, False),
        ("os.kill(os.getpid(), signal.SIGSTOP)", 0.0, False),
        ("os.kill(os.getpid(), signal.SIGSTOP)", 1.0, True),
        ("os._exit(0)", 30.0, False),
    ],
)
def test_a_shim_ends_and_reaps_what_a_helper_has_left(
    child: str, patience: float, is_awaited: bool
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEFT.format(child=child, patience=patience)],
        env=os.environ | {"PYTHONPATH": str(PROJECT / "src")},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.stdout.split() == [str(int(is_awaited)), "False"], done.stderr


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("holder", ["", "sleep 60 & "])
def test_the_wait_for_newuidmap_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, holder: str
) -> None:
    """Also if a process that it has left holds the pipe of its messages."""
    monkeypatch.setattr(user_namespace_maps, "_PROGRAM_TIMEOUT", 2.0)
    program, ready = tmp_path / "newuidmap", tmp_path / "ready"
    ready.unlink(missing_ok=True)
    text = f"{holder}echo $! > {ready}.left; echo $$ > {ready}.new; mv {ready}.new {ready}"
    program.write_text(f"#!/bin/sh\n{text}\nexec sleep 600\n")
    program.chmod(0o755)
    failures: list[str] = []

    def wait() -> None:
        try:
            user_namespace_maps._run_newidmap(str(program), os.getpid(), [(0, 0, 1)])
        except RuntimeFailure as error:
            failures.append(str(error))

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    containers.eventually(ready.exists, "the program has begun", LIMIT)
    pid = int(ready.read_text())
    pidfd = process_calls.pidfd_open(pid)
    try:
        os.kill(pid, number)
        thread.join(LIMIT)
        assert not thread.is_alive()
        assert len(failures) == 1
        assert not exists(pid)
    finally:
        os.close(pidfd)
        if left := Path(f"{ready}.left").read_text().strip():
            os.kill(int(left), signal.SIGKILL)
