"""Taking a connection out of HTTP: attach and exec.

Source: 'Attach to a container, Hijacking' of the Engine API. A client that sends ``Upgrade: tcp``
is answered 101, an older one 200; after the head both directions are raw bytes.

Facts about taking a socket out of asyncio: ``pause_reading`` leaves the selector at once, so bytes
are afterwards either in the parser (they are passed on as early bytes) or still in the kernel. A
duplicate of the descriptor shares file status flags, so it is non-blocking until its owner changes
that. ``transport.abort`` closes its own descriptor only; a ``shutdown`` would end the peer's
stream for every duplicate.
"""

from __future__ import annotations

import os
from asyncio import Transport

from jaula.api import version


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
