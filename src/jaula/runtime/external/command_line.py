"""Run one command of an OCI runtime: its arguments, exit status and error message.

The command line is runc's, which crun, gVisor's runsc and others share: global options (``--root``,
``--log``, ``--log-format json``), a command, its options, the container's id. A runtime that fails
writes the reason as the last error of its log, one JSON document per line.

Every call has a timeout. A runtime that has not exited by then is killed with its process group,
and it dies with its caller (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import os
import select
import signal
import time

import msgspec

from jaula.errors import RuntimeFailure
from jaula.kernel import process_calls
from jaula.runtime.shim_protocol import ExternalRuntime

LOG_NAME = "runtime.log"
STATE_NAME = "runtime"
MAX_OUTPUT = 4096  # bytes of a runtime's output, and characters of its error message
_MAX_LOG = 1 << 16  # bytes of a log that are read
_NOT_EXECUTABLE = (
    "permission denied",
    "operation not permitted",
    "is a directory",
    "not a regular file",
    "exec format error",
)
_DOCKER_PHRASES = {
    127: ("executable file not found", "no such file or directory"),
    126: ("permission denied", "is a directory"),
}
"""Phrases that Docker's command line searches for in an error, to choose its exit status."""
_ERRORS = frozenset({"error", "fatal", "panic"})
_PRIVATE_VARIABLES = frozenset({"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"})


class _Line(msgspec.Struct, frozen=True):
    """One entry of a runtime's log."""

    level: str = ""
    msg: str = ""


_decode_line = msgspec.json.Decoder(_Line).decode


def build_argv(runtime: ExternalRuntime, run_dir: str, *call: str) -> list[str]:
    """Return the argument vector of one call for the container of a run directory."""
    return [
        runtime.path,
        *runtime.arguments,
        *("--root", f"{run_dir}/{STATE_NAME}"),
        *("--log", f"{run_dir}/{LOG_NAME}", "--log-format", "json"),
        *call,
    ]


def environment() -> dict[str, str]:
    """Return our environment, without the variables of a service manager for this process."""
    return {key: value for key, value in os.environ.items() if key not in _PRIVATE_VARIABLES}


def log_size(run_dir: str) -> int:
    """Return the size of the log in bytes: the entries of the next call start there."""
    try:
        return os.stat(f"{run_dir}/{LOG_NAME}").st_size
    except OSError:
        return 0


