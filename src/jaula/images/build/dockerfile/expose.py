"""Ports of an EXPOSE: ``80``, ``80/udp``, ``8000-8010/tcp``.

As Docker, an address or port of the host before it (``127.0.0.1:8080:80``) is read over: it means
nothing there, and Dockerfiles have it.
"""

from __future__ import annotations

from jaula.images.build.dockerfile.errors import DockerfileError, plain

_PROTOCOLS = ("tcp", "udp", "sctp")


def ports(text: str) -> tuple[range, str]:
    """The numbers and the protocol; raises :class:`DockerfileError`."""
    number, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    first, dash, last = number.rpartition(":")[2].partition("-")
    begin = _port(first)
    end = _port(last) if dash else begin
    if protocol not in _PROTOCOLS or not 0 < begin <= end:
        raise DockerfileError(
            f"invalid containerPort: {plain(text)}", hint="80, 80/udp or 8000-8010"
        )
    return range(begin, end + 1), protocol


def _port(text: str) -> int:
    """0 for what is none."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0
    return number if number < 65536 else 0
