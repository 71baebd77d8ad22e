"""Synchronisation between the parent and a process that is created, for init and exec.

Both sides share one SOCK_SEQPACKET socket. The stage sends ``P<pid>`` with the pid that it cloned.
The process sends ``T`` with the terminal's master, ``H`` when the root is built and the runtime's
hooks are due, ``R`` when it is ready, ``W`` when it waits for a later start, ``D`` when the
startContainer hooks have run, and ``E<code> <text>`` for a failure. End of file means a successful
execve, or an exit: :func:`jaula.kernel.process_calls.executed` tells which.

The parent answers ``H`` with ``C``, and ``R`` with ``G<pid>``, the pid on the host. It sends ``G``
once it knows the pid, the process is ready, and its limits are set.

Every wait has an end. Only the parent holds its end of the socket, so the process sees end of file
when the parent dies. The process inherits the other end from the stage: the parent would see no end
of file when the stage dies between its clone3 and ``P``. So it watches the stage's pidfd until it
has the pid. The kernel has written the pid to shared memory by then. A process that is stopped
sends nothing: the parent gives up ``SYNC_TIMEOUT`` after the last message.
"""

from __future__ import annotations

import _socket
import os
import signal
import time
from collections.abc import Callable
from typing import NoReturn

from jaula.errors import FREE_SPACE, FULL, JaulaError, RuntimeFailure
from jaula.kernel import process_calls, tty
from jaula.kernel.namespaces import SharedPid
from jaula.kernel.poll import readable
from jaula.runtime import seqpacket
from jaula.runtime.init.process_setup import ExecError
from jaula.runtime.init.set_rlimits import set_limits
from jaula.runtime.interfaces import ignore
from jaula.spec.runtime_spec import Process

HOOKS_DONE = b"D"
SYNC_TIMEOUT = 20.0  # seconds between two messages of a new process
KILLED_BY_FILTER = "the program was killed by its own system call filter before it began"
_KILLED = f"signal {signal.SIGKILL:d}"  # what a filter never sends
_NO_MESSAGE = "it sends no message; a process may be stopped, or hang in the kernel"
_EXIT_POLLS, _POLL_INTERVAL = 20, 0.005  # tries to read an exit status, and seconds between them


def follow(
    sock: _socket.socket,
    stage: tuple[int, int] | None,
    shared_pid: SharedPid,
    process_spec: Process,
    console: tuple[int, int],
    *,
    died_message: str,
    pid: int = 0,
    start_hooks: bool = False,
    waits_for_start: bool = False,
    run_hooks: Callable[[int], None] | None = None,
    check: Callable[[int], None] | None = None,
    created: Callable[[], None] | None = None,
    hooks_inside: bool = False,
    filtered: bool = False,
    raw_output: bool = False,
    debug: Callable[[str], None] = ignore,
) -> tuple[int, int]:
    """Follow a new process until it executes or waits; return (pid, terminal master or -1).

    ``stage`` is the pid and the pidfd of the stage, which clones the process and lets the kernel
    write its pid to ``shared_pid``; None for a process that exists already, with the pid ``pid``.
    ``created`` is called when the process exists. ``run_hooks`` gets the pid when the root is built
    and not yet entered, ``check`` when the program runs. ``start_hooks`` says that the spec has
    startContainer hooks, ``waits_for_start`` that init waits for a later start. ``hooks_inside``
    says that init runs hooks, which may take any time. ``filtered`` says that the process installs
    a system call filter, ``raw_output`` that its terminal passes newlines on as they are. ``debug``
    gets each step. ``sock`` and the pidfd are closed, and the stage is reaped.

    :raises RuntimeFailure: with the reported error, or with ``died_message`` if the process died
        or stopped silently; neither process is left then.
    """
    (stage_pid, stage_pidfd), master = stage or (0, -1), -1
    timeout = None if hooks_inside else SYNC_TIMEOUT
    failure: RuntimeFailure | None = None
    try:
        ready = hooks_due = waiting = go_sent = False
        hooks_pending = start_hooks
        while not (waiting and pid):  # the stage and the process send their messages in any order
            if not pid and not _wait_for_stage(sock, stage_pidfd, timeout):
                if not shared_pid.value:
                    break
                data, fds = b"P%d" % shared_pid.value, list[int]()
            elif pid and not readable(timeout, sock.fileno()):
                raise RuntimeFailure(f"{died_message}: {_NO_MESSAGE}")
            else:
                data, fds = seqpacket.receive(sock)
            if not data:
                break
            kind, rest = data[:1], data[1:]
            if kind == b"P":
                pid = int(rest)
                debug(f"process {pid} is created")
                os.kill(stage_pid, signal.SIGKILL)  # it has no other work, and may be stopped
                if created is not None:
                    created()
            elif kind == b"T":
                master = fds[0]
                if raw_output:
                    tty.clear_onlcr(master)
                if console != (0, 0):
                    tty.set_size(master, *console)
            elif kind == b"R":
                ready = True
            elif kind == b"H":
                debug("the root is built, hooks are due")
                hooks_due = True
            elif kind == b"W":
                debug("the process waits to be started")
                waiting = True
            elif kind == HOOKS_DONE:
                hooks_pending = False
            elif kind == b"E":
                failure = decode_failure(rest)
            if pid and hooks_due:
                hooks_due = False
                if run_hooks is not None:
                    run_hooks(pid)
                seqpacket.send(sock, b"C")
            if pid and ready:
                ready, go_sent = False, True
                debug("the process is ready: set its limits, let it continue")
                set_limits(pid, process_spec)  # it has opened what it needs
                if stage_pid:
                    os.waitpid(stage_pid, 0)  # it counts in the limit of processes until then
                    stage_pid = 0
                seqpacket.send(sock, b"G%d" % pid)
        succeeded = bool(waiting and pid) if waits_for_start else go_sent and not hooks_pending
        if failure is None and not succeeded:
            failure = RuntimeFailure(f"{died_message}: {_exit_reason(pid or stage_pid)}")
        elif failure is None and not waiting and not process_calls.executed(pid):
            reason = _exit_reason(pid)
            by_filter = filtered and reason != _KILLED
            failure = RuntimeFailure(f"{KILLED_BY_FILTER if by_filter else died_message}: {reason}")
        if failure is not None:
            raise failure
        if not waiting:
            debug("the program runs")
        if check is not None and not waiting:
            check(pid)
    except BaseException:
        if stage_pid:
            _kill(stage_pid)
        if pid := pid or shared_pid.value:  # read when the stage can clone no more
            _kill(pid)
        if master >= 0:
            os.close(master)
        raise
    finally:
        sock.close()
        if stage_pidfd >= 0:
            os.close(stage_pidfd)
    if stage_pid:
        os.waitpid(stage_pid, 0)
    return pid, master


