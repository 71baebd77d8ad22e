"""Hooks: programs that a spec wants run at points of a container's life.

Follows runtime-spec config.md, "POSIX-platform Hooks", and runtime.md, "Lifecycle". A hook gets the
container's state as JSON on its standard input and exactly the environment that the spec gives it;
what it prints is kept for the error. It is a child of the calling process, in whose namespaces
its path is looked up: prestart, createRuntime, poststart and poststop run in the runtime's,
createContainer and startContainer in the container's.

After the caller has entered a container's root nothing is imported here, and no codec is looked up.
"""

from __future__ import annotations

import os
import select
import signal
import time

import msgspec

from jaula.errors import RuntimeFailure
from jaula.kernel import process
from jaula.spec.runtime import Hook, State

KEPT_OUTPUT = 4096  # bytes of a hook's output that go into an error
_encode = msgspec.json.Encoder().encode


def run(point: str, hooks: tuple[Hook, ...], state: State, *, needs: int = -1) -> None:
    """Run hooks in their order; the first that fails ends it.

    ``needs`` is a descriptor of a process without which a hook has no sense: it is killed when that
    process ends. Raises ``RuntimeFailure`` with the hook's path, how it ended and what it printed.
    """
    if not hooks:
        return
    document = _encode(state)
    for hook in hooks:
        _run_one(point, hook, document, needs)


def _run_one(point: str, hook: Hook, document: bytes, needs: int) -> None:
    name = f"{point} hook {hook.path}"
    arguments = [os.fsencode(x) for x in hook.args] or [os.fsencode(hook.path)]
    environment = dict(os.fsencode(x).partition(b"=")[::2] for x in hook.env)
    reading, stdin = os.pipe2(os.O_CLOEXEC)
    output, stdout = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(hook.path, arguments, environment, reading, stdout, parent)
    os.close(reading)
    os.close(stdout)
    pidfd = process.pidfd_open(pid)
    try:
        said = _converse(name, hook.timeout, document, pidfd, stdin, output, needs)
    except BaseException:
        process.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(pidfd)
    code, signum = process.exit_code(os.waitpid(pid, 0)[1])
    if code:
        how = f"killed by signal {signum}" if signum else f"exit status {code}"
        text = said.decode(errors="replace").strip()
        raise RuntimeFailure(f"{name}: {how}" + (f": {text}" if text else ""))


def _become(
    path: str,
    arguments: list[bytes],
    environment: dict[bytes, bytes],
    stdin: int,
    output: int,
    parent: int,
) -> None:
    """In the child: the hook's program, or a line on its output that says why not.

    It does not outlive who waits for it.
    """
    try:
        process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(127)
        os.dup2(stdin, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        process.close_on_exec_from(3)
        process.reset_signals()
        os.execve(path, arguments, environment)
    except OSError as error:
        os.write(2, os.fsencode(error.strerror or "failed"))
    finally:
        os._exit(127)


def _converse(
    name: str,
    timeout: int | None,
    document: bytes,
    pidfd: int,
    stdin: int,
    output: int,
    needs: int,
) -> bytes:
    """Feed the state, keep the output, until the hook has ended. Closes both pipes."""
    until = None if timeout is None else time.monotonic() + timeout
    said = b""
    poll = select.poll()
    os.set_blocking(stdin, False)
    open_ends = {stdin, output}
    poll.register(stdin, select.POLLOUT)
    poll.register(output, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    if needs >= 0:
        poll.register(needs, select.POLLIN)
    ended = False
    try:
        while not ended:
            left = None if until is None else max(0, round((until - time.monotonic()) * 1000))
            ready = poll.poll(left)
            if not ready:
                raise RuntimeFailure(f"{name}: still running after {timeout} seconds, killed")
            for fd, _ in ready:
                if fd == pidfd:
                    ended = True
                elif fd == needs:
                    raise RuntimeFailure(f"{name}: the container's first process ended, killed")
                elif fd == stdin:
                    document = _feed(stdin, document)
                    if not document:
                        _drop(poll, open_ends, stdin)
                else:
                    chunk = os.read(output, 1 << 16)
                    said = (said + chunk)[-KEPT_OUTPUT:]
                    if not chunk:
                        _drop(poll, open_ends, output)
        if output in open_ends:
            os.set_blocking(output, False)
            try:
                said = (said + os.read(output, 1 << 16))[-KEPT_OUTPUT:]
            except BlockingIOError:
                pass  # a child that the hook left behind holds the pipe
    finally:
        for fd in open_ends:
            os.close(fd)
    return said


def _feed(fd: int, document: bytes) -> bytes:
    """What is left to write; nothing once the hook has closed its input."""
    try:
        return document[os.write(fd, document) :]
    except BrokenPipeError:
        return b""


def _drop(poll: select.poll, open_ends: set[int], fd: int) -> None:
    poll.unregister(fd)
    open_ends.remove(fd)
    os.close(fd)
