"""Attach, publish, restart, reload and tear down: nothing is lost and nothing is left."""

from __future__ import annotations

import errno
import os
import socket
import threading

import pytest

from jaula.errors import Conflict, InvalidRequest, JaulaError, NotAuthorized, NotFound
from jaula.kernel.netlink import in_netns
from jaula.kernel.poll import readable
from jaula.kernel.rtnetlink import Rtnetlink, add_bridge, add_veth, set_link
from jaula.network import NetworkManager, PortRequest, PortUnavailable
from jaula.network.firewall.nft_command import FirewallError, Libnftables

from .conftest import (
    BRIEF,
    HOST_OUTER,
    OUTSIDE,
    Topology,
    client,
    join,
    listen,
    network,
    new_namespace,
    run_nft,
    talks,
)


def link_names(topology: Topology) -> set[str]:
    with Rtnetlink(topology.host) as host:
        return {link.name for link in host.links()}


def test_an_attached_namespace_has_address_route_and_loopback(topology: Topology) -> None:
    box = topology.box()
    with Rtnetlink(box.net) as inside:
        names = {link.index: link for link in inside.links()}
        addresses = {(names[a.index].name, a.address, a.prefix) for a in inside.addresses()}
        defaults = [r.gateway for r in inside.routes() if not r.destination and r.gateway]
    assert ("eth0", box.address, box.endpoint.prefix) in addresses
    assert ("lo", "127.0.0.1", 8) in addresses
    assert defaults == [box.endpoint.gateway]
    eth0 = next(link for link in names.values() if link.name == "eth0")
    assert eth0.mac == box.endpoint.mac
    assert eth0.mtu == 1400  # the MTU of the host's default route
    assert box.endpoint.host_interface in link_names(topology)


def test_a_chosen_address_and_mac_are_used(topology: Topology) -> None:
    first = topology.box()
    expected = first.address.rsplit(".", 1)[0] + ".77"
    box = topology.box(ip=expected, mac="02:00:00:00:00:01")
    assert (box.address, box.endpoint.mac) == (expected, "02:00:00:00:00:01")
    with pytest.raises(NotAuthorized, match="Address already in use"):
        topology.box(ip=expected)
    with pytest.raises(InvalidRequest, match="no configured subnet or ip-range contain"):
        topology.box(ip="10.0.0.1")
    with pytest.raises(InvalidRequest, match="invalid MAC"):
        topology.box(mac="02:00:00:00:00")


def test_a_failed_attach_leaves_nothing(topology: Topology) -> None:
    topology.box()
    before = link_names(topology), topology.manager.endpoints()
    taken = new_namespace()
    try:
        with Rtnetlink(taken) as inside:
            inside.send(add_veth("eth0", mtu=1500, peer_name="x"))
        with in_netns(topology.host), pytest.raises(JaulaError, match="failed to set up network"):
            topology.manager.attach("bridge", "f" * 64, taken)
        with in_netns(topology.host), pytest.raises(NotFound):
            topology.manager.attach("other", "f" * 64, taken)
    finally:
        os.close(taken)
    with open("/dev/null") as file, in_netns(topology.host), pytest.raises(JaulaError):
        topology.manager.attach("bridge", "f" * 64, file.fileno())
    assert (link_names(topology), topology.manager.endpoints()) == before


def test_in_netns_returns_to_the_namespace_after_an_error(topology: Topology) -> None:
    home = os.readlink("/proc/thread-self/ns/net")
    with in_netns(topology.host):
        assert os.readlink("/proc/thread-self/ns/net") != home
    with pytest.raises(ZeroDivisionError), in_netns(topology.host):
        raise ZeroDivisionError
    assert os.readlink("/proc/thread-self/ns/net") == home
    with open("/dev/null") as file, pytest.raises(OSError), in_netns(file.fileno()):
        pass
    assert os.readlink("/proc/thread-self/ns/net") == home


def test_teardown_waits_for_the_last_container_and_leaves_nothing(topology: Topology) -> None:
    tables = run_nft(topology.host, "list", "ruleset")
    links = link_names(topology)
    box = topology.box()
    with in_netns(topology.host):
        topology.manager.publish(box.endpoint, [PortRequest(80, host_port=8080)])
        assert topology.manager.teardown() is False
        topology.manager.detach(box.endpoint)
        topology.manager.detach(box.endpoint)
        assert topology.manager.teardown() is True
        assert topology.manager.teardown() is True
    gone = box.endpoint.host_interface
    assert link_names(topology) - {gone} == links
    assert run_nft(topology.host, "list", "ruleset") == tables
    with listen(topology.host, "0.0.0.0", 8080):
        pass


