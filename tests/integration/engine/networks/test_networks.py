"""Networks through the API: documents, words of refusals, life of members, crashes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from harness import containers
from harness.containers import eventually, running, unique
from harness.engine import PrivateEngine, Reply


def create(engine: PrivateEngine, name: str, **fields: Any) -> Reply:
    return engine.request("POST", "/networks/create", {"Name": name, **fields})


@pytest.fixture
def network(engine: PrivateEngine) -> Iterator[Callable[..., str]]:
    """Make networks of a test's own; their names."""
    made: list[str] = []

    def make(**fields: Any) -> str:
        name = unique("n")
        reply = create(engine, name, **fields)
        assert reply.status == 201, reply
        made.append(name)
        return name

    yield make
    for name in made:
        reply = engine.request("DELETE", f"/networks/{name}")
        assert reply.status in (204, 404), reply


def load(engine: PrivateEngine, archive: Path) -> str:
    """Put busybox into an engine of a test's own."""
    done = engine.cli("jaula", "load", "-i", str(archive))
    assert done.returncode == 0, done.stderr
    return "busybox"


def inspect(engine: PrivateEngine, name: str) -> dict[str, Any]:
    reply = engine.request("GET", f"/networks/{name}")
    assert reply.status == 200, reply
    document: dict[str, Any] = reply.json()
    return document


def endpoints(engine: PrivateEngine, container: str) -> dict[str, Any]:
    found: dict[str, Any] = containers.inspect(engine, container)["NetworkSettings"]["Networks"]
    return found


def inside(engine: PrivateEngine, container: str, *words: str) -> str:
    done = engine.cli("jaula", "exec", container, *words)
    return done.stdout + done.stderr


def resolves(engine: PrivateEngine, container: str, name: str) -> list[str]:
    """Addresses that a name has for a container."""
    lines = inside(engine, container, "nslookup", name).splitlines()
    found = [line.split()[-1] for line in lines if line.startswith("Address")]
    return [address for address in found if "127.0.0.11" not in address]


# -- documents and words -------------------------------------------------------------------------


def test_inspect_shows_a_network_as_requested(
    engine: PrivateEngine, network: Callable[..., str]
) -> None:
    name = network(
        Internal=True,
        Labels={"a": "b"},
        Options={
            "com.docker.network.bridge.enable_icc": "false",
            "com.docker.network.driver.mtu": "1400",
        },
        IPAM={
            "Config": [
                {
                    "Subnet": f"10.198.{engine.index}.0/24",
                    "IPRange": f"10.198.{engine.index}.128/25",
                    "Gateway": f"10.198.{engine.index}.9",
                    "AuxiliaryAddresses": {"printer": f"10.198.{engine.index}.130"},
                }
            ]
        },
    )
    found = inspect(engine, name)
    assert found["Internal"] is True
    assert found["Labels"] == {"a": "b"}
    assert found["Options"]["com.docker.network.driver.mtu"] == "1400"
    assert found["IPAM"]["Config"] == [
        {
            "Subnet": f"10.198.{engine.index}.0/24",
            "IPRange": f"10.198.{engine.index}.128/25",
            "Gateway": f"10.198.{engine.index}.9",
            "AuxiliaryAddresses": {"printer": f"10.198.{engine.index}.130"},
        }
    ]
    assert (found["Driver"], found["Scope"], found["Containers"]) == ("bridge", "local", {})
    assert inspect(engine, found["Id"][:12])["Name"] == name


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"Name": ""}, 400, "invalid name: "),
        ({"Name": "  "}, 400, "invalid name: "),
        ({"Name": "a\nb"}, 400, "invalid network name"),
        ({"Name": "container:x"}, 400, "invalid network name"),
        ({"Name": "bridge"}, 403, "operation is not permitted on predefined bridge network"),
        ({"Driver": "macvlan", "Options": {"parent": "no0"}}, 400, "no0 does not exist"),
        ({"Driver": "overlay"}, 403, "not a swarm manager"),
        ({"Driver": "nothing"}, 404, 'plugin "nothing" not found'),
        ({"Driver": "host"}, 403, 'only one instance of "host" network is allowed'),
        ({"IPAM": {"Driver": "x"}}, 404, 'plugin "x" not found'),
        ({"IPAM": {"Config": [{"Gateway": "1.2.3.4"}]}}, 400, "corresponding subnet"),
        ({"IPAM": {"Config": [{"Subnet": "10.0.0.0/33"}]}}, 400, "invalid subnet"),
        ({"Options": {"com.docker.network.bridge.name": "a/b"}}, 400, "invalid bridge name"),
        ({"Options": {"com.docker.network.bridge.name": "lo"}}, 403, "has an interface"),
        ({"Options": {"com.docker.network.driver.mtu": "1"}}, 400, "invalid MTU number"),
        ({"Options": {"com.docker.network.bridge.enable_icc": "x"}}, 400, "failed to parse"),
    ],
)
def test_an_invalid_network_is_refused_with_dockers_message(
    engine: PrivateEngine, fields: dict[str, Any], status: int, words: str
) -> None:
    reply = engine.request("POST", "/networks/create", {"Name": unique("n"), **fields})
    assert (reply.status, words in reply.json()["message"]) == (status, True), reply


