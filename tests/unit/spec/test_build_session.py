"""Frames of a build's session, damaged ones among them."""

from __future__ import annotations

import pytest

from jaula.spec import build_session
from jaula.spec.build_session import BadFrame, SessionRequestKind


def test_a_frame_says_what_it_is() -> None:
    data = build_session.frame(SessionRequestKind.DATA, 7, b"abc")
    assert build_session.head(data[: build_session.HEAD_SIZE]) == (SessionRequestKind.DATA, 7, 3)
    assert data[build_session.HEAD_SIZE :] == b"abc"
    opening = build_session.ask(SessionRequestKind.SECRET, 1, 'a"b')
    assert build_session.asked(opening[build_session.HEAD_SIZE :]) == 'a"b'


@pytest.mark.parametrize(
    "head",
    [
        bytes([99]) + bytes(8),
        bytes([SessionRequestKind.DATA]) + bytes(4) + (build_session.PIECE + 1).to_bytes(4, "big"),
        bytes([SessionRequestKind.DATA]) + bytes(4) + b"\xff" * 4,
    ],
)
def test_a_head_that_cannot_be_is_refused(head: bytes) -> None:
    with pytest.raises(BadFrame):
        build_session.head(head)


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'{"id": 1}', b"\xff"])
def test_an_opening_that_cannot_be_is_refused(payload: bytes) -> None:
    with pytest.raises(BadFrame):
        build_session.asked(payload)


def test_no_payload_is_larger_than_a_piece() -> None:
    with pytest.raises(BadFrame):
        build_session.frame(SessionRequestKind.DATA, 1, bytes(build_session.PIECE + 1))
