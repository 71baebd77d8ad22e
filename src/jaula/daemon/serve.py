"""The main loop of the engine: serve requests until a signal, or until the zygote is lost."""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from jaula import metrics, spans, stdlib_import
from jaula.daemon import engine_archive, engine_log, load_policy, process_limits, sd_notify
from jaula.daemon import sockets as daemon_sockets
from jaula.daemon.create_engine import new_engine
from jaula.daemon.sd_notify import Heartbeat
from jaula.errors import InvalidRequest, Unavailable
from jaula.kernel import process_calls

if TYPE_CHECKING:
    from ssl import SSLContext

    from jaula.api.http.api_server import Server
    from jaula.api.http.tls_listener import TlsListener
    from jaula.config import EngineConfig
    from jaula.daemon.engine_log import ContainerIds
    from jaula.daemon.traces import SdkBackend
    from jaula.engine.authz.head_log import HeadLog
    from jaula.engine.engine import Engine
    from jaula.engine.hooks import Hooks, Opened
    from jaula.runtime.runtime_client import Runtime


ReadConfig = Callable[[], "EngineConfig"]
_TRACES_TIMEOUT = 3.0  # seconds, for the last spans
_SETTLE_TIME = 1.0  # seconds from the first answer until the collector runs, for 30 ms


