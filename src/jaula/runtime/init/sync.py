"""What is said while a process is made, for init and for exec: both sides.

One SOCK_SEQPACKET socket. The new process and its stage say: ``P<pid>`` (the stage, who it cloned),
``T`` with the terminal's descriptor, ``H`` when the root is built and the runtime's hooks are due,
``R`` when all is ready, ``W`` when it waits to be started by somebody else, ``D`` when hooks of
startContainer have run, ``E<code> <text>`` for a failure; the end of file is a successful exec. The
maker answers ``H`` with ``C`` and ``R`` with
``G<pid>``, the process's number on the host: it is told to go on once it is known by its pid, has
said that it is ready, and has its limits.
"""

from __future__ import annotations

import _socket
import os
import signal
import time
from collections.abc import Callable
from typing import NoReturn

from jaula.errors import JaulaError, RuntimeFailure
from jaula.kernel import tty
from jaula.runtime import seqpacket
from jaula.runtime.init.exec import ExecError
from jaula.runtime.init.rlimits import set_limits
from jaula.spec.runtime import Process

HOOKS_DONE = b"D"
_LOOKS, _BETWEEN = 20, 0.005  # at a process that has hung up, and seconds between them


def follow(
    mine: _socket.socket,
    stage_pid: int,
    wanted: Process,
    console: tuple[int, int],
    *,
    lost: str,
    start_hooks: bool = False,
    start_later: bool = False,
    at_hooks: Callable[[int], None] | None = None,
    check: Callable[[int], None] | None = None,
) -> tuple[int, int]:
    """Follow one birth to its end: (the process's pid, its terminal's master or -1).

    ``at_hooks`` gets the pid when the root is built and not yet entered, ``check`` when the program
    runs; ``start_hooks`` says that there are some of startContainer, ``start_later`` that it is to
    wait for somebody else to start it. Closes ``mine`` and reaps the stage.

    Raises ``RuntimeFailure`` with what the other side said, or with ``lost`` where it ended without
    a word; then neither process is left.
    """
    pid, master = 0, -1
    failure: RuntimeFailure | None = None
    try:
        ready = hooks_due = waits = told = False
        hooks_left = start_hooks
        while not waits:
            data, fds = seqpacket.receive(mine)
            if not data:
                break
            kind, rest = data[:1], data[1:]
            if kind == b"P":
                pid = int(rest)
                set_limits(pid, wanted)
            elif kind == b"T":
                master = fds[0]
                if console != (0, 0):
                    tty.set_size(master, *console)
            elif kind == b"R":
                ready = True
            elif kind == b"H":
                hooks_due = True
            elif kind == b"W":
                waits = True
            elif kind == HOOKS_DONE:
                hooks_left = False
            elif kind == b"E":
                code, _, text = rest.decode(errors="replace").partition(" ")
                failure = RuntimeFailure(text, exit_code=int(code))
            if pid and hooks_due:
                hooks_due = False
                if at_hooks is not None:
                    at_hooks(pid)
                seqpacket.send(mine, b"C")
            if pid and ready:
                ready, told = False, True
                seqpacket.send(mine, b"G%d" % pid)
        well = waits if start_later else told and not hooks_left
        if failure is None and not well:
            failure = RuntimeFailure(f"{lost}: {_how(pid or stage_pid)}")
        if failure is not None:
            raise failure
        if check is not None and not waits:
            check(pid)
    except BaseException:
        for child in (pid, stage_pid):
            if child:
                _end(child)
        if master >= 0:
            os.close(master)
        raise
    finally:
        mine.close()
    os.waitpid(stage_pid, 0)
    return pid, master


def _how(pid: int) -> str:
    """How one of our children, which hung up a moment ago, has ended; it stays to be reaped."""
    flags = os.WEXITED | os.WNOWAIT | os.WNOHANG
    for _ in range(_LOOKS):
        try:
            found = os.waitid(os.P_PID, pid, flags)
        except ChildProcessError:
            return "somebody else has reaped it"
        if found is not None:
            exited = found.si_code == os.CLD_EXITED
            return f"{'exit status' if exited else 'signal'} {found.si_status}"
        time.sleep(_BETWEEN)
    return "it still runs"


def _end(pid: int) -> None:
    """Kill and reap one of our children."""
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return  # the stage dies on its own as soon as the process is there


def moved(sync: _socket.socket, fd: int) -> _socket.socket:
    """The same socket under the number that it has now."""
    if sync.fileno() == fd:
        return sync
    sync.detach()
    return _socket.socket(fileno=fd)


def wait_for_word(sync: _socket.socket) -> int:
    """Ready; the maker says when to go on, once limits are set, and our pid on the host."""
    seqpacket.send(sync, b"R")
    word = sync.recv(32)
    if word[:1] != b"G":
        os._exit(1)
    return int(word[1:])


def report(sync: _socket.socket, error: BaseException, doing: str) -> NoReturn:
    """Tell the shim what failed and end."""
    if isinstance(error, ExecError | JaulaError):
        code, text = error.exit_code, str(error)
    elif isinstance(error, OSError):
        about = f" ({error.filename})" if error.filename else ""
        code, text = 125, f"{doing}: {error.strerror}{about}"
    else:
        code, text = 125, f"{doing}: {type(error).__name__}: {error}"
    try:
        seqpacket.send(sync, f"E{code} {text}".encode(errors="replace"))
    finally:
        os._exit(code)
