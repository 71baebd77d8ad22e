"""SLSA provenance in both versions and details."""

from __future__ import annotations

import base64
import json
from typing import Any

import msgspec
import pytest

from jaula.features.build.attestation.provenance import (
    BuildFacts,
    ClientData,
    Material,
    Step,
    provenance,
    redact,
)
from jaula.features.build.build_options import ProvenanceOptions

URL = "https://example.org/repo.git#main"
COMMIT = "sha1:" + "c" * 40
FACTS = BuildFacts(
    arguments={
        "filename": "Dockerfile",
        "target": "t",
        "build-arg:TOKEN": "hidden-in-min",
        "build-arg:HTTP_PROXY": "http://u:secret@proxy:1/",
        "label:a": "b",
        "vcs:source": "https://u:secret@example.org/x.git",
        "vcs:revision": "abc",
        "vcs:empty": "",
    },
    materials=(Material("pkg:docker/busybox@latest", "sha256:" + "a" * 64),),
    locals=("context", "dockerfile"),
    secrets=(ClientData("tok", optional=True),),
    agents=(ClientData("default"),),
    steps=(Step("0", "FROM busybox", (1, 1)), Step("0", "RUN x", (2, 3), (0,))),
    dockerfile=("Dockerfile", "FROM busybox\nRUN x\n"),
    network=True,
    proxies=frozenset({"HTTP_PROXY"}),
    builder_platform="linux/amd64",
    invocation="id",
    started="2026-01-01T00:00:00Z",
    finished="2026-01-01T00:00:01Z",
)


def content(facts: BuildFacts = FACTS, **options: Any) -> dict[str, Any]:
    predicate = provenance(ProvenanceOptions(**options), facts)
    document: dict[str, Any] = json.loads(msgspec.json.encode(predicate.content))
    return document


def test_the_short_form_has_no_arguments_labels_and_ids_of_secrets() -> None:
    document = content(detailed=False)
    definition = document["buildDefinition"]
    assert definition["externalParameters"] == {
        "configSource": {"path": "Dockerfile"},
        "request": {
            "frontend": "dockerfile.v0",
            "args": {"target": "t"},
            "locals": [{"name": "context"}, {"name": "dockerfile"}],
        },
    }
    assert definition["internalParameters"] == {"builderPlatform": "linux/amd64"}
    assert definition["resolvedDependencies"] == [
        {"uri": "pkg:docker/busybox@latest", "digest": {"sha256": "a" * 64}}
    ]
    metadata = document["runDetails"]["metadata"]
    assert metadata["buildkit_completeness"] == {"request": False, "resolvedDependencies": False}
    assert metadata["buildkit_metadata"] == {
        "vcs": {"source": "https://xxxxx:xxxxx@example.org/x.git", "revision": "abc"}
    }
    text = json.dumps(document)
    assert "hidden-in-min" not in text and "secret" not in text and "tok" not in text


def test_the_detailed_form_has_the_request_and_the_dockerfile_but_no_credentials() -> None:
    document = content()
    request = document["buildDefinition"]["externalParameters"]["request"]
    assert request["args"]["build-arg:TOKEN"] == "hidden-in-min"
    assert request["args"]["build-arg:HTTP_PROXY"] == "http://xxxxx:xxxxx@proxy:1/"
    assert request["secrets"] == [{"id": "tok", "optional": True}]
    assert request["ssh"] == [{"id": "default"}]
    steps = document["buildDefinition"]["internalParameters"]["buildConfig"]["steps"]
    assert steps[1] == {
        "id": "step1",
        "stage": "0",
        "instruction": "RUN x",
        "inputs": ["step0"],
    }
    source = document["runDetails"]["metadata"]["buildkit_metadata"]["source"]
    assert base64.b64decode(source["infos"][0]["data"]) == b"FROM busybox\nRUN x\n"
    lines = source["locations"]["step1"]["locations"][0]["ranges"][0]
    assert lines == {"start": {"line": 2}, "end": {"line": 3}}
    assert document["runDetails"]["metadata"]["buildkit_completeness"]["request"] is True
    assert ":secret@" not in json.dumps(document)


def test_version_02_has_the_same_facts_under_its_own_names() -> None:
    predicate = provenance(ProvenanceOptions(version="v0.2", builder="me"), FACTS)
    assert predicate.kind == "https://slsa.dev/provenance/v0.2"
    document = content(version="v0.2", builder="me", reproducible=True)
    assert document["builder"] == {"id": "me"}
    assert document["buildType"] == "https://mobyproject.org/buildkit@v1"
    assert document["invocation"]["configSource"] == {"entryPoint": "Dockerfile"}
    assert document["invocation"]["parameters"]["secrets"] == [{"id": "tok", "optional": True}]
    assert document["invocation"]["environment"] == {"platform": "linux/amd64"}
    assert document["materials"][0]["digest"] == {"sha256": "a" * 64}
    metadata = document["metadata"]
    assert metadata["completeness"] == {
        "parameters": True,
        "environment": True,
        "materials": False,
    }
    assert metadata["reproducible"] is True and metadata["buildInvocationID"] == "id"
    assert "https://mobyproject.org/buildkit@v1#hermetic" not in metadata


@pytest.mark.parametrize("version", ["v1", "v0.2"])
def test_a_build_of_a_repository_without_network_is_hermetic(version: str) -> None:
    facts = BuildFacts(
        arguments={"context": URL}, materials=(Material(URL, COMMIT),), invocation="id"
    )
    document = content(facts, version=version, detailed=False)
    if version == "v1":
        source = document["buildDefinition"]["externalParameters"]["configSource"]
        assert document["runDetails"]["metadata"]["buildkit_hermetic"] is True
    else:
        source = document["invocation"]["configSource"]
        assert document["metadata"]["https://mobyproject.org/buildkit@v1#hermetic"] is True
    assert source == {"uri": URL, "digest": {"sha1": "c" * 40}}


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://u:p@h/x", "https://xxxxx:xxxxx@h/x"),
        ("https://token@h:1/x?a=b#c", "https://xxxxx:xxxxx@h:1/x?a=b#c"),
        ("https://h/u:p@x", "https://h/u:p@x"),
        ("git@github.com:a/b.git", "git@github.com:a/b.git"),
        ("https://[bad", "https://[bad"),
        ("", ""),
    ],
)
def test_credentials_of_an_address_are_hidden(address: str, expected: str) -> None:
    assert redact(address) == expected
