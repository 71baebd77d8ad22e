"""Frames of a build's session, damaged ones among them."""

from __future__ import annotations

import pytest

from jaula.spec import buildsession
from jaula.spec.buildsession import BadFrame, Kind


def test_a_frame_says_what_it_is() -> None:
    data = buildsession.frame(Kind.DATA, 7, b"abc")
    assert buildsession.head(data[: buildsession.HEAD_SIZE]) == (Kind.DATA, 7, 3)
    assert data[buildsession.HEAD_SIZE :] == b"abc"
    opening = buildsession.ask(Kind.SECRET, 1, 'a"b')
    assert buildsession.asked(opening[buildsession.HEAD_SIZE :]) == 'a"b'


@pytest.mark.parametrize(
    "head",
    [
        bytes([99]) + bytes(8),
        bytes([Kind.DATA]) + bytes(4) + (buildsession.PIECE + 1).to_bytes(4, "big"),
        bytes([Kind.DATA]) + bytes(4) + b"\xff" * 4,
    ],
)
def test_a_head_that_cannot_be_is_refused(head: bytes) -> None:
    with pytest.raises(BadFrame):
        buildsession.head(head)


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'{"id": 1}', b"\xff"])
def test_an_opening_that_cannot_be_is_refused(payload: bytes) -> None:
    with pytest.raises(BadFrame):
        buildsession.asked(payload)


def test_no_payload_is_larger_than_a_piece() -> None:
    with pytest.raises(BadFrame):
        buildsession.frame(Kind.DATA, 1, bytes(buildsession.PIECE + 1))