def test_names_and_subnets_are_had_once(engine: PrivateEngine, network: Callable[..., str]) -> None:
    name = network(IPAM={"Config": [{"Subnet": f"10.198.{engine.index}.0/24"}]})
    reply = create(engine, name)
    assert reply.status == 409
    assert reply.json()["message"] == f"network with name {name} already exists"
    own = inspect(engine, "bridge")["IPAM"]["Config"][0]["Subnet"]
    for subnet in (f"10.198.{engine.index}.0/25", own):
        reply = create(engine, unique("n"), IPAM={"Config": [{"Subnet": subnet}]})
        assert reply.status == 403
        assert reply.json()["message"].startswith("Pool overlaps with other one on this address")


def test_lists_are_filtered(engine: PrivateEngine, network: Callable[..., str]) -> None:
    name = network(Labels={"kind": "test", "x": ""})

    def listed(**filters: list[str]) -> set[str]:
        reply = engine.request("GET", f"/networks?filters={quote(json.dumps(filters))}")
        assert reply.status == 200, reply
        return {n["Name"] for n in reply.json()}

    assert name in listed(name=[name[:-1]])
    assert listed(label=["kind=test"]) == {name}
    assert listed(label=["kind=other"]) == set()
    assert listed(type=["builtin"]) == {"bridge", "host", "none"}
    assert name in listed(type=["custom"])
    assert name in listed(driver=["bridge"])
    assert listed(driver=["null"]) == {"none"}
    assert name in listed(dangling=["true"])
    assert "bridge" not in listed(dangling=["true"])
    assert listed(scope=["swarm"]) == set()
    assert listed(id=[inspect(engine, name)["Id"][:10]]) == {name}
    unknown = quote(json.dumps({"what": ["x"]}))
    assert engine.request("GET", f"/networks?filters={unknown}").status == 400


def test_predefined_networks_stay(engine: PrivateEngine) -> None:
    for name in ("bridge", "host", "none"):
        reply = engine.request("DELETE", f"/networks/{name}")
        assert reply.status == 403
        assert reply.json()["message"] == f"{name} is a pre-defined network and cannot be removed"
    assert engine.request("DELETE", "/networks/nope").json() == {
        "message": "network nope not found"
    }


def test_prune_removes_unused_networks(
    engine: PrivateEngine, busybox: str, network: Callable[..., str]
) -> None:
    used, free, labelled = network(), network(), network(Labels={"keep": "1"})
    with running(engine, busybox, flags=("--network", used)):
        chosen = quote(json.dumps({"label!": ["keep"]}))
        path = f"/networks/prune?filters={chosen}"
        gone = engine.request("POST", path).json()["NetworksDeleted"]
        assert free in gone
        assert used not in gone
        assert labelled not in gone
        reply = engine.request("DELETE", f"/networks/{used}")
        assert reply.status == 403
        assert "has active endpoints" in reply.json()["message"]


def test_a_named_bridge_is_created_and_removed(
    engine: PrivateEngine, network: Callable[..., str]
) -> None:
    bridge = f"{engine.tag[:9]}-n"
    name = network(Options={"com.docker.network.bridge.name": bridge})
    assert Path(f"/sys/class/net/{bridge}/bridge").exists()
    assert engine.request("DELETE", f"/networks/{name}").status == 204
    assert not Path(f"/sys/class/net/{bridge}").exists()