def test_detaching_a_running_container_removes_its_interface(topology: Topology) -> None:
    box = topology.box()
    with in_netns(topology.host):
        topology.manager.detach(box.endpoint, delete_interface=True)
    assert box.endpoint.host_interface not in link_names(topology)
    with Rtnetlink(box.net) as inside:
        assert inside.link("eth0") is None


def test_a_port_of_another_container_is_refused_with_dockers_message(topology: Topology) -> None:
    one, two = topology.box(container_name="one"), topology.box(container_name="two")
    with in_netns(topology.host):
        topology.manager.publish(one.endpoint, [PortRequest(80, host_port=8080)])
        with pytest.raises(PortUnavailable) as refusal:
            topology.manager.publish(
                two.endpoint, [PortRequest(81, host_port=9090), PortRequest(80, host_port=8080)]
            )
        assert refusal.value.message == "Bind for 0.0.0.0:8080 failed: port is already allocated"
        with pytest.raises(PortUnavailable, match=r"Bind for 127\.0\.0\.1:8080 failed"):
            topology.manager.publish(two.endpoint, [PortRequest(80, "tcp", "127.0.0.1", 8080)])
        bindings = topology.manager.publish(
            two.endpoint, [PortRequest(80, "udp", host_port=8080), PortRequest(81, host_port=9090)]
        )
        assert [b.host_port for b in bindings] == [8080, 9090]


def test_a_port_in_use_is_refused_and_a_published_port_is_blocked(
    topology: Topology,
) -> None:
    box = topology.box(container_name="web")
    with in_netns(topology.host):
        with listen(topology.host, "127.0.0.1", 8080), pytest.raises(PortUnavailable) as refusal:
            topology.manager.publish(box.endpoint, [PortRequest(80, host_port=8080)])
        assert refusal.value.message.endswith(
            "failed to bind port 0.0.0.0:8080/tcp: Error starting userland proxy: "
            "listen tcp4 0.0.0.0:8080: bind: address already in use"
        )
        with pytest.raises(PortUnavailable, match="cannot assign requested address"):
            topology.manager.publish(box.endpoint, [PortRequest(80, "tcp", "203.0.113.9", 8080)])
        topology.manager.publish(box.endpoint, [PortRequest(80, host_port=8080)])
    with pytest.raises(OSError) as taken:
        listen(topology.host, "0.0.0.0", 8080)
    assert taken.value.errno == errno.EADDRINUSE


def test_a_port_with_a_connection_in_time_wait_can_be_published(topology: Topology) -> None:
    box = topology.box()
    server = listen(topology.host, HOST_OUTER, 8080)
    near = client(topology.outside)
    near.connect((HOST_OUTER, 8080))
    far, _ = server.accept()
    far.close()
    server.close()
    near.close()
    with in_netns(topology.host):
        topology.manager.publish(box.endpoint, [PortRequest(80, host_port=8080)])
    with pytest.raises(OSError):
        listen(topology.host, "0.0.0.0", 8080)


def test_a_udp_client_that_keeps_its_port_follows_the_published_port(topology: Topology) -> None:
    one, two = topology.box(), topology.box()
    request = [PortRequest(53, "udp", host_port=5353)]
    with (
        listen(one.net, "0.0.0.0", 53, socket.SOCK_DGRAM) as first,
        listen(two.net, "0.0.0.0", 53, socket.SOCK_DGRAM) as second,
        client(topology.outside, socket.SOCK_DGRAM) as sender,
        listen(topology.host, HOST_OUTER, 5353, socket.SOCK_DGRAM) as host,
    ):
        sender.sendto(b"to the host", (HOST_OUTER, 5353))
        assert host.recv(32) == b"to the host"
        host.close()
        for box, server in ((one, first), (two, second)):
            with in_netns(topology.host):
                topology.manager.publish(box.endpoint, request)
            sender.sendto(b"to a container", (HOST_OUTER, 5353))
            data, whence = server.recvfrom(32)
            assert (data, whence[0]) == (b"to a container", OUTSIDE)
            server.sendto(b"back", whence)
            assert sender.recvfrom(32) == (b"back", (HOST_OUTER, 5353))
            with in_netns(topology.host):
                topology.manager.unpublish(box.id)


