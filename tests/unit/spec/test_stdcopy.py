"""The framing of stdout and stderr."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jaula.spec.stdcopy import STREAMS, StdcopyReader, frame


def read(data: bytes, cut: int) -> dict[int, bytes]:
    """Return the output by stream of data that arrives in pieces of ``cut`` bytes."""
    reader, result = StdcopyReader(), {1: b"", 2: b""}
    for at in range(0, len(data), cut):
        for stream, payload in reader.feed(data[at : at + cut]):
            result[stream] += payload
    return result


def test_frames_are_decoded_from_pieces_of_any_size() -> None:
    data = b"\x01\0\0\0\0\0\0\x02hi\x02\0\0\0\0\0\0\x03err\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x01!"
    for cut in range(1, len(data) + 1):
        assert read(data, cut) == {1: b"hi!", 2: b"err"}


OUTPUT = st.lists(st.tuples(st.sampled_from(("stdout", "stderr")), st.binary(max_size=300)))


@given(OUTPUT, st.integers(1, 400))
def test_what_is_framed_is_decoded(output: list[tuple[str, bytes]], cut: int) -> None:
    expected = {1: b"", 2: b""}
    for stream, data in output:
        expected[STREAMS[stream]] += data
    assert read(b"".join(frame(stream, data) for stream, data in output), cut) == expected


@given(st.binary(max_size=300), st.integers(1, 400))
def test_no_bytes_fail(data: bytes, cut: int) -> None:
    reader = StdcopyReader()
    for at in range(0, len(data), cut):
        for _ in reader.feed(data[at : at + cut]):
            pass
