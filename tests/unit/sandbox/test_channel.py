"""Frames between the engine and a sandboxed process."""

from __future__ import annotations

import os
import socket
import struct

import pytest

from jaula.sandbox import sandbox_channel
from jaula.sandbox.sandbox_channel import FrameError


def _pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.settimeout(30)
    theirs.settimeout(30)
    return ours, theirs


def test_a_frame_arrives_whole_with_its_descriptors() -> None:
    ours, theirs = _pair()
    with ours, theirs:
        fd = os.memfd_create("x")
        os.write(fd, b"content")
        sandbox_channel.send(ours, sandbox_channel.CALL, b"payload", [fd])
        os.close(fd)
        frame = sandbox_channel.receive(theirs, 100)
        assert frame is not None
        kind, payload, fds = frame
        assert (kind, payload) == (sandbox_channel.CALL, b"payload")
        assert os.pread(fds[0], 10, 0) == b"content"
        os.close(fds[0])


def test_the_end_of_the_stream_is_not_a_frame() -> None:
    ours, theirs = _pair()
    with theirs:
        ours.close()
        assert sandbox_channel.receive(theirs, 100) is None


@pytest.mark.parametrize("data", [b"R", struct.pack("!cI", b"R", 3) + b"xx"])
def test_a_cut_frame_is_refused(data: bytes) -> None:
    ours, theirs = _pair()
    with theirs:
        ours.sendall(data)
        ours.close()
        with pytest.raises(FrameError, match="cut"):
            sandbox_channel.receive(theirs, 100)


def test_a_frame_beyond_the_limit_is_refused_before_it_is_read() -> None:
    ours, theirs = _pair()
    with ours, theirs:
        ours.sendall(struct.pack("!cI", b"R", 101))
        with pytest.raises(FrameError, match="at most 100"):
            sandbox_channel.receive(theirs, 100)


def test_the_descriptors_of_a_refused_frame_are_closed() -> None:
    ours, theirs = _pair()
    with ours, theirs:
        before = len(os.listdir("/proc/self/fd"))
        socket.send_fds(ours, [struct.pack("!cI", b"R", 101)], [0, 0, 0])
        with pytest.raises(FrameError):
            sandbox_channel.receive(theirs, 100)
        assert len(os.listdir("/proc/self/fd")) == before


def test_the_time_of_all_reads_is_asked_for_before_each() -> None:
    ours, theirs = _pair()
    with ours, theirs:
        sandbox_channel.send(ours, sandbox_channel.RESULT, bytes(600_000)[:1000])
        calls: list[int] = []
        sandbox_channel.receive(theirs, 2000, lambda: calls.append(1))
        assert len(calls) >= 2