def run(
    config: EngineConfig,
    runtime: Runtime,
    unix_sockets: list[socket.socket],
    tcp_sockets: list[socket.socket],
    opened: Mapping[str, Opened],
    hooks: Hooks,
    read_config: ReadConfig,
) -> None:
    """Serve on unix and TCP sockets until SIGTERM or SIGINT, and features on those they opened.

    ``read_config`` returns the new configuration at SIGHUP.

    :raises JaulaError: when the engine cannot start or cannot continue.
    """
    import logging

    stdlib_import.import_asyncio()
    stdlib_import.import_shutil()
    import asyncio

    process_limits.set_heap_options()
    ids = engine_log.ContainerIds()
    logging.basicConfig(
        level=engine_log.level(config), handlers=(engine_log.handler(config, ids.find),)
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    asyncio.run(
        _serve(
            *(config, runtime, unix_sockets, tcp_sockets, opened, hooks, read_config),
            ids,
        )
    )


async def _serve(
    config: EngineConfig,
    runtime: Runtime,
    unix_sockets: list[socket.socket],
    tcp_sockets: list[socket.socket],
    opened: Mapping[str, Opened],
    hooks: Hooks,
    read_config: ReadConfig,
    ids: ContainerIds,
) -> None:
    import asyncio
    import logging
    import signal
    import time

    from jaula.api.http import api_server
    from jaula.daemon.reload import Reloader
    from jaula.engine.authz.gateway import Gateway
    from jaula.engine.containers import log_config, presets
    from jaula.engine.hooks import EngineStart
    from jaula.engine.threads import CallerThreads, abandon_at_stop
    from jaula.state.audit_trail import AuditTrail

    log = logging.getLogger("jaula.engine")
    loop = asyncio.get_running_loop()
    loop.set_default_executor(threads := CallerThreads())
    heartbeat = Heartbeat(loop)
    try:
        presets.check_name(config.default_profile)
        log_config.check(config)
        policy = load_policy.load_policy(config)
        context = _context(config)
        started = time.perf_counter()
        engine = new_engine(config, runtime, hooks)
        ids.names = engine.services.container_store.names
        traces = _start_traces(engine)
        gateway = Gateway(
            engine,
            policy,
            AuditTrail(config.paths.audit_log),
            _head_log(config, engine.services.identity),
            config.audit_head_interval,
        )
    except BaseException:
        runtime.close()
        raise
    loaded = time.perf_counter()
    heartbeat.start()
    await engine.open()
    restored = time.perf_counter()
    metrics.ENGINE_STARTS.add("load", by=loaded - started)
    metrics.ENGINE_STARTS.add("restore", by=restored - loaded)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    zygote_lost = asyncio.Event()

    def zygote_ended() -> None:
        loop.remove_reader(zygote)
        zygote_lost.set()
        stop.set()

    zygote = process_calls.pidfd_open(runtime.zygote_pid)
    loop.add_reader(zygote, zygote_ended)
    sockets = engine.services.engine_sockets
    sockets.paths = tuple(str(sock.getsockname()) for sock in unix_sockets)
    server = await api_server.serve(gateway.enter, unix_sockets)
    sockets.serve(server.listen_container)
    log.info("engine %s listens on %s", engine.services.identity[:12], config.socket)
    reloader = Reloader(engine, gateway, read_config)
    reloader.tls_listeners = await _open(server, tcp_sockets, context, engine)
    loop.add_signal_handler(signal.SIGHUP, reloader.reload)
    gateway.start()
    start = EngineStart(engine, gateway.enter, opened, _listen_again(config, engine, server))
    closers = await hooks.engine_started(start)
    engine.host_objects.serve(tuple(start.listen_again), lambda path: start.listen_again[path]())
    metrics.ENGINE_STARTS.add("listen", by=time.perf_counter() - restored)
    heartbeat.ready()
    loop.call_later(_SETTLE_TIME, _settle)
    server.on_idle = lambda: _release_memory(engine)
    await stop.wait()
    abandon_at_stop(threads)
    heartbeat.stop()
    loop.remove_reader(zygote)
    os.close(zygote)
    for closer in reversed(closers):
        await closer.close()
    await server.close()
    sd_notify.extend_timeout(sd_notify.STOP_STEP)
    await engine.close()
    sd_notify.extend_timeout(sd_notify.STOP_STEP)
    await gateway.close()
    if traces is not None:
        await _end_traces(traces)
    if zygote_lost.is_set():
        # A process with threads must not fork a new zygote: the service manager restarts it.
        raise Unavailable(
            "the engine's zygote was killed, so no container can be started",
            hint="start the engine again; containers keep running",
        )
    log.info("engine stopped; containers keep running")


def _listen_again(
    config: EngineConfig, engine: Engine, server: Server
) -> dict[str, Callable[[], None]]:
    """Return, by the path of a unix socket, how to listen on it again if it is removed."""

    def again(path: str) -> None:
        server.add(daemon_sockets.listen_again(path, config.socket_group))

    paths = engine.services.engine_sockets.paths
    return {path: functools.partial(again, path) for path in paths}


def _start_traces(engine: Engine) -> SdkBackend | None:
    """Export traces if the environment asks for it. The module is loaded here only."""
    if not any(name.startswith("OTEL_") for name in os.environ):
        return None
    from jaula.daemon import traces

    if not traces.requested(os.environ):
        return None
    services = engine.services
    return traces.start(os.environ, services.identity, services.host.hostname)


async def _end_traces(traces: SdkBackend) -> None:
    """Export the last spans; give up after a while, since no collector may answer."""
    import asyncio

    from jaula.engine.threads import in_own_thread

    spans.set_backend(None)
    await asyncio.wait((in_own_thread(traces.shutdown),), timeout=_TRACES_TIMEOUT)


def _settle() -> None:
    """Collect the garbage of the start; later collections ignore what is left of it."""
    import gc

    gc.collect()
    gc.freeze()
    gc.enable()
    engine_archive.release()
    process_limits.trim_heap()


def _release_memory(engine: Engine) -> None:
    """Release what an idle engine does not need. It takes 1 to 3 ms."""
    engine.services.network_manager.unload_nft()
    engine_archive.release()
    process_limits.trim_heap()


def _head_log(config: EngineConfig, identity: str) -> HeadLog | None:
    """Return where the heads of the audit logs are sent, None if nowhere.

    :raises InvalidRequest: when a setting is not valid.
    """
    if not config.audit_head:
        return None
    from jaula.engine.authz.head_log import HeadLog

    if config.audit_head_interval < 1:
        raise InvalidRequest("audit-head-interval must be at least 1 second")
    return HeadLog(config.audit_head, identity)


async def _open(
    server: Server, tcp_sockets: list[socket.socket], context: SSLContext | None, engine: Engine
) -> list[TlsListener]:
    """Serve on TCP sockets. Return the listeners with TLS."""
    import logging

    log = logging.getLogger("jaula.engine")
    listeners = []
    for sock in tcp_sockets:
        sock.setblocking(False)
        if context is not None:
            streams = engine.services.hooks.tls_streams(engine)
            listeners.append(await server.listen_tls(sock, context, streams))
        else:
            log.warning("every process of this host can access the API: TLS is off")
            await server.listen(sock)
        host, port = sock.getsockname()[:2]
        log.info(
            "engine listens on tcp://%s:%d as well", f"[{host}]" if ":" in host else host, port
        )
    return listeners


def _context(config: EngineConfig) -> SSLContext | None:
    if config.tls is None:
        return None
    from jaula.daemon.reload import tls_context

    return tls_context(config.tls)