def test_a_prepared_endpoint_is_claimed_by_one_container(topology: Topology) -> None:
    box, other = topology.box(), topology.box()
    with in_netns(topology.host):
        claimed = topology.manager.claim(box.endpoint, "c" * 64, "web")
        assert (claimed.ipv4, claimed.container_name) == (box.address, "web")
        topology.manager.publish(claimed, [PortRequest(80, host_port=8080)])
        with pytest.raises(NotFound):
            topology.manager.claim(box.endpoint, "d" * 64, "again")
        with pytest.raises(Conflict):
            topology.manager.claim(other.endpoint, "c" * 64, "web")
        assert topology.manager.sweep({"c" * 64}) == [other.id, other.endpoint.host_interface]
        topology.manager.detach(claimed)


def test_ephemeral_ports_differ_and_a_range_yields_its_first_free_port(topology: Topology) -> None:
    box, other = topology.box(), topology.box()
    with in_netns(topology.host):
        one, two = topology.manager.publish(box.endpoint, [PortRequest(80), PortRequest(81)])
        assert 49153 <= one.host_port <= 65535
        assert 49153 <= two.host_port <= 65535
        assert one.host_port != two.host_port
        expected = [
            PortRequest(80, host_port=7000, host_port_end=7001),
            PortRequest(81, host_port=7000, host_port_end=7001),
        ]
        assert [b.host_port for b in topology.manager.publish(other.endpoint, expected)] == [
            7000,
            7001,
        ]
        third = topology.box()
        with pytest.raises(PortUnavailable, match="all ports are allocated"):
            topology.manager.publish(third.endpoint, expected[:1])


def test_an_unpublished_port_refuses_and_is_free_again(topology: Topology) -> None:
    box = topology.box()
    with in_netns(topology.host):
        topology.manager.publish(box.endpoint, [PortRequest(80, host_port=8080)])
        topology.manager.unpublish(box.id)
        topology.manager.unpublish(box.id)
    with listen(box.net, "0.0.0.0", 80) as server:
        assert talks(topology.outside, (HOST_OUTER, 8080), server, timeout=BRIEF) is None
    with listen(topology.host, "0.0.0.0", 8080) as server:
        assert talks(topology.outside, (HOST_OUTER, 8080), server) == OUTSIDE


def test_the_next_engine_adopts_endpoints_from_records(topology: Topology) -> None:
    box, dead = topology.box(), topology.box()
    with in_netns(topology.host):
        for one, port in ((box, 8080), (dead, 8081)):
            topology.manager.publish(one.endpoint, [PortRequest(80, host_port=port)])
        records = [topology.manager.endpoint(box.id), topology.manager.endpoint(dead.id)]
    manager = topology.new_manager()
    with in_netns(topology.host):
        assert manager.restore(record for record in records[:1] if record) == []
        swept = manager.sweep({box.id})
        assert swept == [dead.endpoint.host_interface]
    assert manager.endpoint(box.id) == records[0]
    assert "8081" not in run_nft(topology.host, "list", "ruleset")
    with listen(box.net, "0.0.0.0", 80) as server:
        assert talks(topology.outside, (HOST_OUTER, 8080), server) == OUTSIDE
    with pytest.raises(OSError):
        listen(topology.host, "0.0.0.0", 8080)
    assert topology.box().address not in (box.address,)


def test_the_next_engine_attaches_endpoints_that_are_ports_of_no_bridge(
    topology: Topology,
) -> None:
    """An engine may end between the making of a deleted bridge and that of its ports."""
    boxes = [topology.box() for _ in range(3)]
    records = [box.endpoint for box in boxes]
    names = {record.host_interface for record in records}
    with Rtnetlink(topology.host) as host:
        bridge = host.link(topology.config.bridge)
        assert bridge is not None
        assert set(host.ports(bridge.index)) == names
        other = next(x for x in host.links() if x.index != bridge.index and x.name not in names)
        assert host.ports(other.index) == []
        host.send(set_link(records[1].host_interface, master=0))
        assert set(host.ports(bridge.index)) == names - {records[1].host_interface}
        manager = topology.new_manager()
        with in_netns(topology.host):
            assert manager.restore(records) == []
        assert set(host.ports(bridge.index)) == names


def test_restore_reports_a_port_that_was_bound_meanwhile(topology: Topology) -> None:
    box = topology.box(container_name="web")
    with in_netns(topology.host):
        topology.manager.publish(box.endpoint, [PortRequest(80, host_port=8080)])
        record = topology.manager.endpoint(box.id)
    assert record is not None
    manager = topology.new_manager()
    with listen(topology.host, "0.0.0.0", 8080) as server, in_netns(topology.host):
        problems = manager.restore([record])
        assert len(problems) == 1
        assert problems[0].startswith("web: failed to bind port 0.0.0.0:8080/tcp")
        assert talks(topology.outside, (HOST_OUTER, 8080), server) == OUTSIDE


