"""``jaula daemon``: the composition root, the one place that wires the parts together.

The order is what matters here:

1. A mount namespace of the engine's own, and the engine started anew from there
   (:mod:`~jaula.daemon.mount_namespace`). An ordinary user's engine has entered its user namespace before
   (:mod:`jaula.rootless`).
2. The zygote, forked before asyncio or a thread is there.
3. The lock, taken after the fork so that no shim ever holds it; then sockets and database.

Top-level imports are few on purpose: the zygote shares all of them with every shim.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys
from typing import TYPE_CHECKING

from jaula.daemon import mount_namespace, process_limits, sockets
from jaula.errors import Conflict, InvalidRequest, NotAuthorized, Unavailable
from jaula.rootless import paths, state

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.config import EngineConfig
    from jaula.runtime.client import Runtime


def main(config: EngineConfig, reread: Callable[[], EngineConfig]) -> None:
    """Run an engine until SIGTERM or SIGINT; ``reread`` gives the settings anew at SIGHUP.

    :raises JaulaError: it cannot start; nothing was changed.
    """
    if os.geteuid() != 0:
        raise NotAuthorized("the engine needs root, or namespaces in which it is root")
    if len(str(config.socket)) > sockets.MAX_PATH:
        raise InvalidRequest(
            f"the socket's path {config.socket} is too long",
            hint=f"{sockets.MAX_PATH} bytes are the limit",
        )
    mount_namespace.enter(config)
    state.protect_keepalive()
    passed = sockets.inherited()
    process_limits.raise_file_limit()
    _create_directories(config)
    runtime = _launch(config)
    try:
        lock = _lock_root(config)
        network = sockets.listen_tcp(config)
        listening = passed or [sockets.listen_unix(config)]
    except BaseException:
        runtime.close()
        raise
    from jaula.daemon import serve

    try:
        serve.run(config, runtime, listening, network, reread)
    finally:
        if not passed:
            sockets.unlink(config.socket)
        os.close(lock)


def _create_directories(config: EngineConfig) -> None:
    """Make what is missing.

    :raises Unavailable: it cannot be made.
    """
    paths = config.paths
    try:
        for directory, mode in (
            (paths.root, 0o711),
            (paths.run, 0o711),
            (paths.root / "containers", 0o700),
            (paths.run / "containers", 0o700),
            (config.socket.parent, 0o711),
        ):
            directory.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(
            f"cannot make the engine's directories: {error.strerror}: {error.filename}",
            hint="name others with --root and --run",
        ) from error


def _lock_root(config: EngineConfig) -> int:
    """One engine a root directory, for as long as its process lives."""
    path = config.paths.root / "engine.lock"
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise Conflict(
                f"another engine uses {config.paths.root}",
                hint="stop it, or give this one another directory with --root",
            ) from None
        raise Unavailable(f"cannot lock {path}: {error.strerror}") from error
    return fd


def _launch(config: EngineConfig) -> Runtime:
    """Fork the zygote, with as little in its memory as can be: every shim has a share of it.

    msgspec prefers typing_extensions to typing where it is installed, which brings inspect, ast and
    more along and is of no use here.
    """
    sys.modules.setdefault("typing_extensions", None)  # type: ignore[arg-type]
    from jaula.runtime.client import Runtime
    from jaula.runtime.interfaces import Interfaces
    from jaula.runtime_wiring import runtime_interfaces

    def load() -> Interfaces:
        if paths.rootless_uid() is None:
            return runtime_interfaces()
        run = str(config.paths.run)
        state.open_keepalive(run)  # shims keep the keeper, from birth to end
        return runtime_interfaces(state.cgroup_error(run))

    return Runtime.launch(load)
