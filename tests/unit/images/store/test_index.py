"""The walk over an image index: what it lists, and the bounds for hostile ones."""

from __future__ import annotations

import hashlib
import json

import pytest

from jaula.errors import InvalidRequest
from jaula.images.store.index import (
    DEPTH_LIMIT,
    INDEXES_LIMIT,
    MANIFESTS_LIMIT,
    IndexTree,
    Kind,
    walk,
)
from jaula.spec.image_documents import INDEX, MANIFEST, Descriptor

Json = dict[str, object]


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def manifest(number: int, **more: object) -> Json:
    return {"mediaType": MANIFEST, "digest": digest(b"%d" % number), "size": 2} | more


class Documents:
    """Indexes by digest, and how often each was read."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.read: list[str] = []

    def add(self, *manifests: Json) -> Json:
        data = json.dumps({"schemaVersion": 2, "manifests": manifests}).encode()
        self.stored[digest(data)] = data
        return {"mediaType": INDEX, "digest": digest(data), "size": len(data)}

    def walk(self, *manifests: Json) -> IndexTree:
        root = str(self.add(*manifests)["digest"])
        return walk(self.stored[root], root, self.reader)

    def reader(self, descriptor: Descriptor) -> bytes | None:
        self.read.append(descriptor.digest)
        return self.stored.get(descriptor.digest)


def test_the_kinds_of_manifests_are_told_apart() -> None:
    subject = str(manifest(1)["digest"])
    attestation = {
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": subject,
    }
    unknown = {"os": "unknown", "architecture": "unknown"}
    tree = Documents().walk(
        manifest(1, platform={"os": "linux", "architecture": "amd64"}),
        manifest(2, platform=unknown, annotations=attestation),
        manifest(3, platform=unknown),
        manifest(4, mediaType="text/plain"),
        manifest(5),
    )
    kinds = [entry.kind for entry in tree.entries]
    assert kinds == [Kind.IMAGE, Kind.ATTESTATION, Kind.UNKNOWN, Kind.UNKNOWN, Kind.IMAGE]
    assert tree.entries[1].subject == subject


def test_a_nested_index_is_followed_and_an_absent_one_is_not() -> None:
    documents = Documents()
    nested, absent = documents.add(manifest(2)), documents.add(manifest(3))
    del documents.stored[str(absent["digest"])]
    tree = documents.walk(manifest(1), nested, absent)
    assert [entry.descriptor.digest for entry in tree.entries] == [
        manifest(1)["digest"],
        manifest(2)["digest"],
    ]
    assert [index.digest for index in tree.nested] == [nested["digest"]]
    assert not tree.is_whole


def test_an_index_that_is_listed_many_times_is_read_once() -> None:
    """A graph that shares its nodes has exponentially many paths."""
    documents = Documents()
    nested = documents.add(manifest(1))
    tree = documents.walk(*[nested] * 100)
    assert documents.read == [nested["digest"]]
    assert len(tree.entries) == 1


def test_the_depth_is_bounded() -> None:
    documents = Documents()
    nested = manifest(1)
    for _ in range(DEPTH_LIMIT - 1):
        nested = documents.add(nested)
    assert len(documents.walk(nested).entries) == 1
    with pytest.raises(InvalidRequest, match="levels"):
        documents.walk(documents.add(nested))


def test_the_number_of_indexes_is_bounded() -> None:
    documents = Documents()
    nested = [documents.add(manifest(number)) for number in range(INDEXES_LIMIT + 1)]
    assert len(documents.walk(*nested[:-1]).entries) == INDEXES_LIMIT
    with pytest.raises(InvalidRequest, match="indexes"):
        documents.walk(*nested)


@pytest.mark.parametrize("parts", [1, 4])
def test_the_number_of_manifests_is_bounded(parts: int) -> None:
    documents = Documents()
    count = MANIFESTS_LIMIT // parts
    nested = [
        documents.add(*(manifest(part * count + n) for n in range(count))) for part in range(parts)
    ]
    assert len(documents.walk(*nested).entries) == MANIFESTS_LIMIT
    with pytest.raises(InvalidRequest, match="limit"):
        documents.walk(*nested, manifest(MANIFESTS_LIMIT + 1))
    with pytest.raises(InvalidRequest, match="limit"):
        documents.walk(*(manifest(number) for number in range(MANIFESTS_LIMIT + 1)))


@pytest.mark.parametrize(
    "text", [b"", b"[]", b'{"manifests":{}}', b'{"manifests":[{"digest":"x","size":1}]}', b"[" * 9]
)
def test_a_malformed_index_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidRequest):
        walk(text, "sha256:" + "0" * 64, lambda descriptor: None)
