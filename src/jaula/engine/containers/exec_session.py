"""Processes of one POSIX session: an exec'd program and its descendants.

Facts about sessions: every exec'd process begins a session of its own (setsid(2)). Its children
stay in the session unless they begin another. The kernel gives the number of a session to no new
process while a member lives (proc_pid_stat(5), field 6; credentials(7)).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from jaula.engine.containers.container_cgroup import open_cgroup
from jaula.errors import JaulaError
from jaula.kernel import process_calls

if TYPE_CHECKING:
    from jaula.engine.model.container import Container
    from jaula.engine.model.services import Services

_ROUNDS = 8  # a member may fork while the others are being killed


def session_of(stat: bytes) -> int:
    """Return the session in the text of ``/proc/PID/stat``; the name may contain any byte."""
    return int(stat.rpartition(b")")[2].split()[3])


def members(session: int, pids: Iterable[int]) -> list[int]:
    """Return those of ``pids`` that belong to the session."""
    pids_in_session = []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
                if session_of(file.read(4096)) == session:
                    pids_in_session.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return pids_in_session


def kill_session(session: int, pids: Callable[[], Iterable[int]]) -> int:
    """Kill every member of a session and return how many there were.

    ``pids`` returns the processes of the container.
    """
    killed = 0
    for _ in range(_ROUNDS):
        alive = members(session, pids())
        if not alive:
            break
        killed += sum(
            process_calls.kill_if(pid, lambda pid: bool(members(session, (pid,)))) for pid in alive
        )
    return killed


async def kill_in_container(services: Services, container: Container, session: int) -> None:
    """Kill the members of a session of a running container; 0 is no session.

    :raises JaulaError: when that fails, unless the container has exited.
    """
    if not session or not container.live:
        return

    def work() -> None:
        try:
            with open_cgroup(services, container.record) as cgroup:
                # Without a cgroup only the leader of the session is known.
                kill_session(session, lambda: cgroup.pids() or (session,))
        except JaulaError:
            if container.live:
                raise

    await asyncio.to_thread(work)
