"""The name of a layer: its diff id, or what one manifest states about it."""

from __future__ import annotations

import msgspec
import pytest

from jaula.spec.image_documents import (
    ESTARGZ_DIGEST,
    LAYER_GZIP,
    LAYER_ZSTD,
    ZSTD_CHUNKED_DIGEST,
    ZSTD_CHUNKED_POSITION,
    Descriptor,
    diff_id_of,
    layer_name,
)

DIFF_ID = "sha256:" + "1" * 64
LAYER = Descriptor(
    LAYER_ZSTD,
    "sha256:" + "2" * 64,
    1000,
    {ZSTD_CHUNKED_DIGEST: "sha256:" + "3" * 64, ZSTD_CHUNKED_POSITION: "1:2:3:1"},
)


def test_a_layer_without_a_table_of_contents_has_its_diff_id() -> None:
    plain = msgspec.structs.replace(LAYER, annotations={"other": "annotation"})
    assert layer_name(plain, DIFF_ID) == DIFF_ID


def test_a_name_has_its_diff_id() -> None:
    assert diff_id_of(layer_name(LAYER, DIFF_ID)) == DIFF_ID
    assert diff_id_of(DIFF_ID) == DIFF_ID


def test_annotations_that_do_not_matter_change_no_name() -> None:
    more = msgspec.structs.replace(LAYER, annotations=LAYER.annotations | {"other": "annotation"})
    assert layer_name(more, DIFF_ID) == layer_name(LAYER, DIFF_ID)


@pytest.mark.parametrize(
    "changes",
    [
        {"digest": "sha256:" + "4" * 64},
        {"size": 1001},
        {"media_type": LAYER_GZIP},
        {"annotations": LAYER.annotations | {ZSTD_CHUNKED_DIGEST: "sha256:" + "4" * 64}},
        {"annotations": LAYER.annotations | {ZSTD_CHUNKED_POSITION: "1:2:4:1"}},
        {"annotations": LAYER.annotations | {ESTARGZ_DIGEST: "sha256:" + "3" * 64}},
        {"annotations": {ZSTD_CHUNKED_DIGEST: "sha256:" + "3" * 64}},
        {"annotations": {ESTARGZ_DIGEST: "sha256:" + "3" * 64}},
    ],
)
def test_each_statement_is_a_part_of_the_name(changes: dict[str, object]) -> None:
    assert layer_name(msgspec.structs.replace(LAYER, **changes), DIFF_ID) != layer_name(
        LAYER, DIFF_ID
    )


def test_the_diff_id_is_a_part_of_the_name() -> None:
    other = "sha256:" + "5" * 64
    assert (
        layer_name(LAYER, other).partition("+")[2] != layer_name(LAYER, DIFF_ID).partition("+")[2]
    )
