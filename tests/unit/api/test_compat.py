"""Members of documents by the version of the API."""

from __future__ import annotations

from typing import Any

import pytest

from jaula.api import compat
from jaula.spec.api_networks import NetworkCreate

OLD, DOCKER_26, NEW = (1, 24), (1, 45), (1, 55)

CONTAINER: dict[str, Any] = {
    "Id": "a" * 64,
    "Config": {"OnBuild": None, "Env": []},
    "NetworkSettings": {
        "IPAddress": "10.0.0.2",
        "Bridge": "",
        "Ports": {},
        "Networks": {"n": {"Aliases": ["web"], "GwPriority": 0, "IPAddress": "10.0.0.2"}},
    },
}


def test_an_inspected_container_loses_the_members_of_the_default_network() -> None:
    before = compat.container(CONTAINER, DOCKER_26)
    assert before["NetworkSettings"]["IPAddress"] == "10.0.0.2"
    assert before["Config"] == {"OnBuild": None, "Env": []}
    after = compat.container(CONTAINER, NEW)
    assert set(after["NetworkSettings"]) == {"Ports", "Networks"}
    assert after["NetworkSettings"]["Networks"]["n"]["IPAddress"] == "10.0.0.2"
    assert after["Config"] == {"Env": []}


def test_endpoints_have_the_members_of_the_version() -> None:
    def endpoint(version: tuple[int, int]) -> Any:
        return compat.container(CONTAINER, version)["NetworkSettings"]["Networks"]["n"]

    assert endpoint((1, 44))["Aliases"] == ["web", "a" * 12]
    assert endpoint(DOCKER_26)["Aliases"] == ["web"]
    assert "GwPriority" not in endpoint((1, 47))
    assert endpoint((1, 48))["GwPriority"] == 0
    assert CONTAINER["NetworkSettings"]["Networks"]["n"]["Aliases"] == ["web"]


def test_a_listed_container_has_health_and_annotations_since_their_versions() -> None:
    summary: dict[str, Any] = {
        "HostConfig": {"NetworkMode": "bridge", "Annotations": {"a": "b"}},
        "NetworkSettings": {"Networks": {}},
        "Health": {"Status": "none", "FailingStreak": 0},
    }
    (old,) = compat.containers([summary], DOCKER_26)
    assert (old["HostConfig"], "Health" in old) == ({"NetworkMode": "bridge"}, False)
    (middle,) = compat.containers([summary], (1, 46))
    assert (middle["HostConfig"]["Annotations"], "Health" in middle) == ({"a": "b"}, False)
    (new,) = compat.containers([summary], (1, 52))
    assert new == summary


def test_an_image_has_only_members_of_images_and_no_empty_ones() -> None:
    document: dict[str, Any] = {
        "Id": "i",
        "Size": 7,
        "Parent": "",
        "Comment": "",
        "Author": "me",
        "DockerVersion": "",
        "Config": {"Hostname": "", "Tty": False, "Image": "", "Env": ["A=b"], "Cmd": None},
    }
    old = compat.image(document, OLD)
    assert old["VirtualSize"] == 7
    assert old["ContainerConfig"]["Env"] is None
    assert old["Config"] == document["Config"]
    assert compat.image(document, (1, 50))["Config"] == {"Env": ["A=b"], "Cmd": None}
    assert compat.image(document, (1, 52)) == {
        "Id": "i",
        "Size": 7,
        "Author": "me",
        "Config": {"Env": ["A=b"]},
    }


def test_listed_images_count_containers_since_their_version() -> None:
    images = [{"Id": "i", "Size": 1, "Containers": 3}]
    assert compat.listed_images(images, (1, 50))[0]["Containers"] == -1
    assert compat.listed_images(images, (1, 51))[0]["Containers"] == 3


def test_a_network_has_its_status_since_its_version() -> None:
    network = {"Name": "n", "EnableIPv4": True, "Status": {"IPAM": {}}}
    assert set(compat.network(network, DOCKER_26)) == {"Name"}
    assert set(compat.network(network, (1, 48))) == {"Name", "EnableIPv4"}
    assert compat.networks([network], (1, 52)) == [network]


def test_ipv4_can_be_switched_off_since_its_version() -> None:
    body = NetworkCreate(name="n", enable_ipv4=False, enable_ipv6=True)
    assert compat.network_create(body, (1, 48)) == body
    assert compat.network_create(body, (1, 47)) == NetworkCreate(name="n", enable_ipv6=True)


def test_an_event_loses_the_members_of_old_clients() -> None:
    event = {"status": "start", "id": "a", "from": "busybox", "Type": "container"}
    assert compat.event(event, (1, 51)) == event
    assert compat.event(event, (1, 52)) == {"Type": "container"}


@pytest.mark.parametrize(
    ("version", "present", "absent"),
    [
        ((1, 24), {"ExecutionDriver", "KernelMemory", "BridgeNfIptables"}, {"FirewallBackend"}),
        ((1, 45), {"BridgeNfIptables", "KernelMemoryTCP"}, {"KernelMemory", "FirewallBackend"}),
        ((1, 49), {"FirewallBackend", "BridgeNfIptables"}, {"DiscoveredDevices"}),
        ((1, 50), {"DiscoveredDevices", "KernelMemoryTCP"}, {"BridgeNfIptables"}),
        ((1, 52), {"DiscoveredDevices"}, {"KernelMemoryTCP", "BridgeNfIp6tables"}),
    ],
)
def test_information_has_the_members_of_the_version(
    version: tuple[int, int], present: set[str], absent: set[str]
) -> None:
    names = ("BridgeNfIptables", "BridgeNfIp6tables", "KernelMemoryTCP", "FirewallBackend")
    commits = ("ContainerdCommit", "RuncCommit", "InitCommit")
    document: dict[str, Any] = {
        **dict.fromkeys((*names, "DiscoveredDevices")),
        **{name: {"ID": "", "Expected": ""} for name in commits},
        "RegistryConfig": {"Mirrors": [], "AllowNondistributableArtifactsCIDRs": []},
    }
    answer = compat.info(document, version)
    assert present <= set(answer)
    assert not absent & set(answer)
    assert ("Expected" in answer["RuncCommit"]) == (version < (1, 49))
    assert len(answer["RegistryConfig"]) == (2 if version < (1, 49) else 1)


def test_disk_usage_changes_its_form_in_two_steps() -> None:
    usage = {"TotalCount": 1, "Items": [{"Id": "i", "Size": 2}]}
    document = {"LayersSize": 2, "Images": [{"Id": "i", "Size": 2}], "ImageUsage": usage}
    older = compat.disk_usage(document, DOCKER_26, verbose=True)
    absent = dict.fromkeys(("Containers", "Volumes", "BuildCache"))
    assert {key: older[key] for key in absent} == absent
    assert set(older) == {"LayersSize", "Images", *absent}
    both = compat.disk_usage(document, (1, 52), verbose=False)
    assert set(both) == {*older, "ImageUsage"}
    assert compat.disk_usage({}, DOCKER_26, verbose=False) == absent | {
        "LayersSize": 0, "Images": None,
    }  # fmt: skip
    assert both["ImageUsage"] == {"TotalCount": 1}
    assert compat.disk_usage(document, (1, 52), verbose=True) == {"ImageUsage": usage}
    assert compat.disk_usage(document, NEW, verbose=False) == {"ImageUsage": {"TotalCount": 1}}
