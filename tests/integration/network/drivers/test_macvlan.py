"""macvlan and ipvlan: containers on the link of a parent interface."""

from __future__ import annotations

import errno
import os
import secrets

import pytest

from jaula.errors import InvalidRequest, JaulaError, NotAuthorized, NotFound, Unsupported
from jaula.kernel.netlink import Request, in_netns
from jaula.kernel.rtnetlink import (
    Rtnetlink,
    add_default_route,
    add_dummy,
    add_veth,
    add_vlan,
    delete_link,
    set_link,
)
from jaula.network import PortRequest
from jaula.network.drivers.parent_interface import dummy_name
from jaula.network.network_config import check_pools
from jaula.network.network_driver import MacAddressInUse
from jaula.spec.network_record import NetworkRecord, Pool

from ..conftest import BRIEF, HOST_OUTER, OUTSIDE, Box, Topology, join, listen, new_namespace, talks

SUBNET = "198.51.100.0/24"  # of the link between the host and the machine outside
PORT = 8000


def has(request: Request) -> bool:
    """Return whether this kernel supports a link type: it checks that before the parent."""
    if os.geteuid() != 0:
        return False
    netns = new_namespace()
    try:
        with Rtnetlink(netns) as links:
            links.send(request)
    except OSError as error:
        return error.errno != errno.EOPNOTSUPP
    finally:
        os.close(netns)
    return True


needs_dummy = pytest.mark.skipif(not has(add_dummy("jlt0")), reason="no links of kind dummy")
needs_vlan = pytest.mark.skipif(
    not has(add_vlan("jlt0.9", parent=4242, tag=9)), reason="no links of kind vlan"
)


def on_wire(name: str, driver: str = "macvlan", **options: object) -> NetworkRecord:
    identity = secrets.token_hex(32)
    pool = Pool(SUBNET, OUTSIDE, "198.51.100.64/26", {"host": HOST_OUTER})
    pools = check_pools([pool], [], ipv6=False)
    fields: dict[str, object] = {
        "created": 0,
        "bridge": "",
        "driver": driver,
        "parent": "up0",
        "mode": "bridge" if driver == "macvlan" else "l2",
        "pools": pools,
        "asked_pools": True,
        **options,
    }
    fields["parent"] = fields["parent"] or dummy_name(identity)
    return NetworkRecord(name=name, id=identity, **fields)  # type: ignore[arg-type]


@pytest.fixture(params=[("macvlan", "bridge"), ("ipvlan", "l2")], ids=lambda kind: kind[0])
def wire(topology: Topology, request: pytest.FixtureRequest) -> NetworkRecord:
    driver, mode = request.param
    made = on_wire("wire", driver, mode=mode)
    with in_netns(topology.host):
        topology.manager.define(made)
    try:
        join(topology, "wire")
    except Unsupported as error:
        pytest.skip(str(error))
    return made


def test_reachability_on_the_parents_link(topology: Topology, wire: NetworkRecord) -> None:
    """Containers reach the machines on the link, but not the host."""
    first, second = topology.boxes[0], join(topology, "wire")
    bridged = topology.box()
    table = [
        ("another of the network", first.net, second.address, second.net, True),
        ("the machine outside", first.net, OUTSIDE, topology.outside, True),
        ("from outside", topology.outside, first.address, first.net, True),
        ("the host, by the parent", first.net, HOST_OUTER, topology.host, False),
        ("from the host", topology.host, first.address, first.net, False),
        ("a bridge's container", first.net, bridged.address, bridged.net, False),
        ("from a bridge's container", bridged.net, first.address, first.net, False),
    ]
    for what, source, address, place, expected in table:
        with listen(place, "0.0.0.0", PORT) as server:
            seen = talks(source, (address, PORT), server, timeout=BRIEF)
            assert (seen is not None) is expected, what
    with listen(topology.outside, "0.0.0.0", PORT) as server:
        assert talks(first.net, (OUTSIDE, PORT), server) == first.address, "no masquerading"


def test_an_endpoint_has_the_address_range_gateway_and_mac_of_its_network(
    topology: Topology, wire: NetworkRecord
) -> None:
    first = topology.boxes[0]
    assert first.address == "198.51.100.64"
    assert first.endpoint.gateway == OUTSIDE
    assert first.endpoint.host_interface == ""
    with Rtnetlink(first.net) as inside, Rtnetlink(topology.host) as host:
        link, parent = inside.link("eth0"), host.link("up0")
        assert link is not None
        assert parent is not None
        assert link.kind == wire.driver
        assert link.mac == first.endpoint.mac
        assert (link.mac == parent.mac) == (wire.driver == "ipvlan")
        assert link.mtu == parent.mtu == 1400
        assert [r.gateway for r in inside.routes() if not r.destination and r.gateway] == [OUTSIDE]