def read_log(run_dir: str, start: int) -> bytes:
    """Return the end of what was added to the log after ``start``; empty if there is none."""
    try:
        # A runtime may have put anything there; a FIFO must not block us.
        fd = os.open(f"{run_dir}/{LOG_NAME}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        size = os.fstat(fd).st_size
        start = start if start <= size else 0  # the runtime has truncated it
        return os.pread(fd, _MAX_LOG, max(start, size - _MAX_LOG))
    except OSError:
        return b""
    finally:
        os.close(fd)


def error_message(log: bytes, printed: bytes) -> str:
    """Return why a runtime failed: the last error of its log, else the last line it printed."""
    for line in reversed(log.splitlines()):
        try:
            entry = _decode_line(line)
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            continue
        if entry.level.lower() in _ERRORS and entry.msg.strip():
            return _one_line(entry.msg)
    for line in reversed(printed.splitlines()):
        if text := _one_line(line.decode(errors="replace")):
            return text
    return "no error message"


def _one_line(text: str) -> str:
    """Return text as one line without control characters, of bounded length."""
    printable = "".join(c if c.isprintable() else " " for c in text[:MAX_OUTPUT])
    return " ".join(printable.split())


def exit_code(text: str, program: str) -> int:
    """Return Docker's exit code for a runtime's error about starting ``program``.

    127 if it does not exist, 126 if it cannot be executed, 125 for everything else. As with Docker,
    a text counts only if it names the program; crun's says ``executable`` instead.
    """
    lower = text.lower()
    if (not program or program.lower() not in lower) and "executable" not in lower:
        return 125
    if "executable file" in lower and "not found" in lower:
        return 127
    if "no such file or directory" in lower:
        return 127
    if any(part in lower for part in _NOT_EXECUTABLE):
        return 126
    return 125


def docker_message(text: str, program: str, status: int) -> str:
    """Return the error in words from which Docker's command line derives ``status``."""
    phrases = _DOCKER_PHRASES.get(status, ())
    if not phrases or any(phrase in text for phrase in phrases):
        return text
    return f'exec: "{program}": {phrases[0]}: {text}'


def call(
    runtime: ExternalRuntime,
    run_dir: str,
    *arguments: str,
    stdio: tuple[int, int, int] | None = None,
    timeout: float | None = None,
    program: str = "",
) -> None:
    """Run one command of a runtime until it exits.

    ``stdio`` are the container's own descriptors, for a command that creates a process. ``timeout``
    is in seconds; the default is the runtime's.

    :raises RuntimeFailure: with the runtime's error, and with Docker's exit code if it is about
        ``program``.
    """
    timeout = runtime.timeout if timeout is None else timeout
    start = log_size(run_dir)
    argv = build_argv(runtime, run_dir, *arguments)
    prefix = f"OCI runtime {arguments[0]}"
    stdout_read, stdout_write = os.pipe2(os.O_CLOEXEC)
    error_read, error_write = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _exec_runtime(parent, argv, stdio or (-1, stdout_write, stdout_write), error_write)
    os.close(stdout_write)
    os.close(error_write)
    pidfd = process_calls.pidfd_open(pid)
    try:
        output_tail = _wait(pidfd, stdout_read, time.monotonic() + timeout)
        if output_tail is None:
            raise RuntimeFailure(
                f"{prefix}: {runtime.path} has not exited after {timeout:g} seconds and was killed",
                hint="increase --runtime-timeout for a slow runtime",
            )
    finally:
        _kill_group(pid)
        _, status = os.waitpid(pid, 0)
        os.close(pidfd)
        os.close(stdout_read)
        exec_errno = os.read(error_read, 64)
        os.close(error_read)
    if exec_errno:
        raise RuntimeFailure(
            f"{prefix}: cannot execute {runtime.path}: {os.strerror(int(exec_errno))}",
            hint="check the runtime's path in the engine's configuration",
        )
    code, signum = process_calls.exit_code(status)
    if signum:
        raise RuntimeFailure(f"{prefix}: {runtime.path} was killed by signal {signum}")
    if code:
        text = error_message(read_log(run_dir, start), output_tail)
        status = exit_code(text, program)
        raise RuntimeFailure(
            f"{prefix} failed: {docker_message(text, program, status)}", exit_code=status
        )


def _exec_runtime(
    parent: int, argv: list[str], stdio: tuple[int, int, int], error_write: int
) -> None:
    """Execute the runtime in the child; write the errno if that fails."""
    try:
        os.setpgid(0, 0)
        process_calls.prctl(process_calls.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        # A pipe at its end: crun changes the owner of even an unused null device.
        empty_pipe, write_end = os.pipe2(os.O_CLOEXEC)
        os.close(write_end)
        for number, fd in enumerate(stdio):
            os.dup2(fd if fd >= 0 else empty_pipe, number)
        process_calls.close_on_exec_from(3)
        process_calls.reset_signals()
        os.execve(argv[0], argv, environment())
    except OSError as error:
        os.write(error_write, b"%d" % (error.errno or 0))
    finally:
        os._exit(127)


def _wait(pidfd: int, stdout: int, deadline: float) -> bytes | None:
    """Return the last output of the runtime once it has exited; None on timeout.

    Processes that it left running may keep its output open, so end of file is not awaited.
    """
    output_tail = b""
    os.set_blocking(stdout, False)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(stdout, select.POLLIN)
    exited = False
    while not exited:
        timeout_ms = round((deadline - time.monotonic()) * 1000)
        ready = poll.poll(max(0, timeout_ms))
        if timeout_ms <= 0 and not any(fd == pidfd for fd, _ in ready):
            return None
        exited = any(fd == pidfd for fd, _ in ready)
        if any(fd == stdout for fd, _ in ready):
            try:
                chunk = os.read(stdout, 1 << 16)
            except BlockingIOError:
                continue
            output_tail = (output_tail + chunk)[-MAX_OUTPUT:]
            if not chunk:
                poll.unregister(stdout)
    return output_tail


def _kill_group(pid: int) -> None:
    """Kill a runtime that hangs with its process group.

    One that has exited is left alone: its container has a process group of its own.
    """
    if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
        return
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(pid, signal.SIGKILL)
