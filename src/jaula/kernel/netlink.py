"""netlink(7) messages, over a socket that sends a batch of requests in one system call.

This module has what the families share: headers, attributes, requests as values, replies.
:mod:`jaula.kernel.rtnetlink` builds the requests about links, addresses and routes and reads their
tables. Source of the numbers: include/uapi/linux/netlink.h.

Why not pyroute2, which is complete: it loads 310 modules and 21 MiB, and an idle engine has a
budget of 45 MiB. Attaching a container takes two sends here.

Facts about netlink: the kernel continues a batch after a message that fails, so every
acknowledgement is read before the first error is raised. A netlink socket always belongs to the
network namespace in which it was opened, so a thread enters a namespace only to open one.
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
    """One message to send; ``about`` names it in errors.

    The bounds of a batch are not ``acknowledged``: only newer kernels answer for them.
    """

    type: int
    flags: int
    body: bytes
    about: str
    acknowledged: bool = True


def attribute(kind: int, payload: bytes) -> bytes:
    """Return a routing attribute, padded to four bytes."""
    length = _attribute.size + len(payload)
    return _attribute.pack(length, kind) + payload + bytes(-length % 4)


def nest(kind: int, *attributes: bytes) -> bytes:
    """Return an attribute that contains attributes."""
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


@contextmanager
def in_netns(netns: int) -> Iterator[None]:
    """Run a block with the calling thread in a network namespace.

    Only the calling thread moves. /proc/sys/net and new netlink sockets follow the thread.
    """
    original = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(netns, CLONE.NEWNET)
        try:
            yield
        finally:
            setns(original, CLONE.NEWNET)
    finally:
        os.close(original)


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
        """Send a batch of requests in one call and wait for every acknowledgement.

        ``ignore`` lists errno values that count as success.

        :raises OSError: for the first request that failed, with its name and the kernel's message.
        """
        first = self._sequence + 1
        batch = []
        for request in requests:
            self._sequence += 1
            header_flags = request.flags | NLM_F.REQUEST
            if request.acknowledged:
                header_flags |= NLM_F.ACK
            length = _header.size + len(request.body)
            head = _header.pack(length, request.type, header_flags, self._sequence, 0)
            batch.append(head + request.body + bytes(-length % 4))
        self._socket.send(b"".join(batch))
        failures: dict[int, OSError] = {}
        unacknowledged = {
            first + index for index, request in enumerate(requests) if request.acknowledged
        }
        while unacknowledged:
            for kind, flags, sequence, body in _messages(self._socket.recv(65536)):
                if kind != NLMSG_ERROR or not first <= sequence <= self._sequence:
                    continue
                number = -struct.unpack_from("=i", body)[0]
                if sequence not in unacknowledged:  # a bound of a batch: none of it was taken
                    if number:
                        raise _refusal(number, requests[sequence - first].about, body, flags)
                    continue
                unacknowledged.discard(sequence)
                if number and number not in ignore:
                    about = requests[sequence - first].about
                    failures[sequence] = _refusal(number, about, body, flags)
        if failures:
            raise failures[min(failures)]

    def ask(self, kind: int, body: bytes, *, about: str, absent: int) -> bytes | None:
        """Return the reply to a request for one entry, or None if the kernel answers ``absent``.

        ``absent`` is the errno value for an entry that does not exist.
        """
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
        """Yield the body of each entry of the table that a request of type ``kind`` reads."""
        self._sequence += 1
        length = _header.size + len(body)
        dump_flags = NLM_F.REQUEST | NLM_F.DUMP
        self._socket.send(_header.pack(length, kind, dump_flags, self._sequence, 0) + body)
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
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    sock.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
    sock.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
    return sock


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield (type, flags, sequence, payload) of each message in a datagram."""
    offset = 0
    while offset + _header.size <= len(data):
        length, kind, flags, sequence, _ = _header.unpack_from(data, offset)
        if length < _header.size or offset + length > len(data):
            raise OSError(errno.EPROTO, "rtnetlink: truncated message")
        yield kind, flags, sequence, data[offset + _header.size : offset + length]
        offset += (length + 3) & ~3


def attributes(data: bytes) -> dict[int, bytes]:
    """Return the attributes of a message by number; a truncated one is left out."""
    values = {}
    offset = 0
    while offset + _attribute.size <= len(data):
        length, kind = _attribute.unpack_from(data, offset)
        if length < _attribute.size:
            break
        values[kind & NLA_TYPE_MASK] = data[offset + _attribute.size : offset + length]
        offset += (length + 3) & ~3
    return values


def first_attribute(data: bytes, number: int) -> bytes:
    """Return one attribute of a message, b"" if it is absent; those behind it are not read."""
    offset = 0
    while offset + _attribute.size <= len(data):
        length, kind = _attribute.unpack_from(data, offset)
        if length < _attribute.size:
            break
        if kind & NLA_TYPE_MASK == number:
            return data[offset + _attribute.size : offset + length]
        offset += (length + 3) & ~3
    return b""


def _refusal(number: int, about: str, body: bytes, flags: int) -> OSError:
    """Return the error of a request, with the kernel's message if it sent one (NLM_F_ACK_TLVS)."""
    message = ""
    if flags & 0x200:
        message = text(attributes(body[4 + _header.size :]).get(NLMSGERR_ATTR_MSG, b""))
    reason = os.strerror(number) + (f" ({message})" if message else "")
    return OSError(number, f"netlink: {about}: {reason}")


def text(raw: bytes) -> str:
    """Decode a name in an attribute, without its final NUL."""
    return raw.rstrip(b"\0").decode("utf-8", "surrogateescape")
