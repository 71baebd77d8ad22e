"""What the engine and a client say on the session of a build.

The client sends ``POST /build/session?session=ID`` with ``Upgrade: jaula-build``, ID being 32 to 64
hexadecimal digits that it made up, and afterwards ``POST /build?session=ID``. On the first
connection the engine asks for what a build needs of the client's machine and nothing else may have:
the bytes of a secret, a connection to its ssh agent, a directory.

Both send frames: a kind (1 byte), the number of a stream (4 bytes), the length of the payload (4
bytes), all big-endian, then the payload, :data:`PIECE` bytes at most. The engine opens streams,
with numbers of its choice, and the client answers on them:

=======  ========  ===========================================================================
kind     sender    payload
=======  ========  ===========================================================================
SECRET   engine    JSON, :class:`SessionRequest`: send the secret's bytes as DATA, then END
SSH      engine    JSON, :class:`SessionRequest`: connect to the agent; DATA goes both ways until an END
CONTEXT  engine    JSON, :class:`SessionRequest`: send the directory as a tar, as of ``/build``, then END
DATA     both      bytes of the stream
END      both      nothing more comes from the sender; each side sends one, a failed stream none
FAIL     both      text for people: the stream cannot be had; it is over
=======  ========  ===========================================================================

A stream that the client does not have (no ``--secret``, ``--ssh``, ``--build-context`` named it) is
answered by FAIL with the text :data:`UNKNOWN`. What lies outside of this ends the connection.
"""

from __future__ import annotations

import struct
from enum import IntEnum

import msgspec

PROTOCOL = "jaula-build"
"""The word in ``Upgrade``."""

PAYLOAD_LIMIT = 64 * 1024  # bytes of a payload at most
SECRET_LIMIT = 512 * 1024  # bytes of a secret at most
UNKNOWN = "unknown"

_HEAD = struct.Struct("!BII")
HEADER_SIZE = _HEAD.size


class SessionRequestKind(IntEnum):
    """What a frame is."""

    SECRET = 1
    SSH = 2
    CONTEXT = 3
    DATA = 16
    END = 17
    FAIL = 18


class SessionRequest(msgspec.Struct, frozen=True):
    """What a stream is to be: the ``id`` of a secret or an agent, the name of a context."""

    id: str


class BadFrame(ValueError):
    """The other side does not keep to the protocol."""


def encode_frame(kind: SessionRequestKind, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    if len(payload) > PAYLOAD_LIMIT:
        raise BadFrame(f"a payload has {len(payload)} bytes, {PAYLOAD_LIMIT} at most")
    return _HEAD.pack(kind, stream, len(payload)) + payload


def encode_request(kind: SessionRequestKind, stream: int, id: str) -> bytes:
    """The frame that opens a stream."""
    return encode_frame(kind, stream, msgspec.json.encode(SessionRequest(id)))


def decode_request(payload: bytes) -> str:
    """The id in the payload of one."""
    try:
        return msgspec.json.decode(payload, type=SessionRequest).id
    except msgspec.DecodeError as error:
        raise BadFrame(f"an opening frame is damaged: {error}") from None


def decode_header(data: bytes) -> tuple[SessionRequestKind, int, int]:
    """Kind, stream and length of the payload from :data:`HEAD_SIZE` bytes; raises BadFrame."""
    number, stream, length = _HEAD.unpack(data)
    try:
        kind = SessionRequestKind(number)
    except ValueError:
        raise BadFrame(f"a frame of the unknown kind {number}") from None
    if length > PAYLOAD_LIMIT:
        raise BadFrame(f"a payload has {length} bytes, {PAYLOAD_LIMIT} at most")
    return kind, stream, length
