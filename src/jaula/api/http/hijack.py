"""Taking a connection out of HTTP: attach and exec.

Source: 'Attach to a container, Hijacking' of the Engine API. A client that sends ``Upgrade: tcp``
is answered 101, an older one 200; after the head both directions are raw bytes.

Facts about taking a socket out of asyncio: ``pause_reading`` leaves the selector at once, so bytes
are afterwards either in the parser (they are passed on as early bytes) or still in the kernel. A
duplicate of the descriptor shares file status flags, so it is non-blocking until its owner changes
that. ``transport.abort`` closes its own descriptor only; a ``shutdown`` would end the peer's
stream for every duplicate.

Docker's SDK for Python reads the head through a buffer and the stream past it: what arrives
together with the head is lost to its caller. For it the head is seen off before the stream begins.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import struct
import termios
from asyncio import Transport
from collections.abc import Iterable

from jaula.api import version

BUFFERED_CLIENT = b"docker-sdk-python"
_LOOKS, _PAUSE = 100, 0.001  # looks at the queue, and seconds between them


def head(content_type: bytes, *, upgrade: bool) -> bytes:
    """The bytes that end HTTP on the connection."""
    if upgrade:
        lines = [b"HTTP/1.1 101 UPGRADED", b"Content-Type: " + content_type]
        lines += [b"Connection: Upgrade", b"Upgrade: tcp"]
    else:
        lines = [b"HTTP/1.1 200 OK", b"Content-Type: application/vnd.docker.raw-stream"]
    lines += [name + b": " + value for name, value in version.HEADERS]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def duplicate(transport: Transport) -> int:
    """A descriptor of the transport's socket for a new owner; reading must be paused already."""
    return os.dup(transport.get_extra_info("socket").fileno())


def buffers_the_head(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether the client is one that drops what comes in one piece with the head."""
    return any(
        name == b"user-agent" and value.startswith(BUFFERED_CLIENT) for name, value in headers
    )


async def head_taken(descriptor: int) -> bool:
    """Wait until the peer of a unix socket has read all that was sent, a tenth of a second at most.

    Source: unix(7) and tty_ioctl(2), TIOCOUTQ: what the peer has not read yet.
    """
    for _ in range(_LOOKS):
        queued = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, b"\0" * 4))[0]
        if not queued:
            return True
        await asyncio.sleep(_PAUSE)
    return False
