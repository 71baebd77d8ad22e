"""The zygote: forked by the engine before heavy imports; it forks shims and the log followers.

It has one thread and no event loop, and exits with the engine. Everything that a shim or an init
needs is imported here once. ``gc.freeze`` keeps those pages shared after the fork.

A new zygote forks the shims of the first starts before it lays out its memory
(:mod:`jaula.runtime.memory_layout`), so that these do not wait for that.

Facts about time: a fork copies the page tables of the zygote, and both processes then copy each
page that they write. That is a quarter of a start. So an idle zygote forks the next shims, each
with its spawn helper, before there are requests, and both prefault their memory
(:mod:`jaula.runtime.shim.prefault`). A spare shim has the name of the zygote, and of descriptors
only its end of a socket pair. It gets one request, and exits with the zygote. A request for which
there is no spare shim, or one that was killed, is served by a fork.

A spare shim may get the request for a spare init before that of a start. Its helper creates the
process then (:mod:`jaula.runtime.create.spare_init`), and the zygote keeps the shim for the
container that the process is meant for.

A spare shim is the first process that the kernel kills when memory runs out, in the engine's cgroup
or on the host, and its helper and spare init end with it. No other is forked for a minute then. The
zygote gives its spare shims up before, when the engine's cgroup has little room left.

A restore from a checkpoint needs protobuf, whose import takes longer than a start. An idle zygote
imports it after the first restore, so the shims of later ones have it.
"""

from __future__ import annotations

import _socket
import contextlib
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import NoReturn

import msgspec

from jaula import feature
from jaula.kernel import capabilities, namespaces, process_calls
from jaula.kernel.namespaces import CLONE
from jaula.kernel.poll import readable
from jaula.runtime import immortal, memory_layout, seqpacket, shim_protocol
from jaula.runtime.create.user_namespace_maps import rows
from jaula.runtime.init import (
    enter_landlock as enter_landlock,  # an init without access to the source unpickles its rules
)
from jaula.runtime.interfaces import Interfaces
from jaula.runtime.shim import prefault, shim, warm_up
from jaula.runtime.shim_protocol import (
    LogFollowersRequest,
    SandboxRequest,
    SpareInitRequest,
    StartRequest,
)

COMM = "jaula-zygote"  # name of the process (proc_pid_comm(5))
_END_TIMEOUT = 30.0  # seconds for a helper to end a spare init
_IDLE = 0.02
"""Seconds without a request after which the next shim is forked."""
_REST = 60.0
"""Seconds without spare shims after one was killed."""
_OOM_SCORE_ADJ = "/proc/self/oom_score_adj"
_OOM_FIRST = b"1000"
"""Score with which the kernel kills a process before others, proc_pid_oom_score_adj(5)."""
_IDLE_BEFORE_LAYOUT = 2.0
"""Seconds without a request after which a new zygote lays out its memory."""
_STARTS_BEFORE_LAYOUT = 2
"""Starts after which it does so. Their shims have twice as much memory of their own."""
_ROOM_BEFORE_LAYOUT = 16
"""Spare shims for which there must be memory, else the first starts wait for the layout.

Without it, each process that is forked copies 2 to 4 MB.
"""


def main(
    engine: socket.socket,
    load_interfaces: Callable[[], Interfaces],
    spare_shims: int,
    *,
    lay_out_memory: bool,
    room_for_spares: Callable[[], int],
) -> NoReturn:
    """Serve the engine until it disconnects, with up to ``spare_shims`` shims forked ahead.

    ``room_for_spares`` returns how many more there is memory for; negative if there are too many.
    """
    process_calls.run_and_exit(
        COMM,
        lambda: _run(
            *(engine, load_interfaces, spare_shims),
            lay_out_memory=lay_out_memory,
            room_for_spares=room_for_spares,
        ),
    )


def _run(
    engine: socket.socket,
    load_interfaces: Callable[[], Interfaces],
    spare_shims: int,
    *,
    lay_out_memory: bool,
    room_for_spares: Callable[[], int],
) -> None:
    process_calls.set_name(COMM)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the shims
    os.chdir("/")
    process_calls.close_fds_except((engine.fileno(),))  # drop the engine's lock and sockets
    before = set(process_calls.open_fds())
    interfaces = load_interfaces()
    interfaces = msgspec.structs.replace(
        interfaces, fds=tuple(fd for fd in process_calls.open_fds() if fd not in before)
    )
    capabilities.last_cap()  # known to all processes that are forked
    gc.freeze()
    gc.disable()
    spares = SpareShims(engine, interfaces, spare_shims, room_for_spares)
    if lay_out_memory:
        has_room = room_for_spares() >= _ROOM_BEFORE_LAYOUT
        if has_room and not _serve_before_layout(engine, interfaces, spares):
            return
        _lay_out_memory(interfaces)
    while True:
        while spares.due() and not readable(_IDLE, engine.fileno()):
            if _has_restored:
                _import_restore()
            spares.fork()
        if not _serve(engine, interfaces, spares):
            return


