"""Pure decisions of checks: settings, senders, ports, devices, paths and ids."""

from __future__ import annotations

from typing import Any

import pytest

from jaula.features.verify.checks.bind_sources import READERS, is_home, is_obeyed, is_secret
from jaula.features.verify.checks.firewall import diverted_ports, foreign_senders
from jaula.features.verify.checks.membership import held_ids
from jaula.features.verify.checks.network import is_fallback
from jaula.features.verify.checks.sysctls import is_default
from jaula.features.verify.model.host_process import HostProcess, parse_ids
from jaula.kernel.rtnetlink import IFF_UP, Link
from jaula.network.endpoint_config import ipv6_settings

NEW = {
    "net/ipv4/tcp_syncookies": "1",
    "net/ipv4/conf/all/rp_filter": "2",
    "net/ipv4/conf/default/rp_filter": "2",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv4/neigh/lo/gc_stale_time": "60",
    "net/ipv6/conf/default/accept_ra": "1",
    "net/ipv6/conf/default/disable_ipv6": "0",
    "kernel/shmmni": "4096",
}


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("net/ipv4/tcp_syncookies", "1", True),
        ("net/ipv4/tcp_syncookies", "0", False),
        ("kernel/shmmni", "1", False),
        ("net/module/loaded_later", "7", True),
        ("net/ipv4/conf/all/rp_filter", "2", True),
        ("net/ipv4/conf/all/rp_filter", "0", True),  # the host had the kernel's default before
        ("net/ipv4/conf/all/rp_filter", "1", False),
        ("net/ipv4/conf/eth0/rp_filter", "2", True),
        ("net/ipv4/conf/eth0/send_redirects", "1", True),
        ("net/ipv4/conf/eth0/send_redirects", "0", True),
        ("net/ipv4/conf/eth0/send_redirects", "2", False),
        ("net/ipv4/conf/eth0/route_localnet", "1", True),  # a row of its own
        ("net/ipv4/neigh/eth0/gc_stale_time", "60", True),
        ("net/ipv4/neigh/eth0/gc_stale_time", "61", False),
        ("net/ipv6/conf/eth0/mtu", "9000", True),
        ("net/ipv6/conf/eth0/accept_ra", "1", True),
        ("net/ipv6/conf/eth0/accept_ra", "0", True),
        ("net/ipv6/conf/eth0/accept_ra", "2", False),
        ("net/ipv6/conf/default/accept_ra", "0", False),
        ("net/ipv6/conf/default/disable_ipv6", "1", False),
    ],
)
def test_a_setting_has_the_value_of_a_new_namespace_or_of_the_engine(
    path: str, value: str, expected: bool
) -> None:
    assert is_default(path, value, NEW, [ipv6_settings(has_address=True)]) is expected


def test_an_interface_without_ipv6_has_it_disabled() -> None:
    engine = [ipv6_settings(has_address=False)]
    assert is_default("net/ipv6/conf/eth0/disable_ipv6", "1", NEW, engine)
    assert not is_default("net/ipv6/conf/eth0/accept_ra", "2", NEW, engine)


ENDPOINT = {
    "EndpointID": "0123456789abcdef",
    "MacAddress": "02:42:AC:11:00:02",
    "IPAddress": "172.17.0.2",
    "GlobalIPv6Address": "fd00::2",
}
PORT, MAC = "jl0123456789", "02:42:ac:11:00:02"


def senders(*elements: Any, family: str = "bridge", name: str = "endpoints") -> list[str]:
    objects = [{"set": {"family": family, "name": name, "table": "jaula", "elem": elements}}]
    return foreign_senders(objects, ENDPOINT)


@pytest.mark.parametrize("address", ["172.17.0.2", "fd00::2", "fe80::42:acff:fe11:2"])
def test_the_addresses_of_an_endpoint_are_no_foreign_senders(address: str) -> None:
    assert senders({"concat": [PORT, MAC, address]}) == []


