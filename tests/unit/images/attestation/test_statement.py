"""In-toto statements and their manifest."""

from __future__ import annotations

import hashlib
import json

import pytest

from jaula.features.build.attestation.statement import (
    PREDICATE_TYPE,
    STATEMENT,
    Predicate,
    Subject,
    attestation_manifest,
    statement,
)
from jaula.images.store.index import Kind, walk
from jaula.spec.image_documents import MANIFEST, Descriptor, Index, encode

IMAGE = Descriptor(MANIFEST, "sha256:" + "1" * 64, 7)
PREDICATE = Predicate("https://slsa.dev/provenance/v1", {"a": 1}, "provenance.json")


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def test_a_statement_names_its_subjects_with_their_digests() -> None:
    made = statement(PREDICATE, [Subject("pkg:docker/a@1", IMAGE.digest)])
    assert made["_type"] == "https://in-toto.io/Statement/v1"
    assert made["predicateType"] == PREDICATE.kind and made["predicate"] == {"a": 1}
    assert made["subject"] == [{"name": "pkg:docker/a@1", "digest": {"sha256": "1" * 64}}]
    assert statement(PREDICATE, [])["subject"] == []


@pytest.mark.parametrize("artifact", [True, False])
def test_a_manifest_lists_the_statements_and_names_its_image(artifact: bool) -> None:
    statements = [statement(PREDICATE, []), statement(PREDICATE, [Subject("x", IMAGE.digest)])]
    made = attestation_manifest(statements, IMAGE, artifact=artifact)
    assert digest_of(made.document) == made.descriptor.digest
    assert len(made.document) == made.descriptor.size
    assert all(digest_of(data) == digest for digest, data in made.blobs.items())
    document = json.loads(made.document)
    listed = (document["config"], *document["layers"])
    assert {part["digest"] for part in listed} == set(made.blobs)
    assert [layer["mediaType"] for layer in document["layers"]] == [STATEMENT, STATEMENT]
    assert document["layers"][0]["annotations"] == {PREDICATE_TYPE: PREDICATE.kind}
    assert json.loads(made.blobs[document["layers"][1]["digest"]]) == statements[1]
    config = json.loads(made.blobs[document["config"]["digest"]])
    if artifact:
        assert config == {}
        assert document["subject"] == {"mediaType": MANIFEST, "digest": IMAGE.digest, "size": 7}
    else:
        assert "subject" not in document and config["architecture"] == "unknown"
        digests = [layer["digest"] for layer in document["layers"]]
        assert config["rootfs"] == {"type": "layers", "diff_ids": digests}


def test_an_index_knows_the_manifest_as_an_attestation() -> None:
    made = attestation_manifest([statement(PREDICATE, [])], IMAGE, artifact=True)
    index = encode(Index(manifests=(IMAGE, made.descriptor)))
    entries = walk(index, digest_of(index), lambda descriptor: None).entries
    assert [entry.kind for entry in entries] == [Kind.IMAGE, Kind.ATTESTATION]
    assert entries[1].subject == IMAGE.digest
