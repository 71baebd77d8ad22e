"""Published ports: requests, the allocator, and a binder in another network namespace."""

from __future__ import annotations

import errno
import gc
import os
import resource
import socket
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest, Unsupported
from jaula.network.port_mapper import (
    AllocatedPorts,
    PortAllocator,
    PortRequest,
    PortTarget,
    PortUnavailable,
    ReservedPort,
    candidate_ports,
    check_request,
    dynamic_ports,
    host_addresses,
    port_target,
)
from jaula.spec.endpoint_record import Endpoint, PublishedPort

LOOPBACK = "127.77.0.1"
TARGET = "172.30.0.2"
ONLY4, ONLY6 = PortTarget(TARGET), PortTarget(ipv6="fd00::2")
BOTH = PortTarget(TARGET, "fd00::2")


def claim(port: int) -> None:
    """Bind and listen like another program."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((LOOPBACK, port))
        other.listen()


@pytest.mark.parametrize(
    "request_",
    [
        PortRequest(0),
        PortRequest(65536),
        PortRequest(-1),
        PortRequest(80, "icmp"),
        PortRequest(80, "tcp; drop"),
        PortRequest(80, host_port=70000),
        PortRequest(80, host_port=8000, host_port_end=7000),
        PortRequest(80, host_port_end=7000),
        PortRequest(80, host_ip="host"),
        PortRequest(80, host_ip="fe80::1"),
        PortRequest(80, host_ip="::ffff:127.0.0.1"),
        PortRequest(80, host_ip="0.0.0.0 } drop"),
    ],
)
def test_an_invalid_request_is_refused(request_: PortRequest) -> None:
    with pytest.raises(InvalidRequest):
        check_request(request_)


def test_an_ipv6_host_address_needs_a_container_with_ipv6() -> None:
    with pytest.raises(Unsupported, match="no IPv6"):
        host_addresses(check_request(PortRequest(80, host_ip="::")), ONLY4, proxied=False)
    assert host_addresses(check_request(PortRequest(80, host_ip="0::0")), BOTH, proxied=False) == (
        "::",
    )
    assert host_addresses(check_request(PortRequest(80, host_ip="::1")), ONLY4, proxied=True) == (
        "::1",
    )
    with pytest.raises(Unsupported, match=r"use 127\.0\.0\.1|does not translate"):
        host_addresses(check_request(PortRequest(80, host_ip="::1")), BOTH, proxied=False)


@pytest.mark.parametrize("proxied", [False, True])
def test_an_ipv4_host_address_needs_a_container_with_ipv4(proxied: bool) -> None:
    with pytest.raises(Unsupported, match="no IPv4 address"):
        host_addresses(PortRequest(80, host_ip=LOOPBACK), ONLY6, proxied=proxied)


@pytest.mark.parametrize(
    ("target", "expected"),
    [(BOTH, ("0.0.0.0", "::")), (ONLY4, ("0.0.0.0",)), (ONLY6, ("::",))],
)
def test_no_host_address_means_all_addresses_of_the_containers_families(
    target: PortTarget, expected: tuple[str, ...]
) -> None:
    assert host_addresses(PortRequest(80), target, proxied=False) == expected


def test_both_families_have_the_same_port() -> None:
    ports = PortAllocator()
    four, six = ports.allocate("a", [PortRequest(80)], PortTarget("172.30.0.2", "fd00::2"))
    assert (four.host_ip, six.host_ip) == ("0.0.0.0", "::")
    assert four.host_port == six.host_port
    again = PortRequest(80, host_ip="::", host_port=six.host_port)
    with pytest.raises(PortUnavailable, match=r"Bind for :::\d+ failed"):
        ports.allocate("b", [again], PortTarget("172.30.0.3", "fd00::3"))
    ports.close()


def test_a_range_yields_the_first_port_free_in_both_families() -> None:
    ports = PortAllocator()
    target = PortTarget("172.30.0.2", "fd00::2")
    (base, _) = ports.allocate("a", [PortRequest(80)], target)
    first, last = base.host_port, base.host_port + 20
    four, six = ports.allocate("b", [PortRequest(80, "tcp", "", first, last)], target)
    assert first < four.host_port == six.host_port <= last
    ports.close()


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        (range(32768, 61000), [range(61000, 65536)]),
        (range(1024, 65536), [range(49153, 65536)]),
        (range(1024, 2048), [range(49153, 65536)]),
        (range(55000, 60000), [range(49153, 55000), range(60000, 65536)]),
    ],
)
def test_ephemeral_ports_avoid_the_kernels_range(local: range, expected: list[range]) -> None:
    assert dynamic_ports(local) == expected


def test_an_allocated_port_is_blocked_until_it_is_released() -> None:
    ports = PortAllocator()
    (binding,) = ports.allocate("a", [PortRequest(80, host_ip=LOOPBACK)], ONLY4)
    with pytest.raises(OSError):
        claim(binding.host_port)
    assert ports.allocated("a") == (binding,)
    assert ports.release("a") == [binding]
    assert ports.release("a") == []
    claim(binding.host_port)


def test_a_request_for_several_ports_is_all_or_none() -> None:
    ports = PortAllocator()
    (taken,) = ports.allocate("a", [PortRequest(80, host_ip=LOOPBACK)], ONLY4)
    clash = PortRequest(80, host_ip=LOOPBACK, host_port=taken.host_port)
    with pytest.raises(PortUnavailable, match="port is already allocated"):
        ports.allocate("b", [PortRequest(81, host_ip=LOOPBACK), clash], ONLY4)
    assert ports.allocated("b") == ()
    ports.close()
    assert ports.allocated("a") == ()


def test_two_requests_of_one_container_can_conflict() -> None:
    ports = PortAllocator()
    (taken,) = ports.allocate("a", [PortRequest(80, host_ip=LOOPBACK)], ONLY4)
    ports.close()
    same = PortRequest(80, host_ip=LOOPBACK, host_port=taken.host_port)
    with pytest.raises(PortUnavailable):
        ports.allocate("b", [same, same], ONLY4)


class RecordingBinder:
    """A binder that records its ports and refuses port 80."""

    persistent = True
    proxied = False

    def __init__(self) -> None:
        self.held: set[tuple[PublishedPort, str]] = set()

    def bind(self, port: PublishedPort, target: str) -> ReservedPort | None:
        if port.host_port == 80:
            raise OSError(errno.EACCES, "Permission denied")
        self.held.add((port, target))
        elsewhere = self

        class Held:
            def close(self) -> None:
                elsewhere.held.discard((port, target))

        return Held()

    def release_others(self, ports: Iterable[tuple[PublishedPort, str]]) -> None:
        self.held &= set(ports)


def request(port: int) -> PortRequest:
    return PortRequest(8000, "tcp", "", port)


def test_the_binder_gets_the_target_address() -> None:
    binder = RecordingBinder()
    PortAllocator(binder).allocate("a", [request(8080)], PortTarget(TARGET))
    assert binder.held == {(PublishedPort(8000, "tcp", "0.0.0.0", 8080), TARGET)}


def test_released_ports_are_closed() -> None:
    binder = RecordingBinder()
    ports = PortAllocator(binder)
    ports.allocate("a", [request(8080), request(8081)], PortTarget(TARGET))
    ports.release("a")
    assert not binder.held


def test_a_refused_port_releases_the_others_and_has_a_hint() -> None:
    binder = RecordingBinder()
    with pytest.raises(PortUnavailable, match="bind: permission denied") as caught:
        PortAllocator(binder).allocate("a", [request(8080), request(80)], PortTarget(TARGET))
    assert "ip_unprivileged_port_start=80" in (caught.value.hint or "")
    assert not binder.held


def test_ports_of_a_persistent_binder_outlive_the_engine() -> None:
    binder = RecordingBinder()
    ports = PortAllocator(binder)
    ports.allocate("a", [request(8080)], PortTarget(TARGET))
    ports.close()
    assert len(binder.held) == 1


def test_the_next_engine_releases_unused_ports() -> None:
    binder = RecordingBinder()
    before = PortAllocator(binder)
    before.allocate("a", [request(8080)], PortTarget(TARGET))
    before.allocate("gone", [request(8081)], PortTarget("172.30.0.3"))
    before.close()
    ports = PortAllocator(binder)
    ports.allocate("a", [request(8080)], PortTarget(TARGET))
    ports.release_others({"a": PortTarget(TARGET)})
    assert binder.held == {(PublishedPort(8000, "tcp", "0.0.0.0", 8080), TARGET)}


def test_proxied_ports_are_published_for_both_families_and_target_ipv4() -> None:
    binder = RecordingBinder()
    binder.proxied = True
    result = PortAllocator(binder).allocate("a", [request(8080)], PortTarget(TARGET))
    assert [port.host_ip for port in result] == ["0.0.0.0", "::"]
    assert {target for _, target in binder.held} == {TARGET}


def test_proxied_ports_of_a_container_without_ipv4_target_ipv6() -> None:
    binder = RecordingBinder()
    binder.proxied = True
    result = PortAllocator(binder).allocate("a", [request(8080)], ONLY6)
    assert [port.host_ip for port in result] == ["::"]
    assert {target for _, target in binder.held} == {"fd00::2"}


def test_a_chosen_port_keeps_its_number_if_it_is_free() -> None:
    ports = PortAllocator()
    (before,) = ports.allocate("a", [PortRequest(80, host_ip=LOOPBACK)], ONLY4)
    ports.release("a")
    again = PortRequest(80, host_ip=LOOPBACK, preferred=before.host_port)
    assert ports.allocate("a", [again], ONLY4) == [before]
    (other,) = ports.allocate("b", [again], ONLY4)
    assert other.host_port != before.host_port
    ports.close()


def test_the_candidates_of_a_range_are_its_ports_that_were_not_passed() -> None:
    fixed = PortRequest(80, "tcp", LOOPBACK, 1, 5, preferred=50000)
    preferred = PortRequest(80, "tcp", "", 1, 3, preferred=3)
    assert list(candidate_ports(fixed, {}, ())) == [1, 2, 3, 4, 5]
    assert list(candidate_ports(preferred, {}, ())) == [3, 1, 2, 3]
    assert list(candidate_ports(fixed, {1: 2, 2: 3, 4: 5}, ())) == [3, 5]
    assert list(candidate_ports(fixed, {4: 5, 5: 6}, ())) == [1, 2, 3]


def test_the_candidates_of_an_ephemeral_port_are_the_ranges_without_passed_ports() -> None:
    ranges = (range(10, 20), range(30, 35))
    for _ in range(20):
        passed = {10: 11, 11: 12, 19: 20, 30: 31, 34: 35}
        found = list(candidate_ports(PortRequest(80), passed, ranges))
        assert sorted(found) == [*range(12, 19), 31, 32, 33]
        assert set(found[:7]) == set(range(12, 19))
    assert next(candidate_ports(PortRequest(80, preferred=5), {}, ranges)) == 5


class UnreliableBinder:
    """A binder for which the ports that ``refused`` contains are in use."""

    persistent = False
    proxied = False

    def __init__(self, refused: Iterable[int] = ()) -> None:
        self.refused = set(refused)
        self.attempts = 0

    def bind(self, port: PublishedPort, target: str) -> ReservedPort | None:
        self.attempts += 1
        if port.host_port in self.refused:
            raise OSError(errno.EADDRINUSE, "in use")
        return None

    def release_others(self, ports: Iterable[tuple[PublishedPort, str]]) -> None:
        return


def check_index(ports: PortAllocator) -> None:
    """Check that the kept index is that of the allocated ports."""
    rows = [port for own in ports._allocated.values() for port, _ in own]
    assert ports._index == AllocatedPorts(rows)


IPS = ("", LOOPBACK, "127.77.0.2", "fd00::1", "::")
REQUESTS = st.builds(
    PortRequest,
    st.just(80),
    st.sampled_from(["tcp", "udp", "bad"]),
    st.sampled_from(IPS),
    st.none() | st.integers(1, 12) | st.integers(49153, 49160),
    st.none() | st.integers(5, 14),
    st.none() | st.integers(1, 12),
)


@given(
    refused=st.sets(st.integers(1, 14) | st.integers(49153, 49160)),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["allocate", "allocate", "release", "release some", "close"]),
            st.sampled_from("abc"),
            st.lists(REQUESTS, max_size=4),
            st.sampled_from([ONLY4, ONLY6, BOTH]),
        ),
        max_size=25,
    ),
    persistent=st.booleans(),
)
def test_the_index_of_ports_is_that_of_the_allocated_ones_after_any_operations(
    refused: set[int],
    steps: list[tuple[str, str, list[PortRequest], PortTarget]],
    persistent: bool,
) -> None:
    binder = UnreliableBinder(refused)
    binder.persistent = persistent
    ports = PortAllocator(binder)
    for action, container, requests, target in steps:
        before = {key: list(rows) for key, rows in ports._allocated.items()}
        if action == "allocate":
            try:
                ports.allocate(container, requests, target)
            except (PortUnavailable, InvalidRequest, Unsupported):
                assert ports._allocated == before
        elif action == "release":
            ports.release(container)
        elif action == "release some":
            ports.release_ports(container, {*ports.allocated(container)[::2]})
        else:
            ports.close()
            assert ports._index == AllocatedPorts()
        check_index(ports)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, PortUnavailable])
def test_an_interrupted_allocation_leaves_nothing_in_the_index(error: type[BaseException]) -> None:
    class Interrupted(UnreliableBinder):
        def bind(self, port: PublishedPort, target: str) -> ReservedPort | None:
            if port.host_port == 8082:
                raise error("interrupted")
            return super().bind(port, target)

    ports = PortAllocator(Interrupted())
    ports.allocate("a", [request(8000)], ONLY4)
    with pytest.raises((error, PortUnavailable)):
        ports.allocate("b", [request(8080), request(8081), request(8082)], ONLY4)
    check_index(ports)
    ports.allocate("b", [request(8080), request(8081)], ONLY4)
    check_index(ports)


def test_ports_leave_descriptors_to_the_rest_of_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gc.collect()  # sockets of other tests, whose descriptors would become free below
    free = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]
    for fd in free:
        os.close(fd)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: ((max(free) + 1) * 2,) * 2)
    ports = PortAllocator()
    some = [PortRequest(80, "tcp", LOOPBACK) for _ in range(5)]
    ports.allocate("a", some, ONLY4)
    with pytest.raises(PortUnavailable, match="too many open files") as refused:
        ports.allocate("b", some * 4, ONLY4)
    assert refused.value.hint == "publish fewer ports, or raise the engine's limit of open files"
    assert not ports.allocated("b")
    ports.release("a")
    ports.allocate("b", some, ONLY4)
    check_index(ports)
    ports.close()
    with open(os.devnull) as file:
        assert file.fileno() == min(free)


@pytest.mark.parametrize("host_ip", ["", LOOPBACK])
@pytest.mark.parametrize("taken_ip", ["", LOOPBACK])
def test_a_request_for_any_port_is_refused_at_once_when_all_are_allocated(
    monkeypatch: pytest.MonkeyPatch, host_ip: str, taken_ip: str
) -> None:
    binder = UnreliableBinder()
    ports = PortAllocator(binder)
    every = [PortRequest(80, "tcp", taken_ip, port) for port in range(49153, 65536)]
    ports.allocate("a", every, ONLY4)
    tried = []

    def conflicts(index: AllocatedPorts, binding: PublishedPort) -> bool:
        tried.append(binding)
        return True

    with monkeypatch.context() as patch:
        patch.setattr(AllocatedPorts, "conflicts", conflicts)
        with pytest.raises(PortUnavailable, match="all ports are allocated"):
            ports.allocate("b", [PortRequest(80, "tcp", host_ip)], ONLY4)
    if host_ip or not taken_ip:  # else the address of the request is not the only one
        assert tried == []
    ports.allocate("b", [PortRequest(80, "udp", host_ip)], ONLY4)
    ports.allocate("b", [PortRequest(80, "tcp", host_ip, preferred=8080)], ONLY4)
    ports.release_ports("a", {p for p in ports.allocated("a") if p.host_port == 65535})
    (last,) = ports.allocate("c", [PortRequest(80, "tcp", host_ip)], ONLY4)
    assert last.host_port == 65535
    check_index(ports)


def test_each_family_of_ports_leads_to_an_endpoint_that_has_it() -> None:
    def endpoint(network: str, ipv4: str, ipv6: str, *ports: PublishedPort) -> Endpoint:
        return Endpoint(network, "e", "c", "web", ipv4, 24, "", "", "", ports=ports, ipv6=ipv6)

    four, six = PublishedPort(80, "tcp", "0.0.0.0", 8080), PublishedPort(80, "tcp", "::", 8080)
    apart = [endpoint("a", "10.0.0.2", "fd00::2", four), endpoint("b", "10.1.0.2", "fd01::2", six)]
    assert port_target(apart) == PortTarget("10.0.0.2", "fd01::2")
    assert port_target(apart[::-1]) == PortTarget("10.0.0.2", "fd01::2")
    proxied = [endpoint("a", "10.0.0.2", "", six), endpoint("b", "10.1.0.2", "")]
    assert port_target(proxied) == PortTarget("10.0.0.2", "")
    assert port_target([]) == PortTarget()
