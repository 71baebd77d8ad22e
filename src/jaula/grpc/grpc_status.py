"""Status codes of gRPC, and the error that carries one.

Source: grpc/grpc ``doc/statuscodes.md`` and ``doc/PROTOCOL-HTTP2.md`` (``grpc-message`` is
percent-encoded UTF-8).
"""

from __future__ import annotations

from enum import IntEnum
from urllib.parse import quote, unquote

_MAX_MESSAGE = 8192  # bytes of a message in a trailer, before it is encoded
_PRINTABLE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


class Code(IntEnum):
    """Status codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class GrpcError(Exception):
    """A call failed. ``details`` is a serialized ``google.rpc.Status``, empty without one."""

    def __init__(self, code: Code, message: str, details: bytes = b"") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


def encode_message(text: str) -> str:
    """Return a text as the value of ``grpc-message``. Pure."""
    data = text.encode("utf-8", "replace")[:_MAX_MESSAGE]
    return quote(data.decode("utf-8", "ignore"), safe=_PRINTABLE)


def decode_message(value: str) -> str:
    """Return the text of a ``grpc-message``. Pure."""
    return unquote(value[: 3 * _MAX_MESSAGE], errors="replace")


def parse_code(value: str) -> Code:
    """Return the code of a ``grpc-status``; UNKNOWN if it is not one. Pure."""
    try:
        return Code(int(value)) if value.isascii() and len(value) < 3 else Code.UNKNOWN
    except ValueError:
        return Code.UNKNOWN