# -- containers on networks ----------------------------------------------------------------------


def test_containers_of_a_network_find_each_other_by_every_name(
    engine: PrivateEngine, busybox: str, network: Callable[..., str]
) -> None:
    name = network()
    flags = ("--network", name)
    with (
        running(engine, busybox, flags=(*flags, "--network-alias", "www", "-h", "box")) as first,
        running(engine, busybox, flags=flags) as second,
    ):
        document = containers.inspect(engine, first)
        address = document["NetworkSettings"]["Networks"][name]["IPAddress"]
        for known in (first, "www", "WWW", document["Id"][:12], "box", f"{first}.{name}"):
            assert resolves(engine, second, known) == [address], known
        assert "1 packets received" in inside(engine, second, "ping", "-c", "1", first)
        reverse = ".".join(reversed(address.split("."))) + ".in-addr.arpa"
        assert f"{first}.{name}" in inside(engine, second, "nslookup", "-type=ptr", reverse)
        members = inspect(engine, name)["Containers"]
        assert {m["Name"] for m in members.values()} == {first, second}
    assert inspect(engine, name)["Containers"] == {}


def test_names_go_with_their_containers_and_follow_a_rename(
    engine: PrivateEngine, busybox: str, network: Callable[..., str]
) -> None:
    name = network(Internal=True)
    with running(engine, busybox, flags=("--network", name)) as asker:
        with running(engine, busybox, flags=("--network", name)) as other:
            assert len(resolves(engine, asker, other)) == 1
            new = unique("renamed")
            assert engine.request("POST", f"/containers/{other}/rename?name={new}").status == 204
            assert len(resolves(engine, asker, new)) == 1
            assert resolves(engine, asker, other) == []
            assert engine.request("POST", f"/containers/{new}/rename?name={other}").status == 204
        assert resolves(engine, asker, other) == []


def test_the_default_network_has_no_names(engine: PrivateEngine, busybox: str) -> None:
    with running(engine, busybox) as name:
        assert "127.0.0.11" not in inside(engine, name, "cat", "/etc/resolv.conf")


def test_a_running_container_is_connected_and_disconnected(
    engine: PrivateEngine, busybox: str, network: Callable[..., str]
) -> None:
    first, second = network(), network(IPAM={"Config": [{"Subnet": f"10.198.{engine.index}.0/24"}]})
    with (
        running(engine, busybox) as container,
        running(engine, busybox, flags=("--network", second)) as peer,
    ):
        body = {
            "Container": container,
            "EndpointConfig": {
                "Aliases": ["extra"],
                "IPAMConfig": {"IPv4Address": f"10.198.{engine.index}.77"},
                "MacAddress": "02:00:00:00:00:77",
            },
        }
        assert engine.request("POST", f"/networks/{second}/connect", body).status == 200
        found = endpoints(engine, container)
        assert set(found) == {"bridge", second}
        assert found[second]["IPAddress"] == f"10.198.{engine.index}.77"
        assert found[second]["MacAddress"] == "02:00:00:00:00:77"
        assert found[second]["Aliases"][0] == "extra"
        assert found[second]["NetworkID"] == inspect(engine, second)["Id"]
        assert resolves(engine, peer, "extra") == [f"10.198.{engine.index}.77"]
        assert len(resolves(engine, container, peer)) == 1
        assert f"10.198.{engine.index}.77" in inside(engine, container, "cat", "/etc/hosts")
        reply = engine.request("POST", f"/networks/{second}/connect", body)
        assert reply.status == 403
        assert "already exists in network" in reply.json()["message"]
        assert engine.request("POST", f"/networks/{first}/connect", {"Container": container})
        assert "eth2" in inside(engine, container, "ip", "addr")
        gone = {"Container": container}
        assert engine.request("POST", f"/networks/{second}/disconnect", gone).status == 200
        assert set(endpoints(engine, container)) == {"bridge", first}
        assert "eth1" not in inside(engine, container, "ip", "addr")
        assert resolves(engine, peer, "extra") == []
        reply = engine.request("POST", f"/networks/{second}/disconnect", gone)
        assert "is not connected to network" in reply.json()["message"]
        assert inspect(engine, second)["Containers"].keys() == {
            containers.inspect(engine, peer)["Id"]
        }


