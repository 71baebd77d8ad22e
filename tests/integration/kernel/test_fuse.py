"""FUSE on the real kernel: files of a server, and a server that fails or ends."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from jaula.kernel.fuse import FuseServer

_SERVER = """
import sys
from jaula.kernel.fuse import FuseServer
fuse = FuseServer(timeout=120)
fuse.add("content", 4, lambda offset, size: b"text"[offset : offset + size])
fuse.start(2)
print(fuse.mount, flush=True)
sys.stdin.read()
"""
CONTENT = os.urandom(3_000_001)


@pytest.fixture
def server() -> Iterator[FuseServer]:
    fuse = FuseServer(timeout=120)
    fuse.start(2)
    fuse.add("content", len(CONTENT), lambda offset, size: CONTENT[offset : offset + size])
    try:
        yield fuse
    finally:
        fuse.close()


def open_file(server: FuseServer, name: str) -> int:
    return os.open(name, os.O_RDONLY, dir_fd=server.mount)


def read_whole(descriptor: int) -> bytes:
    data, position = b"", 0
    while piece := os.pread(descriptor, 1 << 20, position):
        data += piece
        position += len(piece)
    return data


def test_a_file_has_the_content_of_its_server(server: FuseServer) -> None:
    descriptor = open_file(server, "content")
    try:
        assert os.fstat(descriptor).st_size == len(CONTENT)
        assert read_whole(descriptor) == CONTENT
        assert os.pread(descriptor, 10, len(CONTENT) - 3) == CONTENT[-3:]
    finally:
        os.close(descriptor)


def test_several_threads_read_at_once(server: FuseServer) -> None:
    descriptor = open_file(server, "content")
    results: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: results.append(read_whole(descriptor))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    os.close(descriptor)
    assert results == [CONTENT] * 6


def test_other_names_and_writes_are_refused(server: FuseServer) -> None:
    with pytest.raises(FileNotFoundError):
        open_file(server, "another")
    with pytest.raises(OSError):
        os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=server.mount)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "lost"), ValueError("a fault")])
def test_an_error_of_the_reader_is_one_of_the_read(server: FuseServer, error: Exception) -> None:
    def fail(offset: int, size: int) -> bytes:
        raise error

    server.add("lost", 100, fail)
    descriptor = open_file(server, "lost")
    with pytest.raises(OSError) as raised:
        os.pread(descriptor, 10, 0)
    os.close(descriptor)
    assert raised.value.errno == errno.EIO


def test_is_open_follows_the_kernel(server: FuseServer) -> None:
    assert not server.is_open("content")
    descriptor = open_file(server, "content")
    assert server.is_open("content")
    os.close(descriptor)
    for _ in range(200):
        if not server.is_open("content"):
            return
        threading.Event().wait(0.01)
    raise AssertionError("the release was not seen")


def test_the_end_of_the_server_is_an_error_and_no_wait() -> None:
    """A process has the server: its death closes the last descriptor of the device."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    mount = int(process.stdout.readline())
    descriptor = os.open(f"/proc/{process.pid}/fd/{mount}/content", os.O_RDONLY)
    assert os.pread(descriptor, 4, 0) == b"text"
    process.kill()
    process.communicate()
    with pytest.raises(OSError) as error:
        os.pread(descriptor, 4, 0)
    with suppress(OSError):  # the flush of a close fails too
        os.close(descriptor)
    assert error.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
