"""One call of an OCI runtime's command line: its words, its end, its complaint.

The command line is runc's, which crun, gVisor's runsc and others share: global options (``--root``,
``--log``, ``--log-format json``), a command, its options, the container's id. A runtime that fails
says why in the last error of its log, one JSON document a line.

Nothing here waits for ever: a runtime that has not ended in time is killed with its process group,
and it dies with whoever called it (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import os
import select
import signal
import time

import msgspec

from jaula.errors import RuntimeFailure
from jaula.kernel import process
from jaula.runtime.protocol import ExternalRuntime

LOG_NAME = "runtime.log"
STATE_NAME = "runtime"
KEPT = 4096  # bytes of what a runtime prints, and characters of what it complains of
_LOG_READ = 1 << 16  # bytes of a log that are looked at
_NOT_EXECUTABLE = (
    "permission denied",
    "operation not permitted",
    "is a directory",
    "not a regular file",
    "exec format error",
)
_DOCKERS = {
    127: ("executable file not found", "no such file or directory"),
    126: ("permission denied", "is a directory"),
}
"""What Docker's command looks for in an error, in these very letters, to leave its exit status."""
_ERRORS = frozenset({"error", "fatal", "panic"})
_NOT_PASSED = frozenset({"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"})


class _Line(msgspec.Struct, frozen=True):
    level: str = ""
    msg: str = ""


_decode_line = msgspec.json.Decoder(_Line).decode


def words(runtime: ExternalRuntime, run_dir: str, *call: str) -> list[str]:
    """The whole command line of one call for the container of a run directory."""
    return [
        runtime.path,
        *runtime.arguments,
        *("--root", f"{run_dir}/{STATE_NAME}"),
        *("--log", f"{run_dir}/{LOG_NAME}", "--log-format", "json"),
        *call,
    ]


def environment() -> dict[str, str]:
    """Ours, without what a service manager says to us alone."""
    return {key: value for key, value in os.environ.items() if key not in _NOT_PASSED}


def log_size(run_dir: str) -> int:
    """Bytes of the log so far: what a call adds begins there."""
    try:
        return os.stat(f"{run_dir}/{LOG_NAME}").st_size
    except OSError:
        return 0


def logged(run_dir: str, start: int) -> bytes:
    """The end of what was added to the log after ``start``; nothing where there is none."""
    try:
        # A runtime may have put anything there; a FIFO must not hold us up.
        fd = os.open(f"{run_dir}/{LOG_NAME}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        size = os.fstat(fd).st_size
        start = start if start <= size else 0  # the runtime has begun it anew
        return os.pread(fd, _LOG_READ, max(start, size - _LOG_READ))
    except OSError:
        return b""
    finally:
        os.close(fd)


def complaint(log: bytes, output: bytes) -> str:
    """Why a runtime failed: the last error of its log, else the last line that it printed."""
    for line in reversed(log.splitlines()):
        try:
            entry = _decode_line(line)
        except (msgspec.MsgspecError, RecursionError, UnicodeError):
            continue
        if entry.level.lower() in _ERRORS and entry.msg.strip():
            return _plain(entry.msg)
    for line in reversed(output.splitlines()):
        if text := _plain(line.decode(errors="replace")):
            return text
    return "it gave no reason"


def _plain(text: str) -> str:
    """One line without control characters, of bounded length."""
    kept = "".join(c if c.isprintable() else " " for c in text[:KEPT])
    return " ".join(kept.split())


def exit_code(text: str, program: str) -> int:
    """Docker's exit code for a runtime's complaint about starting ``program``.

    127 where it is not there, 126 where it cannot be executed, 125 for everything else. As with
    Docker, a text counts only where it speaks of the program; crun's says ``executable`` instead.
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


def worded(text: str, program: str, status: int) -> str:
    """A complaint that Docker's command line understands as the status that it means."""
    phrases = _DOCKERS.get(status, ())
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
    """Run one command of a runtime to its end.

    ``stdio`` are the container's own descriptors where the command makes a process; ``timeout`` is
    in seconds, the runtime's where none is given. Raises ``RuntimeFailure`` with the runtime's
    reason, and with Docker's exit code where it is about ``program``.
    """
    timeout = runtime.timeout if timeout is None else timeout
    start = log_size(run_dir)
    line = words(runtime, run_dir, *arguments)
    what = f"OCI runtime {arguments[0]}"
    reading, output = os.pipe2(os.O_CLOEXEC)
    trouble, report = os.pipe2(os.O_CLOEXEC)
    caller = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(caller, line, stdio or (-1, output, output), report)
    os.close(output)
    os.close(report)
    pidfd = process.pidfd_open(pid)
    try:
        said = _listen(pidfd, reading, time.monotonic() + timeout)
        if said is None:
            raise RuntimeFailure(
                f"{what}: {runtime.path} has not ended after {timeout:g} seconds and was killed",
                hint="a slow runtime is given more with --runtime-timeout",
            )
    finally:
        _kill_group(pid)
        _, status = os.waitpid(pid, 0)
        os.close(pidfd)
        os.close(reading)
        refusal = os.read(trouble, 64)
        os.close(trouble)
    if refusal:
        raise RuntimeFailure(
            f"{what}: cannot execute {runtime.path}: {os.strerror(int(refusal))}",
            hint="the runtime's path is in the engine's configuration",
        )
    code, signum = process.exit_code(status)
    if signum:
        raise RuntimeFailure(f"{what}: {runtime.path} was killed by signal {signum}")
    if code:
        text = complaint(logged(run_dir, start), said)
        status = exit_code(text, program)
        raise RuntimeFailure(f"{what} failed: {worded(text, program, status)}", exit_code=status)


def _become(caller: int, line: list[str], stdio: tuple[int, int, int], report: int) -> None:
    """In the child: the runtime, or the number of the error that prevents it."""
    try:
        os.setpgid(0, 0)
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != caller:
            os._exit(1)
        # A pipe at its end: crun gives even an unused null device to the container's user.
        nothing, writing = os.pipe2(os.O_CLOEXEC)
        os.close(writing)
        for number, fd in enumerate(stdio):
            os.dup2(fd if fd >= 0 else nothing, number)
        process.close_on_exec_from(3)
        process.reset_signals()
        os.execve(line[0], line, environment())
    except OSError as error:
        os.write(report, b"%d" % (error.errno or 0))
    finally:
        os._exit(127)


def _listen(pidfd: int, output: int, until: float) -> bytes | None:
    """The last bytes that it printed once it has ended; None where it does not end in time.

    What it left running may hold the output open, so nobody waits for the output's end.
    """
    said = b""
    os.set_blocking(output, False)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(output, select.POLLIN)
    ended = False
    while not ended:
        left = round((until - time.monotonic()) * 1000)
        ready = poll.poll(max(0, left))
        if left <= 0 and not any(fd == pidfd for fd, _ in ready):
            return None
        ended = any(fd == pidfd for fd, _ in ready)
        if any(fd == output for fd, _ in ready):
            try:
                chunk = os.read(output, 1 << 16)
            except BlockingIOError:
                continue
            said = (said + chunk)[-KEPT:]
            if not chunk:
                poll.unregister(output)
    return said


def _kill_group(pid: int) -> None:
    """End a runtime that hangs; of one that has ended, nothing: its container has its own group."""
    if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
        return
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        os.kill(pid, signal.SIGKILL)