def test_ports_cannot_be_published_and_the_firewall_is_bypassed(
    topology: Topology, wire: NetworkRecord
) -> None:
    assert not topology.boxes[0].endpoint.publishes
    with in_netns(topology.host), pytest.raises(Exception, match="ports cannot be published in"):
        topology.manager.publish(topology.boxes[0].endpoint, [PortRequest(80, host_port=8080)])


def test_the_next_engine_adopts_endpoints_and_a_container_can_disconnect(
    topology: Topology, wire: NetworkRecord
) -> None:
    first = topology.boxes[0]
    manager = topology.new_manager()
    with in_netns(topology.host):
        assert manager.define(wire) == wire
        assert manager.restore([first.endpoint]) == []
        assert manager.sweep({first.id}) == []
    second = join(topology, "wire")
    assert second.address != first.address
    with in_netns(topology.host):
        manager.detach(first.endpoint, delete_interface=True, netns_fd=first.net)
        with Rtnetlink(first.net) as inside:
            assert [link.name for link in inside.links()] == ["lo"]
        manager.detach(second.endpoint)
        manager.undefine("wire")
        assert manager.has_interface("up0"), "a parent that was there stays"


def test_a_macvlan_network_has_ipv6_and_an_internal_one_no_default_route(
    topology: Topology,
) -> None:
    pools = check_pools([Pool(SUBNET), Pool("2001:db8::/64", "2001:db8::2")], [], ipv6=True)
    with in_netns(topology.host):
        topology.manager.define(on_wire("six", pools=pools, ipv6=True))
        topology.manager.define(on_wire("inner", internal=True))
    six, inner = join(topology, "six", ip6="2001:db8::77"), join(topology, "inner")
    with listen(topology.outside, "::", PORT) as server:
        assert talks(six.net, ("2001:db8::2", PORT), server) == "2001:db8::77"
    assert inner.endpoint.gateway == ""
    with Rtnetlink(inner.net) as inside:
        assert not [r for r in inside.routes() if not r.destination and r.index]


def test_private_macvlan_containers_do_not_reach_each_other(topology: Topology) -> None:
    with in_netns(topology.host):
        topology.manager.define(on_wire("apart", mode="private"))
    first, second = join(topology, "apart"), join(topology, "apart")
    with listen(second.net, "0.0.0.0", PORT) as server:
        assert talks(first.net, (second.address, PORT), server, timeout=BRIEF) is None
        assert talks(topology.outside, (second.address, PORT), server) is not None


def test_passthru_is_exclusive_to_its_parent(topology: Topology) -> None:
    with in_netns(topology.host):
        topology.manager.define(on_wire("all", mode="passthru"))
        with pytest.raises(NotAuthorized, match="already using parent interface up0"):
            topology.manager.define(on_wire("more"))
        topology.manager.undefine("all")
        topology.manager.define(on_wire("more"))


def test_a_missing_parent_that_cannot_be_created_is_an_error(topology: Topology) -> None:
    with in_netns(topology.host):
        assert topology.manager.owns_parent("no0.7")
        assert not topology.manager.owns_parent("up0")
        with pytest.raises(NotFound, match=r"no0\.7 does not exist, and neither does no0"):
            topology.manager.define(on_wire("lost", parent="no0.7", made_parent=True))
        for parent in ("no0", "up0.0", "up0.4095"):
            with pytest.raises(InvalidRequest, match="does not exist"):
                topology.manager.define(on_wire("lost", parent=parent, made_parent=True))


