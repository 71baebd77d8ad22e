"""What the engine asks of the keeper: ports of the host that lead to containers.

One SOCK_SEQPACKET message a request and one for the answer, on ``keeper/control`` in the engine's
run directory, which only the user can reach.
"""

from __future__ import annotations

import msgspec


class Forward(msgspec.Struct, frozen=True, array_like=True):
    """What arrives at ``address``:``port`` outside goes to ``target``:``target_port`` inside."""

    protocol: str
    address: str
    port: int
    target: str
    target_port: int


class Bind(msgspec.Struct, frozen=True, tag="hold"):
    """Bind a port and send what arrives on; nothing changes where that is so already."""

    forward: Forward


class Release(msgspec.Struct, frozen=True, tag="drop"):
    """Give a port back, with its connections."""

    forward: Forward


class ReleaseOthers(msgspec.Struct, frozen=True, tag="keep"):
    """Give back every port but these: what a former engine held and nobody knows any more."""

    forwards: tuple[Forward, ...]


Request = Bind | Release | ReleaseOthers


class Answer(msgspec.Struct, frozen=True):
    """``error`` is an errno of bind(2), or 0."""

    error: int = 0


decode_request = msgspec.json.Decoder(Request).decode
decode_answer = msgspec.json.Decoder(Answer).decode
encode = msgspec.json.Encoder().encode
