"""A network that another program changes, on either side, fails in the right row.

The container of the module is shared, and each change is undone.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from harness import containers
from harness.audits import Audited
from harness.engine import PrivateEngine
from jaula.network.firewall.bridge_rules import table_name


@pytest.fixture(scope="module")
def shared(engine: PrivateEngine, busybox: str) -> Iterator[Audited]:
    with containers.running(engine, busybox) as name:
        yield Audited(engine, name)


def names(audited: Audited) -> dict[str, str]:
    """Return what the commands name: the host's end, its bridge, address and gateway."""
    (endpoint,) = audited.inspect["NetworkSettings"]["Networks"].values()
    return {
        "port": f"jl{endpoint['EndpointID'][:10]}",
        "bridge": audited.engine.bridge,
        "other": f"{audited.engine.tag[:11]}x",
        "address": endpoint["IPAddress"],
        "mac": endpoint["MacAddress"],
        "table": table_name(audited.engine.bridge),
        "gateway": endpoint["Gateway"],
        "saved": f"{audited.engine.root}/saved",
        "inside": f"nsenter -t {audited.pid} -n",
    }


def shell(audited: Audited, script: str) -> None:
    words = ["sh", "-ec", script.format(**names(audited))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("command", "undo", "row", "told"),
    [
        ("ip link add {other} type bridge; ip link set {port} master {other}",
         "ip link set {port} master {bridge}; ip link delete {other}",
         "links", "is on the bridge {other}, not {bridge}"),
        ("ip link set {port} nomaster", "ip link set {port} master {bridge}",
         "links", "is on the bridge none, not {bridge}"),
        ("ip link set {port} down", "ip link set {port} up", "links", "{port} is down"),
        ("ip link set {port} name {other}", "ip link set {other} name {port}",
         "links", "{port} does not exist"),
        ("{inside} ip route add 198.51.100.0/24 via {gateway}",
         "{inside} ip route delete 198.51.100.0/24", "routes", "198.51.100.0/24 via {gateway}"),
        ("{inside} ip route replace default via {address}",
         "{inside} ip route replace default via {gateway}", "routes", "default via {address}"),
        ("{inside} ip route add 198.51.100.0/24 via {gateway} table 100",
         "{inside} ip route flush table 100", "routes", "(table 100)"),
        ("{inside} sh -c 'echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet'",
         "{inside} sh -c 'echo 0 > /proc/sys/net/ipv4/conf/eth0/route_localnet'",
         "network settings", "eth0/route_localnet = 1"),
        ("{inside} ip link add name sit0 type veth peer name other",
         "{inside} ip link delete sit0", "interfaces", "sit0"),
        *(
            (f"nft 'add element bridge {{table}} endpoints {{{{ {{port}} . {sender} }}}}'",
             f"nft 'delete element bridge {{table}} endpoints {{{{ {{port}} . {sender} }}}}'",
             "senders", sender.replace(" . ", " "))
            for sender in ("02:00:00:00:00:01 . {address}", "{mac} . {gateway}")
        ),
        *(
            (f"{{inside}} cat {file} > {{saved}}; {{inside}} sh -c 'echo {value} > {file}'",
             f"{{inside}} sh -c 'cat {{saved}} > {file}'", "other sysctls", f"{name} = {value}")
            for name, value in (
                ("net/ipv4/tcp_syncookies", 0),
                ("net/ipv4/conf/eth0/shared_media", 0),
                ("net/ipv4/icmp_echo_ignore_broadcasts", 0),
                ("net/ipv6/conf/default/accept_ra", 2),
                ("net/ipv6/conf/all/forwarding", 1),
            )
            for file in (f"/proc/sys/{name}",)
        ),
        ("{inside} sh -c 'echo 80 > /proc/sys/net/ipv4/ip_unprivileged_port_start'",
         "{inside} sh -c 'echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start'",
         "sysctls", "ip_unprivileged_port_start = 80"),
        (("nft 'add table ip {other}; add chain ip {other} pre {{ type nat hook prerouting priority"
         " -90; }}; add rule ip {other} pre tcp dport 60998 dnat to {address}:80'"),
         "nft delete table ip {other}", "foreign translations", "ip {other} pre"),
        (("nft 'add table ip {other}; add map ip {other} m {{ type inet_service : ipv4_addr;"
         " elements = {{ 60997 : {address} }}; }}; add chain ip {other} pre {{ type nat hook"
         " prerouting priority -90; }}; add rule ip {other} pre dnat to tcp dport map @m'"),
         "nft delete table ip {other}", "foreign translations", "ip {other} pre"),
    ],
    ids=["bridge", "no bridge", "down", "renamed", "route", "default route", "table",
         "route_localnet", "fallback device", "sender", "sender's address", "syncookies",
         "interface", "broadcasts", "router advertisements", "forwarding", "ports", "dnat",
         "dnat map"],
)  # fmt: skip
def test_a_changed_network_fails(
    shared: Audited, command: str, undo: str, row: str, told: str
) -> None:
    shell(shared, command)
    try:
        failing = shared.failing()
        assert set(failing) == {row}, shared.explain()
        assert told.format(**names(shared)) in failing[row]
    finally:
        shell(shared, undo)
    if row == "links":  # the kernel removed the routes of a link that was down
        return
    assert shared.failing() == {}, shared.explain()


def test_a_program_that_may_change_its_network_is_relaxed(
    engine: PrivateEngine, busybox: str
) -> None:
    script = "ip route add 198.51.100.0/24 via $(ip route | awk '/default/ {print $3}'); sleep 600"
    flags = ("--cap-add", "net_admin")
    with containers.running(engine, busybox, "sh", "-c", script, flags=flags) as name:
        changed = lambda: "CAP_NET_ADMIN" in Audited(engine, name).rows()["routes"].requested  # noqa: E731
        containers.eventually(changed, "the route is found")
        assert Audited(engine, name).failing() == {}
