"""The zygote: forked by the engine before it imports anything heavy; it only forks shims.

It has one thread, no event loop, and ends when the engine does. Everything that a shim or an init
needs is imported here once; ``gc.freeze`` keeps those pages shared after the fork.
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
    landlock as landlock,  # loaded where a spec has rules: once, for all shims
)
from jaula.runtime.interfaces import Interfaces
from jaula.runtime.protocol import SandboxRequest, StartRequest
from jaula.runtime.shim import shim


def main(engine: socket.socket, load_parts: Callable[[], Interfaces]) -> NoReturn:
    """Serve the engine until it is gone."""
    code = 0
    try:
        process.set_name("jaula-zygote")
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # shims that end are nobody's to wait for
        os.chdir("/")
        process.close_fds_except(
            (engine.fileno(),)
        )  # the engine's lock and sockets are not ours to hold
        parts = load_parts()
        gc.collect()
        gc.freeze()
        gc.disable()
        while _serve(engine, parts):
            pass
    except BaseException as error:
        code = 1
        os.write(2, f"jaula-zygote: {type(error).__name__}: {error}\n".encode())
        raise
    finally:
        os._exit(code)


def _serve(engine: socket.socket, parts: Interfaces) -> bool:
    try:
        data, fds = seqpacket.receive(engine)
    except OSError as error:  # a message that was cut; its sender hears that its channel closed
        _complain(error)
        return True
    if not data:
        return False
    try:
        request = protocol.decode_zygote(data)
        if isinstance(request, SandboxRequest):
            _sandbox(request, fds)
        else:
            _start(request, fds, engine, parts)
    except (OSError, msgspec.MsgspecError) as error:  # one request failed, not the zygote
        _complain(error)
    finally:
        for fd in fds:
            os.close(fd)
    return True


def _complain(error: Exception) -> None:
    os.write(2, f"jaula-zygote: {type(error).__name__}: {error}\n".encode())


def _sandbox(request: SandboxRequest, fds: list[int]) -> None:
    """Make the namespaces; send their descriptors, or the error's text, to the engine."""
    with socket.socket(fileno=os.dup(fds[0])) as waiting:
        uids = rows(request.mappings)
        gids = rows(request.gid_mappings) or uids
        try:
            if request.within:
                made = namespaces.create_in_userns(fds[1], CLONE.NEWNET)
            else:
                made = namespaces.create_namespaces(
                    CLONE.NEWNET if request.network else CLONE(0), uids, gids
                )
        except OSError as error:
            seqpacket.send(waiting, str(error).encode() or b"failed")
            return
        try:
            seqpacket.send(waiting, b"ok", [made[k] for k in ("user", "net") if k in made])
        finally:
            for fd in made.values():
                os.close(fd)


def _start(request: StartRequest, fds: list[int], engine: socket.socket, parts: Interfaces) -> None:
    if os.fork():
        return
    engine.close()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    mine = socket.socket(fileno=fds.pop(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    shim.main(request, mine, list(fds), parts)
