"""Protocol of a build session between the engine and the client.

The client sends ``POST /build/session?session=ID`` with ``Upgrade: jaula-build``. ID is 25 to 64
random digits and lower-case letters. Then it sends ``POST /build?session=ID``. On the first
connection the engine requests what only the client's machine has: the bytes of a secret, a
connection to the ssh agent, a directory.

Both sides send frames: a kind (1 byte), a stream number (4 bytes), the length of the payload (4
bytes), all big-endian, then the payload of at most :data:`PAYLOAD_LIMIT` bytes. The engine opens
streams with numbers of its choice, and the client answers on them:

=======  ========  ==========================================================================
kind     sender    payload
=======  ========  ==========================================================================
SECRET   engine    JSON, :class:`SessionRequest`: send the secret as DATA, then END
SSH      engine    JSON, :class:`SessionRequest`: connect to the agent; DATA both ways to END
CONTEXT  engine    JSON, :class:`SessionRequest`: send the directory as a tar, then END
DATA     both      bytes of the stream
END      both      end of the sender's data; each side sends one, except on a failed stream
FAIL     both      error text: the stream failed and is closed
=======  ========  ==========================================================================

If the client does not have the requested item (no ``--secret``, ``--ssh`` or ``--build-context``
names it), it answers FAIL with the text :data:`UNKNOWN`. Any other frame ends the connection. The
tar of CONTEXT has the form of a ``/build`` body.
"""

from __future__ import annotations

import struct
from enum import IntEnum

import msgspec

PROTOCOL = "jaula-build"
"""The protocol name in ``Upgrade``."""

PAYLOAD_LIMIT = 64 * 1024  # bytes
SECRET_LIMIT = 512 * 1024  # bytes
UNKNOWN = "unknown"

_HEAD = struct.Struct("!BII")
HEADER_SIZE = _HEAD.size


class SessionRequestKind(IntEnum):
    """Frame kinds."""

    SECRET = 1
    SSH = 2
    CONTEXT = 3
    DATA = 16
    END = 17
    FAIL = 18


class SessionRequest(msgspec.Struct, frozen=True):
    """Payload of an opening frame: the id of a secret or agent, or the name of a context."""

    id: str


class BadFrame(ValueError):
    """A frame that violates the protocol."""


def encode_frame(kind: SessionRequestKind, stream: int, payload: bytes = b"") -> bytes:
    """Encode one frame.

    :raises BadFrame: when the payload exceeds :data:`PAYLOAD_LIMIT`.
    """
    if len(payload) > PAYLOAD_LIMIT:
        raise BadFrame(f"a payload has {len(payload)} bytes, {PAYLOAD_LIMIT} at most")
    return _HEAD.pack(kind, stream, len(payload)) + payload


def encode_request(kind: SessionRequestKind, stream: int, id: str) -> bytes:
    """Encode the frame that opens a stream."""
    return encode_frame(kind, stream, msgspec.json.encode(SessionRequest(id)))


def decode_request(payload: bytes) -> str:
    """Return the id in the payload of a frame that opens a stream.

    :raises BadFrame: when the payload is not a request.
    """
    try:
        return msgspec.json.decode(payload, type=SessionRequest).id
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadFrame(f"an opening frame is damaged: {error}") from None


def decode_header(data: bytes) -> tuple[SessionRequestKind, int, int]:
    """Return kind, stream and payload length from :data:`HEADER_SIZE` bytes.

    :raises BadFrame: when the kind is unknown or the length exceeds the limit.
    """
    number, stream, length = _HEAD.unpack(data)
    try:
        kind = SessionRequestKind(number)
    except ValueError:
        raise BadFrame(f"a frame of the unknown kind {number}") from None
    if length > PAYLOAD_LIMIT:
        raise BadFrame(f"a payload has {length} bytes, {PAYLOAD_LIMIT} at most")
    return kind, stream, length