def test_ports_and_the_way_out_move_to_another_network(
    engine: PrivateEngine, busybox: str, network: Callable[..., str]
) -> None:
    first, second = network(), network()
    words = ("sh", "-c", "echo here > /tmp/index.html; httpd -f -p 80 -h /tmp")
    flags = ("--network", first, "-p", "127.0.0.1::80")
    with running(engine, busybox, *words, flags=flags) as container:

        def port() -> str:
            ports = containers.inspect(engine, container)["NetworkSettings"]["Ports"]
            return str(ports["80/tcp"][0]["HostPort"])

        def fetched() -> str:
            import urllib.request

            with urllib.request.urlopen(f"http://127.0.0.1:{port()}/", timeout=5) as answer:
                return str(answer.read().decode())

        eventually(lambda: "httpd" in inside(engine, container, "ps"), "httpd")
        assert fetched() == "here\n"
        body = {"Container": container}
        assert engine.request("POST", f"/networks/{second}/connect", body).status == 200
        assert fetched() == "here\n"
        assert engine.request("POST", f"/networks/{first}/disconnect", body).status == 200
        assert fetched() == "here\n"
        assert "default via" in inside(engine, container, "ip", "route")
        assert engine.request("POST", f"/networks/{second}/disconnect", body).status == 200
        assert endpoints(engine, container) == {}
        assert (
            containers.inspect(engine, container)["NetworkSettings"]["Ports"] == {"80/tcp": None}
            or "80/tcp" not in containers.inspect(engine, container)["NetworkSettings"]["Ports"]
        )


def test_a_stopped_container_is_connected_for_its_next_start(
    engine: PrivateEngine, busybox: str, network: Callable[..., str]
) -> None:
    first, second = network(), network()
    name = unique()
    done = engine.cli(
        "jaula", "create", "--name", name, "--network", first, busybox, "sleep", "600"
    )
    assert done.returncode == 0, done.stderr
    try:
        body = {"Container": name}
        assert engine.request("POST", f"/networks/{second}/connect", body).status == 200
        assert engine.request("POST", f"/networks/{first}/disconnect", body).status == 200
        assert set(endpoints(engine, name)) == {second}
        assert engine.request("POST", f"/containers/{name}/start").status == 204
        assert endpoints(engine, name)[second]["IPAddress"]
        assert engine.request("POST", f"/containers/{name}/stop?t=0").status == 204
        assert engine.request("DELETE", f"/networks/{second}").status == 204
        reply = engine.request("POST", f"/containers/{name}/start")
        assert reply.status == 404
        assert reply.json()["message"] == f"network {second} not found"
        assert engine.request("POST", f"/networks/{second}/disconnect", body).status == 404
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


def test_a_container_of_no_network_any_more_starts_with_loopback_alone(
    engine: PrivateEngine, busybox: str, network: Callable[..., str]
) -> None:
    name = unique()
    engine.cli("jaula", "create", "--name", name, busybox, "sleep", "600")
    try:
        body = {"Container": name}
        assert engine.request("POST", "/networks/bridge/disconnect", body).status == 200
        assert engine.request("POST", f"/containers/{name}/start").status == 204
        assert "eth0" not in inside(engine, name, "ip", "addr")
        chosen = network()
        assert engine.request("POST", f"/networks/{chosen}/connect", body).status == 200
        assert "eth0" in inside(engine, name, "ip", "addr")
        assert "default via" in inside(engine, name, "ip", "route")
    finally:
        engine.request("DELETE", f"/containers/{name}?force=1")


@pytest.mark.parametrize("mode", ["host", "none"])
def test_modes_that_share_cannot_be_connected(
    engine: PrivateEngine, busybox: str, network: Callable[..., str], mode: str
) -> None:
    name = network()
    with running(engine, busybox, flags=("--network", mode)) as container:
        body = {"Container": container}
        assert engine.request("POST", f"/networks/{name}/connect", body).status == 400
    with running(engine, busybox) as container:
        body = {"Container": container}
        assert engine.request("POST", f"/networks/{mode}/connect", body).status == 400


