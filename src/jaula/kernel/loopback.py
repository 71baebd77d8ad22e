"""The loopback interface of the caller's network namespace: netdevice(7), socket ioctls."""

from __future__ import annotations

import _socket
import fcntl

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
_REQUEST = 40  # bytes of struct ifreq: 16 of name, then the flags as a short


def set_up() -> None:
    """Set ``lo`` up, which a new namespace has down. Needs CAP_NET_ADMIN in the namespace."""
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        request = bytearray(b"lo".ljust(_REQUEST, b"\0"))
        fcntl.ioctl(sock.fileno(), SIOCGIFFLAGS, request)
        request[16] |= IFF_UP
        fcntl.ioctl(sock.fileno(), SIOCSIFFLAGS, request)
    finally:
        sock.close()
