"""Start the engine process: ``jaula daemon``.

The order matters:

1. The engine enters its own mount namespace and executes itself again there
   (:mod:`~jaula.daemon.mount_namespace`). A rootless engine has entered its user namespace before
   (:mod:`jaula.rootless`).
2. The zygote is forked before asyncio or a thread exists.
3. The root directory is locked after the fork, so that no shim inherits the lock. Then sockets and
   database are opened.

Imports at the top are few, since the zygote shares all of them with every shim.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

from jaula.daemon import mount_namespace, process_limits, sd_notify, sockets
from jaula.errors import Conflict, InvalidRequest, NotAuthorized, Unavailable
from jaula.rootless import holder_state, xdg_paths

if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.config import EngineConfig
    from jaula.runtime.runtime_client import Runtime

MAX_SPARE = 16  # each has 3 to 5 MB of memory


def main(config: EngineConfig, read_config: Callable[[], EngineConfig]) -> None:
    """Run an engine until SIGTERM or SIGINT. ``read_config`` returns the new settings at SIGHUP.

    :raises JaulaError: when the engine cannot start; nothing was changed.
    """
    if os.geteuid() != 0:
        raise NotAuthorized("the engine needs root, or namespaces in which it is root")
    if len(str(config.socket)) > sockets.MAX_PATH:
        raise InvalidRequest(
            f"the socket's path {config.socket} is too long",
            hint=f"the limit is {sockets.MAX_PATH} bytes",
        )
    for setting, number in (
        ("spare-shims", config.spare_shims),
        ("spare-inits", config.spare_inits),
    ):
        if not 0 <= number <= MAX_SPARE:
            raise InvalidRequest(f"{setting} {number} is not between 0 and {MAX_SPARE}")
    host_mounts = mount_namespace.enter(config)
    holder_state.protect_keepalive()
    inherited = sockets.inherited()
    process_limits.raise_file_limit()
    _create_directories(config)
    sd_notify.extend_timeout()
    runtime = _launch(config, host_mounts)
    sd_notify.extend_timeout()
    from jaula import feature
    from jaula.engine.hooks import Hooks

    hooks, listening = Hooks(feature.features()), inherited
    try:
        lock = _lock_root(config)
        network = sockets.listen_tcp(config)
        listening = inherited or [sockets.listen_unix(config.socket, config.socket_group)]
        opened = hooks.listen(config)
    except BaseException:
        runtime.close()
        if listening and not inherited:
            sockets.remove(config.socket, listening)
        raise
    from jaula.daemon import serve

    try:
        serve.run(config, runtime, listening, network, opened, hooks, read_config)
    finally:
        if not inherited:
            sockets.remove(config.socket, listening)
        for each in opened.values():
            each.close()
        os.close(lock)


def _create_directories(config: EngineConfig) -> None:
    """Create the engine's directories.

    :raises Unavailable: when a directory cannot be created.
    """
    paths = config.paths
    try:
        for directory, mode in (
            (paths.root, 0o711),
            (paths.root / "build", 0o711),
            (paths.root / "containers", 0o700),
            *paths.run_directories,
            (config.socket.parent, 0o711),
        ):
            directory.mkdir(mode=mode, parents=True, exist_ok=True)
        (paths.root / "build").chmod(0o711)  # former engines made it with the umask's mode
    except OSError as error:
        raise Unavailable(
            f"cannot create the engine's directories: {error.strerror}: {error.filename}",
            hint="choose other directories with --root and --run",
        ) from error


def _lock_root(config: EngineConfig) -> int:
    """Lock the root directory for the life of this process. Return the lock's descriptor.

    :raises Conflict: when another engine uses the directory.
    :raises Unavailable: when it cannot be locked.
    """
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
                hint="stop it, or choose another directory with --root",
            ) from None
        raise Unavailable(f"cannot lock {path}: {error.strerror}") from error
    return fd


def _launch(config: EngineConfig, host_mounts: int) -> Runtime:
    """Fork the zygote, whose memory every shim shares."""
    from jaula.cgroups.own_memory import OwnMemory
    from jaula.runtime.interfaces import Interfaces
    from jaula.runtime.runtime_client import Runtime
    from jaula.runtime_interfaces import runtime_interfaces

    def load() -> Interfaces:
        if config.cri:  # once, and not in the shim of each container of a pod
            import jaula.logs.drivers.cri_driver  # noqa: F401
        if xdg_paths.rootless_uid() is None:
            return runtime_interfaces(systemd_cgroups=config.systemd_cgroups)
        run = str(config.paths.run)
        holder_state.open_keepalive(run)  # every shim inherits it and so keeps the holder running
        return runtime_interfaces(holder_state.cgroup_error(run))

    return Runtime.launch(
        load,
        host_mounts=host_mounts,
        spare_shims=config.spare_shims,
        lay_out_memory=True,
        room_for_spares=OwnMemory().spare_shims,
    )
