"""The main loop of the engine: serve requests until a signal, or until the zygote is lost."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from jaula import metrics, spans, stdlib_import
from jaula.daemon import engine_log, process_limits, pyc_archive, sd_notify
from jaula.daemon import policy as daemon_policy
from jaula.daemon import sockets as daemon_sockets
from jaula.daemon.engine import new_engine
from jaula.daemon.sd_notify import Heartbeat
from jaula.errors import InvalidRequest, Unavailable
from jaula.kernel import process

if TYPE_CHECKING:
    from ssl import SSLContext

    from jaula.api.http.server import Server
    from jaula.api.http.tls_listener import TlsListener
    from jaula.config import EngineConfig, StreamConfig
    from jaula.daemon.engine_log import ContainerIds
    from jaula.daemon.sockets import CriSockets
    from jaula.daemon.traces import SdkBackend
    from jaula.engine.authz.gateway import Gateway
    from jaula.engine.authz.head_log import HeadLog
    from jaula.engine.engine import Engine
    from jaula.features.kubernetes.cri.server import Server as CriServer
    from jaula.features.verify.interval import Verification
    from jaula.features.web.process import WebProcess
    from jaula.features.why.refusal_monitor import RefusalMonitor
    from jaula.runtime.client import Runtime
    from jaula.spec.api_params import Remote
    from jaula.tls import TlsCodec


ReadConfig = Callable[[], "EngineConfig"]
_TRACES_TIMEOUT = 3.0  # seconds, for the last spans
_SETTLE_TIME = 1.0  # seconds from the first answer until the collector runs, for 30 ms


def run(
    config: EngineConfig,
    runtime: Runtime,
    unix_sockets: list[socket.socket],
    tcp_sockets: list[socket.socket],
    metrics_socket: socket.socket | None,
    cri_sockets: CriSockets | None,
    read_config: ReadConfig,
) -> None:
    """Serve on unix and TCP sockets until SIGTERM or SIGINT; metrics and CRI on their own.

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
            *(config, runtime, unix_sockets, tcp_sockets, metrics_socket, cri_sockets, read_config),
            ids,
        )
    )


async def _serve(
    config: EngineConfig,
    runtime: Runtime,
    unix_sockets: list[socket.socket],
    tcp_sockets: list[socket.socket],
    metrics_socket: socket.socket | None,
    cri_sockets: CriSockets | None,
    read_config: ReadConfig,
    ids: ContainerIds,
) -> None:
    import asyncio
    import logging
    import signal
    import time

    from jaula.api.http import server as api
    from jaula.daemon.reload import Reloader
    from jaula.engine.authz.gateway import Gateway
    from jaula.engine.containers import log_config, presets
    from jaula.engine.threads import CallerThreads, abandon_at_stop
    from jaula.state.audit_trail import AuditTrail

    log = logging.getLogger("jaula.engine")
    loop = asyncio.get_running_loop()
    loop.set_default_executor(threads := CallerThreads())
    heartbeat = Heartbeat(loop)
    try:
        presets.check_name(config.default_profile)
        log_config.check(config)
        policy = daemon_policy.load_policy(config)
        context = _context(config)
        stream_context = _stream_context(config.streams)
        started = time.perf_counter()
        engine = new_engine(config, runtime)
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

    zygote = process.pidfd_open(runtime.zygote_pid)
    loop.add_reader(zygote, zygote_ended)
    sockets = engine.services.engine_sockets
    sockets.paths = tuple(str(sock.getsockname()) for sock in unix_sockets)
    server = await api.serve(gateway.enter, unix_sockets)
    sockets.serve(server.listen_container)
    log.info("engine %s listens on %s", engine.services.identity[:12], config.socket)
    reloader = Reloader(engine, gateway, read_config)
    reloader.tls_listeners = await _open(server, tcp_sockets, context, engine)
    metrics_server = None
    if metrics_socket is not None:
        metrics_server = await _open_metrics(metrics_socket, engine)
    cri = None
    if cri_sockets is not None:
        cri = _open_cri(cri_sockets, gateway, config.streams, stream_context)
    _watch_sockets(config, engine, server, cri)
    loop.add_signal_handler(signal.SIGHUP, reloader.reload)
    gateway.start()
    verification = None
    if config.metrics_verify_interval:
        verification = _start_verification(engine, config.metrics_verify_interval)
    refusals = None
    if config.metrics_refusals != "none":
        refusals = _start_refusals(engine)
    metrics.ENGINE_STARTS.add("listen", by=time.perf_counter() - restored)
    web = _open_web(config)
    heartbeat.ready()
    loop.call_later(_SETTLE_TIME, _settle)
    server.on_idle = lambda: _release_memory(engine)
    await stop.wait()
    abandon_at_stop(threads)
    heartbeat.stop()
    loop.remove_reader(zygote)
    os.close(zygote)
    if verification is not None:
        await verification.close()
    if refusals is not None:
        await refusals.close()
    if web is not None:
        await web.close()
    if cri is not None:
        await cri.close()
    if metrics_server is not None:
        await metrics_server.close()
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


