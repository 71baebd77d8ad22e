"""The protocol between engine and namespace holder: forwarded host ports, and its own files.

One SOCK_SEQPACKET message for a request and one for the answer, on the socket ``keeper/control`` in
the engine's run directory, which only the user can access.
"""

from __future__ import annotations

import msgspec


class Forward(msgspec.Struct, frozen=True, array_like=True):
    """Traffic to ``address``:``port`` on the host goes to ``target``:``target_port`` inside."""

    protocol: str
    address: str
    port: int
    target: str
    target_port: int


class Bind(msgspec.Struct, frozen=True, tag="hold"):
    """Bind a port and forward its traffic. Nothing changes if that is done already."""

    forward: Forward


class Release(msgspec.Struct, frozen=True, tag="drop"):
    """Release a port and close its connections."""

    forward: Forward


class ReleaseOthers(msgspec.Struct, frozen=True, tag="keep"):
    """Release all ports except these: ports of a former engine that no engine uses now."""

    forwards: tuple[Forward, ...]


class RestoreFiles(msgspec.Struct, frozen=True, tag="restore"):
    """Make the control socket and the fifo again, whose files another program has removed."""


Request = Bind | Release | ReleaseOthers | RestoreFiles


class Answer(msgspec.Struct, frozen=True):
    """``error`` is an errno, such as that of bind(2), or 0."""

    error: int = 0


decode_request = msgspec.json.Decoder(Request).decode
decode_answer = msgspec.json.Decoder(Answer).decode
encode = msgspec.json.Encoder().encode
