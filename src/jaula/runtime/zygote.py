"""The zygote: forked by the engine before heavy imports; it forks shims and the log followers.

It has one thread and no event loop, and exits with the engine. Everything that a shim or an init
needs is imported here once. ``gc.freeze`` keeps those pages shared after the fork.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Callable
from typing import NoReturn

import msgspec

from jaula.kernel import namespaces, process
from jaula.kernel.namespaces import CLONE
from jaula.runtime import protocol, seqpacket
from jaula.runtime.create.id_maps import rows
from jaula.runtime.init import (
    landlock as landlock,  # used only if a spec has rules; imported once here, for all shims
)
from jaula.runtime.interfaces import Interfaces
from jaula.runtime.protocol import LogFollowersRequest, SandboxRequest, StartRequest
from jaula.runtime.shim import shim


def main(engine: socket.socket, load_interfaces: Callable[[], Interfaces]) -> NoReturn:
    """Serve the engine until it disconnects."""
    process.run_and_exit("jaula-zygote", lambda: _run(engine, load_interfaces))


def _run(engine: socket.socket, load_interfaces: Callable[[], Interfaces]) -> None:
    process.set_name("jaula-zygote")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the shims
    os.chdir("/")
    process.close_fds_except((engine.fileno(),))  # drop the engine's lock and sockets
    interfaces = load_interfaces()
    gc.collect()
    gc.freeze()
    gc.disable()
    while _serve(engine, interfaces):
        pass


def _serve(engine: socket.socket, interfaces: Interfaces) -> bool:
    """Handle one request; return False when the engine has disconnected."""
    try:
        data, fds = seqpacket.receive(engine)
    except OSError as error:  # a truncated message: its sender sees its socket close
        _log_error(error)
        return True
    if not data:
        return False
    try:
        request = protocol.decode_zygote(data)
        if isinstance(request, SandboxRequest):
            _sandbox(request, fds)
        elif isinstance(request, LogFollowersRequest):
            _follow_logs(fds, engine, interfaces)
        else:
            _start(request, fds, engine, interfaces)
    except (OSError, msgspec.MsgspecError) as error:  # one request failed, not the zygote
        _log_error(error)
    finally:
        for fd in fds:
            os.close(fd)
    return True


def _log_error(error: Exception) -> None:
    os.write(2, f"jaula-zygote: {type(error).__name__}: {error}\n".encode())


def _sandbox(request: SandboxRequest, fds: list[int]) -> None:
    """Create the namespaces; send their descriptors, or the text of the error, to the engine."""
    with socket.socket(fileno=os.dup(fds[0])) as reply_sock:
        uids = rows(request.mappings)
        gids = rows(request.gid_mappings) or uids
        try:
            if request.within:
                fds_by_type = namespaces.create_in_userns(fds[1], CLONE.NEWNET)
            else:
                fds_by_type = namespaces.create_namespaces(
                    CLONE.NEWNET if request.network else CLONE(0), uids, gids
                )
        except OSError as error:
            seqpacket.send(reply_sock, str(error).encode() or b"failed")
            return
        try:
            seqpacket.send(
                reply_sock, b"ok", [fds_by_type[k] for k in ("user", "net") if k in fds_by_type]
            )
        finally:
            for fd in fds_by_type.values():
                os.close(fd)


def _start(
    request: StartRequest, fds: list[int], engine: socket.socket, interfaces: Interfaces
) -> None:
    """Fork a shim. The zygote returns at once; the shim never does."""
    if os.fork():
        return
    engine.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    engine_sock = socket.socket(fileno=fds.pop(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    shim.main(request, engine_sock, list(fds), interfaces)


def _follow_logs(fds: list[int], engine: socket.socket, interfaces: Interfaces) -> None:
    """Fork the process that follows logs, which has an event loop."""
    if os.fork():
        return
    engine.close()
    process.run_and_exit("jaula-logs", lambda: _run_followers(fds.pop(0), interfaces))


def _run_followers(fd: int, interfaces: Interfaces) -> None:
    """Serve the engine on the socket ``fd`` until it disconnects."""
    process.set_name("jaula-logs")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    gc.enable()
    with socket.socket(fileno=fd) as sock:
        interfaces.follow_logs(sock)
