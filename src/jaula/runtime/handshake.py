"""Hearing a new process out until its program runs: the maker's side, for init and for exec.

The other side is in :mod:`jaula.runtime.init`, which says what the messages are. A process is told
to go on once it is known by its pid, has said that it is ready, and has its limits.
"""

from __future__ import annotations

import os
import signal
import socket

from jaula.errors import RuntimeFailure
from jaula.kernel import tty
from jaula.runtime import channel
from jaula.runtime.limits import set_limits
from jaula.spec.runtime import Process


def follow(
    mine: socket.socket, stage_pid: int, wanted: Process, console: tuple[int, int], *, lost: str
) -> tuple[int, int]:
    """Follow one birth to its end: (the process's pid, its terminal's master or -1).

    Closes ``mine`` and reaps the stage. Raises ``RuntimeFailure`` with what the other side said, or
    with ``lost`` where it ended without a word; then neither process is left.
    """
    pid, master = 0, -1
    failure: RuntimeFailure | None = None
    try:
        ready = False
        while True:
            data, fds = channel.receive(mine)
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
            elif kind == b"E":
                code, _, text = rest.decode(errors="replace").partition(" ")
                failure = RuntimeFailure(text, exit_code=int(code))
            if pid and ready:
                ready = False
                channel.send(mine, b"G")
        if failure is None and not pid:
            failure = RuntimeFailure(lost)
        if failure is not None:
            raise failure
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


def _end(pid: int) -> None:
    """Kill and reap one of our children."""
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return  # the stage dies on its own as soon as the process is there
