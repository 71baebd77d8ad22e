"""WebSocket frames and the handshake's key, without input or output (RFC 6455).

What a client sends is masked, what a server sends is not (section 5.1). Payloads are given on as
they come: a frame may be of any length, nothing of it is kept. Control frames are whole, at most
125 bytes long and may come between the parts of a message (section 5.5).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator
from enum import IntEnum

import msgspec

from jaula.errors import InvalidRequest

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # section 1.3
_CONTROL_LIMIT = 125
NORMAL, PROTOCOL_ERROR, INTERNAL_ERROR = 1000, 1002, 1011
"""Codes of section 7.4.1."""


class Opcode(IntEnum):
    """Section 5.2."""

    CONTINUATION = 0x0
    TEXT = 0x1
    BINARY = 0x2
    CLOSE = 0x8
    PING = 0x9
    PONG = 0xA


class Part(msgspec.Struct, frozen=True):
    """A piece of a message's payload, or a whole control frame."""

    opcode: Opcode
    data: bytes


class BadFrame(Exception):
    """The peer breaks the protocol; the connection is to be closed with ``PROTOCOL_ERROR``."""


def accept(key: str) -> bytes:
    """The value of ``Sec-WebSocket-Accept``. Raises :class:`InvalidRequest` for what is no key."""
    try:
        nonce = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        nonce = b""
    if len(nonce) != 16:
        raise InvalidRequest("Sec-WebSocket-Key is not 16 bytes in base64")
    digest = hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest)


def frame(opcode: Opcode, data: bytes) -> bytes:
    """One unmasked, unfragmented frame."""
    size = len(data)
    if size < 126:
        head = bytes((0x80 | opcode, size))
    elif size < 1 << 16:
        head = bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big")
    return head + data


def close(code: int, reason: str = "") -> bytes:
    """A close frame; the reason is cut to what fits."""
    text = reason.encode("utf-8", "replace")[: _CONTROL_LIMIT - 2]
    return frame(Opcode.CLOSE, code.to_bytes(2, "big") + text.decode("utf-8", "ignore").encode())


class Decoder:
    """Takes a client's bytes in any cut."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._mask = b""
        self._left = 0
        self._place = 0  # in the mask
        self._opcode = Opcode.CONTINUATION
        self._final = True
        self._message: Opcode | None = None  # whose parts are coming
        self._control = bytearray()

    def feed(self, data: bytes) -> Iterator[Part]:
        """The parts in ``data``. Raises :class:`BadFrame`."""
        view = memoryview(data)
        while view:
            if not self._begun():
                view = view[self._more_head(view) :]
                if self._begun() and not self._left:
                    yield from self._take(b"")
                continue
            piece = bytes(view[: self._left])
            view = view[len(piece) :]
            yield from self._take(piece)

    def _begun(self) -> bool:
        """Whether the head of a frame was read and its payload is coming."""
        return bool(self._mask)

    def _more_head(self, view: memoryview) -> int:
        """Complete the head by as many bytes as it needs; how many were taken."""
        needed = 2
        if len(self._head) >= 2:
            needed = self._head_size()
        taken = view[: needed - len(self._head)]
        self._head += taken
        if len(self._head) == 2:
            self._check_bits(*self._head)
        if len(self._head) >= 2 and len(self._head) == self._head_size():
            self._begin()
        return len(taken)

    def _head_size(self) -> int:
        length = self._head[1] & 0x7F
        return 2 + {126: 2, 127: 8}.get(length, 0) + 4

    def _check_bits(self, first: int, second: int) -> None:
        if first & 0x70:
            raise BadFrame("reserved bits are set")
        if not second & 0x80:
            raise BadFrame("a client's frame is not masked")
        try:
            self._opcode = Opcode(first & 0x0F)
        except ValueError:
            raise BadFrame(f"unknown opcode {first & 0x0F}") from None

    def _begin(self) -> None:
        first, second = self._head[0], self._head[1]
        self._final = bool(first & 0x80)
        length = second & 0x7F
        if length > _CONTROL_LIMIT:
            length = int.from_bytes(self._head[2:-4], "big")
        if length >> 63:
            raise BadFrame("a length of more than 63 bits")
        self._check(length)
        self._mask = bytes(self._head[-4:])
        self._left, self._place = length, 0
        self._head.clear()

    def _check(self, length: int) -> None:
        if self._opcode >= Opcode.CLOSE:
            if not self._final or length > _CONTROL_LIMIT:
                raise BadFrame("a control frame is in parts or too long")
        elif self._opcode is Opcode.CONTINUATION:
            if self._message is None:
                raise BadFrame("a message goes on that was not begun")
        elif self._message is not None:
            raise BadFrame("a message begins in another one")
        else:
            self._message = self._opcode

    def _take(self, piece: bytes) -> Iterator[Part]:
        size = len(piece)
        start = self._place % 4
        mask = (self._mask[start:] + self._mask * (size // 4 + 1))[:size]
        number = int.from_bytes(piece, "big") ^ int.from_bytes(mask, "big")
        plain = number.to_bytes(size, "big")
        self._place += size
        self._left -= size
        control = self._opcode >= Opcode.CLOSE
        if control:
            self._control += plain
        elif plain:
            yield Part(self._message or self._opcode, plain)
        if self._left:
            return
        self._mask = b""
        if control:
            data, self._control = bytes(self._control), bytearray()
            yield Part(self._opcode, data)
        elif self._final:
            self._message = None
