"""The attestations that a client of BuildKit requests."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest, JaulaError, Unsupported
from jaula.features.build.build_options import ProvenanceOptions
from jaula.features.build.buildkit.attest_options import attestation_request, recorded_arguments


def provenance(text: str) -> ProvenanceOptions | None:
    return attestation_request({"attest:provenance": text}).provenance


def test_the_default_of_buildx_is_short_and_inline_only() -> None:
    made = provenance("mode=min,inline-only=true")
    assert made == ProvenanceOptions(detailed=False, inline_only=True)
    assert not attestation_request({}).sbom and attestation_request({}).provenance is None


def test_all_fields_of_a_provenance() -> None:
    made = provenance(
        "type=provenance,mode=max,version=v0.2,builder-id=https://ci/1,filename=a/b.json,"
        "reproducible=true,complete-materials=1,disabled=false"
    )
    assert made == ProvenanceOptions(
        version="v0.2",
        builder="https://ci/1",
        filename="b.json",
        reproducible=True,
        complete=True,
    )
    assert provenance("") == provenance("mode=full") == ProvenanceOptions()
    assert provenance("disabled=true") is None
    assert provenance('"builder-id=a,b"') == ProvenanceOptions(builder="a,b")


def test_build_arguments_request_attestations_too() -> None:
    made = attestation_request(
        {"build-arg:BUILDKIT_ATTEST_SBOM": "", "build-arg:BUILDKIT_ATTEST_PROVENANCE": "mode=min"}
    )
    assert made.sbom and made.provenance == ProvenanceOptions(detailed=False)


def test_an_unknown_field_of_the_default_of_a_client_is_ignored() -> None:
    assert provenance("inline-only=true,mode=min,future=1") is not None
    with pytest.raises(InvalidRequest, match="unknown field 'future'"):
        provenance("mode=min,future=1")


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("attest:provenance", "mode=best", "invalid mode 'best'"),
        ("attest:provenance", "version=v9", "invalid provenance SLSA version: 'v9'"),
        ("attest:provenance", "reproducible=maybe", "failed to parse reproducible"),
        ("attest:provenance", "disabled=", "failed to parse disabled"),
        ("attest:provenance", "capture-usage=true", "capture-usage"),
        ("attest:provenance", "filename=..", "invalid filename"),
        ("attest:provenance", "filename=" + "a" * 300, "invalid filename"),
        ("attest:provenance", '"unfinished', "failed to parse provenance"),
        ("attest:provenance", "x" * 5000, "the limit is 4096"),
        ("attest:\0", "", "unknown attestation type"),
        ("attest:vsa", "", "unknown attestation type 'vsa'"),
        ("attest:sbom", "generator=docker.io/docker/scout", "generator 'docker.io/docker/scout'"),
        ("attest:sbom", "SELECT_CATALOGERS=x", "field 'SELECT_CATALOGERS'"),
        ("build-arg:BUILDKIT_ATTEST_SBOM", "generator=x", "generator 'x'"),
    ],
)
def test_what_is_not_valid_is_refused_by_name(key: str, value: str, text: str) -> None:
    with pytest.raises(JaulaError) as caught:
        attestation_request({key: value})
    assert text in caught.value.message
    assert isinstance(caught.value, InvalidRequest | Unsupported)
    assert len(str(caught.value)) < 600


def test_options_of_the_host_are_not_recorded() -> None:
    attributes = {
        "platform": "linux/amd64",
        "cgroup-parent": "x",
        "attest:sbom": "",
        "build-arg:A": "b",
        "target": "t",
    }
    assert recorded_arguments(attributes) == {"build-arg:A": "b", "target": "t"}
