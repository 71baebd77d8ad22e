"""Processes of one session, which a probe or an exec'd program leads: told apart and ended.

Facts: every exec'd process begins a session of its own (setsid(2)), its children stay in it unless
they begin another, and the kernel gives a session's number to no new process while a member lives
(proc_pid_stat(5), field 6; credentials(7)).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from jaula.kernel import process

_ROUNDS = 8  # a member may fork while the others are being killed


def session_of(stat: bytes) -> int:
    """The session in the text of ``/proc/PID/stat``; the program's name may hold anything."""
    return int(stat.rpartition(b")")[2].split()[3])


def members(session: int, pids: Iterable[int]) -> list[int]:
    """Those of ``pids`` that belong to the session."""
    found = []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
                if session_of(file.read(4096)) == session:
                    found.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def kill_session(session: int, pids: Callable[[], Iterable[int]]) -> int:
    """Kill every member of a session; how many there were. ``pids`` are the container's."""
    killed = 0
    for _ in range(_ROUNDS):
        found = members(session, pids())
        if not found:
            break
        killed += sum(_kill(pid, session) for pid in found)
    return killed


def _kill(pid: int, session: int) -> bool:
    try:
        descriptor = process.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not members(session, (pid,)):
            return False  # its number belongs to another process by now
        process.pidfd_send_signal(descriptor, 9)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True
