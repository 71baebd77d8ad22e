"""Frames of a build's session, damaged ones among them."""

from __future__ import annotations

import pytest

from jaula.spec import build_session
from jaula.spec.build_session import BadFrame, SessionRequestKind


def test_a_frame_says_what_it_is() -> None:
    data = build_session.encode_frame(SessionRequestKind.DATA, 7, b"abc")
    assert build_session.decode_header(data[: build_session.HEADER_SIZE]) == (
        SessionRequestKind.DATA,
        7,
        3,
    )
    assert data[build_session.HEADER_SIZE :] == b"abc"
    opening = build_session.encode_request(SessionRequestKind.SECRET, 1, 'a"b')
    assert build_session.decode_request(opening[build_session.HEADER_SIZE :]) == 'a"b'


@pytest.mark.parametrize(
    "head",
    [
        bytes([99]) + bytes(8),
        bytes([SessionRequestKind.DATA])
        + bytes(4)
        + (build_session.PAYLOAD_LIMIT + 1).to_bytes(4, "big"),
        bytes([SessionRequestKind.DATA]) + bytes(4) + b"\xff" * 4,
    ],
)
def test_a_head_that_cannot_be_is_refused(head: bytes) -> None:
    with pytest.raises(BadFrame):
        build_session.decode_header(head)


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'{"id": 1}', b"\xff"])
def test_an_opening_that_cannot_be_is_refused(payload: bytes) -> None:
    with pytest.raises(BadFrame):
        build_session.decode_request(payload)


def test_no_payload_is_larger_than_a_piece() -> None:
    with pytest.raises(BadFrame):
        build_session.encode_frame(
            SessionRequestKind.DATA, 1, bytes(build_session.PAYLOAD_LIMIT + 1)
        )
