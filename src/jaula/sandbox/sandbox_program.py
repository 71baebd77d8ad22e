"""The program of sandboxed processes: import the work, give everything up, then take bytes.

``program.py SETTINGS`` with a JSON object: the import path, the ids, the name, and one of these:

* the function, limits, rights and descriptors of one process. It calls ``function(descriptors)``.
* ``server``, the descriptor of a socket. The process is the fork server then: each message has the
  settings of one process as JSON, its channel, and a socket for reports. The first report is its
  pid with a pidfd, or the text of an error; the second is its exit code, as text.

A function is ``module:name``; its module must import all that it needs, since no file can be opened
later. The server imports it before the fork. With a channel the function is called as
``function(payload, descriptors, ask)`` for each call of the engine, and returns bytes.
``ask(payload)`` asks the engine, and returns bytes and descriptors.
"""

from __future__ import annotations

import json
import os
import sys

SETTINGS = json.loads(sys.argv[1])
sys.path[:] = SETTINGS["path"]

import contextlib  # noqa: E402 - below the import path of the engine
import gc  # noqa: E402
import importlib  # noqa: E402
import select  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
from collections.abc import Callable  # noqa: E402
from typing import Any, NoReturn  # noqa: E402

import msgspec  # noqa: E402

from jaula.errors import InvalidRequest, JaulaError  # noqa: E402
from jaula.kernel import process_calls  # noqa: E402
from jaula.sandbox import sandbox_channel, sandbox_confinement  # noqa: E402
from jaula.sandbox.sandbox_channel import ANSWER, CALL, FAILURE, QUERY, REFUSAL, RESULT  # noqa: E402
from jaula.sandbox.sandbox_limits import Limits, Rights  # noqa: E402

MEMORY = b"memory"
"""The failure of a process that has reached its limit of memory."""
_TEXT_LIMIT = 4096  # characters of an error
_REQUEST_LIMIT = 1 << 16  # bytes of a request to the fork server; the buffer has this size
_FRAME_LIMIT = 0xFFFFFFFF  # bytes: the engine is trusted, and memory is limited

Ask = Callable[[bytes], tuple[bytes, list[int]]]
Function = Callable[[bytes, list[int], Ask], bytes]


def failure(error: BaseException) -> bytes:
    """Return an error as the payload of a FAILURE."""
    if isinstance(error, RecursionError):
        error = InvalidRequest("the content is nested too deeply")
    if isinstance(error, JaulaError):
        name = next(c.__name__ for c in type(error).__mro__ if c.__module__ == "jaula.errors")
        text, hint = error.message, error.hint
    else:
        name, text, hint = "", f"{type(error).__name__}: {error}", None
    return msgspec.json.encode([name, text[:_TEXT_LIMIT], hint and hint[:_TEXT_LIMIT]])


def main() -> None:
    """Run one process, or the fork server."""
    process_calls.set_name(SETTINGS["name"])
    if "server" in SETTINGS:
        with socket.socket(fileno=SETTINGS["server"]) as engine:
            _serve_forks(engine)
    else:
        function = _load(SETTINGS["function"])
        _enter(SETTINGS, None)
        function(SETTINGS["descriptors"])
    os._exit(0)


def _load(function: str) -> Callable[..., bytes]:
    module, _, name = function.partition(":")
    found: Callable[..., bytes] = getattr(importlib.import_module(module), name)
    return found


def _enter(settings: dict[str, Any], parent: int | None) -> None:
    limits = msgspec.convert(settings["limits"], Limits)
    rights = msgspec.convert(settings["rights"], Rights)
    sandbox_confinement.enter(tuple(SETTINGS["ids"]), limits, rights, parent)


def _serve_forks(engine: socket.socket) -> None:
    """Fork processes until the engine closes the socket. The kernel ends them then."""
    server = os.getpid()
    reports: dict[int, socket.socket] = {}
    signal.signal(signal.SIGCHLD, lambda *_: None)
    wake, woken = os.pipe()
    for end in (wake, woken):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(woken)
    while True:
        readable = select.select([engine.fileno(), wake], [], [])[0]
        if wake in readable:
            os.read(wake, 4096)
            _reap(reports)
        if engine.fileno() not in readable:
            continue
        data, fds, *_ = socket.recv_fds(engine, _REQUEST_LIMIT, 2)
        if not data:
            return
        channel_fd, report_fd = fds
        report = socket.socket(fileno=report_fd)
        try:
            settings = json.loads(data)
            function = _load(settings["function"])
            gc.freeze()
            pid = os.fork()
        except Exception as error:  # noqa: BLE001 - the engine names it to the client
            report.send(f"{type(error).__name__}: {error}".encode()[:_TEXT_LIMIT])
            report.close()
        else:
            if pid == 0:
                _run_forked(settings, function, channel_fd, server)
            reports[pid] = report
            pidfd = process_calls.pidfd_open(pid)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                socket.send_fds(report, [str(pid).encode()], [pidfd])
            os.close(pidfd)
        os.close(channel_fd)


def _reap(reports: dict[int, socket.socket]) -> None:
    """Reap the processes that have ended, and report how."""
    while reports:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with reports.pop(pid) as report, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            report.send(str(os.waitstatus_to_exitcode(status)).encode())


def _run_forked(
    settings: dict[str, Any], function: Function, channel_fd: int, server: int
) -> NoReturn:
    """Run a process that the server has forked, to its end."""
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        process_calls.close_fds_except((channel_fd,))
        os.setsid()
        process_calls.set_name(settings["name"])
        _work(socket.socket(fileno=channel_fd), settings, function, server)
    finally:
        os._exit(1)


def _work(
    sock: socket.socket, settings: dict[str, Any], function: Function, server: int
) -> NoReturn:
    """Serve the calls of the engine until it closes the channel."""
    try:
        _enter(settings, server)
    except Exception as error:  # noqa: BLE001 - the engine names it to the client
        sandbox_channel.send(sock, FAILURE, failure(error))
        os._exit(1)

    def ask(payload: bytes) -> tuple[bytes, list[int]]:
        sandbox_channel.send(sock, QUERY, payload)
        answer = sandbox_channel.receive(sock, _FRAME_LIMIT)
        if answer is None:
            os._exit(0)
        kind, data, fds = answer
        if kind == REFUSAL:
            code, text = msgspec.json.decode(data, type=tuple[int, str])
            raise OSError(code, text)
        assert kind == ANSWER
        return data, fds

    sandbox_channel.send(sock, RESULT, b"")  # confined: the engine may send its bytes
    while _serve(sock, function, ask):
        pass
    os._exit(0)


def _serve(sock: socket.socket, function: Function, ask: Ask) -> bool:
    """Do the work of one call; return False if the engine has closed the channel."""
    fds: list[int] = []
    try:
        frame = sandbox_channel.receive(sock, _FRAME_LIMIT)
        if frame is None:
            return False
        kind, payload, fds = frame
        assert kind == CALL
        reply, data = RESULT, function(payload, fds, ask)
    except MemoryError:
        reply, data = FAILURE, MEMORY
    except Exception as error:  # noqa: BLE001 - the engine names it to the client
        reply, data = FAILURE, failure(error)
    for fd in fds:
        os.close(fd)
    sandbox_channel.send(sock, reply, data)
    return True


if __name__ == "__main__":
    main()
