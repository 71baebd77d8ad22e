"""Measures of an engine that hostile clients use at the same time.

Each function returns ``{engine: [samples]}`` in the unit of its title. Its docstring is the title.
Podman has no daemon, so it is not measured.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence

from clients import docker
from engines import IMAGE, Engine, Rootfs

Samples = dict[str, list[float]]
CONNECTIONS, USERS = 1024, range(54001, 54005)
FOLLOWERS, UPLOADS, READERS = 100, 6, 20
FLOOD = ("--log-opt", "max-size=50m", "--log-opt", "max-file=2")
SETTLE = 5.0  # seconds until the followers' buffers are full
HALF_HEAD = b"GET /containers/json HT"
HALF_BODY = b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n{"
UPLOAD = b"POST /images/load HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n"
FOLLOW = b"GET /containers/flood/logs?follow=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: x\r\n\r\n"


@contextlib.contextmanager
def _hostile_clients(engine: Engine, rootfs: Rootfs) -> Iterator[None]:
    """Keep the connections of other users, the followers and the uploads open in the block."""
    assert engine.socket is not None
    engine.base.parent.chmod(0o711)
    engine.socket.chmod(0o666)  # other users connect
    engine.run("run", "-d", "--name", "flood", *FLOOD, IMAGE, "yes", stdout=subprocess.DEVNULL)
    half = rootfs.archive.read_bytes()[:300_000]
    with contextlib.ExitStack() as held:

        def begin(data: bytes) -> None:
            sock = held.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            sock.connect(str(engine.socket))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it was refused
                sock.sendall(data)

        try:
            for _ in range(FOLLOWERS):
                begin(FOLLOW)
            for _ in range(UPLOADS):
                begin(UPLOAD + half)
            for uid in USERS:
                os.seteuid(uid)
                try:
                    for number in range(CONNECTIONS // len(USERS)):
                        begin(HALF_BODY if number % 2 else HALF_HEAD)
                finally:
                    os.seteuid(0)
            time.sleep(SETTLE)
            yield
        finally:
            held.close()
            engine.remove("flood")


def hostile_clients(engines: Sequence[Engine], rootfs: Rootfs, options: Namespace) -> Samples:
    """`docker ps` beside 1,024 hostile connections, 100 dead followers, 6 slow uploads (ms)"""
    samples: Samples = {}
    for engine in (engine for engine in engines if engine.socket):
        with _hostile_clients(engine, rootfs):
            samples[engine.name] = [docker(engine, "ps") for _ in range(options.rounds + 1)][1:]
    return samples


def log_readers(engines: Sequence[Engine], rootfs: Rootfs, options: Namespace) -> Samples:
    """`docker ps` beside 20 clients that follow and read the log of `yes` (ms)"""
    samples: Samples = {}
    for engine in (engine for engine in engines if engine.socket):
        engine.run("run", "-d", "--name", "flood", *FLOOD, IMAGE, "yes", stdout=subprocess.DEVNULL)
        words = ["docker", "-H", f"unix://{engine.socket}", "logs", "--follow", "flood"]
        environment = os.environ | {"DOCKER_CONFIG": str(engine.base)}
        readers = [
            subprocess.Popen(words, stdout=subprocess.DEVNULL, env=environment)
            for _ in range(READERS)
        ]
        try:
            time.sleep(SETTLE)
            samples[engine.name] = [docker(engine, "ps") for _ in range(options.rounds + 1)][1:]
        finally:
            for reader in readers:
                reader.kill()
                reader.wait()
            engine.remove("flood")
    return samples


ALL = {"hostile_clients": hostile_clients, "log_readers": log_readers}
