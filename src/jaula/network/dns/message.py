"""Questions and answers of the domain name system, as bytes (RFC 1035, RFC 6891). Pure.

Only what a resolver for containers says itself: one question, answers of type A, AAAA and PTR. What
it passes on is not looked into, so a reader of answers is not needed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

import msgspec

A, PTR, AAAA, OPT, ANY = 1, 12, 28, 41, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 1, 2, 3, 4, 5

TTL = 5
"""Seconds for which an answer may be kept: containers come and go."""

PLAIN_SIZE = 512
"""Bytes of a datagram that any client takes."""

_header = struct.Struct(">HHHHHH")  # id, flags, questions, answers, authorities, additional
_QR, _AA, _TC, _RD, _RA, _OPCODE = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x7800
_NAME_LIMIT, _LABEL_LIMIT = 255, 63
_FIRST_NAME = struct.pack(">H", 0xC000 | _header.size)  # a pointer to the question's name


class MalformedMessage(Exception):
    """No question at all: nothing is answered."""


class Query(msgspec.Struct, frozen=True):
    """One question. ``name`` is in lower case, without a final dot, '' if it has odd bytes.

    ``question`` is its bytes; ``size`` how long a datagram the client takes; ``error`` is what the
    answer has to be where the question cannot be answered.
    """

    id: int
    flags: int
    name: str
    type: int
    question: bytes
    size: int = PLAIN_SIZE
    extended: bool = False
    error: int = NOERROR


def parse(data: bytes) -> Query:
    """Read a query.

    :raises Malformed: it is too short to have an id, or is itself an answer.
    """
    if len(data) < _header.size:
        raise MalformedMessage("shorter than a header")
    identity, flags, questions, answers, authorities, additional = _header.unpack_from(data)
    if flags & _QR:
        raise MalformedMessage("an answer")
    refused = Query(identity, flags, "", 0, b"", error=FORMERR)
    if flags & _OPCODE:
        return msgspec.structs.replace(refused, error=NOTIMP)
    if questions != 1:
        return refused
    try:
        name, end = _name(data, _header.size)
        kind, klass = struct.unpack_from(">HH", data, end)
    except (IndexError, ValueError, struct.error):
        return refused
    end += 4
    size, extended = PLAIN_SIZE, False
    if additional and not answers and not authorities and data[end : end + 3] == b"\0\0\x29":
        if end + 11 > len(data):
            return refused
        size, extended = max(PLAIN_SIZE, int.from_bytes(data[end + 3 : end + 5], "big")), True
    return Query(
        identity,
        flags,
        name if klass == IN else "",
        kind,
        data[_header.size : end],
        size,
        extended,
    )


def _name(data: bytes, offset: int) -> tuple[str, int]:
    """The name at an offset and where it ends. A pointer has no place in a question."""
    labels: list[bytes] = []
    start = offset
    while length := data[offset]:
        if length > _LABEL_LIMIT or offset + length - start > _NAME_LIMIT:
            raise ValueError("a label that is too long, or a pointer")
        label = data[offset + 1 : offset + 1 + length]
        if len(label) < length:
            raise ValueError("cut short")
        labels.append(label)
        offset += 1 + length
    plain = all(label.isascii() and b"." not in label for label in labels)
    return (b".".join(labels).decode().lower() if plain else ""), offset + 1


def answer(query: Query, addresses: Sequence[str], *, limit: int = 65535) -> bytes:
    """The addresses of the asked kind: none of that kind is an empty answer, not an error."""
    wanted = [address for address in map(ip_address, addresses) if _fits(query.type, address)]
    rows = [
        _record(AAAA if isinstance(address, IPv6Address) else A, address.packed)
        for address in wanted
    ]
    return _message(query, NOERROR, rows, limit)


def _fits(kind: int, address: IPv4Address | IPv6Address) -> bool:
    return kind in (AAAA if address.version == 6 else A, ANY)


def pointer(query: Query, name: str, *, limit: int = 65535) -> bytes:
    """The name that an address has."""
    labels = [label.encode() for label in name.split(".")]
    if any(not 0 < len(label) <= _LABEL_LIMIT for label in labels):
        return failure(query, NXDOMAIN)
    encoded = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return _message(query, NOERROR, [_record(PTR, encoded)], limit)


def failure(query: Query, code: int) -> bytes:
    """An answer that says why there is none."""
    return _message(query, code, [], 65535)


def _record(kind: int, payload: bytes) -> bytes:
    return _FIRST_NAME + struct.pack(">HHIH", kind, IN, TTL, len(payload)) + payload


def _message(query: Query, code: int, rows: Sequence[bytes], limit: int) -> bytes:
    """One message; answers that do not fit in ``limit`` bytes are left out and it says so (TC)."""
    options = b"\0" + struct.pack(">HHIH", OPT, 1232, 0, 0) if query.extended else b""
    room = limit - _header.size - len(query.question) - len(options)
    cut = 0
    kept: list[bytes] = []
    for row in rows:
        room -= len(row)
        if room < 0:
            cut = _TC
            break
        kept.append(row)
    flags = _QR | _AA | _RA | cut | (query.flags & (_RD | _OPCODE)) | code
    counts = (1 if query.question else 0, len(kept), 0, 1 if options else 0)
    head = _header.pack(query.id, flags, *counts)
    return head + query.question + b"".join(kept) + options


def with_id(data: bytes, identity: int) -> bytes:
    """The same message under another id."""
    return identity.to_bytes(2, "big") + data[2:]


def is_answer_to(data: bytes, identity: int, query: Query) -> bool:
    """Whether a datagram is an answer to the question that was sent under ``identity``."""
    if len(data) < _header.size:
        return False
    found, flags, questions, *_ = _header.unpack_from(data)
    if found != identity or not flags & _QR:
        return False
    if not questions:  # a server that refuses may leave the question out
        return bool(flags & 0xF)
    asked = data[_header.size : _header.size + len(query.question)]
    return asked.lower() == query.question.lower()


def parse_reverse_name(name: str) -> str | None:
    """The address that a name below in-addr.arpa or ip6.arpa stands for."""
    if name.endswith(".in-addr.arpa"):
        parts = name.removesuffix(".in-addr.arpa").split(".")
        text = ".".join(reversed(parts))
    elif name.endswith(".ip6.arpa"):
        digits = "".join(reversed(name.removesuffix(".ip6.arpa").split(".")))
        if len(digits) != 32:
            return None
        text = ":".join(digits[i : i + 4] for i in range(0, 32, 4))
    else:
        return None
    try:
        return str(ip_address(text))
    except ValueError:
        return None
