"""Parse and check image documents."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest
from jaula.images.store.image_store import check_document
from jaula.spec.image_documents import (
    DOCUMENT_LIMIT,
    ImageConfig,
    ImageDocument,
    Manifest,
    decode,
)

DIGEST = "sha256:" + "0f" * 32


def test_null_means_absent() -> None:
    text = b'{"os":"linux","config":{"Cmd":null,"Env":["A=b"],"Labels":null},"history":null}'
    document = decode(text, ImageDocument, "it")
    assert document.config == ImageConfig(env=("A=b",))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b'{"config":[]}',
        b'{"rootfs":{"diff_ids":["sha256:../../etc/passwd"]}}',
        b'{"rootfs":{"diff_ids":["sha256:' + b"0" * 64 + b'\\n"]}}',
        b'{"config":{"Env":"A=b"}}',
        b"[" * 100_000,
        b'{"a":"\xff"}',
        b" " * (DOCUMENT_LIMIT + 1),
    ],
)
def test_a_malformed_document_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidRequest):
        decode(text, ImageDocument, "it")


@pytest.mark.parametrize("size", [-1, 2**63])
def test_a_descriptor_of_an_impossible_size_is_refused(size: int) -> None:
    text = b'{"config":{"mediaType":"x","digest":"%s","size":%d},"layers":[]}'
    with pytest.raises(InvalidRequest):
        decode(text % (DIGEST.encode(), size), Manifest, "it")


def test_an_image_for_another_system_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="windows"):
        check_document(b'{"os":"windows"}', DIGEST)