def test_internal_networks_do_not_even_ask_outside(
    engine: PrivateEngine, busybox: str, network: Callable[..., str]
) -> None:
    name = network(Internal=True)
    with running(engine, busybox, flags=("--network", name)) as container:
        said = inside(engine, container, "nslookup", "example.org")
        assert "SERVFAIL" in said
        assert "default" not in inside(engine, container, "ip", "route")


def test_ipv6_on_request(engine: PrivateEngine, busybox: str, network: Callable[..., str]) -> None:
    name = network(EnableIPv6=True)
    with (
        running(engine, busybox, flags=("--network", name)) as first,
        running(engine, busybox, flags=("--network", name)) as second,
    ):
        address = endpoints(engine, first)[name]["GlobalIPv6Address"]
        assert address.startswith("fd")
        assert address in resolves(engine, second, first)
        assert "1 packets received" in inside(engine, second, "ping", "-6", "-c", "1", first)


def test_a_network_without_ipv4(
    engine: PrivateEngine, busybox: str, network: Callable[..., str]
) -> None:
    name = network(EnableIPv4=False, EnableIPv6=True)
    document = inspect(engine, name)
    assert (document["EnableIPv4"], document["EnableIPv6"]) == (False, True)
    (pool,) = document["IPAM"]["Config"]
    assert ":" in pool["Subnet"]
    assert list(document["Status"]["IPAM"]["Subnets"]) == [pool["Subnet"]]
    flags = ("--network", name, "-p", "80")
    with (
        running(engine, busybox, flags=flags) as first,
        running(engine, busybox, flags=("--network", name)) as second,
    ):
        own = endpoints(engine, first)[name]
        assert (own["IPAddress"], own["IPPrefixLen"], own["Gateway"]) == ("", 0, "")
        assert own["IPv6Gateway"] == pool["Gateway"]
        address = own["GlobalIPv6Address"]
        assert resolves(engine, second, first) == [address]
        assert "1 packets received" in inside(engine, second, "ping", "-6", "-c", "1", first)
        assert f"{address}\t" in inside(engine, first, "cat", "/etc/hosts")
        assert "inet 1" not in inside(engine, first, "ip", "addr", "show", "eth0")
        (binding,) = containers.inspect(engine, first)["NetworkSettings"]["Ports"]["80/tcp"]
        assert binding["HostIp"] == "::"
        shown = engine.cli("jaula", "ps", "--filter", f"name={first}", "--format", "{{.Ports}}")
        assert shown.stdout.strip() == f"[::]:{binding['HostPort']}->80/tcp"
        engine.cli("jaula", "exec", "-d", first, "nc", "-l", "-p", "80", "-e", "echo", "hello")
        host6 = pool["Gateway"]

        def answer() -> bytes:
            with socket.create_connection((host6, int(binding["HostPort"])), timeout=2) as near:
                return near.recv(16)

        eventually(lambda: _quiet(answer) == b"hello\n", "an answer by the published port")
        connected = inspect(engine, name)["Containers"]
        assert {row["IPv4Address"] for row in connected.values()} == {""}


def _quiet(action: Callable[[], bytes]) -> bytes:
    try:
        return action()
    except OSError:
        return b""


def test_addresses_and_ports_of_ipv4_are_refused_without_it(
    engine: PrivateEngine, busybox: str, network: Callable[..., str]
) -> None:
    name = network(
        EnableIPv4=False,
        EnableIPv6=True,
        IPAM={"Config": [{"Subnet": "fd12:9::/64"}, {"Subnet": "10.99.0.0/24"}]},
    )
    assert [row["Subnet"] for row in inspect(engine, name)["IPAM"]["Config"]] == ["fd12:9::/64"]
    flags = ("--network", name, "-p", "127.0.0.1:0:80", busybox, "true")
    done = engine.cli("jaula", "run", "--rm", *flags)
    assert done.returncode == 125
    assert "the container has no IPv4 address" in done.stderr
    done = engine.cli("jaula", "run", "--rm", "--network", name, "--ip", "10.99.0.5", busybox)
    assert done.returncode == 125
    assert "networks with user configured subnets" in done.stderr


