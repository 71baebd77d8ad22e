"""Frames of a build session, including damaged ones."""

from __future__ import annotations

import pytest

from jaula.features.build import session_protocol
from jaula.features.build.session_protocol import BadFrame, SessionRequestKind


def test_frames_round_trip() -> None:
    data = session_protocol.encode_frame(SessionRequestKind.DATA, 7, b"abc")
    assert session_protocol.decode_header(data[: session_protocol.HEADER_SIZE]) == (
        SessionRequestKind.DATA,
        7,
        3,
    )
    assert data[session_protocol.HEADER_SIZE :] == b"abc"
    opening = session_protocol.encode_request(SessionRequestKind.SECRET, 1, 'a"b')
    assert session_protocol.decode_request(opening[session_protocol.HEADER_SIZE :]) == 'a"b'


@pytest.mark.parametrize(
    "head",
    [
        bytes([99]) + bytes(8),
        bytes([SessionRequestKind.DATA])
        + bytes(4)
        + (session_protocol.PAYLOAD_LIMIT + 1).to_bytes(4, "big"),
        bytes([SessionRequestKind.DATA]) + bytes(4) + b"\xff" * 4,
    ],
)
def test_an_invalid_header_is_refused(head: bytes) -> None:
    with pytest.raises(BadFrame):
        session_protocol.decode_header(head)


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'{"id": 1}', b"\xff", b'{"\xff": 1}'])
def test_an_invalid_request_is_refused(payload: bytes) -> None:
    with pytest.raises(BadFrame):
        session_protocol.decode_request(payload)


def test_a_payload_above_the_limit_is_refused() -> None:
    with pytest.raises(BadFrame):
        session_protocol.encode_frame(
            SessionRequestKind.DATA, 1, bytes(session_protocol.PAYLOAD_LIMIT + 1)
        )
