"""I2: no writable path leads from a container to any engine executable, interpreter included."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine
from jaula.engine.networks import provided_files

# Everything that is seen through /proc/PID/exe and is not one of the container's own tools.
WATCH = (
    "while [ ! -e /stop ]; do for p in /proc/[0-9]*; do e=$(readlink $p/exe 2>/dev/null) &&"
    ' case $e in ""|/bin/*) ;; *) echo "$p $e" >> /seen; echo x >> $p/exe;; esac; done; done'
)


def digest(path: str) -> bytes:
    return hashlib.sha256(Path(path).read_bytes()).digest()


@pytest.mark.parametrize("cve", ["CVE-2019-5736 CVE-2016-9962"])
def test_no_executable_of_the_engine_is_visible_while_processes_join(
    engine: PrivateEngine, busybox: str, cve: str
) -> None:
    interpreter = os.path.realpath(sys.executable)
    before = digest(interpreter)
    with containers.running(engine, busybox, "sh", "-c", WATCH) as name:
        workers = [threading.Thread(target=_exec_often, args=(engine, name)) for _ in range(2)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        done = engine.cli("jaula", "exec", name, "sh", "-c", "cat /seen; true")
        assert done.returncode == 0, done.stderr
        assert done.stdout == "", f"seen from inside: {done.stdout}"
    assert digest(interpreter) == before


def _exec_often(engine: PrivateEngine, name: str) -> None:
    for _ in range(15):
        engine.cli("jaula", "exec", name, "true")


@pytest.mark.parametrize("cve", ["CVE-2019-5736"])
def test_executing_proc_self_exe_executes_no_engine_program(
    engine: PrivateEngine, busybox: str, plain: str, cve: str
) -> None:
    done = engine.cli("jaula", "run", "--rm", busybox, "/proc/self/exe", "--version")
    assert "python" not in (done.stdout + done.stderr).lower()
    done = engine.cli("jaula", "exec", plain, "/proc/self/exe", "--version")
    assert "python" not in (done.stdout + done.stderr).lower()


@pytest.mark.parametrize("cve", ["CVE-2019-5736"])
def test_the_shims_program_is_on_a_read_only_mount(
    engine: PrivateEngine, plain: str, cve: str
) -> None:
    shim = containers.shim(containers.pid(engine, plain))
    flags = os.statvfs(f"/proc/{shim}/exe").f_flag
    assert flags & os.ST_RDONLY, "the interpreter can be opened for writing through /proc/PID/exe"


def test_the_shim_is_not_visible_from_inside(engine: PrivateEngine, plain: str) -> None:
    listed = engine.cli("jaula", "exec", plain, "sh", "-c", "echo /proc/[0-9]*/exe").stdout.split()
    # The program, the shell of this exec: nothing else lives in the process namespace.
    assert len(listed) <= 3, listed


@pytest.mark.needs("tini-static")
def test_the_hosts_init_program_cannot_be_changed(engine: PrivateEngine, busybox: str) -> None:
    program = provided_files.init_program()
    before = os.stat(program)
    with containers.running(engine, busybox, flags=("--init",)) as name:
        for words in ("chmod 4777", "chown 1:1", "touch", "rm -f"):
            command = f"{words} /sbin/docker-init"
            assert engine.cli("jaula", "exec", name, "sh", "-c", command).returncode != 0, words
    after = os.stat(program)
    assert (after.st_mode, after.st_uid, after.st_mtime) == (
        before.st_mode,
        before.st_uid,
        before.st_mtime,
    )
