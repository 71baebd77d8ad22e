"""Attach, publish, restart, reload and tear down: nothing is lost and nothing is left."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading

import pytest

from jaula.errors import Conflict, InvalidRequest, JaulaError, NotFound
from jaula.kernel.netlink import in_netns
from jaula.kernel.rtnetlink import Rtnetlink, add_bridge, add_veth
from jaula.network import NetworkManager, PortRequest, PortUnavailable

from .conftest import (
    HOST_OUTER,
    OUTSIDE,
    Lab,
    client,
    join,
    listen,
    network,
    new_namespace,
    run_nft,
    talks,
)


def link_names(lab: Lab) -> set[str]:
    with Rtnetlink(lab.host) as host:
        return {link.name for link in host.links()}


def test_an_attached_namespace_has_address_route_and_loopback(lab: Lab) -> None:
    box = lab.box()
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
    assert box.endpoint.host_interface in link_names(lab)


def test_a_chosen_address_and_mac_are_used(lab: Lab) -> None:
    first = lab.box()
    wanted = first.address.rsplit(".", 1)[0] + ".77"
    box = lab.box(ip=wanted, mac="02:00:00:00:00:01")
    assert (box.address, box.endpoint.mac) == (wanted, "02:00:00:00:00:01")
    with pytest.raises(Conflict, match="already in use"):
        lab.box(ip=wanted)
    with pytest.raises(InvalidRequest, match="not in the network's subnet"):
        lab.box(ip="10.0.0.1")
    with pytest.raises(InvalidRequest, match="invalid MAC"):
        lab.box(mac="02:00:00:00:00")


def test_a_failed_attach_leaves_nothing(lab: Lab) -> None:
    lab.box()
    before = link_names(lab), lab.manager.endpoints()
    taken = new_namespace()
    try:
        with Rtnetlink(taken) as inside:
            inside.send(add_veth("eth0", mtu=1500, peer_name="x"))
        with in_netns(lab.host), pytest.raises(JaulaError, match="failed to set up network"):
            lab.manager.attach("bridge", "f" * 64, taken)
        with in_netns(lab.host), pytest.raises(NotFound):
            lab.manager.attach("other", "f" * 64, taken)
    finally:
        os.close(taken)
    with open("/dev/null") as file, in_netns(lab.host), pytest.raises(JaulaError):
        lab.manager.attach("bridge", "f" * 64, file.fileno())
    assert (link_names(lab), lab.manager.endpoints()) == before


def test_in_netns_returns_to_the_namespace_after_an_error(lab: Lab) -> None:
    home = os.readlink("/proc/thread-self/ns/net")
    with in_netns(lab.host):
        assert os.readlink("/proc/thread-self/ns/net") != home
    with pytest.raises(ZeroDivisionError), in_netns(lab.host):
        raise ZeroDivisionError
    assert os.readlink("/proc/thread-self/ns/net") == home
    with open("/dev/null") as file, pytest.raises(OSError), in_netns(file.fileno()):
        pass
    assert os.readlink("/proc/thread-self/ns/net") == home


def test_teardown_waits_for_the_last_container_and_leaves_nothing(lab: Lab) -> None:
    tables = run_nft(lab.host, "list", "ruleset")
    links = link_names(lab)
    box = lab.box()
    with in_netns(lab.host):
        lab.manager.publish(box.endpoint, [PortRequest(80, host_port=8080)])
        assert lab.manager.teardown() is False
        lab.manager.detach(box.endpoint)
        lab.manager.detach(box.endpoint)
        assert lab.manager.teardown() is True
        assert lab.manager.teardown() is True
    gone = box.endpoint.host_interface
    assert link_names(lab) - {gone} == links
    assert run_nft(lab.host, "list", "ruleset") == tables
    with listen(lab.host, "0.0.0.0", 8080):
        pass


def test_detaching_a_running_container_removes_its_interface(lab: Lab) -> None:
    box = lab.box()
    with in_netns(lab.host):
        lab.manager.detach(box.endpoint, delete_interface=True)
    assert box.endpoint.host_interface not in link_names(lab)
    with Rtnetlink(box.net) as inside:
        assert inside.link("eth0") is None


def test_a_port_of_another_container_is_refused_with_dockers_message(lab: Lab) -> None:
    one, two = lab.box(container_name="one"), lab.box(container_name="two")
    with in_netns(lab.host):
        lab.manager.publish(one.endpoint, [PortRequest(80, host_port=8080)])
        with pytest.raises(PortUnavailable) as refusal:
            lab.manager.publish(
                two.endpoint, [PortRequest(81, host_port=9090), PortRequest(80, host_port=8080)]
            )
        assert refusal.value.message == "Bind for 0.0.0.0:8080 failed: port is already allocated"
        with pytest.raises(PortUnavailable, match=r"Bind for 127\.0\.0\.1:8080 failed"):
            lab.manager.publish(two.endpoint, [PortRequest(80, "tcp", "127.0.0.1", 8080)])
        bindings = lab.manager.publish(
            two.endpoint, [PortRequest(80, "udp", host_port=8080), PortRequest(81, host_port=9090)]
        )
        assert [b.host_port for b in bindings] == [8080, 9090]


def test_a_port_in_use_is_refused_and_a_published_port_is_blocked(
    lab: Lab,
) -> None:
    box = lab.box(container_name="web")
    with in_netns(lab.host):
        with listen(lab.host, "127.0.0.1", 8080), pytest.raises(PortUnavailable) as refusal:
            lab.manager.publish(box.endpoint, [PortRequest(80, host_port=8080)])
        assert refusal.value.message.endswith(
            "failed to bind port 0.0.0.0:8080/tcp: Error starting userland proxy: "
            "listen tcp4 0.0.0.0:8080: bind: address already in use"
        )
        with pytest.raises(PortUnavailable, match="cannot assign requested address"):
            lab.manager.publish(box.endpoint, [PortRequest(80, "tcp", "203.0.113.9", 8080)])
        lab.manager.publish(box.endpoint, [PortRequest(80, host_port=8080)])
    with pytest.raises(OSError) as taken:
        listen(lab.host, "0.0.0.0", 8080)
    assert taken.value.errno == errno.EADDRINUSE


def test_a_port_with_a_connection_in_time_wait_can_be_published(lab: Lab) -> None:
    box = lab.box()
    server = listen(lab.host, HOST_OUTER, 8080)
    near = client(lab.outside)
    near.connect((HOST_OUTER, 8080))
    far, _ = server.accept()
    far.close()
    server.close()
    near.close()
    with in_netns(lab.host):
        lab.manager.publish(box.endpoint, [PortRequest(80, host_port=8080)])
    with pytest.raises(OSError):
        listen(lab.host, "0.0.0.0", 8080)


def test_a_udp_client_that_keeps_its_port_follows_the_published_port(lab: Lab) -> None:
    one, two = lab.box(), lab.box()
    request = [PortRequest(53, "udp", host_port=5353)]
    with (
        listen(one.net, "0.0.0.0", 53, socket.SOCK_DGRAM) as first,
        listen(two.net, "0.0.0.0", 53, socket.SOCK_DGRAM) as second,
        client(lab.outside, socket.SOCK_DGRAM) as sender,
        listen(lab.host, HOST_OUTER, 5353, socket.SOCK_DGRAM) as host,
    ):
        sender.sendto(b"to the host", (HOST_OUTER, 5353))
        assert host.recv(32) == b"to the host"
        host.close()
        for box, server in ((one, first), (two, second)):
            with in_netns(lab.host):
                lab.manager.publish(box.endpoint, request)
            sender.sendto(b"to a container", (HOST_OUTER, 5353))
            data, whence = server.recvfrom(32)
            assert (data, whence[0]) == (b"to a container", OUTSIDE)
            server.sendto(b"back", whence)
            assert sender.recvfrom(32) == (b"back", (HOST_OUTER, 5353))
            with in_netns(lab.host):
                lab.manager.unpublish(box.id)


def test_a_prepared_endpoint_is_claimed_by_one_container(lab: Lab) -> None:
    box, other = lab.box(), lab.box()
    with in_netns(lab.host):
        claimed = lab.manager.claim(box.endpoint, "c" * 64, "web")
        assert (claimed.ipv4, claimed.container_name) == (box.address, "web")
        lab.manager.publish(claimed, [PortRequest(80, host_port=8080)])
        with pytest.raises(NotFound):
            lab.manager.claim(box.endpoint, "d" * 64, "again")
        with pytest.raises(Conflict):
            lab.manager.claim(other.endpoint, "c" * 64, "web")
        assert lab.manager.sweep({"c" * 64}) == [other.id, other.endpoint.host_interface]
        lab.manager.detach(claimed)


def test_ephemeral_ports_differ_and_a_range_yields_its_first_free_port(lab: Lab) -> None:
    box, other = lab.box(), lab.box()
    with in_netns(lab.host):
        one, two = lab.manager.publish(box.endpoint, [PortRequest(80), PortRequest(81)])
        assert 49153 <= one.host_port <= 65535
        assert 49153 <= two.host_port <= 65535
        assert one.host_port != two.host_port
        wanted = [
            PortRequest(80, host_port=7000, host_port_end=7001),
            PortRequest(81, host_port=7000, host_port_end=7001),
        ]
        assert [b.host_port for b in lab.manager.publish(other.endpoint, wanted)] == [7000, 7001]
        third = lab.box()
        with pytest.raises(PortUnavailable, match="all ports are allocated"):
            lab.manager.publish(third.endpoint, wanted[:1])


def test_an_unpublished_port_refuses_and_is_free_again(lab: Lab) -> None:
    box = lab.box()
    with in_netns(lab.host):
        lab.manager.publish(box.endpoint, [PortRequest(80, host_port=8080)])
        lab.manager.unpublish(box.id)
        lab.manager.unpublish(box.id)
    with listen(box.net, "0.0.0.0", 80) as server:
        assert talks(lab.outside, (HOST_OUTER, 8080), server) is None
    with listen(lab.host, "0.0.0.0", 8080) as server:
        assert talks(lab.outside, (HOST_OUTER, 8080), server) == OUTSIDE


def test_the_next_engine_adopts_endpoints_from_records(lab: Lab) -> None:
    box, dead = lab.box(), lab.box()
    with in_netns(lab.host):
        for one, port in ((box, 8080), (dead, 8081)):
            lab.manager.publish(one.endpoint, [PortRequest(80, host_port=port)])
        records = [lab.manager.endpoint(box.id), lab.manager.endpoint(dead.id)]
    manager = lab.new_manager()
    with in_netns(lab.host):
        assert manager.restore(record for record in records[:1] if record) == []
        swept = manager.sweep({box.id})
        assert swept == [dead.endpoint.host_interface]
    assert manager.endpoint(box.id) == records[0]
    assert "8081" not in run_nft(lab.host, "list", "ruleset")
    with listen(box.net, "0.0.0.0", 80) as server:
        assert talks(lab.outside, (HOST_OUTER, 8080), server) == OUTSIDE
    with pytest.raises(OSError):
        listen(lab.host, "0.0.0.0", 8080)
    assert lab.box().address not in (box.address,)


def test_restore_reports_a_port_that_was_bound_meanwhile(lab: Lab) -> None:
    box = lab.box(container_name="web")
    with in_netns(lab.host):
        lab.manager.publish(box.endpoint, [PortRequest(80, host_port=8080)])
        record = lab.manager.endpoint(box.id)
    assert record is not None
    manager = lab.new_manager()
    with listen(lab.host, "0.0.0.0", 8080) as server, in_netns(lab.host):
        problems = manager.restore([record])
        assert len(problems) == 1
        assert problems[0].startswith("web: failed to bind port 0.0.0.0:8080/tcp")
        assert talks(lab.outside, (HOST_OUTER, 8080), server) == OUTSIDE


def test_a_flushed_firewall_is_detected_and_restored(lab: Lab) -> None:
    box = lab.box()
    with in_netns(lab.host):
        watch = lab.manager.watch()
        lab.manager.publish(box.endpoint, [PortRequest(80, host_port=8080)])
        lab.manager.repair()
        before = run_nft(lab.host, "list", "ruleset")
        run_nft(lab.host, "flush", "ruleset")
        assert select.select([watch], [], [], 2)[0]
        assert lab.manager.repair() is True
        assert run_nft(lab.host, "list", "ruleset") == before
        assert lab.manager.repair() is False
    with listen(box.net, "0.0.0.0", 80) as server:
        assert talks(lab.outside, (HOST_OUTER, 8080), server) == OUTSIDE


def test_operations_continue_after_an_undetected_flush(lab: Lab) -> None:
    box = lab.box()
    run_nft(lab.host, "flush", "ruleset")
    other = lab.box()
    with in_netns(lab.host):
        lab.manager.publish(other.endpoint, [PortRequest(80, host_port=8080)])
        run_nft(lab.host, "flush", "ruleset")
        lab.manager.detach(box.endpoint)
    with listen(other.net, "0.0.0.0", 80) as server:
        assert talks(lab.outside, (HOST_OUTER, 8080), server) == OUTSIDE


def test_a_blocking_firewall_is_reported(lab: Lab) -> None:
    lab.box()
    run_nft(
        lab.host,
        "add table ip other; add chain ip other fw { type filter hook forward"
        " priority 0; policy drop; }",
    )
    with in_netns(lab.host):
        told = lab.manager.warnings()
    assert any("ip other fw" in line and "jltbr0" in line for line in told)


def test_an_interface_with_the_bridges_name_is_not_changed(lab: Lab) -> None:
    with Rtnetlink(lab.host) as host:
        host.send(add_veth("jltbr0", mtu=1500, peer_name="x"))
    with in_netns(lab.host):
        with pytest.raises(Conflict, match="not a bridge"):
            lab.manager.ensure()
        lab.manager.teardown()
    assert "jltbr0" in link_names(lab)


def test_the_subnet_avoids_the_hosts_networks(lab: Lab, tmp_path) -> None:
    lab.box()
    config = type(lab.config)(paths=lab.config.paths, bridge="jltbr1")
    with in_netns(lab.host):
        second = NetworkManager(lab.config.paths, config)
        try:
            assert not second.ensure().subnet.overlaps(lab.manager.ensure().subnet)
        finally:
            second.teardown(force=True)
            second.close()


def test_engines_that_start_together_get_different_subnets(lab: Lab) -> None:
    managers: list[NetworkManager] = []
    barrier = threading.Barrier(4)

    def start(number: int) -> None:
        with in_netns(lab.host):
            config = type(lab.config)(paths=lab.config.paths, bridge=f"jltbr{number}")
            manager = NetworkManager(lab.config.paths, config)
            managers.append(manager)
            barrier.wait(10)
            manager.ensure()

    threads = [threading.Thread(target=start, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    with in_netns(lab.host):
        subnets = {manager.ensure().subnet for manager in managers}
        for manager in managers:
            manager.teardown(force=True)
            manager.close()
    assert len(subnets) == 4


def test_many_threads_may_attach_and_detach(lab: Lab) -> None:
    lab.box()
    failures: list[BaseException] = []

    def work() -> None:
        namespace = new_namespace()
        try:
            with in_netns(lab.host):
                for _ in range(3):
                    name = os.urandom(32).hex()
                    endpoint = lab.manager.attach("bridge", name, namespace)
                    lab.manager.publish(endpoint, [PortRequest(80)])
                    lab.manager.detach(endpoint, delete_interface=True)
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
    assert len(lab.manager.endpoints()) == 1


def test_an_existing_bridge_without_an_address_is_replaced(lab: Lab) -> None:
    with Rtnetlink(lab.host) as host:
        host.send(add_bridge("jltbr0", mac="02:42:00:00:00:01", mtu=1500))
    box = lab.box()
    with listen(lab.outside, OUTSIDE, 80) as server:
        assert talks(box.net, (OUTSIDE, 80), server) == HOST_OUTER
    assert socket.inet_aton(box.endpoint.gateway)


def test_the_nft_program_replaces_a_missing_library(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jaula.network.firewall.nftables.LIBRARY", "libjlt-missing.so.1")
    box = lab.box()
    with in_netns(lab.host):
        lab.manager.publish(box.endpoint, [PortRequest(80, host_port=8080)])
        assert all("forwarding was off" in line for line in lab.manager.warnings())
    with listen(box.net, "0.0.0.0", 80) as server:
        assert talks(lab.host, ("127.0.0.1", 8080), server) is not None
    with in_netns(lab.host):
        lab.manager.unpublish(box.id)
    assert " 8080 " not in run_nft(lab.host, "list", "ruleset")


def test_the_rules_of_a_killed_engine_stay_until_the_next_one_loads_its_own(lab: Lab) -> None:
    with in_netns(lab.host):
        made = lab.manager.define(network("shop"))
    box, plain = join(lab, "shop"), lab.box()
    with in_netns(lab.host):
        lab.manager.publish(box.endpoint, [PortRequest(80, host_port=8080)])
        known = lab.manager.endpoints()
    manager = lab.new_manager()
    with listen(box.net, "0.0.0.0", 80) as server, listen(plain.net, "0.0.0.0", 80) as other:

        def serves() -> bool:
            outside = talks(lab.outside, (HOST_OUTER, 8080), server) == OUTSIDE
            return outside and talks(lab.host, (plain.address, 80), other) is not None

        with in_netns(lab.host):
            manager.keep_firewall_rules()
            manager.define(made)
            manager.ensure()
        assert serves(), "nothing was replaced by rules that know no endpoint"
        with in_netns(lab.host):
            assert manager.restore(known) == []
        assert serves()
        with in_netns(lab.host):
            manager.define(network("new"))
        assert serves()
