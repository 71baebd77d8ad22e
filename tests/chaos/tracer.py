"""Kill one process at its N-th system call: ptrace(2).

    python -m chaos.tracer ROLE STEP ROLE:PID...

Follows the processes and what they fork. The first process of ROLE that enters its system call of
number STEP is killed before the kernel executes it. With STEP 0 none is killed. SIGTERM ends the
tracer, which prints what it has counted as JSON; the kernel detaches its tracees.

STEP may name a call to count from: ``clone3+1`` is the first call after the first clone3.

Facts about ptrace: SIGKILL at a stop before a system call ends the process without that call. A
process that is forked can stop before its parent's event names it. A parent that is killed at that
moment has no event. ``/proc/PID/syscall`` of a
stopped process has the number of its call: a zygote forks shims with fork(3), which is clone(2),
and sandboxes with clone3(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import NoReturn

from jaula.kernel import seccomp
from jaula.kernel.libc import errno_error, libc

PTRACE_CONT, PTRACE_SYSCALL, PTRACE_DETACH = 7, 24, 17
PTRACE_SEIZE, PTRACE_INTERRUPT, PTRACE_LISTEN = 0x4206, 0x4207, 0x4208
PTRACE_GETEVENTMSG, PTRACE_GET_SYSCALL_INFO = 0x4201, 0x420E
EVENT_FORK, EVENT_VFORK, EVENT_CLONE, EVENT_EXEC, EVENT_STOP = 1, 2, 3, 4, 128
O_SYSGOOD = 1
OPTIONS = O_SYSGOOD | 1 << EVENT_FORK | 1 << EVENT_VFORK | 1 << EVENT_CLONE | 1 << EVENT_EXEC
SYSCALL_INFO_ENTRY = 1
SYSCALL_STOP = signal.SIGTRAP | 0x80
WALL = 0x40000000  # __WALL
STOP_SIGNALS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
CHILD_ROLES = {"zygote": "shim", "shim": "helper", "helper": "stage", "stage": "init"}
PROGRAM_ROLES = ("shim", "helper", "stage", "init")  # what they execute is not followed

_call = libc["ptrace"]
_call.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_call.restype = ctypes.c_long


def ptrace(request: int, tid: int, addr: int = 0, data: int = 0) -> None:
    ctypes.set_errno(0)
    if _call(request, tid, addr, data) == -1:
        raise errno_error("ptrace", request, tid)


def syscall_name(number: int) -> str:
    """Return the name of a system call of this machine."""
    resolve = seccomp.library().seccomp_syscall_resolve_num_arch
    resolve.argtypes, resolve.restype = (ctypes.c_uint32, ctypes.c_int), ctypes.c_char_p
    name: bytes | None = resolve(0, number)
    return name.decode() if name else str(number)


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


class Tracer:
    """Counts the system calls of every process of one role."""

    def __init__(self, role: str, step: str) -> None:
        self.role = role
        name, _, number = step.rpartition("+")
        self.after, self.step = name, int(number)
        self.killed = 0
        self.last = ""  # the call at which the process was killed
        self.calls: dict[int, list[str]] = {}  # of each process of the role
        self._armed: dict[int, int] = {}  # calls since the named one
        self._seen: Counter[int] = Counter()
        self._names: dict[int, str] = {}
        self._roles: dict[int, str] = {}  # by thread
        self._groups: dict[int, int] = {}  # process by thread
        self._early: set[int] = set()  # stopped before their parent's event

    def seize(self, role: str, pid: int) -> None:
        """Trace every thread of a process; one that has exited meanwhile is left out."""
        try:
            tasks = os.listdir(f"/proc/{pid}/task")
        except FileNotFoundError:  # the helper of the previous start, for example
            return
        for task in tasks:
            with contextlib.suppress(ProcessLookupError):
                ptrace(PTRACE_SEIZE, int(task), 0, OPTIONS)
                self._roles[int(task)], self._groups[int(task)] = role, pid
                if role == self.role:  # counted from its next stop
                    ptrace(PTRACE_INTERRUPT, int(task))

    def run(self) -> None:
        """Serve the stops until no tracee is left, or SIGTERM."""
        while True:
            try:
                tid, status = os.waitpid(-1, WALL)
            except ChildProcessError:
                return
            if os.WIFEXITED(status) or os.WIFSIGNALED(status):
                self._roles.pop(tid, None)
                self._early.discard(tid)
                for child in tuple(self._early):
                    self._resume_orphan(child)
                continue
            with contextlib.suppress(ProcessLookupError):  # killed in the meantime
                self._stopped(tid, os.WSTOPSIG(status), status >> 16)

    def _stopped(self, tid: int, signum: int, event: int) -> None:
        if event == EVENT_STOP and tid not in self._roles:
            self._early.add(tid)
            self._resume_orphan(tid)
        elif event == EVENT_STOP and signum in STOP_SIGNALS:
            ptrace(PTRACE_LISTEN, tid)
        elif event in (EVENT_FORK, EVENT_VFORK, EVENT_CLONE):
            self._forked(tid)
            self._resume(tid)
        elif event == EVENT_EXEC and self._roles[tid] in PROGRAM_ROLES:
            ptrace(PTRACE_DETACH, tid)
        elif event:
            self._resume(tid)
        elif signum == SYSCALL_STOP:
            if not self._entered(tid):
                self._resume(tid)
        else:
            self._resume(tid, signum)

    def _resume(self, tid: int, signum: int = 0) -> None:
        counted = self._roles.get(tid) == self.role and not self.killed
        ptrace(PTRACE_SYSCALL if counted else PTRACE_CONT, tid, 0, signum)

    def _resume_orphan(self, child: int) -> None:
        """Resume a process whose parent was killed before the event that names the child."""
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{child}/status").read_text()
            group, parent = (
                int(text.partition(f"\n{key}:")[2].split()[0]) for key in ("Tgid", "PPid")
            )
            if group == child and parent not in self._groups.values():
                self._early.discard(child)
                self._roles[child], self._groups[child] = "orphan", child
                self._resume(child)

    def _forked(self, tid: int) -> None:
        message = ctypes.c_ulong()
        ptrace(PTRACE_GETEVENTMSG, tid, 0, ctypes.addressof(message))
        child, role = int(message.value), self._roles[tid]
        group = child
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{child}/status").read_text()
            group = int(text.partition("Tgid:")[2].split()[0])
        if group == child:
            if role == "zygote" and self._number(tid) == seccomp.resolve(
                "clone3", "SCMP_ARCH_NATIVE"
            ):
                role = "sandbox"
            else:
                role = CHILD_ROLES.get(role, "child" if role == "engine" else role)
        self._roles[child], self._groups[child] = role, group
        if child in self._early:
            self._early.discard(child)
            with contextlib.suppress(ProcessLookupError):
                self._resume(child)

    def _number(self, tid: int) -> int:
        return int(Path(f"/proc/{tid}/syscall").read_text().split()[0])

    def _entered(self, tid: int) -> bool:
        """Count the call if the stop is one before a call; return whether it was the last."""
        info = ctypes.create_string_buffer(88)
        ptrace(PTRACE_GET_SYSCALL_INFO, tid, len(info), ctypes.addressof(info))
        if info.raw[0] != SYSCALL_INFO_ENTRY or self._roles.get(tid) != self.role or self.killed:
            return False
        number = int.from_bytes(info.raw[24:32], sys.byteorder)
        name = self._names.get(number) or self._names.setdefault(number, syscall_name(number))
        group = self._groups[tid]
        calls = self.calls.setdefault(group, [])
        calls.append(name)
        if self.after:
            at = self._armed.get(group)
            if at is None:
                if name == self.after:
                    self._armed[group] = 0
                return False
            self._armed[group] = count = at + 1
        else:
            count = len(calls)
        if self.step == 0 or count != self.step:
            return False
        # SIGTERM between the two would hide the kill from the report.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
        os.kill(group, signal.SIGKILL)
        self.killed, self.last = group, name
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
        return True


def main() -> None:
    role, step, *targets = sys.argv[1:]
    tracer = Tracer(role, step)
    signal.signal(signal.SIGTERM, _interrupted)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for target in targets:
            kind, _, pid = target.partition(":")
            tracer.seize(kind, int(pid))
        print("ready", flush=True)
        tracer.run()
    except KeyboardInterrupt:
        pass
    calls = max(tracer.calls.values(), key=len, default=[])
    print(json.dumps({"killed": tracer.killed, "last": tracer.last, "calls": calls}), flush=True)
    os._exit(0)  # the kernel detaches the tracees


if __name__ == "__main__":
    main()