def _serve_before_layout(engine: socket.socket, interfaces: Interfaces, spares: SpareShims) -> bool:
    """Handle the first requests; return False when the engine has disconnected."""
    while spares.starts < _STARTS_BEFORE_LAYOUT and readable(_IDLE_BEFORE_LAYOUT, engine.fileno()):
        if not _serve(engine, interfaces, spares):
            return False
    return True


_fillers: list[object] = []


def _lay_out_memory(interfaces: Interfaces) -> None:
    """Prepare the memory so that processes which are forked write to few pages of it.

    If a part fails, the shims have more memory of their own, and work.
    """
    global _fillers
    gc.unfreeze()
    try:
        executed = memory_layout.executed_code(lambda: warm_up.run_shim(interfaces))
        memory_layout.move_together([*executed, *_OWN_CODE])
        gc.freeze()  # the collections of the warm-up pass over few objects
        warm_up.run(interfaces)
        gc.unfreeze()
        memory_layout.complete_classes()
        gc.collect()
        _fillers = memory_layout.fill_pools()
        immortal.make_all_immortal()
    except Exception as error:  # noqa: BLE001 - logged; no container depends on it
        _log_error(error)
    _reap()
    gc.freeze()


def _reap() -> None:
    """Reap the shims that exited while the warm-up waited for its own processes."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


_has_restored = False


def _import_restore() -> None:
    """Import what a restore needs, once for all shims that are forked from now on."""
    before = len(sys.modules)
    feature.runtime("restore")
    if len(sys.modules) > before:
        gc.collect()
        immortal.make_all_immortal()
        gc.freeze()


def _serve(engine: socket.socket, interfaces: Interfaces, spares: SpareShims) -> bool:
    """Handle one request; return False when the engine has disconnected."""
    global _has_restored
    try:
        data, fds = seqpacket.receive(engine)
    except OSError as error:  # a truncated message: its sender sees its socket close
        _log_error(error)
        return True
    if not data:
        return False
    try:
        request = shim_protocol.decode_zygote(data)
        if isinstance(request, SandboxRequest):
            _sandbox(request, fds)
        elif isinstance(request, LogFollowersRequest):
            _follow_logs(fds, engine, interfaces, spares)
        elif isinstance(request, SpareInitRequest):
            spares.prepare_init(request.container_id, data, fds)
        else:
            _has_restored = _has_restored or request.restore is not None
            if not spares.start(request.container_id, data, fds):
                _start(request, fds, engine, interfaces, spares)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        # one request failed, not the zygote
        _log_error(error)
    finally:
        for fd in fds:
            os.close(fd)
    return True


def _log_error(error: Exception) -> None:
    os.write(2, f"{COMM}: {type(error).__name__}: {error}\n".encode())


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
    request: StartRequest,
    fds: list[int],
    engine: socket.socket,
    interfaces: Interfaces,
    spares: SpareShims,
) -> None:
    """Fork a shim. The zygote returns at once; the shim never does."""
    if os.fork():
        return
    engine.close()
    spares.close()
    _leave_zygote()
    shim.main(request, list(fds), interfaces, shim.SpawnHelper(ahead=spares.limit > 0))


def _leave_zygote() -> None:
    """Set the signals and the session of a shim."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.setsid()


class SpareShims:
    """Shims that are forked before there are requests for them, oldest first.

    There are up to ``limit``, and those with a spare init, by the container that it is meant for.
    """

    def __init__(
        self,
        engine: socket.socket,
        interfaces: Interfaces,
        limit: int,
        room_for_spares: Callable[[], int],
    ) -> None:
        self.limit = limit
        self._room_for_spares = room_for_spares
        self.starts = 0  # requests for a start, served or not
        self._engine = engine
        self._interfaces = interfaces
        self._socks: list[_socket.socket] = []
        self._with_init: dict[str, _socket.socket] = {}
        self._rest_end = 0.0  # time.monotonic()

    def due(self) -> bool:
        """Return whether another spare shim is to be forked when the zygote is idle."""
        self._forget_ended()
        if time.monotonic() < self._rest_end:
            return False
        room = self._room_for_spares() if self.limit else 0
        if room < 0:
            self._give_up()
        return room > 0 and len(self._socks) < self.limit

    def fork(self) -> None:
        """Fork a shim. The zygote returns at once; the shim never does."""
        sock, shim_sock = seqpacket.pair()
        if os.fork() == 0:
            self._engine.close()
            sock.close()
            self.close()
            process_calls.run_and_exit(COMM, lambda: _wait(shim_sock, self._interfaces))
        shim_sock.close()
        self._socks.append(sock)

    def prepare_init(self, container_id: str, data: bytes, fds: list[int]) -> None:
        """Pass the request for a spare init to a shim, which is kept for that container.

        The start has no spare init if there is no room for a shim.

        :raises OSError: when the shim was killed; the start has no spare init then either.
        """
        self._forget_ended()
        if not self._socks:
            if time.monotonic() < self._rest_end or self._room_for_spares() <= 0:
                return
            self.fork()
        sock = self._socks.pop(0)
        try:
            seqpacket.send(sock, data, fds)
        except OSError:
            sock.close()
            raise
        self._with_init[container_id] = sock

    def start(self, container_id: str, data: bytes, fds: list[int]) -> bool:
        """Pass a request to a shim; return False if there is none, or all were killed."""
        self.starts += 1
        with_init = self._with_init.pop(container_id, None)
        if with_init is not None:
            self._socks.insert(0, with_init)
        while self._socks:
            sock = self._socks.pop(0)
            try:
                seqpacket.send(sock, data, fds)
            except OSError:
                if sock is not with_init:
                    self._rest()
                continue
            finally:
                sock.close()
            return True
        return False

    def _rest(self) -> None:
        """Fork no spare shim for a time: one was killed, since memory has run out."""
        self._rest_end = time.monotonic() + _REST

    def _give_up(self) -> None:
        """End the spare shims that wait for any container."""
        while self._socks:
            self._socks.pop().close()

    def _forget_ended(self) -> None:
        """Close the sockets of shims that were killed, or whose spare init was given up."""
        for sock in [sock for sock in self._socks if readable(0, sock.fileno())]:
            self._socks.remove(sock)
            sock.close()
            self._rest()
        for container_id, sock in tuple(self._with_init.items()):
            if readable(0, sock.fileno()):  # a shim sends nothing
                del self._with_init[container_id]
                sock.close()

    def close(self) -> None:
        """Close the sockets; a shim without a request exits."""
        self._give_up()
        while self._with_init:
            self._with_init.popitem()[1].close()


