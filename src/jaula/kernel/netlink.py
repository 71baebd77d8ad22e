"""Messages of netlink(7), over a socket that sends a batch of requests in one system call.

What the families have in common: headers, attributes, requests as values, answers. Numbers come
from include/uapi/linux/netlink.h. Links, addresses and routes are asked for by requests of
:mod:`jaula.kernel.rtnetlink`, and their tables are read by :mod:`jaula.kernel.rtnetlink`.

Why not pyroute2, which is complete: it loads 310 modules and 21 MiB, and an idle engine has 45 MiB
in all. An attach here is two sends.

Facts about netlink: a batch goes on after a message that fails, so every acknowledgement is read
before the first error is raised. A netlink socket belongs for ever to the network namespace in
which it was opened, so a thread visits a namespace only to open one there.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntFlag
from typing import Self

from jaula.kernel.namespaces import CLONE, setns

NLMSG_ERROR, NLMSG_DONE = 2, 3
SOL_NETLINK, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 10, 11
NLMSGERR_ATTR_MSG = 1
NLA_F_NESTED, NLA_TYPE_MASK = 0x8000, 0x3FFF

_header = struct.Struct("=IHHII")  # nlmsghdr: len, type, flags, seq, pid
_attribute = struct.Struct("=HH")  # rtattr: len, type


class NLM_F(IntFlag):
    """Flags of a netlink message header."""

    REQUEST = 0x1
    ACK = 0x4
    DUMP = 0x300
    REPLACE = 0x100
    EXCL = 0x200
    CREATE = 0x400


@dataclass(frozen=True, slots=True)
class Request:
    """One message, not yet sent; ``about`` is what an error names."""

    type: int
    flags: int
    body: bytes
    about: str


def attribute(kind: int, payload: bytes) -> bytes:
    """A routing attribute, padded to four bytes."""
    length = _attribute.size + len(payload)
    return _attribute.pack(length, kind) + payload + bytes(-length % 4)


def nest(kind: int, *attributes: bytes) -> bytes:
    """An attribute that holds attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


@contextmanager
def in_netns(netns: int) -> Iterator[None]:
    """Put the calling thread in a network namespace for the length of a block.

    Only the calling thread moves. /proc/sys/net follows the thread, as a netlink socket does.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(netns, CLONE.NEWNET)
        try:
            yield
        finally:
            setns(home, CLONE.NEWNET)
    finally:
        os.close(home)


class Netlink:
    """A netlink socket of the namespace in which it was opened. Not thread safe."""

    def __init__(self, netns: int | None = None, *, protocol: int = socket.NETLINK_ROUTE) -> None:
        if netns is None:
            self._socket = _open(protocol)
        else:
            with in_netns(netns):
                self._socket = _open(protocol)
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, *requests: Request, ignore: Sequence[int] = ()) -> None:
        """Send a batch in one call and wait for every answer.

        Raises ``OSError`` for the first request that the kernel refused, naming it and the
        kernel's own explanation; errno values in ``ignore`` count as done.
        """
        first = self._sequence + 1
        batch = []
        for request in requests:
            self._sequence += 1
            wanted = request.flags | NLM_F.REQUEST | NLM_F.ACK
            length = _header.size + len(request.body)
            head = _header.pack(length, request.type, wanted, self._sequence, 0)
            batch.append(head + request.body + bytes(-length % 4))
        self._socket.send(b"".join(batch))
        failures: dict[int, OSError] = {}
        waiting = set(range(first, self._sequence + 1))
        while waiting:
            for kind, flags, sequence, body in _messages(self._socket.recv(65536)):
                if kind != NLMSG_ERROR or sequence not in waiting:
                    continue
                waiting.discard(sequence)
                number = -struct.unpack_from("=i", body)[0]
                if number and number not in ignore:
                    about = requests[sequence - first].about
                    failures[sequence] = _refusal(number, about, body, flags)
        if failures:
            raise failures[min(failures)]

    def ask(self, kind: int, body: bytes, *, about: str, absent: int) -> bytes | None:
        """The answer to a request for one entry, None where the errno value is ``absent``."""
        self._sequence += 1
        length = _header.size + len(body)
        self._socket.send(_header.pack(length, kind, NLM_F.REQUEST, self._sequence, 0) + body)
        while True:
            for answer, flags, sequence, payload in _messages(self._socket.recv(65536)):
                if sequence != self._sequence:
                    continue
                if answer != NLMSG_ERROR:
                    return payload
                number = -struct.unpack_from("=i", payload)[0]
                if number == absent:
                    return None
                raise _refusal(number, f"get {about}", payload, flags)

    def dump(self, kind: int, body: bytes, *, about: str) -> Iterator[bytes]:
        """The body of each entry of a table that a request of type ``kind`` asks for."""
        self._sequence += 1
        length = _header.size + len(body)
        wanted = NLM_F.REQUEST | NLM_F.DUMP
        self._socket.send(_header.pack(length, kind, wanted, self._sequence, 0) + body)
        while True:
            for answer, flags, sequence, payload in _messages(self._socket.recv(1 << 18)):
                if sequence != self._sequence:
                    continue
                if answer == NLMSG_DONE:
                    return
                if answer == NLMSG_ERROR:
                    number = -struct.unpack_from("=i", payload)[0]
                    raise _refusal(number, f"list {about}", payload, flags)
                yield payload


def _open(protocol: int) -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    made.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
    made.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
    return made


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, payload) of each message of a datagram."""
    offset = 0
    while offset + _header.size <= len(data):
        length, kind, flags, sequence, _ = _header.unpack_from(data, offset)
        if length < _header.size or offset + length > len(data):
            raise OSError(errno.EPROTO, "rtnetlink: truncated message")
        yield kind, flags, sequence, data[offset + _header.size : offset + length]
        offset += (length + 3) & ~3


def attributes(data: bytes) -> dict[int, bytes]:
    """The attributes in a message, by number; what is cut short is left out."""
    found = {}
    offset = 0
    while offset + _attribute.size <= len(data):
        length, kind = _attribute.unpack_from(data, offset)
        if length < _attribute.size:
            break
        found[kind & NLA_TYPE_MASK] = data[offset + _attribute.size : offset + length]
        offset += (length + 3) & ~3
    return found


def _refusal(number: int, about: str, body: bytes, flags: int) -> OSError:
    """The error of a request, with the kernel's sentence when it sent one (NLM_F_ACK_TLVS)."""
    said = ""
    if flags & 0x200:
        said = text(attributes(body[4 + _header.size :]).get(NLMSGERR_ATTR_MSG, b""))
    reason = os.strerror(number) + (f" ({said})" if said else "")
    return OSError(number, f"netlink: {about}: {reason}")


def text(raw: bytes) -> str:
    """A name in an attribute, without its final zero."""
    return raw.rstrip(b"\0").decode("utf-8", "surrogateescape")
