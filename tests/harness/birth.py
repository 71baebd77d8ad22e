"""Signals to the processes of a start, at each message that they exchange.

:func:`install` replaces ``seqpacket.send`` before a zygote is forked. The sender of the chosen
message then waits, before or after it sends, until the test has sent its signal.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaula.runtime import seqpacket

PROCEED, PID, READY, GO = b"proceed", b"P", b"R", b"G"
SPAWNED, ANSWER = b'{"type":"_Spawned"', b'{"type":"answer"'
POINTS = {
    "before the helper proceeds": (PROCEED, False),
    "before pid": (PID, False),
    "before ready": (READY, False),
    "after ready": (READY, True),
    "before go": (GO, False),
    "after go": (GO, True),
    "before the helper's report": (SPAWNED, False),
    "before the shim's answer": (ANSWER, False),
    "after the shim's answer": (ANSWER, True),
}
"""Messages, and whether the sender waits after it; others are followed by a kill of the sender."""
VICTIMS = ("shim", "helper", "stage", "init")
_IDLE, _ARMED, _REACHED = 0, 1, 2
_PAUSE = 0.001  # seconds
_PATIENCE = 10.0  # seconds in which a start reaches a message


class Unreached(Exception):
    """A start ended, or took too long, before it reached the message."""


class Point:
    """A message at which a start waits; shared with every fork."""

    def __init__(self) -> None:
        descriptor = os.memfd_create("birth")
        os.ftruncate(descriptor, mmap.PAGESIZE)
        self._memory = mmap.mmap(descriptor, mmap.PAGESIZE)
        self._inode = os.fstat(descriptor).st_ino
        os.close(descriptor)
        self._engine = os.getpid()

    def arm(self, message: bytes, *, after: bool) -> None:
        self._memory[1:3] = bytes([after, len(message)])
        self._memory[3 : 3 + len(message)] = message
        self._memory[0] = _ARMED

    def wait(self, ended: threading.Event) -> None:
        """Wait until a start reaches the message.

        :param ended: set when the start has ended
        :raises Unreached: when it does not
        """
        deadline = time.monotonic() + _PATIENCE
        while self._memory[0] != _REACHED:
            if ended.is_set() or time.monotonic() > deadline:
                self.release()
                raise Unreached
            time.sleep(_PAUSE)

    def release(self) -> None:
        self._memory[0] = _IDLE

    def passed(self, data: bytes, *, after: bool) -> None:
        """Wait here if this is the message."""
        if self._memory[0] != _ARMED or os.getpid() == self._engine:
            return
        message = self._memory[3 : 3 + self._memory[2]]
        if data.startswith(message) and self._memory[1] == after:
            self._memory[0] = _REACHED
            while self._memory[0] == _REACHED:
                time.sleep(_PAUSE)

    def forks(self) -> set[int]:
        """Return the forks of this process that share the point and have not exited.

        A zygote and its spare shim are left out.
        """
        own = Path("/proc/self/cmdline").read_bytes()
        pids = set()
        for directory in Path("/proc").glob("[0-9]*"):
            try:
                if (directory / "cmdline").read_bytes() != own or not self._is_mapped(directory):
                    continue
                if (directory / "comm").read_text() != "jaula-zygote\n":
                    pids.add(int(directory.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
        return pids - {self._engine}

    def _is_mapped(self, directory: Path) -> bool:
        lines = (directory / "maps").read_text().splitlines()
        return any("/memfd:birth" in line and line.split()[4] == str(self._inode) for line in lines)


def install(monkeypatch: Any) -> Point:
    """Return the point for every zygote that is forked from now on."""
    point, send = Point(), seqpacket.send

    def wrapped(sock: Any, data: bytes, fds: Sequence[int] = ()) -> None:
        point.passed(data, after=False)
        send(sock, data, fds)
        point.passed(data, after=True)

    monkeypatch.setattr(seqpacket, "send", wrapped)
    return point


def processes(zygote: int) -> dict[str, int]:
    """Return the processes of the one start of a zygote by their role."""
    roles: dict[str, int] = {}
    deadline = time.monotonic() + 0.5  # shorter than the limits of a start
    while len(shims := [pid for pid in children(zygote) if _is_shim(pid)]) != 1:  # not a spare one
        assert time.monotonic() < deadline, f"{len(shims)} shims"
        time.sleep(0.005)  # that of an earlier start exits
    (roles["shim"],) = shims
    for helper in children(roles["shim"]):
        if not _is_shim(helper):
            continue  # the program of a container in which an exec begins
        roles["helper"] = helper
        for pid in children(helper):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the stage exits
                roles["init" if _in_new_pid_namespace(pid) else "stage"] = pid
    return roles


def children(pid: int) -> list[int]:
    try:
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return []
    return [int(word) for word in words]


def _is_shim(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text() == "jaula-shim\n"
    except (FileNotFoundError, ProcessLookupError):
        return False  # it has just exited


def _in_new_pid_namespace(pid: int) -> bool:
    return len(_pids(pid)) > len(_pids(os.getpid()))


def _pids(pid: int) -> list[str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1:] for line in lines if line.startswith("NSpid:"))
