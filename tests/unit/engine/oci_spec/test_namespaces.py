"""Which namespaces are a container's own."""

from __future__ import annotations

import pytest

from jaula.engine.oci_spec import spec_namespaces
from jaula.errors import InvalidRequest
from jaula.spec.api_documents import HostConfig
from jaula.spec.runtime_spec import Namespace

ALL = {"mount", "user", "pid", "network", "ipc", "uts", "cgroup"}


def kinds(**modes: str) -> set[str]:
    decided = spec_namespaces.decide(HostConfig(**modes))  # type: ignore[arg-type]
    return {entry.type for entry in spec_namespaces.namespaces(decided, {})}


def test_by_default_all_seven_are_its_own() -> None:
    assert kinds() == ALL


def test_a_time_namespace_is_added_where_the_kernel_has_them() -> None:
    listed = spec_namespaces.namespaces(spec_namespaces.decide(HostConfig()), {}, time=True)
    assert {entry.type for entry in listed} == ALL | {"time"}


@pytest.mark.parametrize(
    ("modes", "shared"),
    [
        ({"userns_mode": "host"}, "user"),
        ({"pid_mode": "host"}, "pid"),
        ({"network_mode": "host"}, "network"),
        ({"ipc_mode": "host"}, "ipc"),
        ({"uts_mode": "host"}, "uts"),
        ({"cgroupns_mode": "host"}, "cgroup"),
    ],
)
def test_each_can_be_shared_with_the_host_by_name(modes: dict[str, str], shared: str) -> None:
    assert kinds(**modes) == ALL - {shared}


def test_a_joined_namespace_is_a_path() -> None:
    decided = spec_namespaces.decide(HostConfig(pid_mode="container:x"))
    assert decided.containers() == {"pid": "x"}
    listed = spec_namespaces.namespaces(
        decided, {"pid": "/proc/9/ns/pid", "user": "/proc/9/ns/user"}
    )
    assert Namespace("pid", "/proc/9/ns/pid") in listed
    assert Namespace("user", "/proc/9/ns/user") in listed


def test_the_uts_namespace_of_a_container_can_be_joined() -> None:
    decided = spec_namespaces.decide(HostConfig(uts_mode="container:x"))
    assert decided.containers() == {"uts": "x"}
    assert not decided.uts.private


def test_a_container_in_the_hosts_user_namespace_joins_without_that_of_the_other() -> None:
    decided = spec_namespaces.decide(HostConfig(pid_mode="container:x", userns_mode="host"))
    listed = spec_namespaces.namespaces(decided, {"pid": "/proc/9/ns/pid"})
    assert Namespace("pid", "/proc/9/ns/pid") in listed
    assert "user" not in {entry.type for entry in listed}


@pytest.mark.parametrize("user", ["host", "container:a"])
def test_containers_of_one_user_namespace_give_a_namespace_each(user: str) -> None:
    decided = spec_namespaces.decide(
        HostConfig(pid_mode="container:b", ipc_mode="container:a", userns_mode=user)
    )
    assert (decided.pid.container, decided.ipc.container) == ("b", "a")


@pytest.mark.parametrize(
    "modes",
    [
        {"pid_mode": "container:"},
        {"pid_mode": "nonsense"},
        {"ipc_mode": "hosts"},
        {"uts_mode": "container:"},
        {"userns_mode": "keep-ids"},
        {"userns_mode": "container:"},
        {"pid_mode": "container:a", "userns_mode": "keep-id"},
        {"network_mode": "container:"},
        {"pid_mode": "container:a", "ipc_mode": "container:b"},
    ],
)
def test_modes_that_cannot_be_are_refused(modes: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest):
        spec_namespaces.decide(HostConfig(**modes))  # type: ignore[arg-type]
