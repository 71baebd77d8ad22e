"""The decision about a change of a container."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from jaula.engine.containers.resolved_request import resolve
from jaula.engine.oci_spec.inputs import HostFacts
from jaula.errors import Conflict, InvalidRequest
from jaula.features.edit import edit_request
from jaula.features.edit.edit_request import Edit
from jaula.spec.api_documents import ContainerCreate, ContainerEdit
from jaula.spec.endpoint_record import PublishedPort
from jaula.state.container_records import ContainerRecord, MountRecord, Status

BODY = {
    "Image": "x",
    "Labels": {"a": "1"},
    "Volumes": {"/image": {}},
    "HostConfig": {
        "Binds": ["/srv:/srv:ro", "data:/data"],
        "Tmpfs": {"/tmp": ""},
        "PortBindings": {
            "80/tcp": [{"HostPort": "8080"}, {"HostPort": ""}],
            "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}],
        },
    },
}
PORTS = (
    PublishedPort(80, "tcp", "0.0.0.0", 8080),
    PublishedPort(80, "tcp", "0.0.0.0", 49200),
    PublishedPort(53, "udp", "127.0.0.1", 53),
)


def record(**fields: Any) -> ContainerRecord:
    body = msgspec.convert(BODY, ContainerCreate)
    mounts = (
        MountRecord("bind", "/srv", source="/srv", read_only=True),
        MountRecord("volume", "/data", name="data"),
        MountRecord("tmpfs", "/tmp"),
        MountRecord("volume", "/image", name="f" * 64, anonymous=True),
    )
    whole = {"mounts": mounts, "ports": PORTS, "resolved_request": resolve(body)} | fields
    return ContainerRecord(id="a" * 64, name="web", created=1, body=body, image="x", **whole)


def decide(edit: dict[str, Any], **fields: Any) -> Edit:
    return edit_request.decide(record(**fields), msgspec.convert(edit, ContainerEdit), HostFacts())


def bindings(edit: Edit) -> Any:
    return msgspec.to_builtins(edit.body.host_config.port_bindings)


def test_a_port_is_added_to_the_others() -> None:
    edit = decide({"Publish": {"80": [{"HostPort": "81"}], "443/tcp": [{}]}})
    assert [p.container_port for p in edit.ports] == [80, 443]
    assert [b["HostPort"] for b in bindings(edit)["80/tcp"]] == ["8080", "", "81"]
    assert len(edit.resolved.ports) == 5
    assert "443/tcp" in edit.body.exposed_ports or "443/tcp" in bindings(edit)
    assert edit.changes == ("publish 81:80", "publish 443/tcp")


def test_a_port_is_removed_by_its_number_also_if_the_engine_chose_it() -> None:
    edit = decide({"Unpublish": {"80/tcp": [{"HostPort": "49200"}]}})
    assert edit.unpublished == (PORTS[1],)
    assert [b["HostPort"] for b in bindings(edit)["80/tcp"]] == ["8080"]
    edit = decide({"Unpublish": {"80/tcp": [{"HostPort": "8080"}]}})
    assert edit.unpublished == (PORTS[0],)
    assert [b["HostPort"] for b in bindings(edit)["80/tcp"]] == [""]


def test_without_a_number_all_of_the_port_are_removed() -> None:
    edit = decide({"Unpublish": {"80/tcp": [{}]}})
    assert edit.unpublished == PORTS[:2]
    assert list(bindings(edit)) == ["53/udp"]


def test_one_of_several_ports_that_the_engine_chose_is_removed_alone() -> None:
    host = {"PortBindings": {"80/tcp": [{}, {}, {"HostPort": "8000-8010"}]}}
    body = msgspec.convert(BODY | {"HostConfig": host}, ContainerCreate)
    ports = tuple(PublishedPort(80, "tcp", "0.0.0.0", port) for port in (49200, 49201, 8000))
    edit = edit_request.decide(
        msgspec.structs.replace(record(ports=ports), body=body),
        msgspec.convert({"Unpublish": {"80": [{"HostPort": "49201"}]}}, ContainerEdit),
        HostFacts(),
    )
    assert edit.unpublished == (ports[1],)
    assert [b["HostPort"] for b in bindings(edit)["80/tcp"]] == ["", "8000-8010"]


def test_a_port_of_another_address_is_not_removed() -> None:
    with pytest.raises(InvalidRequest, match="not published"):
        decide({"Unpublish": {"53/udp": [{"HostIp": "10.0.0.1"}]}})


def test_a_port_moves_in_one_change() -> None:
    edit = decide(
        {
            "Unpublish": {"80/tcp": [{"HostPort": "8080"}]},
            "Publish": {"81/tcp": [{"HostPort": "8080"}]},
        }
    )
    assert edit.unpublished == (PORTS[0],)
    assert edit.ports[0].container_port == 81


@pytest.mark.parametrize("path", ["/srv", "/srv/", "/data", "/tmp", "/image"])
def test_a_mount_of_each_notation_is_removed(path: str) -> None:
    edit = decide({"Unmount": [path]})
    plain = path.rstrip("/")
    assert [mount.destination for mount in edit.unmounted] == [plain]
    again = {request.mount.destination for request in resolve(edit.body).mounts}
    assert plain not in again
    assert len(again) == 3


def test_a_mount_replaces_one_that_is_removed() -> None:
    edit = decide({"Unmount": ["/data"], "Mounts": [{"Type": "tmpfs", "Target": "/data"}]})
    kinds = {r.mount.destination: r.mount.type for r in resolve(edit.body).mounts}
    assert kinds["/data"] == "tmpfs"
    assert kinds == {r.mount.destination: r.mount.type for r in edit.resolved.mounts}


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ({"Mounts": [{"Type": "tmpfs", "Target": "/data"}]}, "Duplicate"),
        ({"Mounts": [{"Type": "tmpfs", "Target": "/"}]}, "destination can't be"),
        ({"Mounts": [{"Type": "engine-socket"}]}, "engine-socket"),
        (
            {
                "Mounts": [
                    {
                        "Type": "bind",
                        "Source": "/a",
                        "Target": "/b",
                        "BindOptions": {"Propagation": "rshared"},
                    }
                ]
            },
            "propagation rshared",
        ),
        ({"Unmount": ["/none"]}, "no mount"),
        ({"RemoveLabels": ["b"]}, "no label"),
        ({"Publish": {"80/tcp": [{"HostPort": "8080"}]}}, "published already"),
        ({}, "changes nothing"),
        ({"Update": {"Memory": 1}}, "emory"),
    ],
)
def test_a_wrong_change_is_refused(edit: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        decide(edit)


def test_an_edit_publishes_a_bounded_number_of_ports() -> None:
    with pytest.raises(InvalidRequest, match="16385 published ports; at most 16384 are allowed"):
        decide({"Publish": {"80/tcp": [{}] * 16_384, "81/tcp": [{}]}})


def test_a_mount_with_one_below_it_is_removed_together_only() -> None:
    mounts = (MountRecord("tmpfs", "/a"), MountRecord("tmpfs", "/a/b"))
    with pytest.raises(InvalidRequest, match="below /a"):
        decide({"Unmount": ["/a"]}, mounts=mounts)
    assert len(decide({"Unmount": ["/a", "/a/b"]}, mounts=mounts).unmounted) == 2


def test_the_version_changes_with_what_can_be_edited() -> None:
    first = record()
    version = edit_request.version(first)
    assert version == edit_request.version(record(pid=7, started_at=1))
    body = msgspec.structs.replace(first.body, labels={"a": "2"})
    assert version != edit_request.version(msgspec.structs.replace(first, body=body))
    assert decide({"Version": version, "Labels": {"b": ""}}).body.labels == {"a": "1", "b": ""}
    with pytest.raises(Conflict, match="another client"):
        decide({"Version": "other", "Labels": {"b": ""}})


def test_the_document_names_what_can_be_edited() -> None:
    document = edit_request.document(record())
    assert document["Version"] == edit_request.version(record())
    assert [mount["Target"] for mount in document["Mounts"]] == ["/srv", "/data", "/tmp", "/image"]
    assert document["Limits"] == {}


LIMITED = {
    "Memory": 64 << 20, "MemorySwap": 128 << 20, "NanoCpus": 500_000_000, "PidsLimit": 7,
    "CpusetCpus": "0", "BlkioWeight": 500,
}  # fmt: skip


def limited(**fields: Any) -> dict[str, Any]:
    """Return the members of a record whose container has limits."""
    body = msgspec.convert({**BODY, "HostConfig": LIMITED}, ContainerCreate)
    return {"body": body, "resolved_request": resolve(body)} | fields


def decide_limited(edit: dict[str, Any], **fields: Any) -> Edit:
    host = HostFacts(online_cpus=frozenset(range(4)), io_weights=True)
    changed = msgspec.structs.replace(record(), **limited(**fields))
    return edit_request.decide(changed, msgspec.convert(edit, ContainerEdit), host)


def test_a_removed_limit_is_unlimited_and_leaves_the_request() -> None:
    edit = decide_limited({"RemoveLimits": ["NanoCpus", "CpusetCpus"]})
    assert edit.limits is not None
    written = edit.limits.limits
    assert written is not None
    assert written.cpu is not None
    assert (written.cpu.quota, written.cpu.cpus, written.memory) == (-1, "0-3", None)
    assert (edit.body.host_config.nano_cpus, edit.body.host_config.cpuset_cpus) == (0, "")
    assert edit.body.host_config.memory == 64 << 20
    assert edit.removed_limits == ("nano_cpus", "cpuset_cpus")
    assert edit.changes == ("remove limit NanoCpus", "remove limit CpusetCpus")


def test_the_limit_of_swap_ends_with_that_of_memory() -> None:
    edit = decide_limited({"RemoveLimits": ["Memory"]})
    assert edit.limits is not None
    assert edit.limits.limits is not None
    memory = edit.limits.limits.memory
    assert memory is not None
    assert (memory.limit, memory.swap) == (-1, -1)
    assert edit.body.host_config.memory_swap == 0
    assert edit.removed_limits == ("memory", "memory_swap")


def test_one_notation_of_cpu_time_replaces_the_other() -> None:
    edit = decide_limited({"RemoveLimits": ["NanoCpus"], "Update": {"CpuQuota": 20_000}})
    assert edit.limits is not None
    assert edit.limits.limits is not None
    cpu = edit.limits.limits.cpu
    assert cpu is not None
    assert (cpu.quota, edit.body.host_config.cpu_quota) == (20_000, 20_000)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ({"RemoveLimits": ["CpuShares"]}, "has no limit CpuShares"),
        ({"RemoveLimits": ["Ulimits"]}, "is not one of Memory"),
        ({"RemoveLimits": ["Memory"], "Update": {"Memory": 128 << 20}}, "sets and removes"),
        ({"RemoveLimits": ["BlkioWeight"]}, "while the container runs"),
    ],
)
def test_a_limit_that_cannot_be_removed_is_refused(edit: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        decide_limited(edit, status=Status.RUNNING)


def test_a_weight_is_removed_from_a_stopped_container() -> None:
    edit = decide_limited({"RemoveLimits": ["BlkioWeight"]}, status=Status.EXITED)
    assert edit.body.host_config.blkio_weight == 0


def test_a_bind_with_a_label_option_is_added() -> None:
    edit = decide({"Binds": ["/a:/b:Z"]})
    assert [(r.mount.destination, r.mount.mode) for r in edit.mounts] == [("/b", "Z")]
    assert edit.body.host_config.binds[-1] == "/a:/b:Z"
    assert edit.changes == ("mount /a:/b:Z",)
    assert {r.mount.destination for r in resolve(edit.body).mounts} >= {"/b", "/srv"}
