"""An engine whose start of a container kills a process at a chosen step.

    python fault_points.py FAULT daemon [FLAG...]

FAULT is a file. While it has ``STEP:TARGET``, a process that reaches the step sends SIGKILL to the
target: engine, shim, helper, or several with ``+`` between them. ``-shim`` gets SIGSTOP. The
functions of the steps are replaced before the engine forks its zygote, so every process of a start
has them.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

FAULT = Path(sys.argv[1]) if __name__ == "__main__" else Path()
ENGINE, SHIM, HELPER = (
    ("engine asks", "engine has asked", "engine has the answer"),
    ("shim begins", "shim listens", "shim has the process", "shim has answered"),
    (
        "helper begins",
        "helper has the cgroup",
        "helper has the root",
        "helper has forked the stage",
        "helper knows init",
        "helper lets init go",
        "helper has let init go",
        "helper has created",
        "helper has answered",
    ),
)
STEPS = {
    "engine": (*ENGINE, *SHIM, *HELPER),
    "shim": (*SHIM, *HELPER),
    "helper": HELPER,
}
"""The steps at which each target can be killed."""

_pids: dict[str, int] = {}
_fault: tuple[str, ...] = ()


def read_fault() -> None:
    global _fault
    try:
        _fault = tuple(FAULT.read_text().split(":"))
    except FileNotFoundError:
        _fault = ()


def reach(step: str) -> None:
    """Kill the target if this is the step."""
    if _fault[:1] != (step,):
        return
    names = _fault[1].split("+")
    killed = [_pids[name] for name in names if not name.startswith("-")]
    targets = {_pids[name.removeprefix("-")]: name for name in names}
    for target in sorted(targets, key=lambda pid: pid == os.getpid()):  # this process last
        with contextlib.suppress(ProcessLookupError):
            os.kill(target, signal.SIGSTOP if targets[target][0] == "-" else signal.SIGKILL)
    while any(_alive(target) for target in killed):  # this process goes on when they have ended
        time.sleep(0.001)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def replace(
    owner: Any,
    name: str,
    *,
    before: str = "",
    after: str = "",
    first: Callable[..., None] | None = None,
) -> None:
    """Let a function reach a step before it begins, and one after it has returned."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def replaced(*args: Any, **kwargs: Any) -> Any:
        if first is not None:
            first(*args)
        if before:
            reach(before)
        result = original(*args, **kwargs)
        if after:
            reach(after)
        return result

    setattr(owner, name, replaced)


def replace_all() -> None:
    from jaula.runtime import runtime_client, seqpacket, zygote
    from jaula.runtime.create import create_init
    from jaula.runtime.init import init_sync
    from jaula.runtime.shim import shim
    from jaula.runtime.shim.engine_connections import ControlSockets

    _pids["engine"] = os.getpid()

    original_start = runtime_client.Runtime.start

    async def start(self: Any, *args: Any, **kwargs: Any) -> Any:
        read_fault()
        reach("engine asks")
        result = await original_start(self, *args, **kwargs)
        reach("engine has the answer")
        return result

    runtime_client.Runtime.start = start  # type: ignore[method-assign]

    original_send = runtime_client.Runtime._send

    async def send(self: Any, request: Any, fds: Any) -> None:
        await original_send(self, request, fds)
        if isinstance(request, runtime_client.StartRequest):
            reach("engine has asked")

    runtime_client.Runtime._send = send  # type: ignore[method-assign]

    def shim_begins(*_: Any) -> None:
        _pids["shim"] = os.getpid()
        read_fault()

    def helper_begins(*_: Any) -> None:
        _pids["helper"] = os.getpid()

    def creation_begins(*_: Any) -> None:
        if "shim" not in _pids:  # the helper of a spare shim
            _pids["shim"] = os.getppid()
            read_fault()

    replace(zygote.shim, "main", first=shim_begins, before="shim begins")
    replace(ControlSockets, "listen", after="shim listens")
    replace(shim.SpawnHelper, "create", after="shim has the process")
    replace(ControlSockets, "serve", after="shim has answered")
    replace(shim, "_run_helper", first=helper_begins)
    replace(shim, "create_container", first=creation_begins)
    replace(create_init, "start", before="helper begins", after="helper has created")
    replace(create_init, "_create_init", before="helper has the cgroup")
    replace(create_init, "mount_root", after="helper has the root")
    replace(create_init, "follow", before="helper has forked the stage")
    replace(init_sync, "set_limits", after="helper knows init")

    original_wait = shim.SpawnHelper.wait

    def wait(self: Any) -> None:
        if _fault[:1] == ("helper has answered",) and self._helper:
            # The shim kills its helper after the report: let the helper reach this step first.
            os.waitid(os.P_PID, self._helper, os.WEXITED | os.WNOWAIT)
        original_wait(self)

    shim.SpawnHelper.wait = wait  # type: ignore[method-assign]

    original_socket_send = seqpacket.send

    def socket_send(sock: Any, data: bytes, fds: Any = ()) -> None:
        go = data[:1] == b"G" and os.getpid() == _pids.get("helper")
        if go:
            reach("helper lets init go")
        original_socket_send(sock, data, fds)
        if go:
            reach("helper has let init go")
        elif os.getpid() == _pids.get("helper"):
            reach("helper has answered")

    seqpacket.send = socket_send


if __name__ == "__main__":
    del sys.path[0], sys.argv[1]
    replace_all()
    from jaula.cli.main import run_and_exit

    run_and_exit()