def test_a_bridge_needs_an_address_family(engine: PrivateEngine) -> None:
    reply = create(engine, unique("n"), EnableIPv4=False)
    assert (reply.status, reply.json()["message"]) == (400, "IPv4 or IPv6 must be enabled")
    done = engine.cli("jaula", "network", "create", "--ipv4=false", unique("n"))
    assert done.returncode == 1
    assert "IPv4 or IPv6 must be enabled" in done.stderr


def test_address_families_can_be_driver_options(
    engine: PrivateEngine, network: Callable[..., str]
) -> None:
    prefix = "com.docker.network.enable_"
    name = network(Options={f"{prefix}ipv4": "false", f"{prefix}ipv6": "1"})
    document = inspect(engine, name)
    assert (document["EnableIPv4"], document["EnableIPv6"]) == (False, True)
    name = network(EnableIPv4=True, Options={f"{prefix}ipv4": "false"})
    assert (inspect(engine, name)["EnableIPv4"], inspect(engine, name)["Options"]) == (True, {})
    reply = create(engine, unique("n"), Options={f"{prefix}ipv4": "maybe"})
    assert reply.status == 400
    assert reply.json()["message"] == f'driver-opt "{prefix}ipv4" is not a valid bool'


def test_old_clients_cannot_switch_ipv4_off(engine: PrivateEngine) -> None:
    name = unique("n")
    body = {"Name": name, "EnableIPv4": False, "EnableIPv6": None}
    assert engine.request("POST", "/v1.47/networks/create", body).status == 201
    try:
        assert inspect(engine, name)["EnableIPv4"] is True
        assert "EnableIPv4" not in engine.request("GET", f"/v1.47/networks/{name}").json()
    finally:
        engine.request("DELETE", f"/networks/{name}")


def test_a_config_only_network_stores_the_address_families(
    engine: PrivateEngine, network: Callable[..., str]
) -> None:
    plan = network(ConfigOnly=True, EnableIPv4=False, EnableIPv6=True)
    name = network(ConfigFrom={"Network": plan})
    document = inspect(engine, name)
    assert (document["EnableIPv4"], document["EnableIPv6"]) == (False, True)
    engine.request("DELETE", f"/networks/{name}")


def test_a_container_may_have_a_name_server_of_its_own(
    engine: PrivateEngine, busybox: str, network: Callable[..., str]
) -> None:
    name = network()
    with running(engine, busybox, flags=("--network", name)) as container:
        listening = "nc -l -p 53 & sleep 0.3; netstat -ltn"
        assert "0.0.0.0:53" in inside(engine, container, "sh", "-c", listening).replace(
            ":::53", "0.0.0.0:53"
        )
        assert len(resolves(engine, container, container)) == 1


# -- the engine's end ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("ipv4", [True, False])
def test_networks_names_and_members_survive_a_killed_engine(
    new_engine: Callable[..., PrivateEngine], busybox_archive: Path, ipv4: bool
) -> None:
    engine = new_engine()
    busybox = load(engine, busybox_archive)
    fields: dict[str, Any] = {"EnableIPv4": ipv4, "EnableIPv6": True, "Labels": {"a": "b"}}
    assert create(engine, "kept", **fields).status == 201
    before = inspect(engine, "kept")
    flags = ("--network", "kept", "--network", "bridge", "-p", "80")
    with (
        running(engine, busybox, flags=flags) as first,
        running(engine, busybox, flags=("--network", "kept")) as second,
    ):
        endpoint = endpoints(engine, first)["kept"]
        engine.kill()
        engine.start()
        after = inspect(engine, "kept")
        counted = ("Containers", "Status")
        assert {k: v for k, v in after.items() if k not in counted} == {
            k: v for k, v in before.items() if k not in counted
        }
        for subnet, counts in after["Status"]["IPAM"]["Subnets"].items():
            free = before["Status"]["IPAM"]["Subnets"][subnet]
            assert counts["IPsInUse"] == free["IPsInUse"] + 2
        assert set(endpoints(engine, first)) == {"kept", "bridge"}
        assert endpoints(engine, first)["kept"] == endpoint
        address = endpoint["IPAddress"] or endpoint["GlobalIPv6Address"]
        assert address in resolves(engine, second, first)
        assert "1 packets received" in inside(engine, second, "ping", "-c", "1", address)
        with running(engine, busybox, flags=("--network", "kept")) as third:
            assert resolves(engine, first, third)
        assert engine.stop() == 0
        engine.start()
        assert resolves(engine, second, first)
    assert engine.request("DELETE", "/networks/kept").status == 204