def test_a_flushed_firewall_is_detected_and_restored(topology: Topology) -> None:
    box = topology.box()
    with in_netns(topology.host):
        watch = topology.manager.watch()
        topology.manager.publish(box.endpoint, [PortRequest(80, host_port=8080)])
        topology.manager.repair()
        before = run_nft(topology.host, "list", "ruleset")
        run_nft(topology.host, "flush", "ruleset")
        assert readable(2, watch)
        assert topology.manager.repair() is True
        assert run_nft(topology.host, "list", "ruleset") == before
        assert topology.manager.repair() is False
    with listen(box.net, "0.0.0.0", 80) as server:
        assert talks(topology.outside, (HOST_OUTER, 8080), server) == OUTSIDE


def test_operations_continue_after_an_undetected_flush(topology: Topology) -> None:
    box = topology.box()
    run_nft(topology.host, "flush", "ruleset")
    other = topology.box()
    with in_netns(topology.host):
        topology.manager.publish(other.endpoint, [PortRequest(80, host_port=8080)])
        run_nft(topology.host, "flush", "ruleset")
        topology.manager.detach(box.endpoint)
    with listen(other.net, "0.0.0.0", 80) as server:
        assert talks(topology.outside, (HOST_OUTER, 8080), server) == OUTSIDE


@pytest.mark.parametrize("operation", ["attach", "detach", "publish", "unpublish"])
def test_a_change_that_meets_missing_tables_before_the_monitor_reports_them(
    topology: Topology, operation: str
) -> None:
    """It loads them all, so the monitor finds none missing."""
    box, other = topology.box(), topology.box()
    reports: list[tuple[str, str]] = []
    topology.manager.on_repair = lambda kind, name: reports.append((kind, name))
    with in_netns(topology.host):
        topology.manager.define(network("second"))
        watch = topology.manager.watch()
        topology.manager.publish(box.endpoint, [PortRequest(80, host_port=8080)])
        assert topology.manager.repair() is False
        tables = sorted(run_nft(topology.host, "list", "tables").splitlines())
        run_nft(topology.host, "flush", "ruleset")
        assert readable(2, watch)
        match operation:
            case "attach":
                topology.box()
            case "detach":
                topology.manager.detach(other.endpoint)
            case "publish":
                topology.manager.publish(other.endpoint, [PortRequest(80, host_port=8081)])
            case "unpublish":
                topology.manager.unpublish(box.id)
        assert sorted(run_nft(topology.host, "list", "tables").splitlines()) == tables
        assert reports == [("firewall", "tables")]
        assert topology.manager.repair() is False
        assert reports == [("firewall", "tables")]


