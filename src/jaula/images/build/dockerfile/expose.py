"""Ports of an EXPOSE: ``80``, ``80/udp``, ``8000-8010/tcp``.

As Docker, an address or port of the host before it (``127.0.0.1:8080:80``) is read over: it means
nothing there, and Dockerfiles have it.
"""

from __future__ import annotations

from jaula.images.build.dockerfile.errors import DockerfileError, plain

_PROTOCOLS = ("tcp", "udp", "sctp")


def ports(text: str) -> tuple[range, str]:
    """Parse a port or range of EXPOSE: ``80``, ``80/udp``, ``8000-8010/tcp``.

    As in Docker, an address and port of the host in front of it (``127.0.0.1:8080:80``) are
    ignored: they have no meaning in EXPOSE, but Dockerfiles contain them.

    :raises DockerfileError: if it is not valid.
    """
    number, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    first, dash, last = number.rpartition(":")[2].partition("-")
    begin = _port(first)
    end = _port(last) if dash else begin
    if protocol not in _PROTOCOLS or not 0 < begin <= end:
        raise DockerfileError(
            f"invalid containerPort: {plain(text)}", hint="use 80, 80/udp or 8000-8010"
        )
    return range(begin, end + 1), protocol


def _port(text: str) -> int:
    """Return a port number, or 0 if it is not valid."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0
    return number if number < 65536 else 0
