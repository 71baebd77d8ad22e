"""DNS messages of a container's resolver: parse queries, build answers (RFC 1035, RFC 6891). Pure.

Only queries with one question, and answers of types A, AAAA and PTR. Answers of other servers are
forwarded unchanged; of theirs, only the addresses are read, for containers with an egress list.
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
"""Seconds for which a client may cache an answer. It is short, since containers come and go."""

ADDRESS_LIMIT = 64
"""Addresses that are read from one answer."""

PLAIN_SIZE = 512
"""Bytes of a datagram that every client accepts."""

_header = struct.Struct(">HHHHHH")  # id, flags, questions, answers, authorities, additional
_QR, _AA, _TC, _RD, _RA, _OPCODE = 0x8000, 0x0400, 0x0200, 0x0100, 0x0080, 0x7800
_NAME_LIMIT, _LABEL_LIMIT = 255, 63
_FIRST_NAME = struct.pack(">H", 0xC000 | _header.size)  # a pointer to the question's name


class MalformedMessage(Exception):
    """The message is not a query; it gets no answer."""


class Query(msgspec.Struct, frozen=True):
    """A query.

    ``name`` is in lower case without the final dot, and '' if a label is not plain ASCII.
    ``question`` is the encoded question. ``size`` is the largest datagram that the client accepts.
    ``error`` is the response code if the query cannot be answered.
    """

    id: int
    flags: int
    name: str
    type: int
    question: bytes
    size: int = PLAIN_SIZE
    has_opt: bool = False
    error: int = NOERROR


def parse(data: bytes) -> Query:
    """Parse a query.

    :raises MalformedMessage: when it is shorter than a header, or is an answer.
    """
    if len(data) < _header.size:
        raise MalformedMessage("shorter than a header")
    message_id, flags, questions, answers, authorities, additional = _header.unpack_from(data)
    if flags & _QR:
        raise MalformedMessage("an answer")
    format_error = Query(message_id, flags, "", 0, b"", error=FORMERR)
    if flags & _OPCODE:
        return msgspec.structs.replace(format_error, error=NOTIMP)
    if questions != 1:
        return format_error
    try:
        name, end = _name(data, _header.size)
        type_, class_ = struct.unpack_from(">HH", data, end)
    except (IndexError, ValueError, struct.error):
        return format_error
    end += 4
    size, has_opt = PLAIN_SIZE, False
    if additional and not answers and not authorities and data[end : end + 3] == b"\0\0\x29":
        if end + 11 > len(data):
            return format_error
        size, has_opt = max(PLAIN_SIZE, int.from_bytes(data[end + 3 : end + 5], "big")), True
    return Query(
        message_id,
        flags,
        name if class_ == IN else "",
        type_,
        data[_header.size : end],
        size,
        has_opt,
    )


def _name(data: bytes, offset: int) -> tuple[str, int]:
    """Return the name at an offset, and the offset of its end. A question has no pointers."""
    labels: list[bytes] = []
    start = offset
    while length := data[offset]:
        if length > _LABEL_LIMIT or offset + length - start > _NAME_LIMIT:
            raise ValueError("label too long, or a pointer")
        label = data[offset + 1 : offset + 1 + length]
        if len(label) < length:
            raise ValueError("truncated")
        labels.append(label)
        offset += 1 + length
    is_plain = all(label.isascii() and b"." not in label for label in labels)
    return (b".".join(labels).decode().lower() if is_plain else ""), offset + 1


def answer(query: Query, addresses: Sequence[str], *, limit: int = 65535) -> bytes:
    """Return an answer with the addresses of the queried type.

    Without such an address the answer is empty, which is not an error.
    """
    matching = [address for address in map(ip_address, addresses) if _matches(query.type, address)]
    records = [
        _record(AAAA if isinstance(address, IPv6Address) else A, address.packed)
        for address in matching
    ]
    return _message(query, NOERROR, records, limit)


def _matches(type_: int, address: IPv4Address | IPv6Address) -> bool:
    return type_ in (AAAA if address.version == 6 else A, ANY)


def pointer(query: Query, name: str, *, limit: int = 65535) -> bytes:
    """Return an answer with the name of an address."""
    labels = [label.encode() for label in name.split(".")]
    if any(not 0 < len(label) <= _LABEL_LIMIT for label in labels):
        return failure(query, NXDOMAIN)
    encoded = b"".join(bytes([len(label)]) + label for label in labels) + b"\0"
    return _message(query, NOERROR, [_record(PTR, encoded)], limit)


def failure(query: Query, code: int) -> bytes:
    """Return an answer without records, with a response code."""
    return _message(query, code, [], 65535)


def _record(type_: int, payload: bytes) -> bytes:
    return _FIRST_NAME + struct.pack(">HHIH", type_, IN, TTL, len(payload)) + payload


def _message(query: Query, code: int, records: Sequence[bytes], limit: int) -> bytes:
    """Return a message. Records beyond ``limit`` bytes are left out and the flag TC is set."""
    options = b"\0" + struct.pack(">HHIH", OPT, 1232, 0, 0) if query.has_opt else b""
    remaining = limit - _header.size - len(query.question) - len(options)
    truncated = 0
    fitting: list[bytes] = []
    for row in records:
        remaining -= len(row)
        if remaining < 0:
            truncated = _TC
            break
        fitting.append(row)
    flags = _QR | _AA | _RA | truncated | (query.flags & (_RD | _OPCODE)) | code
    counts = (1 if query.question else 0, len(fitting), 0, 1 if options else 0)
    header = _header.pack(query.id, flags, *counts)
    return header + query.question + b"".join(fitting) + options


def parse_addresses(data: bytes) -> dict[str, int]:
    """Return the addresses in the answer section of a message, with their TTL in seconds.

    All records count, whatever their owner: a name may be an alias. What follows a malformed record
    is ignored. At most ``ADDRESS_LIMIT`` addresses are returned.
    """
    found: dict[str, int] = {}
    try:
        _, _, questions, answers, _, _ = _header.unpack_from(data)
        offset = _header.size
        for _ in range(questions):
            offset = _skip_name(data, offset) + 4
        for _ in range(answers):
            offset = _skip_name(data, offset)
            type_, class_, ttl, length = struct.unpack_from(">HHIH", data, offset)
            offset += 10
            payload = data[offset : offset + length]
            offset += length
            if len(payload) == length and class_ == IN and (type_, length) in ((A, 4), (AAAA, 16)):
                found[str(ip_address(payload))] = ttl if ttl < 1 << 31 else 0  # RFC 2181, 8
            if len(found) >= ADDRESS_LIMIT:
                break
    except (IndexError, struct.error):
        pass
    return found


def _skip_name(data: bytes, offset: int) -> int:
    """Return the offset after a name, which may end with a pointer.

    :raises IndexError: when the name exceeds the message.
    """
    while length := data[offset]:
        if length >= 0xC0:
            return offset + 2
        offset += 1 + length
    return offset + 1


def plain_query(query: Query) -> bytes:
    """Return a query with nothing of the client's message but its name, type and size.

    Options, flags and the case of letters can carry data of the client.
    """
    options = b"\0" + struct.pack(">HHIH", OPT, query.size, 0, 0) if query.has_opt else b""
    header = _header.pack(query.id, _RD, 1, 0, 0, 1 if options else 0)
    return header + query.question.lower()[:-4] + query.question[-4:] + options


def with_question(data: bytes, query: Query) -> bytes:
    """Return an answer with the question as the client wrote it, if it has the same one."""
    end = _header.size + len(query.question)
    if data[_header.size : end].lower() != query.question.lower():
        return data
    return data[: _header.size] + query.question + data[end:]


def with_id(data: bytes, message_id: int) -> bytes:
    """Return the message with another id."""
    return message_id.to_bytes(2, "big") + data[2:]


def is_answer_to(data: bytes, message_id: int, query: Query) -> bool:
    """Return whether a datagram answers the query that was sent with ``message_id``."""
    if len(data) < _header.size:
        return False
    answer_id, flags, questions, *_ = _header.unpack_from(data)
    if answer_id != message_id or not flags & _QR:
        return False
    if not questions:  # a server may omit the question when it refuses
        return bool(flags & 0xF)
    question = data[_header.size : _header.size + len(query.question)]
    return question.lower() == query.question.lower()


def parse_reverse_name(name: str) -> str | None:
    """Return the address of a name below in-addr.arpa or ip6.arpa, or None."""
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