def test_a_stopped_engine_leaves_no_bridge_and_the_next_one_has_its_networks(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    engine = new_engine()
    bridge = f"{engine.tag[:9]}-s"
    options = {"com.docker.network.bridge.name": bridge}
    assert create(engine, "kept", Options=options).status == 201
    subnet = inspect(engine, "kept")["IPAM"]["Config"]
    assert engine.stop() == 0
    assert not os.path.exists(f"/sys/class/net/{bridge}")
    engine.start()
    assert os.path.exists(f"/sys/class/net/{bridge}")
    assert inspect(engine, "kept")["IPAM"]["Config"] == subnet
    assert engine.request("DELETE", "/networks/kept").status == 204


def test_a_killed_engine_leaves_only_the_networks_of_its_records(
    new_engine: Callable[..., PrivateEngine], busybox_archive: Path
) -> None:
    engine = new_engine()
    busybox = load(engine, busybox_archive)
    prefix = engine.tag[:8]
    with running(engine, busybox) as container:
        for attempt in range(6):
            stop = threading.Event()

            def change(number: int = attempt, stop: threading.Event = stop) -> None:
                while not stop.is_set():
                    with contextlib.suppress(OSError):
                        options = {"com.docker.network.bridge.name": f"{prefix}-{number}"}
                        create(engine, f"n{number}", Options=options)
                        body = {"Container": container}
                        engine.request("POST", f"/networks/n{number}/connect", body)
                        engine.request("POST", f"/networks/n{number}/disconnect", body)
                        engine.request("DELETE", f"/networks/n{number}")

            thread = threading.Thread(target=change)
            thread.start()
            time.sleep(0.15 + 0.037 * attempt)
            engine.kill()
            stop.set()
            thread.join()
            engine.start()
            listed = {
                network["Options"]["com.docker.network.bridge.name"]
                for network in engine.request("GET", "/networks").json()
                if network["Name"].startswith("n") and network["Name"] != "none"
            }
            present = {n for n in os.listdir("/sys/class/net") if n.startswith(f"{prefix}-")}
            assert present == listed
            members = endpoints(engine, container)
            seen = inside(engine, container, "ip", "addr")
            assert sum(bool(e["IPAddress"]) for e in members.values()) == seen.count(
                "scope global eth"
            )
            assert containers.inspect(engine, container)["State"]["Running"]
    for network in engine.request("GET", "/networks").json():
        if network["Name"].startswith("n") and network["Name"] != "none":
            assert engine.request("DELETE", f"/networks/{network['Name']}").status == 204


def test_an_id_selects_its_network_before_one_of_that_name(engine: PrivateEngine) -> None:
    def create(name: str) -> str:
        reply = engine.request("POST", "/networks/create", {"Name": name})
        assert reply.status == 201, reply
        return str(reply.json()["Id"])

    first = create("tn-first")
    second = create(first)
    try:
        assert inspect(engine, first)["Name"] == "tn-first"
        assert inspect(engine, second)["Name"] == first
    finally:
        for key in (first, second):
            assert engine.request("DELETE", f"/networks/{key}").status == 204


def test_a_disconnection_that_a_container_s_end_refuses_leaves_no_endpoint(
    engine: PrivateEngine, busybox: str, network: Callable[..., str]
) -> None:
    """The shim is stopped, so the engine learns of the end after the request."""
    name = network()
    with running(engine, busybox, "sleep", "600", flags=("--network", name)) as container:
        process = containers.pid(engine, container)
        shim = containers.shim(process)
        os.kill(shim, signal.SIGSTOP)
        try:
            os.kill(process, signal.SIGKILL)
            eventually(lambda: containers.status(process)["State"].startswith("Z"), "init ends")
            body = {"Container": container}
            reply = engine.request("POST", f"/networks/{name}/disconnect", body)
        finally:
            os.kill(shim, signal.SIGCONT)
        assert reply.status == 409, reply
        eventually(
            lambda: not containers.inspect(engine, container)["State"]["Running"], "it ended"
        )
        assert engine.request("POST", f"/containers/{container}/start").status == 204
        assert endpoints(engine, container).keys() == {name}
