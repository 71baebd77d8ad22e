"""What API versions 1.46 to 1.55 brought, in the answers of a real engine."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from harness import containers
from harness.engine import PrivateEngine


def create(engine: PrivateEngine, path: str = "/containers/create", **body: Any) -> Any:
    reply = engine.request("POST", path, {"Image": "busybox", "Cmd": ["sleep", "600"], **body})
    assert reply.status == 201, reply
    return reply.json()


@pytest.mark.parametrize(
    ("version", "accept", "media_type", "separator"),
    [
        ("1.51", "application/json-seq", "application/json", b""),
        ("1.52", "application/json-seq", "application/json-seq", b"\x1e"),
        ("1.52", "text/html, application/x-ndjson;q=0.9", "application/x-ndjson", b""),
        ("1.52", "application/jsonl", "application/json", b""),
        ("1.53", "application/jsonl", "application/jsonl", b""),
        ("1.55", "application/json-seq;q=0, */*", "application/json", b""),
    ],
)
def test_a_client_chooses_the_media_type_of_events(
    engine: PrivateEngine, version: str, accept: str, media_type: str, separator: bytes
) -> None:
    since = time.time()
    name = containers.unique("volume")
    assert engine.request("POST", "/volumes/create", {"Name": name}).status == 201
    assert engine.request("DELETE", f"/volumes/{name}").status == 204
    path = f"/v{version}/events?since={since:.9f}&until={time.time():.9f}"
    reply = engine.request("GET", path, headers={"Accept": accept})
    assert reply.headers["Content-Type"] == media_type
    lines = [line for line in reply.body.splitlines(keepends=True) if name.encode() in line]
    assert len(lines) == 2
    assert all(line.startswith(separator + b"{") and line.endswith(b"}\n") for line in lines)


def test_the_list_has_the_health_of_each_container(engine: PrivateEngine, busybox: str) -> None:
    check = ("--health-cmd", "true", "--health-interval", "1s")
    with (
        containers.running(engine, busybox, flags=check) as healthy,
        containers.running(engine, busybox) as other,
    ):
        containers.eventually(
            lambda: containers.inspect(engine, healthy)["State"]["Health"]["Status"] == "healthy",
            "a healthy container",
        )
        listed = {
            c["Names"][0]: c["Health"] for c in engine.request("GET", "/containers/json").json()
        }
        assert listed[f"/{healthy}"] == {"Status": "healthy", "FailingStreak": 0}
        assert listed[f"/{other}"] == {"Status": "none", "FailingStreak": 0}


def test_a_container_names_the_manifest_of_its_image(engine: PrivateEngine, busybox: str) -> None:
    with containers.running(engine, busybox) as name:
        document = engine.request("GET", f"/v1.48/containers/{name}/json").json()
        descriptor = document["ImageManifestDescriptor"]
        image = engine.request("GET", f"/v1.48/images/{busybox}/json").json()
        assert descriptor["digest"] == image["Descriptor"]["digest"]
        assert descriptor["size"] > 100
        assert descriptor["platform"]["os"] == "linux"
        listed = engine.request("GET", "/v1.48/containers/json").json()
        assert descriptor in [each["ImageManifestDescriptor"] for each in listed]
        older = engine.request("GET", f"/v1.47/containers/{name}/json").json()
        assert "ImageManifestDescriptor" not in older
        again = engine.request("GET", f"/v1.48/containers/{name}/json").json()
        assert again["ImageManifestDescriptor"] == descriptor


def test_a_network_counts_its_addresses(engine: PrivateEngine, busybox: str) -> None:
    name = containers.unique("net")
    pool = {"Subnet": "10.231.7.0/24", "IPRange": "10.231.7.128/28"}
    body = {"Name": name, "IPAM": {"Config": [pool]}}
    assert engine.request("POST", "/networks/create", body).status == 201

    def counts() -> Any:
        document = engine.request("GET", f"/networks/{name}").json()
        return document["Status"]["IPAM"]["Subnets"]["10.231.7.0/24"]

    try:
        assert counts() == {"IPsInUse": 3, "DynamicIPsAvailable": 16}
        with containers.running(engine, busybox, flags=("--network", name)):
            assert counts() == {"IPsInUse": 4, "DynamicIPsAvailable": 15}
        containers.eventually(lambda: counts()["IPsInUse"] == 3, "a released address")
    finally:
        engine.request("DELETE", f"/networks/{name}")


def test_the_priority_of_a_network_decides_the_default_route(
    engine: PrivateEngine, busybox: str
) -> None:
    names = [containers.unique("net") for _ in range(2)]
    for name in names:
        assert engine.request("POST", "/networks/create", {"Name": name}).status == 201
    container = containers.unique()
    try:
        endpoints = {names[0]: {}, names[1]: {"GwPriority": 5}}
        create(
            engine,
            f"/containers/create?name={container}",
            HostConfig={"NetworkMode": names[0]},
            NetworkingConfig={"EndpointsConfig": endpoints},
        )
        assert engine.request("POST", f"/containers/{container}/start").status == 204
        networks = containers.inspect(engine, container)["NetworkSettings"]["Networks"]
        assert [networks[name]["GwPriority"] for name in names] == [0, 5]
        route = engine.cli("jaula", "exec", container, "ip", "route", "show", "default").stdout
        assert f"via {networks[names[1]]['Gateway']}" in route
        assert route.count("default") == 1
    finally:
        engine.request("DELETE", f"/containers/{container}?force=1")
        for name in names:
            engine.request("DELETE", f"/networks/{name}")


def test_options_of_a_tmpfs_are_in_effect(engine: PrivateEngine, busybox: str) -> None:
    options = [["exec"], ["uid", "7"], ["size", "1m"]]
    mount = {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"Options": options}}
    name = containers.unique()
    create(engine, f"/containers/create?name={name}", HostConfig={"Mounts": [mount]})
    try:
        assert engine.request("POST", f"/containers/{name}/start").status == 204
        row = containers.mountinfo(containers.pid(engine, name))["/t"]
        assert "noexec" not in row.options
        assert "size=1024k" in row.super_options
        shown = engine.cli("jaula", "exec", name, "stat", "-c", "%u", "/t").stdout
        assert shown == "7\n"
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([["a", "b", "c"]], "must be 1 or 2"),
        ([[]], "must be 1 or 2"),
        ([["bind"]], 'invalid tmpfs option ["bind"]'),
        ([["size=1m,uid", "0"]], "invalid tmpfs option"),
    ],
)
def test_invalid_options_of_a_tmpfs_are_refused(
    engine: PrivateEngine, busybox: str, options: list[list[str]], message: str
) -> None:
    mount = {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"Options": options}}
    body = {"Image": busybox, "HostConfig": {"Mounts": [mount]}}
    reply = engine.request("POST", "/containers/create", body)
    assert reply.status == 400
    assert message in reply.json()["message"]


def test_a_mac_address_belongs_to_an_endpoint(engine: PrivateEngine, busybox: str) -> None:
    body = {"Image": busybox, "MacAddress": "02:42:ac:11:00:09"}
    refused = engine.request("POST", "/containers/create", body)
    assert refused.status == 400
    assert "use endpoint-specific MAC address" in refused.json()["message"]
    created = engine.request("POST", "/v1.51/containers/create", body)
    assert created.status == 201
    engine.request("DELETE", f"/containers/{created.json()['Id']}")


def test_a_volume_driver_without_effect_is_a_warning(engine: PrivateEngine, busybox: str) -> None:
    mount = {"Type": "volume", "Target": "/v"}
    created = create(engine, HostConfig={"VolumeDriver": "local", "Mounts": [mount]})
    assert "volume-driver configuration is ignored" in created["Warnings"][0]
    engine.request("DELETE", f"/containers/{created['Id']}?v=1")


def test_disk_usage_lists_objects_if_they_are_asked_for(
    engine: PrivateEngine, busybox: str
) -> None:
    brief = engine.request("GET", "/system/df?type=image").json()
    assert set(brief) == {"ImageUsage"}
    assert set(brief["ImageUsage"]) == {"ActiveCount", "TotalCount", "TotalSize", "Reclaimable"}
    verbose = engine.request("GET", "/system/df?verbose=1").json()
    kinds = {"ImageUsage", "ContainerUsage", "VolumeUsage", "BuildCacheUsage"}
    assert set(verbose) == kinds
    names = [name for image in verbose["ImageUsage"]["Items"] for name in image["RepoTags"]]
    assert "busybox:latest" in names
    assert json.dumps(verbose["ImageUsage"]["Items"][0]["Size"]).isdigit()
