"""What the seal of a container's request depends on."""

from __future__ import annotations

import msgspec

from jaula.engine.model.seal import request_seal, spec_seal
from jaula.spec.api_documents import ContainerCreate
from jaula.spec.pod import PodContainerRequest, PodMetadata, PodSandboxRequest
from jaula.state.container_records import ContainerRecord, PodSandboxRecord

RECORD = ContainerRecord("id", "name", 1, ContainerCreate(cmd=("true",)), "sha256:1")


def test_a_change_of_the_request_changes_the_seal() -> None:
    seal = request_seal(RECORD)
    for member, value in {
        "args": ("false",),
        "image": "sha256:2",
        "owner": "1000",
        "engine_socket": "web",
        "body": ContainerCreate(cmd=("false",)),
    }.items():
        assert request_seal(msgspec.structs.replace(RECORD, **{member: value})) != seal, member


def test_the_state_of_a_container_does_not_change_the_seal() -> None:
    seal = request_seal(RECORD)
    other = msgspec.structs.replace(RECORD, name="other", pid=5, started_at=7, restart_count=2)
    assert request_seal(other) == seal


def test_another_form_of_a_spec_has_another_seal() -> None:
    """The file is sealed as it is, since the runtime and exec read its bytes."""
    assert spec_seal(b'{"a":1}') == spec_seal(b'{"a":1}')
    assert spec_seal(b'{"a": 1}') != spec_seal(b'{"a":1}')


def test_the_request_of_a_pod_is_sealed_and_its_network_is_not() -> None:
    seal = request_seal(RECORD)
    pod = PodContainerRequest(sandbox="s", name="main", body=RECORD.body, log_path="main/0.log")
    in_pod = msgspec.structs.replace(RECORD, pod=pod)
    assert request_seal(in_pod) != seal
    moved = msgspec.structs.replace(in_pod, pod=msgspec.structs.replace(pod, log_path="x"))
    assert request_seal(moved) != request_seal(in_pod)
    request = PodSandboxRequest(metadata=PodMetadata("web", "1", "default"), body=RECORD.body)
    sandbox = msgspec.structs.replace(RECORD, sandbox=PodSandboxRecord(request))
    attached = msgspec.structs.replace(
        RECORD, sandbox=PodSandboxRecord(request, ("10.1.0.5",), networked=True)
    )
    assert request_seal(sandbox) == request_seal(attached) != seal
    shared = PodSandboxRecord(msgspec.structs.replace(request, shared_pid=True))
    assert request_seal(msgspec.structs.replace(RECORD, sandbox=shared)) != request_seal(sandbox)