@pytest.mark.parametrize("name", ["endpoints", "endpoints6"])
@pytest.mark.parametrize("sender", [(MAC, "172.17.0.3"), ("02:00:00:00:00:01", "172.17.0.2")])
def test_another_address_of_the_port_is_a_foreign_sender(
    sender: tuple[str, str], name: str
) -> None:
    element = {"concat": [PORT, *sender]}
    wrapped = {"elem": {"val": element, "comment": "x"}}
    assert senders(element, name=name) == senders(wrapped, name=name) == [" ".join(sender)]
    assert senders({"concat": ["jlother", *sender]}) == []


def test_a_published_port_that_is_sent_elsewhere_is_found() -> None:
    def element(host: list[object], target: list[object]) -> list[object]:
        return [{"concat": host}, {"concat": target}]

    objects = [
        {"map": {"family": "ip", "name": "published", "elem": [
            element(["127.0.0.1", "tcp", 8080], ["172.17.0.9", 80]),
            element(["127.0.0.1", "tcp", 8081], ["172.17.0.9", 80]),
            [{"elem": {"val": {"concat": ["10.0.0.1", "tcp", 8080]}, "timeout": 5}},
             {"concat": ["172.17.0.9", 81]}],
        ]}},
        {"map": {"family": "ip", "name": "published_everywhere", "elem": [
            element(["udp", 53], ["172.17.0.2", 53]),
        ]}},
    ]  # fmt: skip
    published = {
        "127.0.0.1 tcp 8080 -> 80",
        "10.0.0.1 tcp 8080 -> 80",
        "0.0.0.0 udp 53 -> 53",
    }
    assert diverted_ports(objects, ["172.17.0.2"], published) == {
        "127.0.0.1 tcp 8080 -> 172.17.0.9 80",
        "10.0.0.1 tcp 8080 -> 172.17.0.9 81",
    }


@pytest.mark.parametrize(
    ("name", "kind", "flags", "expected"),
    [
        ("sit0", "sit", 0, True),
        ("tunl0", "ipip", 0, True),
        ("sit0", "sit", IFF_UP, False),
        ("sit0", "veth", 0, False),
        ("sit1", "sit", 0, False),
        ("eth0", "veth", 0, False),
    ],
)
def test_a_fallback_device_is_known_by_its_kind(
    name: str, kind: str, flags: int, expected: bool
) -> None:
    link = Link(
        index=2,
        name=name,
        flags=flags,
        mac="",
        mtu=1480,
        master=0,
        parent=0,
        kind=kind,
        operstate=0,
    )
    assert is_fallback(link) is expected


@pytest.mark.parametrize(
    ("path", "secret", "obeyed"),
    [
        ("/etc/shadow", True, False),
        ("/var/lib/jaula/jaula.db", True, False),
        ("/home/a/.ssh/id_rsa", True, False),
        ("/home/a/.ssh", True, False),
        ("/home/a/work", False, False),
        ("/etc/cron.d/job", False, True),
        ("/etc/systemd/system/a.service", False, True),
        ("/var/spool/cron/crontabs", False, True),
        ("/etc/passwd", False, True),
        ("/usr/lib/x86_64-linux-gnu", False, True),
        ("/etc/ssl/certs", False, False),
        ("/etc/hosts", False, False),
        ("/srv/data", False, False),
    ],
)
def test_paths_that_are_as_good_as_root_are_known(path: str, secret: bool, obeyed: bool) -> None:
    assert (is_secret(path, READERS), is_obeyed(path)) == (secret, obeyed)


@pytest.mark.parametrize(("path", "expected"), [("/home/a", True), ("/home/a/b", False)])
def test_a_home_directory_is_known(path: str, expected: bool) -> None:
    assert is_home(path) is expected


def test_the_ids_of_a_process_in_a_range_are_named() -> None:
    uids, gids = parse_ids("Uid:\t5\t6\t5\t5\nGid:\t0\t0\t0\t0\nGroups:\t70 8 \n")
    process = HostProcess(1, 0, 1, "x", {}, (), uids, gids)
    assert list(held_ids(process, [range(6, 7)], [range(60, 80)])) == [("uid", 6), ("gid", 70)]
    assert list(held_ids(process, [range(100, 200)], [])) == []
