"""Sockets that the program of a container inherits, sd_listen_fds(3). Decisions only.

A client sends them before the start. They are sockets and nothing else: a descriptor of a directory
or of a device would lead out of the container.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Sequence

from jaula.engine.model.container import Container
from jaula.errors import Conflict, InvalidRequest

LIMIT = 64  # descriptors of one container
_FAMILIES = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)
_TYPES = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)


def check(container: Container, fds: Sequence[int]) -> None:
    """Check that the program of ``container`` may inherit ``fds``.

    :raises Conflict: when the container runs, or another runtime starts it.
    :raises InvalidRequest: when one is not a socket that a program may inherit.
    """
    if container.live:
        raise Conflict(f"container {container.name} runs already and can inherit no descriptor")
    if container.record.external_runtime:
        raise Conflict(
            f"runtime {container.record.host_config.runtime} passes no descriptors on",
            hint="use jaula's own runtime",
        )
    if not 0 < len(fds) <= LIMIT:
        raise InvalidRequest(f"{len(fds)} descriptors: must be 1 to {LIMIT}")
    for number, fd in enumerate(fds):
        if problem := _problem(fd):
            raise InvalidRequest(
                f"descriptor {number} is {problem}",
                hint="a container inherits sockets of the families unix, inet and inet6",
            )


def _problem(fd: int) -> str:
    """Return what is wrong with a descriptor, '' if nothing is."""
    if not stat.S_ISSOCK(os.fstat(fd).st_mode):
        return "not a socket"
    with socket.socket(fileno=os.dup(fd)) as sock:
        if sock.family not in _FAMILIES:
            return f"a socket of family {int(sock.family)}"
        if sock.type not in _TYPES:
            return f"a socket of type {int(sock.type)}"
    return ""
