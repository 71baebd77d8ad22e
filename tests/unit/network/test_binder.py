"""Ports that somebody else takes for the engine."""

from __future__ import annotations

import errno
from collections.abc import Iterable

import pytest

from jaula.network.ports.allocator import PortAllocator, PortUnavailable, ReservedPort
from jaula.network.ports.port import PortRequest, PortTarget
from jaula.spec.endpoint import PublishedPort

TARGET = "172.30.0.2"


class Elsewhere:
    """A binder that remembers, and has port 80 for nobody."""

    outlives = True
    relays = False

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

    def keep_only(self, ports: Iterable[tuple[PublishedPort, str]]) -> None:
        self.held &= set(ports)


def request(port: int) -> PortRequest:
    return PortRequest(8000, "tcp", "", port)


def test_the_binder_is_told_where_a_port_leads() -> None:
    binder = Elsewhere()
    PortAllocator(binder).reserve("a", [request(8080)], PortTarget(TARGET))
    assert binder.held == {(PublishedPort(8000, "tcp", "0.0.0.0", 8080), TARGET)}


def test_what_is_released_is_given_back() -> None:
    binder = Elsewhere()
    ports = PortAllocator(binder)
    ports.reserve("a", [request(8080), request(8081)], PortTarget(TARGET))
    ports.release("a")
    assert not binder.held


def test_a_refused_port_gives_the_others_back_and_says_what_mends_it() -> None:
    binder = Elsewhere()
    with pytest.raises(PortUnavailable, match="bind: permission denied") as caught:
        PortAllocator(binder).reserve("a", [request(8080), request(80)], PortTarget(TARGET))
    assert "ip_unprivileged_port_start=80" in (caught.value.hint or "")
    assert not binder.held


def test_ports_outlive_an_engine_that_ends() -> None:
    binder = Elsewhere()
    ports = PortAllocator(binder)
    ports.reserve("a", [request(8080)], PortTarget(TARGET))
    ports.close()
    assert len(binder.held) == 1


def test_the_next_engine_lets_go_of_what_nobody_has_any_more() -> None:
    binder = Elsewhere()
    before = PortAllocator(binder)
    before.reserve("a", [request(8080)], PortTarget(TARGET))
    before.reserve("gone", [request(8081)], PortTarget("172.30.0.3"))
    before.close()
    ports = PortAllocator(binder)
    ports.reserve("a", [request(8080)], PortTarget(TARGET))
    ports.keep_only({"a": PortTarget(TARGET)})
    assert binder.held == {(PublishedPort(8000, "tcp", "0.0.0.0", 8080), TARGET)}


def test_what_is_relayed_is_published_for_both_families_and_leads_to_ipv4() -> None:
    binder = Elsewhere()
    binder.relays = True
    found = PortAllocator(binder).reserve("a", [request(8080)], PortTarget(TARGET))
    assert [port.host_ip for port in found] == ["0.0.0.0", "::"]
    assert {target for _, target in binder.held} == {TARGET}
