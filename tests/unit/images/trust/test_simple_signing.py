"""The signed payload: cosign's bytes, and refusal of everything else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jaula.errors import InvalidRequest
from jaula.features.trust import simple_signing
from jaula.features.trust.simple_signing import SimpleSigning

DIGEST = "sha256:" + "ab" * 32


def document(**critical: Any) -> dict[str, Any]:
    return {
        "critical": {
            "identity": {"docker-reference": "r.io/team/app"},
            "image": {"docker-manifest-digest": DIGEST},
            "type": "cosign container image signature",
            **critical,
        },
        "optional": None,
    }


def test_the_bytes_are_those_that_cosign_signs() -> None:
    assert simple_signing.write(SimpleSigning(DIGEST, "r.io/team/app")) == (
        b'{"critical":{"identity":{"docker-reference":"r.io/team/app"},'
        b'"image":{"docker-manifest-digest":"' + DIGEST.encode() + b'"},'
        b'"type":"cosign container image signature"},"optional":null}'
    )


def test_a_written_payload_is_read_back() -> None:
    claim = SimpleSigning(DIGEST, "r.io/team/app:1", {"who": "maria"})
    assert simple_signing.read(simple_signing.write(claim)) == claim


def test_numeric_annotations_of_other_tools_become_text() -> None:
    data = json.dumps(document() | {"optional": {"creator": "x", "timestamp": 1458239713}})
    assert simple_signing.read(data.encode()).notes == {"creator": "x", "timestamp": "1458239713"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[" * 100_000,
        b"{}",
        json.dumps(document(type="atomic container signature")).encode(),
        json.dumps(document(image={"docker-manifest-digest": "md5:00"})).encode(),
        json.dumps(document(image={"docker-manifest-digest": DIGEST + "\n"})).encode(),
        json.dumps(document(expires=1)).encode(),  # an unknown critical member
        json.dumps(document(identity={"docker-reference": "a", "more": 1})).encode(),
        json.dumps(document() | {"more": 1}).encode(),
        b" " * (simple_signing.LIMIT + 1),
    ],
)
def test_a_statement_with_unknown_critical_members_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        simple_signing.read(data)


@pytest.mark.parametrize(
    ("name", "tag", "fits"),
    [
        ("r.io/team/app", "1", True),
        ("r.io/team/app", None, True),
        ("r.io/team/app:1", "1", True),
        ("r.io/team/app:1", None, True),
        ("r.io/team/app:1", "2", False),
        ("r.io/team/app:1@" + DIGEST, "1", True),
        ("r.io/team/other", "1", False),
        ("evil.io/team/app", "1", False),
        ("r.io/team/app/more", "1", False),
        ("", "1", False),
        ("r.io/TEAM/app", "1", False),
    ],
)
def test_a_statement_is_about_one_repository(name: str, tag: str | None, fits: bool) -> None:
    assert simple_signing.covers(SimpleSigning(DIGEST, name), "r.io/team/app", tag) is fits


def test_docker_hub_has_one_name() -> None:
    for name in ("index.docker.io/library/busybox", "docker.io/library/busybox", "busybox"):
        assert simple_signing.covers(
            SimpleSigning(DIGEST, name), "docker.io/library/busybox", "latest"
        )
