"""A process that another program injects, moves or changes fails in the right rows.

The container of the module is shared, and each change ends with its program.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness import containers
from harness.audits import Audited
from harness.engine import PrivateEngine
from jaula.features.verify.model.result import Verdict
from jaula.kernel import mountinfo

KINDS = ("user", "pid", "net", "ipc", "uts", "cgroup", "mnt")
JOIN = """
import ctypes, os, socket, struct, time
libc = ctypes.CDLL(None, use_errno=True)
pid, kinds = {pid}, {kinds!r}
{before}
fds = [os.open(f"/proc/{{pid}}/ns/{{kind}}", os.O_RDONLY) for kind in kinds]
for fd in fds:
    assert libc.setns(fd, 0) == 0, os.strerror(ctypes.get_errno())
for fd in fds:
    os.close(fd)
if os.fork() == 0:
    {after}
    print(os.getpid(), flush=True)
    time.sleep(100)
os.wait()
"""
PERMISSIVE = (
    "assert libc.prctl(38, 1, 0, 0, 0) == 0;"
    "code = ctypes.create_string_buffer(struct.pack('=HBBI', 6, 0, 0, 0x7fff0000));"
    "program = struct.pack('=HxxxxxxQ', 1, ctypes.addressof(code));"
    "assert libc.prctl(22, 2, program, 0, 0) == 0"
)
"""Load a filter that allows every system call."""


@pytest.fixture(scope="module")
def shared(engine: PrivateEngine, busybox: str) -> Iterator[Audited]:
    with containers.running(engine, busybox) as name:
        yield Audited(engine, name)


@pytest.fixture
def inside(engine: PrivateEngine, shared: Audited) -> Iterator[int]:
    """Yield the pid of a process that ``exec`` created."""
    reply = engine.request("POST", f"/containers/{shared.name}/exec", {"Cmd": ["sleep", "100"]})
    exec_id = reply.json()["Id"]
    engine.request("POST", f"/exec/{exec_id}/start", {"Detach": True})
    pid = int(engine.request("GET", f"/exec/{exec_id}/json").json()["Pid"])
    try:
        yield pid
    finally:
        os.kill(pid, 9)
        containers.eventually(lambda: not os.path.exists(f"/proc/{pid}"), "it has exited")


@contextmanager
def joined(
    shared: Audited, kinds: tuple[str, ...] = KINDS, before: str = "", after: str = ""
) -> Iterator[None]:
    """Run a process in namespaces of the container; the code runs before and after it joins."""
    script = JOIN.format(pid=shared.pid, kinds=kinds, before=before, after=after or "pass")
    words = [sys.executable, "-I", "-S", "-c", script]
    with subprocess.Popen(words, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip().isdigit()
            yield
        finally:
            os.killpg(process.pid, 9)


def hierarchy(controller: str) -> Path:
    """Return where a hierarchy is mounted: that of a v1 controller, else the unified one."""
    mounted = mountinfo.read(errors="replace")
    for mount in mounted:
        if mount.fstype == "cgroup" and controller in mount.super_options:
            return Path(mount.target)
    return Path(next(mount.target for mount in mounted if mount.fstype == "cgroup2"))


# -- namespaces ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "rows"),
    [
        (("mnt",), {"processes", "process cgroups", "process namespaces"}),
        (("mnt", "pid"), {"processes", "process cgroups", "process namespaces"}),
        (("user", "mnt"), {"processes", "process cgroups", "process namespaces"}),
        (KINDS, {"processes", "process cgroups", "process namespaces"}),
        (("net",), {"namespace holders"}),
        (("ipc",), {"namespace holders"}),
        (("uts",), {"namespace holders"}),
        (("cgroup",), {"namespace holders"}),
        (("user",), {"namespace holders"}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_process_that_joined_namespaces_fails(
    shared: Audited, kinds: tuple[str, ...], rows: set[str]
) -> None:
    with joined(shared, kinds):
        assert set(shared.failing()) - {"descriptors"} == rows, shared.explain()
    assert shared.failing() == {}, shared.explain()


def test_an_exec_session_excuses_no_other_process(engine: PrivateEngine, shared: Audited) -> None:
    body = {"Cmd": ["true"], "Privileged": True}
    assert engine.request("POST", f"/containers/{shared.name}/exec", body).status == 201
    with joined(shared):
        assert "processes" in shared.failing()


# -- cgroups ---------------------------------------------------------------------------------


@pytest.mark.parametrize("controller", ["blkio", "cpuacct", "pids", "freezer", "cpu"])
def test_a_process_moved_out_of_a_hierarchy_fails(
    shared: Audited, inside: int, controller: str
) -> None:
    root = hierarchy(controller)
    path = next(
        path for names, path in containers.cgroups(inside) if controller in names or not names
    )
    elsewhere = root / f"moved-{inside}"
    elsewhere.mkdir()
    try:
        (elsewhere / "cgroup.procs").write_text(str(inside))
        assert set(shared.failing()) == {"process cgroups"}, shared.explain()
    finally:
        (root / path.lstrip("/") / "cgroup.procs").write_text(str(inside))
        elsewhere.rmdir()


def test_a_process_of_the_host_in_the_cgroup_fails(shared: Audited) -> None:
    path = next(p for names, p in containers.cgroups(shared.pid) if "memory" in names or not names)
    with subprocess.Popen(["sleep", "100"]) as stranger:
        try:
            group = hierarchy("memory") / path.lstrip("/")
            (group / "cgroup.procs").write_text(str(stranger.pid))
            told = shared.failing()
            assert set(told) == {"cgroup members"}
            assert f"sleep {stranger.pid}" in told["cgroup members"]
        finally:
            stranger.kill()


# -- privileges, files, limits ---------------------------------------------------------------


def test_a_process_with_a_filter_of_its_own_that_allows_more_fails(shared: Audited) -> None:
    with joined(shared, after=PERMISSIVE):
        assert "filter allows" in shared.failing()["processes"]


@pytest.mark.parametrize(
    ("before", "told"),
    [
        ("held = os.open('/', os.O_RDONLY | os.O_DIRECTORY)", "-> /"),
        ("held = os.pidfd_open(os.getppid())", "pidfd"),
        ("held = socket.socket()", "socket:"),
        ("held = socket.socket(socket.AF_UNIX); held.connect({engine!r})", "socket:"),
        ("held = os.open('/proc/self/ns/net', os.O_RDONLY)", "net:"),
    ],
    ids=["directory", "pidfd", "socket", "engine", "namespace"],
)
def test_an_open_file_of_any_process_that_leads_outside_fails(
    engine: PrivateEngine, shared: Audited, before: str, told: str
) -> None:
    with joined(shared, before=before.format(engine=str(engine.socket))):
        failing = shared.failing()["descriptors"]
    assert "process " in failing
    assert told in failing


def test_a_tracer_from_outside_fails(shared: Audited, inside: int) -> None:
    script = (
        "import ctypes,time;l=ctypes.CDLL(None);"
        f"assert l.ptrace(0x4206,{inside},0,0)==0;print('traced',flush=True);time.sleep(100)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as tracer:
        try:
            assert tracer.stdout is not None
            assert tracer.stdout.readline() == b"traced\n"
            failing = shared.failing()
            assert set(failing) == {"tracers"}
            assert f"traced by {tracer.pid}" in failing["tracers"]
        finally:
            tracer.kill()


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("prlimit", "--nofile=1024:30000", "--pid"), "Max open files 30000"),
        (("renice", "-n", "-5", "-p"), "nice -5"),
        (("chrt", "--fifo", "--pid", "10"), "scheduling policy 1"),
        (("choom", "-n", "-500", "-p"), "oom_score_adj -500"),
    ],
    ids=["rlimit", "nice", "scheduler", "oom score"],
)
def test_a_raised_limit_of_any_process_fails(
    shared: Audited, inside: int, command: tuple[str, ...], told: str
) -> None:
    done = subprocess.run([*command, str(inside)], capture_output=True, timeout=10, check=False)
    if done.returncode:
        pytest.skip(f"this root may not: {done.stderr.decode().strip()}")
    failing = shared.failing()
    assert set(failing) == {"process limits"}
    assert told in failing["process limits"]


def test_an_open_directory_with_a_long_path_is_the_containers_own(
    engine: PrivateEngine, busybox: str
) -> None:
    """The kernel does not name it: any program can so end a verification."""
    wrap = f"mkdir w; mv d w/{'d' * 250}; mv w d; i=$((i+1))"
    grow = f"mkdir d; exec 3<d; i=0; while [ $i -lt 17 ]; do {wrap}; done"
    script = f"cd /tmp && {grow}; echo ready; exec sleep 600"
    with containers.running(engine, busybox, "sh", "-c", script) as name:
        containers.eventually(
            lambda: "ready" in engine.cli("jaula", "logs", name).stdout, "the directory is open"
        )
        row = Audited(engine, name).rows()["descriptors"]
        assert row.verdict is Verdict.HOLDS, row


# A process that waits for a processor stops late for ptrace(2).


@pytest.fixture
def starved(engine: PrivateEngine, busybox: str) -> Iterator[Audited]:
    """Yield a busy container with one thousandth of a processor, in periods of a second."""
    flags = ("--cpu-period", "1000000", "--cpu-quota", "1000")
    command = ("sh", "-c", "while :; do :; done")
    with containers.running(engine, busybox, *command, flags=flags) as name:
        yield Audited(engine, name)


@pytest.mark.slow
def test_the_filter_of_a_process_without_processor_time_is_read(starved: Audited) -> None:
    """A stop takes more than a second here. Without it the row of the program would be absent."""
    for _ in range(3):
        rows = starved.rows()
        assert "not readable" not in rows["seccomp"].effective
        assert rows["seccomp program"].verdict is Verdict.HOLDS


@pytest.mark.parametrize("kind", ["uid", "gid", "group"])
def test_a_process_of_the_host_with_an_id_of_the_range_fails(shared: Audited, kind: str) -> None:
    assert shared.spec.linux is not None
    id = shared.spec.linux.uid_mappings[0].host_id + 4711
    flags = {"uid": ("--reuid", str(id), "--clear-groups"),
             "gid": ("--regid", str(id), "--clear-groups"),
             "group": ("--groups", str(id))}[kind]  # fmt: skip
    process = subprocess.Popen(["setpriv", *flags, "sleep", "100"])
    try:
        containers.eventually(lambda: "id holders" in shared.failing(), "the process is found")
        told = f"sleep {process.pid} has {'uid' if kind == 'uid' else 'gid'} {id}"
        assert shared.failing() == {"id holders": told}
    finally:
        process.kill()
        process.wait()
    assert shared.failing() == {}, shared.explain()


def test_a_user_namespace_made_inside_is_no_other_holder(
    engine: PrivateEngine, busybox: str
) -> None:
    flags = ("--security-opt", "seccomp=unconfined")
    words = ("sh", "-c", "unshare -U sleep 600; true")
    with containers.running(engine, busybox, *words, flags=flags) as name:
        audited = Audited(engine, name)

        def is_nested() -> bool:
            processes = audited.snapshot.renewed().processes
            own = processes[audited.pid].namespaces["user"]
            return any(
                process.namespaces["user"] != own
                for process in processes.values()
                if process.parent == audited.pid
            )

        containers.eventually(is_nested, "it has a namespace")
        assert audited.rows()["id holders"].verdict is Verdict.HOLDS
