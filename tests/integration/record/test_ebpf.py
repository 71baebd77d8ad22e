"""No process of a container leaves its record, whatever it does with its cgroup and threads."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from harness.containers import unique
from harness.engine import SLOW
from jaula.cgroups import hierarchies
from jaula.features.record import ebpf_events
from jaula.features.record.ebpf import EbpfTracer
from jaula.features.record.ebpf_events import Event
from jaula.features.record.recorded_cgroup import CONTROLLERS, UNIFIED, Cgroup
from jaula.kernel import mountinfo

_HIERARCHIES = hierarchies.find(mountinfo.read())
_MOUNTS = {
    name: mount
    for name, mount in (
        ("pids", _HIERARCHIES.legacy.get("pids")),
        ("freezer", _HIERARCHIES.legacy.get("freezer")),
        ("unified", _HIERARCHIES.unified),
    )
    if mount is not None
}


@pytest.fixture(params=sorted(_MOUNTS))
def directory(request: pytest.FixtureRequest) -> Iterator[tuple[Cgroup, Path]]:
    """A cgroup in each kind of hierarchy that this host has mounted."""
    path = Path(_MOUNTS[request.param], unique("record"))
    path.mkdir()
    controller = "" if request.param == "unified" else request.param
    yield Cgroup(CONTROLLERS.get(controller, UNIFIED), controller, f"/{path.name}"), path
    for _ in range(100):  # a process that was killed leaves it a moment later
        try:
            path.rmdir()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"{path} is busy")


def trace(directory: tuple[Cgroup, Path], script: str, *words: str) -> set[str]:
    """Return the files that a Python script in a cgroup has opened, from the record on."""
    selected, path = directory
    events: list[Event] = []
    child = subprocess.Popen(
        [sys.executable, "-u", "-c", f"import os,sys,threading\nprint('up')\ninput()\n{script}",
         *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == b"up\n"
        (path / "cgroup.procs").write_text(str(child.pid))
        with closing(EbpfTracer(selected, path.stat().st_ino, events.append)) as tracer:
            tracer.attach()
            (path.parent / "cgroup.procs").write_text(str(child.pid))
            child.communicate(b"\n", timeout=30 * SLOW)
            tracer.detach()
            tracer.consume()
            assert tracer.losses()[ebpf_events.FILE_OPEN] == (0, 0, 0)
    finally:
        child.kill()
        child.wait()
    return {
        ebpf_events.path_of(event.text).decode()
        for event in events
        if event.key.kind == ebpf_events.FILE_OPEN
    }


def test_children_of_a_process_that_left_the_cgroup_are_recorded(
    directory: tuple[Cgroup, Path], tmp_path: Path
) -> None:
    for name in "abc":
        (tmp_path / name).write_text("x")
    script = (
        "open(sys.argv[1])\n"
        "if os.fork() == 0:\n"
        "    open(sys.argv[2])\n"
        "    if os.fork() == 0: os.execlp('cat', 'cat', sys.argv[3])\n"
        "    os.wait(); os._exit(0)\n"
        "os.wait()\n"
    )
    names = [str(tmp_path / name) for name in "abc"]
    assert trace(directory, script, *names) >= set(names)


def test_a_thread_that_executes_a_program_stays_recorded(
    directory: tuple[Cgroup, Path], tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("x")
    script = (
        "threading.Thread(target=lambda: os.execlp('cat', 'cat', sys.argv[1])).start()\n"
        "threading.Event().wait()\n"
    )
    assert str(tmp_path / "a") in trace(directory, script, str(tmp_path / "a"))


def test_chroot_does_not_change_the_recorded_path(
    directory: tuple[Cgroup, Path], tmp_path: Path
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").write_text("x")
    script = "os.chroot(sys.argv[1]); os.chdir('/'); open('/etc/passwd')\n"
    opened = trace(directory, script, str(tmp_path))
    assert str(tmp_path / "etc/passwd") in opened
    assert "/etc/passwd" not in opened


def test_a_relative_path_is_recorded_in_full(
    directory: tuple[Cgroup, Path], tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("x")
    os.symlink("a", tmp_path / "link")
    script = "os.chdir(sys.argv[1]); open('../' + os.path.basename(sys.argv[1]) + '/link')\n"
    assert str(tmp_path / "a") in trace(directory, script, str(tmp_path))


def test_a_process_of_the_host_is_not_recorded(
    directory: tuple[Cgroup, Path], tmp_path: Path
) -> None:
    (tmp_path / "a").write_text("x")
    selected, path = directory
    events: list[Event] = []
    with closing(EbpfTracer(selected, path.stat().st_ino, events.append)) as tracer:
        tracer.attach()
        subprocess.run(["cat", str(tmp_path / "a")], check=True, stdout=subprocess.DEVNULL)
        tracer.consume()
        assert list(tracer.counts()) == []
    assert events == []
