"""Descriptors that are waited for with poll(2)."""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import time

from jaula.kernel.poll import readable

ABOVE = 1024  # the first descriptor that select(2) refuses


def test_a_descriptor_of_any_number_is_waited_for() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(2 * ABOVE, hard), hard))
    read, write = os.pipe()
    try:
        high = fcntl.fcntl(read, fcntl.F_DUPFD_CLOEXEC, ABOVE)
        assert readable(0, high) == ()
        os.write(write, b"x")
        assert readable(None, high) == (high,)
        os.close(high)
    finally:
        os.close(read)
        os.close(write)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_those_that_are_readable_are_returned() -> None:
    pairs = [socket.socketpair() for _ in range(3)]
    fds = [ours.fileno() for ours, _ in pairs]
    pairs[0][1].send(b"x")
    pairs[2][1].close()
    assert set(readable(None, *fds)) == {fds[0], fds[2]}
    for pair in pairs:
        for end in pair:
            end.close()


def test_the_timeout_is_in_seconds() -> None:
    read, write = os.pipe()
    begin = time.monotonic()
    assert readable(0.05, read) == ()
    assert time.monotonic() - begin >= 0.05
    os.close(read)
    os.close(write)


def test_a_process_that_exits_makes_its_pidfd_readable() -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.read(read, 1)
        os._exit(0)
    pidfd = os.pidfd_open(pid)
    assert readable(0, pidfd) == ()
    os.write(write, b"x")
    assert readable(60, pidfd) == (pidfd,)
    os.waitpid(pid, 0)
    for fd in (pidfd, read, write):
        os.close(fd)
