"""The loopback interface of the caller's network namespace: netdevice(7), ioctls of a socket."""

from __future__ import annotations

import _socket
import fcntl

SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1
_REQUEST = 40  # bytes of struct ifreq: 16 of name, then the flags as a short


def set_up() -> None:
    """Switch it on; a new namespace has it off. Needs CAP_NET_ADMIN there."""
    asker = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        request = bytearray(b"lo".ljust(_REQUEST, b"\0"))
        fcntl.ioctl(asker.fileno(), SIOCGIFFLAGS, request)
        request[16] |= IFF_UP
        fcntl.ioctl(asker.fileno(), SIOCSIFFLAGS, request)
    finally:
        asker.close()
