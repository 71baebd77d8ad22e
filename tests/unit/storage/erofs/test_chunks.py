"""The list of a layer's chunks, and the ranges of a blob that are free."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import CorruptState
from jaula.storage.erofs.chunks import CHUNK_SIZE, Chunk, blob_name, decode, encode, gaps
from jaula.storage.erofs.erofs_image import BLOCK_SIZE
from jaula.storage.erofs.erofs_tree import OWN, Contents

CHUNKS = st.lists(
    st.builds(
        Chunk,
        st.binary(min_size=16, max_size=16),
        st.integers(1, 16),
        st.integers(0, 2**32 - 1).map(lambda block: block * BLOCK_SIZE),
        st.integers(1, CHUNK_SIZE),
    )
)


@given(CHUNKS)
def test_a_list_is_read_as_it_was_written(chunks: list[Chunk]) -> None:
    assert list(decode(encode(chunks))) == chunks


@given(CHUNKS, st.data())
def test_a_changed_bit_is_found(chunks: list[Chunk], data: st.DataObject) -> None:
    encoded = bytearray(encode(chunks))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CorruptState, match="chunks of the layer is damaged"):
        decode(bytes(encoded))


@given(CHUNKS, st.data())
def test_a_shortened_list_is_found(chunks: list[Chunk], data: st.DataObject) -> None:
    encoded = encode(chunks)
    with pytest.raises(CorruptState):
        decode(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


@given(st.binary())
def test_other_data_is_not_a_list(data: bytes) -> None:
    with pytest.raises(CorruptState):
        decode(data)


BLOCKS = st.integers(0, 40)
RANGES = st.lists(st.tuples(BLOCKS.map(lambda n: n * BLOCK_SIZE), st.integers(1, 5 * BLOCK_SIZE)))


@given(RANGES, BLOCKS)
def test_gaps_are_the_blocks_that_no_range_touches(
    used: list[tuple[int, int]], blocks: int
) -> None:
    touched = {
        block
        for offset, size in used
        for block in range(offset // BLOCK_SIZE, (offset + size - 1) // BLOCK_SIZE + 1)
    }
    free = set()
    for offset, size in gaps(used, blocks * BLOCK_SIZE):
        assert offset % BLOCK_SIZE == 0 == size % BLOCK_SIZE
        assert size
        free |= set(range(offset // BLOCK_SIZE, (offset + size) // BLOCK_SIZE))
    assert free == set(range(blocks)) - touched


def test_the_last_block_of_a_blob_that_is_partly_used_stays() -> None:
    assert list(gaps([(0, 10)], 2 * BLOCK_SIZE)) == [(BLOCK_SIZE, BLOCK_SIZE)]
    assert list(gaps([(BLOCK_SIZE, 10)], BLOCK_SIZE + 10)) == [(0, BLOCK_SIZE)]


def test_the_contents_of_a_file_name_devices_only_if_another_blob_has_a_part() -> None:
    assert Contents.of([(OWN, 4096)], CHUNK_SIZE) == ((4096,), (), 0)
    assert Contents.of([(OWN, 0), (3, 8192)], CHUNK_SIZE) == ((0, 8192), (1, 3), CHUNK_SIZE)


def test_a_blob_of_a_device_has_its_number() -> None:
    assert [blob_name(device) for device in (1, 2, 16)] == ["blob", "blob.2", "blob.16"]
