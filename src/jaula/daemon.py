"""``jaula daemon``: the composition root, the one place that wires the parts together.

The order is what matters here:

1. A mount namespace of the engine's own, in which its interpreter is read-only, and the engine
   started anew from there: whoever gets hold of ``/proc/<pid>/exe`` of engine, zygote or shim
   cannot write to it (statement I2). Mounts of the host still arrive, ours do not leave. An
   ordinary user's engine has entered its user namespace before (:mod:`jaula.rootless`).
2. The zygote, forked before asyncio or a thread is there.
3. The lock, taken after the fork so that no shim ever holds it; then sockets and database.

Top-level imports are few on purpose: the zygote shares all of them with every shim.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
from typing import TYPE_CHECKING

from jaula.errors import Conflict, InvalidRequest, JaulaError, NotAuthorized, Unavailable
from jaula.kernel import mounts, namespaces, process
from jaula.kernel.mounts import MS
from jaula.kernel.namespaces import CLONE
from jaula.rootless import inside, places

if TYPE_CHECKING:
    from pathlib import Path

    from jaula.config import EngineConfig
    from jaula.engine.authority.policy import Policy
    from jaula.engine.engine import Engine
    from jaula.engine.ranges import OneRange
    from jaula.runtime.client import Runtime

_INSIDE = "JAULA_ENGINE_NAMESPACE"
_M_ARENA_MAX = -8  # malloc.h
_FIRST_PASSED = 3  # sd_listen_fds(3)


def main(config: EngineConfig) -> None:
    """Run an engine until SIGTERM or SIGINT.

    :raises JaulaError: it cannot start; nothing was changed.
    """
    if os.geteuid() != 0:
        raise NotAuthorized("the engine needs root, or namespaces in which it is root")
    if len(str(config.socket)) > 107:
        raise InvalidRequest(
            f"the socket's path {config.socket} is too long", hint="107 bytes are the limit"
        )
    _enter_own_namespace(config)
    inside.hold_alive()
    passed = _passed_sockets()
    _raise_file_limit()
    _make_directories(config)
    runtime = _launch(config)
    try:
        lock = _lock(config)
        sockets = passed or [_listen(config)]
    except BaseException:
        runtime.close()
        raise
    try:
        _run(config, runtime, sockets)
    finally:
        if not passed:
            _unlink(config.socket)
        os.close(lock)


def _raise_file_limit() -> None:
    """Open as many files as we may: a client or a running container costs the engine one.

    What containers may open is set in their specs and does not change with this.
    """
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _launch(config: EngineConfig) -> Runtime:
    """Fork the zygote, with as little in its memory as can be: every shim has a share of it.

    msgspec prefers typing_extensions to typing where it is installed, which brings inspect, ast and
    more along and is of no use here.
    """
    sys.modules.setdefault("typing_extensions", None)  # type: ignore[arg-type]
    from jaula.runtime.client import Runtime
    from jaula.runtime.ports import Parts
    from jaula.wiring import runtime_parts

    def load() -> Parts:
        if places.user() is None:
            return runtime_parts()
        run = str(config.paths.run)
        inside.open_alive(run)  # shims keep the keeper, from birth to end
        return runtime_parts(inside.no_cgroup(run))

    return Runtime.launch(load)


def _enter_own_namespace(config: EngineConfig) -> None:
    """Steps into a private mount namespace and execs the interpreter from a read-only bind."""
    if os.environ.pop(_INSIDE, None) is not None:
        return
    program = os.path.realpath(sys.executable)
    try:
        namespaces.unshare(CLONE.NEWNS)
        mounts.mount(None, "/", None, MS.REC | MS.SLAVE)
        mounts.mount(program, program, None, MS.BIND)
        bound = mounts.open_tree(program, clone=False)
        mounts.mount_setattr(bound, set=mounts.MOUNT_ATTR.RDONLY)
        os.close(bound)
        if places.user() is not None:
            inside.use_resolver(str(config.paths.run))
    except OSError as error:
        raise Unavailable(f"cannot make a mount namespace for the engine: {error}") from error
    os.environ[_INSIDE] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _passed_sockets() -> list[socket.socket]:
    """Sockets that systemd opened for us (sd_listen_fds(3))."""
    pid, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    found = []
    for fd in range(_FIRST_PASSED, _FIRST_PASSED + int(count)):
        os.set_inheritable(fd, False)
        found.append(socket.socket(fileno=fd))
    for sock in found:
        _check_passed(sock)
    return found


def _check_passed(sock: socket.socket) -> None:
    """Only stream sockets with a path: who may connect is decided by the path's permissions.

    An abstract name has none, and every process of the network namespace could connect to it,
    containers with ``--network host`` among them (CVE-2020-15257).
    """
    name = sock.getsockname()
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM:
        raise InvalidRequest(
            f"the socket that was passed on is no unix stream socket ({name!r})",
            hint="use ListenStream= with an absolute path",
        )
    if not isinstance(name, str) or not name.startswith("/"):
        raise InvalidRequest(
            "the socket that was passed on has an abstract name or none, so anyone could connect",
            hint="use ListenStream= with an absolute path",
        )


def _make_directories(config: EngineConfig) -> None:
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


def _lock(config: EngineConfig) -> int:
    """One engine a root directory, for as long as its process lives."""
    path = config.paths.root / "engine.lock"
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            raise Conflict(
                f"another engine uses {config.paths.root}",
                hint="stop it, or give this one another directory with --root",
            ) from None
        raise Unavailable(f"cannot lock {path}: {error.strerror}") from error
    return lock


def _listen(config: EngineConfig) -> socket.socket:
    """The API's socket, for root and the members of one group."""
    path = config.socket
    _refuse_live(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _unlink(path)
        old = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(old)
        if config.socket_group:
            import grp

            try:
                os.chown(path, 0, grp.getgrnam(config.socket_group).gr_gid)
            except KeyError:
                raise InvalidRequest(f"there is no group {config.socket_group}") from None
            os.chmod(path, 0o660)
        sock.listen(512)
    except OSError as error:
        sock.close()
        raise Unavailable(f"cannot listen on {path}: {error.strerror}") from error
    except JaulaError:
        sock.close()
        raise
    return sock


def _refuse_live(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return  # nobody listens there
    raise Conflict(
        f"the socket {path} is in use by another engine",
        hint="stop it, or give this one another socket with --socket",
    )


def _unlink(path: Path) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return


def _run(config: EngineConfig, runtime: Runtime, sockets: list[socket.socket]) -> None:
    import asyncio
    import logging

    _one_heap()
    logging.basicConfig(
        level=logging.DEBUG if config.debug else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    asyncio.run(_serve(config, runtime, sockets))


async def _serve(config: EngineConfig, runtime: Runtime, sockets: list[socket.socket]) -> None:
    import asyncio
    import gc
    import logging
    import signal

    from jaula.api import server as api
    from jaula.engine import presets
    from jaula.engine.doors import Doors
    from jaula.state.journal import Journal

    log = logging.getLogger("jaula.engine")
    try:
        presets.check_name(config.default_profile)
        policy = _policy(config)
        engine = _wire(config, runtime)
        doors = Doors(engine, policy, Journal(config.paths.audit_log))
    except BaseException:
        runtime.close()
        raise
    await engine.open()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    lost = asyncio.Event()

    def zygote_ended() -> None:
        loop.remove_reader(zygote)
        lost.set()
        stop.set()

    zygote = process.pidfd_open(runtime.zygote_pid)
    loop.add_reader(zygote, zygote_ended)
    gc.collect()
    gc.freeze()
    _trim_heap()
    server = await api.serve(doors.enter, sockets)
    log.info("engine %s listens on %s", engine.parts.identity[:12], config.socket)
    _notify("READY=1")
    await stop.wait()
    _notify("STOPPING=1")
    loop.remove_reader(zygote)
    os.close(zygote)
    await server.close()
    await engine.close()
    await doors.close()
    if lost.is_set():
        # A process with threads must not fork another one; what comes next starts anew.
        raise Unavailable(
            "the engine's zygote was killed, so no container can be started any more",
            hint="start the engine again; containers run on",
        )
    log.info("engine ended; containers run on")


def _policy(config: EngineConfig) -> Policy:
    """Who may ask for what: a file's word, or root and the socket's group.

    :raises InvalidRequest: the file cannot be read; nothing is served then.
    """
    import grp
    import pwd

    from jaula.engine.authority import policy_file
    from jaula.engine.authority.policy import Policy, without_file

    def user(name: str) -> int | None:
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            return None

    def group(name: str) -> int | None:
        try:
            return grp.getgrnam(name).gr_gid
        except KeyError:
            return None

    path = config.policy or policy_file.DEFAULT_PATH
    if not config.policy and places.user() is not None:
        return Policy()  # an ordinary user's own engine: the machine's policy is not about it
    found = policy_file.load(path, required=bool(config.policy), user=user, group=group)
    if found is not None:
        return found
    name = config.socket_group
    return without_file(name, group(name) if name else None)


def _wire(config: EngineConfig, runtime: Runtime) -> Engine:
    import time

    from jaula import cgroups
    from jaula.engine import hostfacts, identity
    from jaula.engine.engine import Engine
    from jaula.engine.events import Events
    from jaula.engine.network_registry import NetworkRegistry
    from jaula.engine.parts import Parts
    from jaula.engine.ranges import Ranges
    from jaula.engine.registry import Registry
    from jaula.engine.resolving import Resolvers
    from jaula.engine.runtimes import Runtimes
    from jaula.engine.sandboxes import Sandboxes
    from jaula.images.store import ImageStore
    from jaula.network.manager import NetworkManager
    from jaula.state.database import Database
    from jaula.storage import snapshots
    from jaula.storage.layers import LayerStore
    from jaula.storage.volumes import VolumeStore

    paths = config.paths
    database = Database(paths.database)
    registry = Registry(database)
    registry.load()
    networks = NetworkRegistry(database)
    networks.load()
    rootless = places.user() is not None
    warnings: tuple[str, ...] = ()
    if rootless:
        reason = inside.no_cgroup(str(paths.run))
        driver, warnings = cgroups.delegated(reason), _lacking(str(paths.run), reason)
    else:
        driver = cgroups.detect()
    layers = LayerStore(paths)
    ranges = _own_ids() if rootless else Ranges(config.subid_start, config.subid_count)
    binder = None
    if rootless:
        from jaula.rootless.porter import Porter

        binder = Porter(str(paths.run))
    network = NetworkManager(paths, config, binder=binder)
    return Engine(
        Parts(
            config=config,
            identity=identity.of(database),
            host=hostfacts.read(
                config.nofile,
                config.pids_limit,
                driver.features(),
                container_type=config.selinux_type,
                file_type=config.selinux_file_type,
                rootless=rootless,
                warnings=warnings,
            ),
            database=database,
            registry=registry,
            events=Events(),
            runtime=runtime,
            runtimes=Runtimes(config),
            cgroups=driver,
            snapshots=snapshots.choose(paths, config.storage_driver, layers, rootless=rootless),
            layers=layers,
            images=ImageStore(paths, layers),
            volumes=VolumeStore(paths),
            network=network,
            networks=networks,
            resolvers=Resolvers(network),
            ranges=ranges,
            sandboxes=Sandboxes(runtime, network, ranges, config.sandbox_pool),
            started_at=time.time_ns(),
        )
    )


def _lacking(run: str, no_cgroup: str) -> tuple[str, ...]:
    """What an ordinary user's engine cannot do here, for ``info``."""
    found = []
    if no_cgroup:
        found.append(
            f"containers have no cgroup, so no limits (of processes neither): {no_cgroup};"
            " jaula doctor tells more"
        )
    joined = inside.network_helper(run)
    if not joined.name:
        found.append(f"containers do not reach outside: {joined.reason}; jaula doctor tells more")
    return tuple(found)


def _own_ids() -> OneRange:
    """Every id of the user namespace that we are in."""
    from jaula.engine.ranges import OneRange

    sizes: list[int] = []
    starts: list[int] = []
    for kind in ("uid_map", "gid_map"):
        with open(f"/proc/self/{kind}", encoding="ascii") as file:
            rows = [[int(number) for number in line.split()] for line in file]
        sizes.append(sum(row[2] for row in rows))
        starts += [row[0] for row in rows]
    return OneRange(min(sizes), starts)


def _trim_heap() -> None:
    """Give back what the start needed for a moment (malloc_trim(3)); other C libraries lack it."""
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _one_heap() -> None:
    """Worker threads share the heap: they are few, and an arena of each costs megabytes.

    mallopt(3), ``M_ARENA_MAX``.
    """
    import ctypes

    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_ARENA_MAX, 1)


def _notify(state: str) -> None:
    """Tell systemd (sd_notify(3)); nobody may be listening."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state.encode(), address.replace("@", "\0", 1))
