"""A restored container is on its networks: several ones, IPv6, macvlan and ipvlan."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import containers
from harness.containers import running, unique
from harness.engine import PrivateEngine
from jaula.kernel import nftables
from jaula.kernel.netlink import in_netns

pytestmark = pytest.mark.criu

SERVE = ("httpd", "-f", "-p", "80", "-h", "/etc")
WAIT = ("sh", "-c", "while :; do sleep 1; done")


def jaula(engine: PrivateEngine, *words: str) -> str:
    done = engine.cli("jaula", *words)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def fetches(engine: PrivateEngine, name: str, host: str) -> None:
    target = f"http://[{host}]/hostname" if ":" in host else f"http://{host}/hostname"
    jaula(engine, "exec", name, "wget", "-T", "5", "-q", "-O", "-", target)


def restored(engine: PrivateEngine, name: str) -> None:
    """Checkpoint and restore; networks, interfaces, addresses and routes are as before."""
    before = network(engine, name)
    jaula(engine, "checkpoint", "create", name, "one")
    jaula(engine, "start", "--checkpoint", "one", name)
    assert network(engine, name) == before
    with open(f"/proc/{containers.pid(engine, name)}/ns/net", "rb") as netns:
        assert nftables.delete_tables(netns.fileno(), "jaula-restore") == ()
    jaula(engine, "verify", name)


def network(engine: PrivateEngine, name: str) -> tuple[object, ...]:
    found = containers.inspect(engine, name)["NetworkSettings"]["Networks"]
    keys = ("IPAddress", "GlobalIPv6Address", "MacAddress", "Gateway", "IPv6Gateway")
    inside = [jaula(engine, "exec", name, "ip", *words) for words in (
        ("-o", "addr"), ("route",), ("-6", "route"))]  # fmt: skip
    addresses = [" ".join(line.split()[1:4]) for line in inside[0].splitlines()]
    return (
        {each: [row[key] for key in keys] for each, row in found.items()},
        sorted(addresses),
        *(sorted(text.split()) for text in inside[1:]),
    )


@pytest.fixture
def made(engine: PrivateEngine) -> Iterator[list[str]]:
    """Names of networks, which are removed at the end."""
    names: list[str] = []
    yield names
    for name in names:
        engine.request("DELETE", f"/networks/{name}")


@pytest.fixture
def wire(engine: PrivateEngine) -> Iterator[str]:
    """A link of the host for containers to be on; its other end leads nowhere."""
    name = f"{engine.tag[:11]}x"
    add = ["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}w"]
    subprocess.run(add, check=True)
    for end in (name, f"{name}w"):
        subprocess.run(["ip", "link", "set", end, "up"], check=True)
    yield name
    subprocess.run(["ip", "link", "delete", name], check=True)


def test_two_networks_and_ipv6(engine: PrivateEngine, busybox: str, made: list[str]) -> None:
    subnets = (f"10.198.{engine.index}.0/24", f"fd00:{engine.index:x}::/64")
    made += [unique("six"), unique("other")]
    words = ("--ipv6", *(word for subnet in subnets for word in ("--subnet", subnet)), made[0])
    jaula(engine, "network", "create", *words)
    jaula(engine, "network", "create", made[1])
    flags = tuple(word for name in made for word in ("--network", name))
    with (
        running(engine, busybox, *SERVE, flags=flags) as name,
        running(engine, busybox, *WAIT, flags=("--network", made[0])) as first,
        running(engine, busybox, *WAIT, flags=("--network", made[1])) as second,
    ):
        restored(engine, name)
        addresses = containers.inspect(engine, name)["NetworkSettings"]["Networks"]
        fetches(engine, first, addresses[made[0]]["GlobalIPv6Address"])
        fetches(engine, first, addresses[made[0]]["IPAddress"])
        fetches(engine, first, name)
        fetches(engine, second, addresses[made[1]]["IPAddress"])
        jaula(engine, "exec", name, "ping", "-c", "1", first)


@pytest.mark.parametrize(
    ("driver", "option"),
    [
        ("macvlan", "macvlan_mode=bridge"),
        ("ipvlan", "ipvlan_mode=l2"),
        ("ipvlan", "ipvlan_mode=l3"),
    ],
)
def test_networks_of_an_interface_of_the_host(
    engine: PrivateEngine,
    busybox: str,
    made: list[str],
    wire: str,
    driver: str,
    option: str,
) -> None:
    if driver == "ipvlan" and not has_ipvlan(wire):
        pytest.skip("this kernel has no ipvlan")
    subnet = f"10.197.{engine.index}.0/24"
    made.append(unique("wire"))
    jaula(engine, "network", "create", "-d", driver, "-o", f"parent={wire}", "-o", option,
          "--subnet", subnet, made[0])  # fmt: skip
    with (
        running(engine, busybox, *SERVE, flags=("--network", made[0])) as name,
        running(engine, busybox, *WAIT, flags=("--network", made[0])) as peer,
    ):
        restored(engine, name)
        fetches(engine, peer, name)
        assert Path(f"/sys/class/net/{wire}/operstate").read_text() == "up\n"


def has_ipvlan(wire: str) -> bool:
    add = ["ip", "link", "add", f"{wire}i", "link", wire, "type", "ipvlan"]
    if subprocess.run(add, capture_output=True, check=False).returncode != 0:
        return False
    subprocess.run(["ip", "link", "delete", f"{wire}i"], check=True)
    return True


def test_no_reset_is_sent_while_a_connection_may_be_restored(
    engine: PrivateEngine, busybox: str
) -> None:
    with (
        running(engine, busybox, *WAIT) as name,
        open(f"/proc/{containers.pid(engine, name)}/ns/net", "rb") as netns,
    ):
        with in_netns(netns.fileno()):
            first, second = socket.socket(), socket.socket()
        with first, second:
            nftables.add_reset_table(netns.fileno(), "quiet")
            first.settimeout(1)
            with pytest.raises(TimeoutError):
                first.connect(("127.0.0.1", 9))
            nftables.delete_tables(netns.fileno(), "quiet")
            second.settimeout(5)
            with pytest.raises(ConnectionRefusedError):
                second.connect(("127.0.0.1", 9))


@pytest.mark.parametrize("what", ["table", "interface"])
def test_firewall_rules_and_interfaces_that_programs_have_made_are_refused(
    engine: PrivateEngine, busybox: str, what: str
) -> None:
    with running(engine, busybox, *WAIT) as name:
        with open(f"/proc/{containers.pid(engine, name)}/ns/net", "rb") as netns:
            if what == "table":
                nftables.add_drop_table(netns.fileno(), "own")
            else:
                add = ["ip", "link", "add", "bridge0", "type", "bridge"]
                with in_netns(netns.fileno()):
                    subprocess.run(add, check=True)
        done = engine.cli("jaula", "checkpoint", "create", name, "one")
        assert {"table": "nftables table own", "interface": "bridge0 (bridge)"}[what] in done.stderr
        assert done.returncode == 1
        assert containers.inspect(engine, name)["State"]["Running"]
