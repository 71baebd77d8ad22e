"""The warm-up of the zygote, on the real kernel: it leaves nothing, and its container ends."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import msgspec

from jaula.errors import NotFound
from jaula.kernel import mounts, namespaces
from jaula.kernel.namespaces import CLONE
from jaula.runtime.interfaces import Cgroup, Interfaces
from jaula.runtime.shim import warm_up
from jaula.runtime_interfaces import runtime_interfaces


def state() -> tuple[set[str], str, str, str]:
    """Return the descriptors of this process, its mounts, children and cgroups."""
    return (
        {path.name for path in Path("/proc/self/fd").iterdir()},
        Path("/proc/self/mountinfo").read_text(),
        Path("/proc/thread-self/children").read_text(),
        Path("/proc/self/cgroup").read_text(),
    )


def run_in_fork(interfaces: Interfaces) -> int:
    """Run the warm-up twice as a zygote does; return 0 if that changes nothing of the process.

    It has its own mount namespace, since other tests mount something meanwhile.
    """
    pid = os.fork()
    if pid == 0:
        try:
            namespaces.unshare(CLONE.NEWNS)
            mounts.mount(None, "/", None, mounts.MS.REC | mounts.MS.PRIVATE)
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            warm_up.run(interfaces)
            before = state()
            warm_up.run(interfaces)
            is_same = state() == before
            os._exit(0 if is_same and signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_it_leaves_no_descriptor_mount_process_or_cgroup() -> None:
    assert run_in_fork(runtime_interfaces()) == 0


def test_it_runs_without_a_cgroup() -> None:
    class Driver:
        version = 2

        def create(self, path: str) -> Cgroup:
            raise NotFound(path)

        def open(self, path: str) -> Cgroup:
            raise NotFound(path)

    assert run_in_fork(msgspec.structs.replace(runtime_interfaces(), cgroups=Driver())) == 0


def test_a_failure_is_raised() -> None:
    def no_log(driver: str, options: dict[str, str], path: str) -> None:
        raise OSError("no log")

    interfaces = msgspec.structs.replace(runtime_interfaces(), open_log=no_log)
    assert run_in_fork(interfaces) == 2
