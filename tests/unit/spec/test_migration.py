"""Frames and messages between engines, with hostile bytes."""

from __future__ import annotations

import random
import struct

import msgspec
import pytest

from jaula.spec import migration
from jaula.spec.migration import (
    Cancel,
    Commit,
    Frame,
    FrameKind,
    FrameParser,
    ProtocolError,
    Removed,
    TransferKind,
)


def head(kind: int, size: int) -> bytes:
    return struct.pack("!BI", kind, size)


def parse(data: bytes, step: int) -> list[Frame]:
    parser = FrameParser()
    frames = []
    for start in range(0, len(data), step):
        frames += parser.feed(data[start : start + step])
    assert parser.empty
    return frames


@pytest.mark.parametrize("step", [1, 2, 7, 4096])
def test_frames_are_the_same_however_the_stream_is_cut(step: int) -> None:
    message = migration.message_frame(Cancel("because"))
    data = message + migration.data_head(3) + b"abc" + migration.END + migration.ALIVE
    frames = parse(data, step)
    assert [frame.kind for frame in frames] == [1, 2, 3, 4]
    assert migration.decode_message(frames[0].payload) == Cancel("because")
    assert frames[1].payload == b"abc"


@pytest.mark.parametrize(
    "data",
    [
        head(0, 0),
        head(9, 0),
        head(255, 1),
        head(FrameKind.MESSAGE, migration.MAX_MESSAGE + 1),
        head(FrameKind.DATA, migration.MAX_DATA + 1),
        head(FrameKind.DATA, 0xFFFF_FFFF),
        head(FrameKind.END, 1),
        head(FrameKind.ALIVE, 1),
    ],
)
def test_an_unknown_or_too_large_frame_is_refused_before_it_is_read(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(FrameParser().feed(data))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"type":"commit","type":"nothing"}',
        b'{"type":"nothing"}',
        b'{"type":"inquiry","version":"1","id":"x"}',
        b'{"type":"transfer","kind":"shell"}',
        b'{"type":"restore","created":1,"files":[{"name":1}]}',
        b'{"type":"verdict","rows":[[1]]}',
        b"[" * 100_000,
        b'{"type":"cancel","reason":' + b"[" * 50_000,
    ],
)
def test_a_payload_that_is_not_a_message_is_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        migration.decode_message(payload)


def test_damaged_messages_are_refused_or_are_messages() -> None:
    random.seed(7)
    whole = migration.message_frame(Removed(TransferKind.VOLUME, "/data", ("a", "b/c")))[5:]
    for _ in range(2000):
        data = bytearray(whole)
        for _ in range(random.randint(1, 4)):
            data[random.randrange(len(data))] = random.randrange(256)
        try:
            migration.decode_message(bytes(data))
        except ProtocolError:
            continue


def test_a_stream_that_ends_within_a_frame_is_incomplete() -> None:
    parser = FrameParser()
    list(parser.feed(migration.message_frame(Commit())[:-1]))
    assert not parser.empty


@pytest.mark.parametrize("member", ["networks", "volumes"])
def test_an_offer_has_a_bounded_number_of_networks_and_volumes(member: str) -> None:
    """The target looks each of them up, and a message has room for 400,000."""
    host = {"architecture": "x", "kernel": "6.1", "page_size": 4096, "criu": ""}
    offer = {"type": "offer", "version": 3, "id": "1", "name": "a", "body": {}, "image": "sha256:0"}
    item = {"name": "a", "destination": "/a"}

    def sent(number: int) -> bytes:
        return msgspec.json.encode(
            offer | {"asked_image": "a", "host": host, member: [item] * number}
        )

    assert len(getattr(migration.decode_message(sent(1024)), member)) == 1024
    with pytest.raises(ProtocolError, match=r"length <= 1024"):
        migration.decode_message(sent(1025))
