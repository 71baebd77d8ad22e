"""Networks by their drivers and an engine's settings, as docker's users ask for them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import containers
from harness.containers import running, unique
from harness.engine import PrivateEngine

from .test_networks import create, endpoints, inside, inspect, load, network, resolves

__all__ = ["network"]


@pytest.fixture
def wire(engine: PrivateEngine) -> Iterator[str]:
    """A link of the host for containers to be on; its other end leads nowhere."""
    name = f"{engine.tag[:11]}v"
    subprocess.run(
        ["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}w"], check=True
    )
    for end in (name, f"{name}w"):
        subprocess.run(["ip", "link", "set", end, "up"], check=True)
    yield name
    subprocess.run(["ip", "link", "delete", name], check=True)


@pytest.mark.parametrize("program", ["jaula", "docker"])
def test_a_macvlan_network_is_created_used_and_removed(
    engine: PrivateEngine, busybox: str, wire: str, program: str
) -> None:
    name = unique("wire")
    subnet = f"10.197.{engine.index}.0/24"
    made = engine.cli(
        *(program, "network", "create", "-d", "macvlan", "-o", f"parent={wire}"),
        *("-o", "macvlan_mode=bridge", "--subnet", subnet, name),
    )
    assert made.returncode == 0, made.stderr
    try:
        found = inspect(engine, name)
        assert (found["Driver"], found["Internal"]) == ("macvlan", False)
        assert found["Options"] == {"parent": wire, "macvlan_mode": "bridge"}
        with (
            running(engine, busybox, flags=("--network", name, "-p", "80")) as first,
            running(engine, busybox, flags=("--network", name)) as second,
        ):
            address = endpoints(engine, first)[name]["IPAddress"]
            assert resolves(engine, second, first) == [address]
            assert "1 packets received" in inside(engine, second, "ping", "-c", "1", first)
            assert engine.cli("jaula", "port", first).stdout == ""
            link = inside(engine, first, "cat", "/sys/class/net/eth0/address").strip()
            assert link == endpoints(engine, first)[name]["MacAddress"]
            left = engine.cli(program, "network", "disconnect", name, first)
            assert left.returncode == 0, left.stderr
            assert inside(engine, first, "ls", "/sys/class/net").split() == ["lo"]
            back = engine.cli(program, "network", "connect", name, first)
            assert back.returncode == 0, back.stderr
            assert "1 packets received" in inside(engine, second, "ping", "-c", "1", first)
    finally:
        gone = engine.cli(program, "network", "rm", name)
    assert gone.returncode == 0, gone.stderr
    subprocess.run(["ip", "link", "show", wire], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"parent": "jltnone"}, 400, "the parent interface jltnone does not exist"),
        ({"parent": "jltnone.9"}, 404, "neither does jltnone"),
        ({"parent": "a/b"}, 400, "invalid parent interface"),
        ({"parent": "lo", "macvlan_mode": "best"}, 400, "macvlan mode 'best' is not valid"),
    ],
)
def test_a_parent_that_cannot_be_is_refused_and_nothing_is_left(
    engine: PrivateEngine, options: dict[str, str], status: int, words: str
) -> None:
    name = unique("wire")
    reply = create(engine, name, Driver="macvlan", Options=options)
    assert (reply.status, words in reply.json()["message"]) == (status, True), reply
    assert engine.request("GET", f"/networks/{name}").status == 404


@pytest.mark.parametrize("program", ["jaula", "docker"])
def test_a_link_on_a_users_network_is_a_name_for_one_container(
    engine: PrivateEngine, busybox: str, network: Callable[..., str], program: str
) -> None:
    name = network()
    with running(engine, busybox, flags=("--network", name)) as store:
        address = endpoints(engine, store)[name]["IPAddress"]
        linked = engine.cli(
            *(program, "run", "--rm", "--network", name, "--link", f"{store}:db", busybox),
            *("sh", "-c", "nslookup db; env"),
        )
        assert address in linked.stdout, linked.stderr
        assert "DB_NAME" not in linked.stdout
        with running(engine, busybox, flags=("--network", name)) as other:
            assert resolves(engine, other, "db") == []


def test_a_running_container_can_be_linked_to_a_stopped_one(
    engine: PrivateEngine, busybox: str, network: Callable[..., str]
) -> None:
    name, later = network(), unique("later")
    with running(engine, busybox) as asker:
        asked = {"Container": asker, "EndpointConfig": {"Links": [f"{later}:api"]}}
        assert engine.request("POST", f"/networks/{name}/connect", asked).status == 200
        assert endpoints(engine, asker)[name]["Links"] == [f"{later}:api"]
        assert resolves(engine, asker, "api") == []
        flags = ("--network", name, "--network-alias", later)
        with running(engine, busybox, flags=flags) as target:
            found = endpoints(engine, target)[name]["IPAddress"]
            assert resolves(engine, asker, "api") == [found]


def ports(engine: PrivateEngine, container: str) -> dict[str, Any]:
    found: dict[str, Any] = containers.inspect(engine, container)["NetworkSettings"]["Ports"]
    return found


def test_ports_are_published_in_every_family_of_the_network(
    engine: PrivateEngine, busybox: str, network: Callable[..., str]
) -> None:
    flags = ("-p", "80", "-p", "127.0.0.1::81/udp", "-p", "[::]::82")
    with running(engine, busybox, flags=("--network", network(EnableIPv6=True), *flags)) as both:
        found = ports(engine, both)
        four, six = found["80/tcp"]
        assert (four["HostIp"], six["HostIp"]) == ("0.0.0.0", "::")
        assert four["HostPort"] == six["HostPort"]
        assert [place["HostIp"] for place in found["81/udp"]] == ["127.0.0.1"]
        assert [place["HostIp"] for place in found["82/tcp"]] == ["::"]
    with running(engine, busybox, flags=("--network", network(), "-p", "80")) as one:
        assert [place["HostIp"] for place in ports(engine, one)["80/tcp"]] == ["0.0.0.0"]


def test_a_networks_binding_is_for_ports_that_name_no_address(
    engine: PrivateEngine, busybox: str, network: Callable[..., str]
) -> None:
    option = {"com.docker.network.bridge.host_binding_ipv4": "127.0.0.2"}
    name = network(EnableIPv6=True, Options=option)
    flags = ("--network", name, "-p", "80", "-p", "127.0.0.1::81")
    with running(engine, busybox, flags=flags) as bound:
        found = ports(engine, bound)
        assert [place["HostIp"] for place in found["80/tcp"]] == ["127.0.0.2"]
        assert [place["HostIp"] for place in found["81/tcp"]] == ["127.0.0.1"]


def test_an_engines_settings_for_networks_hold(
    new_engine: Callable[..., PrivateEngine], busybox_archive: Path
) -> None:
    """Subnets of a given size until the pool is used up, and where ports are published."""
    engine = new_engine(start=False)
    engine.extra_flags += (
        *("--address-pool", f"10.196.{engine.index}.0/24@26", "--ip", "127.0.0.3"),
        *("--default-network-opt", "bridge=com.docker.network.driver.mtu=1399"),
        *("--publish-past-firewall", "--ipv6", "--fixed-cidr-v6", f"fd96:{engine.index:x}::/64"),
    )
    engine.start()
    made = [create(engine, f"pool{number}") for number in range(5)]
    assert [reply.status for reply in made] == [201, 201, 201, 201, 500]
    message = made[-1].json()["message"]
    assert f"no free subnet in 10.196.{engine.index}.0/24 in subnets of /26" in message
    assert "network prune" in message
    found = inspect(engine, "pool3")
    assert found["IPAM"]["Config"][0]["Subnet"] == f"10.196.{engine.index}.192/26"
    mtu = {"com.docker.network.driver.mtu": "1399"}
    assert found["Options"] == mtu | {"io.jaula.publish_past_firewall": "true"}
    default = inspect(engine, "bridge")
    assert default["EnableIPv6"] is True
    assert default["IPAM"]["Config"][1]["Subnet"] == f"fd96:{engine.index:x}::/64"
    assert default["Options"]["io.jaula.publish_past_firewall"] == "true"
    image = load(engine, busybox_archive)
    with running(engine, image) as six:
        assert endpoints(engine, six)["bridge"]["GlobalIPv6Address"].startswith("fd96:")
        assert "1 packets received" in inside(
            engine, six, "ping", "-c1", f"fd96:{engine.index:x}::1"
        )
    for name in ("bridge", "pool0"):
        with running(engine, image, flags=("--network", name, "-p", "80")) as bound:
            assert [p["HostIp"] for p in ports(engine, bound)["80/tcp"]] == ["127.0.0.3"]
    option = {"io.jaula.publish_past_firewall": "false"}
    assert engine.request("DELETE", "/networks/pool1").status == 204
    assert create(engine, "closed", Options=option).status == 201
    assert inspect(engine, "closed")["Options"] == mtu | option
    assert engine.request("DELETE", "/networks/closed").status == 204
    engine.extra_flags = tuple(f for f in engine.extra_flags if f != "--publish-past-firewall")
    assert engine.stop() == 0
    engine.start()
    assert inspect(engine, "pool3")["Options"] == mtu, "the engine's setting is not the network's"
    assert create(engine, "again").status == 201
    for name in ("pool0", "again", "pool2", "pool3"):
        assert engine.request("DELETE", f"/networks/{name}").status == 204
