"""Probe whether CRIU can dump on this host, by a dump of a process of its own.

A version says little: CRIU 4.1 cannot dump a process with an internet socket on Linux 6.16 and
later, and a distribution may have mended that.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile

import msgspec

from jaula.errors import JaulaError, RuntimeFailure
from jaula.features.checkpoint.runtime import criu
from jaula.features.checkpoint.runtime.proto import rpc_pb2
from jaula.kernel import process_calls


class CriuReport(msgspec.Struct, frozen=True):
    """CRIU on this host; empty members: it is not installed, or works."""

    version: str = ""
    problem: str = ""  # why it cannot dump a process with a socket
    tracks_memory: bool = False  # the kernel tracks written pages


def probe() -> CriuReport:
    """Return what CRIU can do here. Needs root."""
    if shutil.which(criu.NAME) is None:
        return CriuReport(problem="not installed")
    try:
        with criu.Criu() as service:
            version = str(service.version())
        with criu.Criu() as service:
            tracks = service.tracks_memory()
    except (JaulaError, OSError) as error:
        return CriuReport(problem=str(error))
    try:
        _dump_socket()
    except (JaulaError, OSError) as error:
        return CriuReport(version, str(error), tracks)
    return CriuReport(version, "", tracks)


def _dump_socket() -> None:
    """Dump a child that has an internet socket.

    :raises RuntimeFailure: with CRIU's reason.
    """
    directory = tempfile.mkdtemp(prefix="jaula-criu-")
    ready, done = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _wait_with_socket(done, parent)
    try:
        if os.read(ready, 1) != b"+":
            raise RuntimeFailure("the process to dump has not started")
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            options = rpc_pb2.Options(
                images_dir_fd=fd,
                pid=pid,
                leave_running=True,
                log_level=criu.LOG_LEVEL,
                log_file=criu.LOG,
                network_lock=rpc_pb2.SKIP,
            )
            with criu.Criu() as service:
                service.dump(options, {})
        finally:
            os.close(fd)
    finally:
        os.close(ready)
        os.close(done)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        shutil.rmtree(directory)


def _wait_with_socket(done: int, parent: int) -> None:
    """Open a socket, close every other descriptor, say so and wait. Does not return."""
    try:
        os.setsid()
        process_calls.die_with_parent(parent)
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        null = os.open("/dev/null", os.O_RDWR)
        for number in range(3):
            os.dup2(null, number)
        os.write(done, b"+")
        process_calls.close_fds_except((0, 1, 2, sock.fileno()))
        signal.pause()
    finally:
        os._exit(0)
