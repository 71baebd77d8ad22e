"""Throughput and latency of TCP between two network namespaces, by sockets of this program."""

from __future__ import annotations

import os
import socket
import statistics
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jaula.kernel.netlink import in_netns

PORT = 5201
CHUNK = 1 << 18  # bytes
SECONDS = 1.0
ROUND_TRIPS, CONNECTIONS = 2000, 300


@contextmanager
def serving(netns: int, serve: Callable[[socket.socket], None]) -> Iterator[None]:
    """Run a process that serves each connection to PORT in a namespace."""
    with in_netns(netns):
        listening = socket.create_server(("0.0.0.0", PORT), backlog=64)
    pid = os.fork()
    if pid == 0:
        try:
            while True:
                near, _ = listening.accept()
                with near:
                    serve(near)
        finally:
            os._exit(0)
    listening.close()
    try:
        yield
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)


def drain(near: socket.socket) -> None:
    """Read to the end, then send the number of bytes."""
    count, buffer = 0, bytearray(CHUNK)
    while size := near.recv_into(buffer):
        count += size
    near.sendall(struct.pack(">Q", count))


def echo(near: socket.socket) -> None:
    near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := near.recv(64):
        near.sendall(data)


def dial(netns: int, target: tuple[str, int]) -> socket.socket:
    with in_netns(netns):
        made = socket.socket()
    made.settimeout(10)
    made.connect(target)
    return made


def throughput(source: int, target: tuple[str, int], server: int) -> float:
    """Return Gbit/s over one connection."""
    with serving(server, drain), dial(source, target) as near:
        data = bytes(CHUNK)
        start = time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            near.sendall(data)
        near.shutdown(socket.SHUT_WR)
        (count,) = struct.unpack(">Q", near.recv(8, socket.MSG_WAITALL))
        return float(count) * 8 / (time.perf_counter() - start) / 1e9


def round_trip(source: int, target: tuple[str, int], server: int) -> float:
    """Return the median microseconds of a round trip of one byte."""
    with serving(server, echo), dial(source, target) as near:
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        times = []
        for _ in range(ROUND_TRIPS):
            start = time.perf_counter()
            near.sendall(b"x")
            near.recv(1)
            times.append(time.perf_counter() - start)
        return statistics.median(times) * 1e6


def connecting(source: int, target: tuple[str, int], server: int) -> float:
    """Return the median microseconds of a connect."""
    times = []
    with serving(server, lambda near: None):
        for _ in range(CONNECTIONS):
            with in_netns(source):
                near = socket.socket()
            with near:
                near.settimeout(10)
                start = time.perf_counter()
                near.connect(target)
                times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6