def _watch_sockets(
    config: EngineConfig, engine: Engine, server: Server, cri: CriServer | None
) -> None:
    """Listen again on the path of a unix socket that another program removes."""
    cri_path = str(config.paths.cri_socket)

    def listen(path: str) -> None:
        if cri is not None and path == cri_path:
            cri.replace(daemon_sockets.listen_again(path, config.cri_socket_group))
        else:
            server.add(daemon_sockets.listen_again(path, config.socket_group))

    paths = engine.services.engine_sockets.paths
    engine.host_objects.serve((*paths, *((cri_path,) if cri is not None else ())), listen)


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
    pyc_archive.release()
    process_limits.trim_heap()


def _release_memory(engine: Engine) -> None:
    """Release what an idle engine does not need. It takes 1 to 3 ms."""
    engine.services.network_manager.unload_nft()
    pyc_archive.release()
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

    async def receive_files(client: socket.socket, codec: TlsCodec, peer: Remote) -> None:
        await engine.migrations.accept_data(client, codec, peer)

    log = logging.getLogger("jaula.engine")
    listeners = []
    for sock in tcp_sockets:
        sock.setblocking(False)
        if context is not None:
            from jaula.spec.migration import DATA_PROTOCOL

            streams = {DATA_PROTOCOL: receive_files}
            listeners.append(await server.listen_tls(sock, context, streams))
        else:
            log.warning("every process of this host can access the API: TLS is off")
            await server.listen(sock)
        host, port = sock.getsockname()[:2]
        log.info(
            "engine listens on tcp://%s:%d as well", f"[{host}]" if ":" in host else host, port
        )
    return listeners


async def _open_metrics(sock: socket.socket, engine: Engine) -> Server:
    """Serve metrics without authorization. The module is loaded here only."""
    import ipaddress
    import logging

    from jaula.features.metrics import listener as metrics_listener

    server = await metrics_listener.serve(engine, sock)
    host, port = sock.getsockname()[:2]
    log = logging.getLogger("jaula.engine")
    if not ipaddress.ip_address(host).is_loopback:
        log.warning("names and usage of all containers can be read at %s without a login", host)
    log.info("metrics are at http://%s:%d/metrics", f"[{host}]" if ":" in host else host, port)
    return server


def _start_verification(engine: Engine, interval: int) -> Verification:
    """Verify all containers at an interval. The module is loaded here only."""
    from jaula.features.verify.interval import Verification as DaemonVerification

    verification = DaemonVerification(engine, interval)
    verification.start()
    return verification


def _start_refusals(engine: Engine) -> RefusalMonitor:
    """Count the refusals of the kernel's layers."""
    from jaula.features.why.refusal_monitor import RefusalMonitor as DaemonRefusalMonitor

    monitor = DaemonRefusalMonitor(engine, ebpf=engine.services.config.metrics_refusals == "ebpf")
    monitor.start()
    return monitor


def _open_web(config: EngineConfig) -> WebProcess | None:
    """Start the web view if it is configured. Its process loads its packages, the engine none."""
    if not config.web:
        return None
    from jaula.features.web.process import WebProcess

    process = WebProcess(str(config.socket), config.web)
    process.start()
    return process


def _open_cri(
    sockets: CriSockets, gateway: Gateway, streams: StreamConfig, context: SSLContext | None
) -> CriServer:
    """Serve CRI. Its package and protobuf are loaded here only."""
    import logging

    from jaula.features.kubernetes.cri.server import Server
    from jaula.features.kubernetes.cri.streaming.server import StreamServer
    from jaula.features.kubernetes.cri.streaming.transport import Timeouts

    sockets.services.setblocking(False)
    stream_server = StreamServer(tls=context, timeouts=Timeouts(idle=float(streams.idle_timeout)))
    stream_server.listen(sockets.streams)
    logging.getLogger("jaula.engine").info(
        "engine serves CRI on %s, streams on %s port %d",
        sockets.services.getsockname(),
        *sockets.streams.getsockname()[:2],
    )
    return Server(sockets.services, gateway.enter, stream_server)


def _stream_context(streams: StreamConfig) -> SSLContext | None:
    """Return the TLS context of the streams of pods.

    :raises InvalidRequest: when a file is missing or invalid.
    """
    if not streams.certificate:
        return None
    from jaula import tls

    return tls.server_context(tls.TlsFiles("", streams.certificate, streams.key))


def _context(config: EngineConfig) -> SSLContext | None:
    if config.tls is None:
        return None
    from jaula.daemon.reload import tls_context

    return tls_context(config.tls)