def _wait(sock: _socket.socket, interfaces: Interfaces) -> None:
    """Wait for a request, and become its shim. Return if the zygote has ended."""
    _leave_zygote()
    usual = _set_oom_score_adj(_OOM_FIRST)  # before both copy pages

    def restore_score() -> None:
        if usual:
            _set_oom_score_adj(usual)

    spawn_helper = shim.SpawnHelper(ahead=True)
    spawn_helper.prepare(interfaces, sock, restore_score)
    prefault.run(prefault.of_shim(interfaces), sock)
    data, fds = seqpacket.receive(sock)
    if not data:
        return
    request = shim_protocol.decode_zygote(data)
    if isinstance(request, SpareInitRequest):
        started = _hold_spare_init(request, fds, sock, spawn_helper)
        if started is None:
            return
        data, fds = started
        request = shim_protocol.decode_zygote(data)
    sock.close()
    restore_score()
    assert isinstance(request, StartRequest)
    shim.main(request, fds, interfaces, spawn_helper)


def _set_oom_score_adj(value: bytes) -> bytes:
    """Set this process's score, and return the one before; b"" if it may not.

    Every process may raise its score and lower it again to where it was, but the file belongs to
    the host's root if a process of another user is not dumpable.
    """
    try:
        fd = os.open(_OOM_SCORE_ADJ, os.O_RDWR | os.O_CLOEXEC)
    except PermissionError:
        return b""
    try:
        before = os.read(fd, 16).strip()
        os.write(fd, value)
    finally:
        os.close(fd)
    return before


def _hold_spare_init(
    request: SpareInitRequest,
    fds: list[int],
    sock: _socket.socket,
    spawn_helper: shim.SpawnHelper,
) -> tuple[bytes, list[int]] | None:
    """Let the helper create a spare init. Return the request of its start.

    Return None if the zygote has ended, the engine has closed the control socket, or the helper was
    killed: the spare init is ended then, and so is the other end of the control socket.
    """
    control, *sandbox = fds
    spawn_helper.begin_spare_init(request, sandbox)
    for fd in sandbox:
        os.close(fd)
    helper = spawn_helper.open_helper()
    ready = readable(None, sock.fileno(), control, helper)
    os.close(helper)
    data, fds = seqpacket.receive(sock) if sock.fileno() in ready else (b"", [])
    if data:
        os.close(control)
        return data, fds
    spawn_helper.timeout = _END_TIMEOUT
    spawn_helper.cancel()
    sock.shutdown(socket.SHUT_RD)  # the zygote forks another shim from now on
    data, fds = seqpacket.receive(sock)
    if not data:
        return None
    os.close(control)
    return data, fds  # a start that came meanwhile


_OWN_CODE = tuple(
    function.__code__
    for function in (
        _wait,
        _hold_spare_init,
        _leave_zygote,
        SpareShims.fork,
        SpareShims.close,
        shim.main,
        process_calls.set_name,
    )
)
"""Code that a spare shim executes, and the warm-up does not."""


def _follow_logs(
    fds: list[int], engine: socket.socket, interfaces: Interfaces, spares: SpareShims
) -> None:
    """Fork the process that follows logs, which has an event loop."""
    if os.fork():
        return
    engine.close()
    spares.close()
    process_calls.run_and_exit("jaula-logs", lambda: _run_followers(fds.pop(0), interfaces))


def _run_followers(fd: int, interfaces: Interfaces) -> None:
    """Serve the engine on the socket ``fd`` until it disconnects."""
    process_calls.set_name("jaula-logs")
    _set_oom_score_adj(_OOM_FIRST)  # a client can follow again; a container is not started again
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    gc.enable()
    with socket.socket(fileno=fd) as sock:
        interfaces.follow_logs(sock)
