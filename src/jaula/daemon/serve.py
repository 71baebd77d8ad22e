"""The engine's life with its sockets: it serves until a signal, or until its zygote is lost."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from jaula.daemon import policy as daemon_policy
from jaula.daemon import process_limits, wiring
from jaula.errors import Unavailable
from jaula.kernel import process

if TYPE_CHECKING:
    from ssl import SSLContext

    from jaula.api.http.server import Server
    from jaula.api.http.tls_listener import TlsListener
    from jaula.config import EngineConfig
    from jaula.runtime.client import Runtime


Reread = Callable[[], "EngineConfig"]


def run(
    config: EngineConfig,
    runtime: Runtime,
    sockets: list[socket.socket],
    network: list[socket.socket],
    reread: Reread,
) -> None:
    """Serve on unix sockets, and by TCP on ``network``, until SIGTERM or SIGINT.

    ``reread`` is asked at SIGHUP for the settings as they are by then.

    :raises JaulaError: it cannot begin, or cannot go on.
    """
    import asyncio
    import logging

    process_limits.one_heap()
    logging.basicConfig(
        level=logging.DEBUG if config.debug else logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    asyncio.run(_serve(config, runtime, sockets, network, reread))


async def _serve(
    config: EngineConfig,
    runtime: Runtime,
    sockets: list[socket.socket],
    network: list[socket.socket],
    reread: Reread,
) -> None:
    import asyncio
    import gc
    import logging
    import signal

    from jaula.api.http import server as api
    from jaula.daemon.reload import Reloader
    from jaula.engine.authz.gateway import Gateway
    from jaula.engine.containers import log_config, presets
    from jaula.state.audit_log import AuditLog

    log = logging.getLogger("jaula.engine")
    try:
        presets.check_name(config.default_profile)
        log_config.check(config)
        policy = daemon_policy.policy(config)
        context = _context(config)
        engine = wiring.engine(config, runtime)
        doors = Gateway(engine, policy, AuditLog(config.paths.audit_log))
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
    process_limits.trim_heap()
    server = await api.serve(doors.enter, sockets)
    log.info("engine %s listens on %s", engine.parts.identity[:12], config.socket)
    reloading = Reloader(engine, doors, reread)
    reloading.entrances = await _open(server, network, context)
    loop.add_signal_handler(signal.SIGHUP, reloading.now)
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


async def _open(
    server: Server, network: list[socket.socket], context: SSLContext | None
) -> list[TlsListener]:
    """Serve on TCP sockets; those with TLS are the answer."""
    import logging

    log = logging.getLogger("jaula.engine")
    made = []
    for sock in network:
        sock.setblocking(False)
        if context is not None:
            made.append(await server.listen_tls(sock, context))
        else:
            log.warning("whoever is on this host can speak to the engine: there is no TLS")
            await server.listen(sock)
        host, port = sock.getsockname()[:2]
        log.info("and on tcp://%s:%d", f"[{host}]" if ":" in host else host, port)
    return made


def _context(config: EngineConfig) -> SSLContext | None:
    if config.tls is None:
        return None
    from jaula.daemon.reload import context_of

    return context_of(config.tls)


def _notify(state: str) -> None:
    """Tell systemd (sd_notify(3)); nobody may be listening."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state.encode(), address.replace("@", "\0", 1))