def test_a_repair_that_fails_is_repeated(
    topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    topology.box()
    with in_netns(topology.host):
        watch = topology.manager.watch()
        assert topology.manager.repair() is False
        tables = run_nft(topology.host, "list", "tables")
        run_nft(topology.host, "flush", "ruleset")
        assert readable(2, watch)
        with monkeypatch.context() as patch:
            patch.setattr(Libnftables, "run", refuse)
            with pytest.raises(FirewallError):
                topology.manager.repair()
        assert topology.manager.repair() is True
        assert sorted(run_nft(topology.host, "list", "tables").splitlines()) == sorted(
            tables.splitlines()
        )


def test_a_refusal_of_rules_that_were_loaded_before_does_not_end_the_protection(
    topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    topology.box()
    with in_netns(topology.host):
        watch = topology.manager.watch()
        assert topology.manager.repair() is False
        run_nft(topology.host, "flush", "ruleset")
        assert readable(2, watch)
        loads = Libnftables.run

        def run(self: Libnftables, commands: str, *, json: bool = False) -> str:
            return refuse() if "set endpoints" in commands else loads(self, commands, json=json)

        with monkeypatch.context() as patch:
            patch.setattr(Libnftables, "run", run)
            with pytest.raises(FirewallError):
                topology.manager.repair()
        assert topology.manager.repair() is True
        assert "set endpoints" in run_nft(topology.host, "list", "ruleset")
    assert not [line for line in topology.manager.warnings() if "other's addresses" in line]


def refuse(*_: object, **__: object) -> str:
    raise FirewallError("the kernel is busy")


def test_a_blocking_firewall_is_reported(topology: Topology) -> None:
    topology.box()
    run_nft(
        topology.host,
        "add table ip other; add chain ip other fw { type filter hook forward"
        " priority 0; policy drop; }",
    )
    with in_netns(topology.host):
        reported = topology.manager.warnings()
    assert any("ip other fw" in line and "jltbr0" in line for line in reported)


def test_an_interface_with_the_bridges_name_is_not_changed(topology: Topology) -> None:
    with Rtnetlink(topology.host) as host:
        host.send(add_veth("jltbr0", mtu=1500, peer_name="x"))
    with in_netns(topology.host):
        with pytest.raises(Conflict, match="not a bridge"):
            topology.manager.ensure()
        topology.manager.teardown()
    assert "jltbr0" in link_names(topology)


def test_the_subnet_avoids_the_hosts_networks(topology: Topology, tmp_path) -> None:
    topology.box()
    config = type(topology.config)(paths=topology.config.paths, bridge="jltbr1")
    with in_netns(topology.host):
        second = NetworkManager(topology.config.paths, config)
        try:
            assert not second.ensure().subnet.overlaps(topology.manager.ensure().subnet)
        finally:
            second.teardown(force=True)
            second.close()


def test_engines_that_start_together_get_different_subnets(topology: Topology) -> None:
    managers: list[NetworkManager] = []
    barrier = threading.Barrier(4)

    def start(number: int) -> None:
        with in_netns(topology.host):
            config = type(topology.config)(paths=topology.config.paths, bridge=f"jltbr{number}")
            manager = NetworkManager(topology.config.paths, config)
            managers.append(manager)
            barrier.wait(10)
            manager.ensure()

    threads = [threading.Thread(target=start, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    with in_netns(topology.host):
        subnets = {manager.ensure().subnet for manager in managers}
        for manager in managers:
            manager.teardown(force=True)
            manager.close()
    assert len(subnets) == 4


def test_many_threads_may_attach_and_detach(topology: Topology) -> None:
    topology.box()
    failures: list[BaseException] = []

    def work() -> None:
        namespace = new_namespace()
        try:
            with in_netns(topology.host):
                for _ in range(3):
                    name = os.urandom(32).hex()
                    endpoint = topology.manager.attach("bridge", name, namespace)
                    topology.manager.publish(endpoint, [PortRequest(80)])
                    topology.manager.detach(endpoint, delete_interface=True)
        except BaseException as exc:
            failures.append(exc)
            raise
        finally:
            os.close(namespace)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failures == []
    assert len(topology.manager.endpoints()) == 1


def test_an_existing_bridge_without_an_address_is_replaced(topology: Topology) -> None:
    with Rtnetlink(topology.host) as host:
        host.send(add_bridge("jltbr0", mac="02:42:00:00:00:01", mtu=1500))
    box = topology.box()
    with listen(topology.outside, OUTSIDE, 80) as server:
        assert talks(box.net, (OUTSIDE, 80), server) == HOST_OUTER
    assert socket.inet_aton(box.endpoint.gateway)


def test_the_nft_program_replaces_a_missing_library(
    topology: Topology, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jaula.network.firewall.nft_command.LIBRARY", "libjlt-missing.so.1")
    box = topology.box()
    with in_netns(topology.host):
        topology.manager.publish(box.endpoint, [PortRequest(80, host_port=8080)])
        assert all("forwarding was off" in line for line in topology.manager.warnings())
    with listen(box.net, "0.0.0.0", 80) as server:
        assert talks(topology.host, ("127.0.0.1", 8080), server) is not None
    with in_netns(topology.host):
        topology.manager.unpublish(box.id)
    assert " 8080 " not in run_nft(topology.host, "list", "ruleset")


def test_the_rules_of_a_killed_engine_stay_until_the_next_one_loads_its_own(
    topology: Topology,
) -> None:
    with in_netns(topology.host):
        made = topology.manager.define(network("shop"))
    box, plain = join(topology, "shop"), topology.box()
    with in_netns(topology.host):
        topology.manager.publish(box.endpoint, [PortRequest(80, host_port=8080)])
        known = topology.manager.endpoints()
    manager = topology.new_manager()
    with listen(box.net, "0.0.0.0", 80) as server, listen(plain.net, "0.0.0.0", 80) as other:

        def serves() -> bool:
            outside = talks(topology.outside, (HOST_OUTER, 8080), server) == OUTSIDE
            return outside and talks(topology.host, (plain.address, 80), other) is not None

        with in_netns(topology.host):
            manager.keep_firewall_rules()
            manager.define(made)
            manager.ensure()
        assert serves(), "nothing was replaced by rules that know no endpoint"
        with in_netns(topology.host):
            assert manager.restore(known) == []
        assert serves()
        with in_netns(topology.host):
            manager.define(network("new"))
        assert serves()
