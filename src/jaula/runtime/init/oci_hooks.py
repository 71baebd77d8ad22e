"""OCI hooks: programs that a spec runs at points of a container's lifecycle.

Follows runtime-spec config.md, "POSIX-platform Hooks", and runtime.md, "Lifecycle". A hook gets the
container's state as JSON on its stdin and exactly the environment of the spec. A hook without one
gets its caller's, or the one of the container's process in the container's namespaces, as in runc.
Its output is kept for the error. It is a child of the calling process, in whose namespaces its path
is resolved: prestart, createRuntime, poststart and poststop run in the runtime's namespaces,
createContainer and startContainer in the container's.

Once the caller has entered a container's root, nothing is imported here, and no codec is looked up.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable, Mapping

import msgspec

from jaula.errors import RuntimeFailure
from jaula.kernel import process_calls
from jaula.spec.runtime_spec import Hook, State

_MAX_POLL = (1 << 31) - 1  # milliseconds, the maximum of poll(2)
KEPT_OUTPUT = 4096  # bytes of a hook's output that an error shows
_encode = msgspec.json.Encoder().encode


def run(
    point: str,
    hooks: tuple[Hook, ...],
    state: State,
    *,
    init_pidfd: int = -1,
    confine: Callable[[], None] | None = None,
    environment: Mapping[bytes, bytes] | None = None,
) -> None:
    """Run hooks in order; stop at the first that fails.

    ``init_pidfd`` is a pidfd of the container's init: a running hook is killed when init exits.
    ``environment`` is for hooks without one; None: this process's.
    ``confine`` restricts the process of a hook, as the last step before its execve.

    :raises RuntimeFailure: with the hook's path, how it exited and what it printed.
    """
    if not hooks:
        return
    document = _encode(state)
    for hook in hooks:
        if hook.env is not None:
            variables = dict(os.fsencode(x).partition(b"=")[::2] for x in hook.env)
        else:
            variables = dict(os.environb if environment is None else environment)
        _run_one(point, hook, variables, document, init_pidfd, confine)


def _run_one(
    point: str,
    hook: Hook,
    environment: dict[bytes, bytes],
    document: bytes,
    init_pidfd: int,
    confine: Callable[[], None] | None,
) -> None:
    name = f"{point} hook {hook.path}"
    arguments = [os.fsencode(x) for x in hook.args] or [os.fsencode(hook.path)]
    stdin_read, stdin_write = os.pipe2(os.O_CLOEXEC)
    stdout_read, stdout_write = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        execve = process_calls.Execve(os.fsencode(hook.path), arguments, environment)
        _exec_hook(execve, stdin_read, stdout_write, parent, confine)
    os.close(stdin_read)
    os.close(stdout_write)
    pidfd = process_calls.pidfd_open(pid)
    try:
        output_tail = _communicate(
            name, hook.timeout, document, pidfd, stdin_write, stdout_read, init_pidfd
        )
    except BaseException:
        process_calls.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(pidfd)
    code, signum = process_calls.exit_code(os.waitpid(pid, 0)[1])
    if code:
        how = f"killed by signal {signum}" if signum else f"exit status {code}"
        text = output_tail.decode(errors="replace").strip()
        raise RuntimeFailure(f"{name}: {how}" + (f": {text}" if text else ""))


def _exec_hook(
    execve: process_calls.Execve,
    stdin: int,
    stdout: int,
    parent: int,
    confine: Callable[[], None] | None,
) -> None:
    """Execute the hook's program in the child; print a line if that fails.

    The child is killed when its parent exits.
    """
    try:
        process_calls.prctl(process_calls.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(127)
        os.dup2(stdin, 0)
        os.dup2(stdout, 1)
        os.dup2(stdout, 2)
        process_calls.close_on_exec_from(3)
        process_calls.reset_signals()
        if confine is not None:
            confine()
        execve()
    except OSError as error:
        os.write(2, os.strerror(error.errno or 0).encode())
    finally:
        os._exit(127)


def _communicate(
    name: str,
    timeout: int | None,
    document: bytes,
    pidfd: int,
    stdin_write: int,
    stdout_read: int,
    init_pidfd: int,
) -> bytes:
    """Write the state and read the output until the hook has exited; close both pipes."""
    deadline = None if timeout is None else time.monotonic() + timeout
    output_tail = b""
    poll = select.poll()
    os.set_blocking(stdin_write, False)
    open_pipes = {stdin_write, stdout_read}
    poll.register(stdin_write, select.POLLOUT)
    poll.register(stdout_read, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    if init_pidfd >= 0:
        poll.register(init_pidfd, select.POLLIN)
    exited = False
    try:
        while not exited:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = poll.poll(None if left is None else min(round(left * 1000), _MAX_POLL))
            if not ready and not left:
                raise RuntimeFailure(f"{name}: still running after {timeout} seconds, killed")
            for fd, _ in ready:
                if fd == pidfd:
                    exited = True
                elif fd == init_pidfd:
                    raise RuntimeFailure(f"{name}: the container's init exited, killed")
                elif fd == stdin_write:
                    document = _feed(stdin_write, document)
                    if not document:
                        _close_pipe(poll, open_pipes, stdin_write)
                else:
                    chunk = os.read(stdout_read, 1 << 16)
                    output_tail = (output_tail + chunk)[-KEPT_OUTPUT:]
                    if not chunk:
                        _close_pipe(poll, open_pipes, stdout_read)
        if stdout_read in open_pipes:
            os.set_blocking(stdout_read, False)
            try:
                output_tail = (output_tail + os.read(stdout_read, 1 << 16))[-KEPT_OUTPUT:]
            except BlockingIOError:
                pass  # a child that the hook left behind keeps the pipe open
    finally:
        for fd in open_pipes:
            os.close(fd)
    return output_tail


def _feed(fd: int, document: bytes) -> bytes:
    """Return what is left to write; nothing once the hook has closed its stdin."""
    try:
        return document[os.write(fd, document) :]
    except BrokenPipeError:
        return b""


def _close_pipe(poll: select.poll, open_pipes: set[int], fd: int) -> None:
    poll.unregister(fd)
    open_pipes.remove(fd)
    os.close(fd)
