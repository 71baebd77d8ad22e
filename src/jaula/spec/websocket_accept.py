"""The answer to a WebSocket handshake (RFC 6455, section 4.2.2)."""

from __future__ import annotations

import base64
import binascii

from wsproto.utilities import generate_accept_token

from jaula.errors import InvalidRequest


def accept_token(key: str) -> bytes:
    """Return the value of ``Sec-WebSocket-Accept`` for a ``Sec-WebSocket-Key``.

    :raises InvalidRequest: when the key is not 16 bytes in base64, which wsproto does not check.
    """
    try:
        nonce = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        nonce = b""
    if len(nonce) != 16:
        raise InvalidRequest("Sec-WebSocket-Key is not 16 bytes in base64")
    return generate_accept_token(key.encode())
