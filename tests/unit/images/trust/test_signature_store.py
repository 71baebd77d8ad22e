"""Signatures stored between a pull and a start."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from jaula.errors import CorruptState, InvalidRequest
from jaula.features.trust.signature import Signature
from jaula.features.trust.signature_store import SignatureStore, StoredSignature
from jaula.images.registry.manifest_download import sha256
from jaula.spec.image_documents import MANIFEST, Descriptor, Index

MANIFEST_DIGEST, OTHER = "sha256:" + "ab" * 32, "sha256:" + "cd" * 32
INDEX = msgspec.json.encode(Index(manifests=(Descriptor(MANIFEST, MANIFEST_DIGEST, 3),)))
SIGNED = StoredSignature("r.io/a", (Signature(b"p", b"s"),))


@pytest.fixture
def store(tmp_path: Path) -> SignatureStore:
    return SignatureStore(tmp_path / "trust")


def test_stored_signatures_are_found(store: SignatureStore) -> None:
    assert store.of(MANIFEST_DIGEST) == ()
    store.keep(MANIFEST_DIGEST, SIGNED)
    assert store.of(MANIFEST_DIGEST) == (SIGNED,)
    assert store.path(MANIFEST_DIGEST).stat().st_mode & 0o777 == 0o600
    assert store.path(MANIFEST_DIGEST).parent.stat().st_mode & 0o777 == 0o700


def test_repositories_do_not_replace_each_other(store: SignatureStore) -> None:
    store.keep(MANIFEST_DIGEST, SIGNED)
    store.keep(MANIFEST_DIGEST, StoredSignature("r.io/b", (), INDEX))
    newer = StoredSignature("r.io/a", ())
    store.keep(MANIFEST_DIGEST, newer)
    assert store.of(MANIFEST_DIGEST) == (StoredSignature("r.io/b", (), INDEX), newer)
    for number in range(20):
        store.keep(MANIFEST_DIGEST, StoredSignature(f"r.io/{number}", ()))
    assert len(store.of(MANIFEST_DIGEST)) == 8


def test_an_index_has_to_list_the_manifest() -> None:
    assert SIGNED.signed_digest(MANIFEST_DIGEST) == MANIFEST_DIGEST
    by_index = StoredSignature("r.io/a", (), INDEX)
    assert by_index.signed_digest(MANIFEST_DIGEST) == sha256(INDEX)
    with pytest.raises(CorruptState, match="belong to another image"):
        by_index.signed_digest(OTHER)


def test_signatures_without_an_image_are_removed(store: SignatureStore) -> None:
    store.keep_only(())  # nothing is stored yet
    store.keep(MANIFEST_DIGEST, SIGNED)
    store.keep(OTHER, SIGNED)
    (store.path(OTHER).parent / "ab.1234").write_bytes(b"half")
    store.keep_only({OTHER})
    assert store.of(MANIFEST_DIGEST) == ()
    assert [path.name for path in store.path(OTHER).parent.iterdir()] == ["cd" * 32 + ".json"]


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b"[" * 10_000])
def test_a_damaged_file_is_an_error_not_an_absence(store: SignatureStore, data: bytes) -> None:
    store.keep(MANIFEST_DIGEST, SIGNED)
    store.path(MANIFEST_DIGEST).write_bytes(data)
    with pytest.raises(CorruptState, match="is damaged"):
        store.of(MANIFEST_DIGEST)


def test_only_a_digest_becomes_a_path(store: SignatureStore) -> None:
    with pytest.raises(InvalidRequest):
        store.path("sha256:../../etc/passwd")