@needs_vlan
@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
def test_a_vlan_parent_is_created_and_removed_with_the_last_network(
    topology: Topology, driver: str
) -> None:
    mode = "bridge" if driver == "macvlan" else "l2"
    with Rtnetlink(topology.outside) as far:
        link = far.link("eth0")
        assert link is not None
        far.send(add_vlan("eth0.10", parent=link.index, tag=10))
    with in_netns(topology.host):
        for name in ("tagged", "second"):
            comes = topology.manager.owns_parent("up0.10")
            assert comes
            topology.manager.define(
                on_wire(name, driver, mode=mode, parent="up0.10", made_parent=comes)
            )
        assert topology.manager.has_interface("up0.10")
        topology.manager.undefine("tagged")
        assert topology.manager.has_interface("up0.10")
    box = join(topology, "second")
    with Rtnetlink(box.net) as inside, Rtnetlink(topology.host) as host:
        assert (inside.link("eth0") or pytest.fail("no link")).kind == driver
        parent = host.link("up0.10")
        assert parent is not None
        assert parent.kind == "vlan"
    with in_netns(topology.host):
        topology.manager.detach(box.endpoint, delete_interface=True, netns_fd=box.net)
        topology.manager.undefine("second")
        assert not topology.manager.has_interface("up0.10")


@needs_dummy
@pytest.mark.parametrize("driver", ["macvlan", "ipvlan"])
def test_without_a_parent_the_network_is_isolated(topology: Topology, driver: str) -> None:
    mode = "bridge" if driver == "macvlan" else "l2"
    made = on_wire("nowhere", driver, mode=mode, parent="", made_parent=True,
                   internal=True)  # fmt: skip
    with in_netns(topology.host):
        topology.manager.define(made)
    first, second = join(topology, "nowhere"), join(topology, "nowhere")
    with listen(second.net, "0.0.0.0", PORT) as server:
        assert talks(first.net, (second.address, PORT), server) == first.address
    with listen(topology.outside, "0.0.0.0", PORT) as server:
        with Rtnetlink(first.net) as inside, pytest.raises(OSError, match=r"gateway|unreachable"):
            inside.send(add_default_route("10.0.0.1"))
        assert talks(first.net, (OUTSIDE, PORT), server, timeout=BRIEF) is None
    with in_netns(topology.host):
        for box in (first, second):
            topology.manager.detach(box.endpoint, delete_interface=True, netns_fd=box.net)
        topology.manager.clear(made)
        assert topology.manager.has_interface(made.parent), "it is in use"
        topology.manager.undefine("nowhere")
        assert not topology.manager.has_interface(made.parent)


@pytest.mark.parametrize("mode", ["l3", "l3s"])
def test_routed_ipvlan_needs_no_gateway(topology: Topology, mode: str) -> None:
    with in_netns(topology.host):
        topology.manager.define(on_wire("routed", "ipvlan", mode=mode))
    try:
        first, second = join(topology, "routed"), join(topology, "routed")
    except Unsupported as error:
        pytest.skip(str(error))
    assert (first.endpoint.gateway, first.endpoint.on_link) == ("", True)
    with Rtnetlink(first.net) as inside:
        assert [r.gateway for r in inside.routes() if not r.destination and r.index][:1] == [""]
    with listen(second.net, "0.0.0.0", PORT) as server:
        assert talks(first.net, (second.address, PORT), server) == first.address


def test_a_parent_that_appears_later_is_used(topology: Topology) -> None:
    plan = on_wire("late", parent="late0")
    with in_netns(topology.host):
        with pytest.raises(JaulaError, match="late0 does not exist"):
            topology.manager.define(plan)
        topology.manager.expect(plan)
        assert topology.manager.address_usage("late")  # of a network without its parent
    with pytest.raises(JaulaError, match="late0 does not exist"):
        join(topology, "late")
    for _ in range(2):
        with Rtnetlink(topology.host) as links:
            links.send(add_veth("late0", mtu=1500, peer_name="late1"))
            links.send(set_link("late0", up=True), set_link("late1", up=True))
        box = join(topology, "late")
        with Rtnetlink(topology.host) as links:
            links.send(delete_link("late0"))
        with Rtnetlink(box.net) as inside:
            assert inside.link("eth0") is None, "it goes with its parent"
    with pytest.raises(JaulaError, match="late0 does not exist"):
        join(topology, "late")


@pytest.fixture
def taken(topology: Topology) -> Box:
    """A container whose MAC address another one asks for."""
    with in_netns(topology.host):
        topology.manager.define(on_wire("wire"))
    return join(topology, "wire")


def test_a_mac_address_of_another_interface_is_refused(topology: Topology, taken: Box) -> None:
    mac = taken.endpoint.mac
    with pytest.raises(
        MacAddressInUse, match=f"another interface of up0 has the MAC address {mac}"
    ):
        join(topology, "wire", mac=mac)
    assert len(topology.manager.endpoints("wire")) == 1
    assert join(topology, "wire").address == "198.51.100.66", "the address is free again"
