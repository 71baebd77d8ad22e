"""Answers of the sink to the protocols that programs of intruders speak. Pure.

The sink never sends what a client could use: a download is a script that does nothing.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections import OrderedDict

from jaula.network.dns import message

# RFC 2544 and RFC 5180 reserve these for benchmarks: no host of the Internet has them.
POOL = ipaddress.ip_network("198.18.0.0/15")
POOL6 = ipaddress.ip_network("2001:2::/48")
MAX_NAMES = 4096

GREETINGS = {
    21: b"220 FTP server ready\r\n",
    22: b"SSH-2.0-OpenSSH_9.2p1\r\n",
    25: b"220 mail ESMTP\r\n",
    587: b"220 mail ESMTP\r\n",
    2525: b"220 mail ESMTP\r\n",
}
SMTP_PORTS = frozenset((25, 587, 2525))
SCRIPT = b"#!/bin/sh\nexit 0\n"
PAGE = b"<!doctype html><title>Index</title><p>It works!</p>\n"
_REQUEST = re.compile(rb"(GET|HEAD|POST|PUT|OPTIONS|DELETE|PATCH|CONNECT) (\S+) HTTP/1\.[01]\r?\n")
_LENGTH = re.compile(rb"\r?\ncontent-length: *([0-9]{1,9}) *\r?\n", re.IGNORECASE)
_ABSENT = (b"/robots.txt", b"/favicon.ico")


class Names:
    """Addresses of names. The newest ``MAX_NAMES`` names are known, so memory is bounded."""

    def __init__(self) -> None:
        self._names: OrderedDict[str, str] = OrderedDict()

    def addresses(self, name: str) -> tuple[str, str]:
        """Return the IPv4 and the IPv6 address of a name, always the same ones."""
        digest = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")
        pair = (
            str(POOL[1 + digest % (POOL.num_addresses - 2)]),
            str(POOL6[1 + digest % (1 << 64)]),
        )
        for address in pair:
            self._names[address] = name
            self._names.move_to_end(address)
        while len(self._names) > 2 * MAX_NAMES:
            self._names.popitem(last=False)
        return pair

    def name(self, address: str) -> str:
        """Return the name that was last resolved to an address, '' if there is none."""
        return self._names.get(address, "")


def dns_answer(data: bytes, names: Names, *, limit: int | None = None) -> tuple[str, bytes]:
    """Return the name that was asked for and the answer; the answer is b"" for no query.

    ``limit`` is the largest answer in bytes, None that of a datagram.
    """
    try:
        query = message.parse(data)
    except message.MalformedMessage:
        return "", b""
    if query.error:
        return "", message.failure(query, query.error)
    size = query.size if limit is None else limit
    if query.type == message.PTR and (address := message.parse_reverse_name(query.name)):
        return query.name, message.pointer(query, names.name(address) or "localhost", limit=size)
    if not query.name:
        return "", message.failure(query, message.NXDOMAIN)
    return query.name, message.answer(query, names.addresses(query.name), limit=size)


def is_tls(data: bytes) -> bool:
    """Return whether data begins with a TLS handshake record (RFC 8446, 5.1)."""
    return len(data) >= 3 and data[0] == 0x16 and data[1] == 0x03


def is_http(data: bytes) -> bool:
    """Return whether data begins with the first line of an HTTP/1 request."""
    return _REQUEST.match(data) is not None


def http_missing(data: bytes) -> int:
    """Return the number of bytes of a request that are not there yet; 1 in its headers."""
    end = min((at + n for at, n in _ends(data) if at >= 0), default=-1)
    if end < 0:
        return 1
    match = _LENGTH.search(data[:end])
    return max(0, end + (int(match[1]) if match else 0) - len(data))


def _ends(data: bytes) -> list[tuple[int, int]]:
    return [(data.find(b"\r\n\r\n"), 4), (data.find(b"\n\n"), 2)]


def http_answer(data: bytes) -> bytes:
    """Return the answer to an HTTP/1 request: a page, a script that does nothing, or 404."""
    match = _REQUEST.match(data)
    assert match is not None
    method, path = match[1], match[2].partition(b"?")[0]
    if path.startswith(b"http"):
        path = b"/" + path.partition(b"//")[2].partition(b"/")[2]
    if path in _ABSENT:
        status, kind, body = b"404 Not Found", b"text/plain", b"not found\n"
    elif method == b"GET" and not path.endswith((b"/", b".html", b".php")):
        status, kind, body = b"200 OK", b"application/octet-stream", SCRIPT
    else:
        status, kind, body = b"200 OK", b"text/html", PAGE
    head = b"HTTP/1.1 %s\r\nServer: nginx\r\nContent-Type: %s\r\n" % (status, kind)
    head += b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body)
    return head if method == b"HEAD" else head + body


class Smtp:
    """The server's side of one SMTP dialogue (RFC 5321): every message is accepted."""

    def __init__(self) -> None:
        self._buffer = b""
        self._in_data = False
        self.ended = False

    def feed(self, data: bytes) -> bytes:
        """Return the answers to the complete lines; a line of more than 4 KiB ends the dialogue."""
        self._buffer += data
        answers = b""
        while b"\n" in self._buffer and not self.ended:
            line, _, self._buffer = self._buffer.partition(b"\n")
            answers += self._answer(line.rstrip(b"\r"))
        if len(self._buffer) > 4096:
            self.ended = True
        return answers

    def _answer(self, line: bytes) -> bytes:
        if self._in_data:
            if line != b".":
                return b""
            self._in_data = False
            return b"250 2.0.0 Ok: queued\r\n"
        verb = line[:4].upper()
        if verb == b"DATA":
            self._in_data = True
            return b"354 End data with <CR><LF>.<CR><LF>\r\n"
        if verb == b"QUIT":
            self.ended = True
            return b"221 2.0.0 Bye\r\n"
        if verb == b"AUTH":
            return b"235 2.7.0 Authentication successful\r\n"
        return b"250 mail\r\n"