def _wait_for_stage(sock: _socket.socket, stage_pidfd: int, timeout: float | None) -> bool:
    """Wait for a message or end of file; return False if the stage has exited without one.

    :raises RuntimeFailure: when neither happens within ``timeout`` seconds.
    """
    ready = readable(timeout, sock.fileno(), stage_pidfd)
    if not ready:
        raise RuntimeFailure(f"the stage of a new process: {_NO_MESSAGE}")
    # The stage may have sent a message after the socket was looked at.
    return sock.fileno() in ready or bool(readable(0, sock.fileno()))


def _exit_reason(pid: int) -> str:
    """Return how a child that has closed its socket exited; do not reap it."""
    flags = os.WEXITED | os.WNOWAIT | os.WNOHANG
    for _ in range(_EXIT_POLLS):
        try:
            status = os.waitid(os.P_PID, pid, flags)
        except ChildProcessError:
            return "reaped by another process"
        if status is not None:
            normal = status.si_code == os.CLD_EXITED
            return f"{'exit status' if normal else 'signal'} {status.si_status}"
        time.sleep(_POLL_INTERVAL)
    return "still running"


def _kill(pid: int) -> None:
    """Kill and reap a child."""
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return  # the stage exits by itself once the process exists


def socket_at(sock: _socket.socket, fd: int) -> _socket.socket:
    """Return the socket object for a descriptor that was moved to ``fd``."""
    if sock.fileno() == fd:
        return sock
    sock.detach()
    return _socket.socket(fileno=fd)


def wait_to_proceed(sock: _socket.socket) -> int:
    """Report readiness; wait until the parent has set the limits, and return our host pid."""
    seqpacket.send(sock, b"R")
    message = sock.recv(32)
    if message[:1] != b"G":
        os._exit(1)
    return int(message[1:])


def decode_failure(data: bytes) -> RuntimeFailure:
    """Return the failure that :func:`report` has sent; ``data`` follows the letter."""
    code, number, text = data.decode(errors="replace").split(" ", 2)
    return RuntimeFailure(text, exit_code=int(code), errno=int(number))


def report(sock: _socket.socket, error: BaseException, action: str) -> NoReturn:
    """Send an error to the parent and exit.

    The call is write(2): a filter that may be in force by now rarely refuses it.
    """
    number = 0
    if isinstance(error, ExecError | JaulaError):
        code, text = error.exit_code, str(error)
        number = error.errno if isinstance(error, JaulaError) else 0
    elif isinstance(error, OSError):
        path = f" ({error.filename})" if error.filename else ""
        code, text = 125, f"{action}: {error.strerror}{path}"
        # EROFS is an answer to the request: a mount point is missing in a read-only root.
        if error.errno in FULL:
            number, text = error.errno, f"{text} ({FREE_SPACE})"
    else:
        code, text = 125, f"{action}: {type(error).__name__}: {error}"
    try:
        os.write(sock.fileno(), f"E{code} {number} {text}".encode(errors="replace"))
    finally:
        os._exit(code)
