"""Default routes and published ports of a container that is on several networks."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import containers
from harness.containers import eventually, running, unique
from harness.engine import PrivateEngine

BINDING = "com.docker.network.bridge.host_binding_ipv4"


@pytest.fixture
def network(engine: PrivateEngine) -> Iterator[Callable[..., str]]:
    """Create networks for the test. Their names begin with the given word."""
    created: list[str] = []

    def create(word: str, **fields: Any) -> str:
        name = unique(word)
        reply = engine.request("POST", "/networks/create", {"Name": name, **fields})
        assert reply.status == 201, reply
        created.append(name)
        return name

    yield create
    for name in created:
        assert engine.request("DELETE", f"/networks/{name}").status == 204


def only6(network: Callable[..., str], word: str) -> str:
    return network(word, EnableIPv4=False, EnableIPv6=True)


def connect(engine: PrivateEngine, name: str, container: str, priority: int = 0) -> None:
    words = ("network", "connect", "--gw-priority", str(priority), name, container)
    done = engine.cli("jaula", *words)
    assert done.returncode == 0, done.stderr


def disconnect(engine: PrivateEngine, name: str, container: str) -> None:
    assert engine.cli("jaula", "network", "disconnect", name, container).returncode == 0


def settings(engine: PrivateEngine, container: str) -> dict[str, Any]:
    result: dict[str, Any] = containers.inspect(engine, container)["NetworkSettings"]
    return result


def routes(engine: PrivateEngine, container: str) -> tuple[list[str], list[str]]:
    """Return the networks of the default routes of IPv4 and IPv6."""
    endpoints = settings(engine, container)["Networks"]
    result = []
    for family, key in (("-4", "Gateway"), ("-6", "IPv6Gateway")):
        done = engine.cli("jaula", "exec", container, "ip", family, "route")
        assert done.returncode == 0, done.stderr
        hops = [
            line.split()[2] for line in done.stdout.splitlines() if line.startswith("default via")
        ]
        result.append([n for hop in hops for n, e in endpoints.items() if e[key] == hop])
    return result[0], result[1]


def published(engine: PrivateEngine, container: str) -> list[tuple[str, str]]:
    bindings = settings(engine, container)["Ports"].get("80/tcp") or ()
    return [(binding["HostIp"], binding["HostPort"]) for binding in bindings]


def answers(engine: PrivateEngine, container: str, address: str) -> None:
    """Check that the container serves its published port at an address of the host."""
    number = int(published(engine, container)[0][1])

    def answer() -> bool:
        engine.cli("jaula", "exec", "-d", container, "nc", "-l", "-p", "80", "-e", "echo", "hi")
        try:
            with socket.create_connection((address, number), timeout=1) as near:
                return near.recv(8) == b"hi\n"
        except OSError:
            return False

    eventually(answer, f"an answer at {address}")


def test_a_started_container_has_the_routes_of_dockers_order(
    engine: PrivateEngine, busybox: str, network: Callable[..., str]
) -> None:
    last, first, inner = network("z"), network("a"), network("0", Internal=True)
    flags = ("--network", last, "--network", inner, "--network", first)
    with running(engine, busybox, flags=flags) as name:
        assert routes(engine, name) == ([first], [])
    flags = ("--network", first, "--network", f"name={last},gw-priority=1")
    with running(engine, busybox, flags=flags) as name:
        assert routes(engine, name) == ([last], [])
        shown = settings(engine, name)["Networks"]
        assert (shown[first]["GwPriority"], shown[last]["GwPriority"]) == (0, 1)


def test_a_network_with_a_higher_priority_takes_routes_and_ports_at_once(
    engine: PrivateEngine, busybox: str, network: Callable[..., str]
) -> None:
    first, second, third = network("a"), network("b"), network("c")
    with running(engine, busybox, flags=("--network", second, "-p", "80")) as name:
        before = published(engine, name)
        connect(engine, third, name)
        assert routes(engine, name) == ([second], [])
        connect(engine, first, name, priority=7)
        assert routes(engine, name) == ([first], [])
        assert settings(engine, name)["Networks"][first]["GwPriority"] == 7
        assert published(engine, name) == before  # the chosen number stays
        answers(engine, name, "127.0.0.1")
        disconnect(engine, first, name)
        assert routes(engine, name) == ([second], [])
        assert published(engine, name) == before
        answers(engine, name, "127.0.0.1")
        disconnect(engine, third, name)
        assert routes(engine, name) == ([second], [])
        assert published(engine, name) == before
        disconnect(engine, second, name)
        assert routes(engine, name) == ([], [])
        assert published(engine, name) == []
        connect(engine, third, name)
        assert routes(engine, name) == ([third], [])
        answers(engine, name, "127.0.0.1")


def test_each_address_family_has_its_own_gateway_and_ports(
    engine: PrivateEngine, busybox: str, network: Callable[..., str]
) -> None:
    four, six = network("b"), only6(network, "a")
    with running(engine, busybox, flags=("--network", four, "-p", "80")) as name:
        ((_, number),) = published(engine, name)
        connect(engine, six, name, priority=-3)
        assert routes(engine, name) == ([four], [six])
        assert published(engine, name) == [("0.0.0.0", number), ("::", number)]
        answers(engine, name, "127.0.0.1")
        answers(engine, name, settings(engine, name)["Networks"][six]["IPv6Gateway"])
        both = network("c", EnableIPv6=True)
        connect(engine, both, name)
        assert routes(engine, name) == ([both], [both])
        disconnect(engine, both, name)
        assert routes(engine, name) == ([four], [six])
        answers(engine, name, "127.0.0.1")
        disconnect(engine, four, name)
        assert routes(engine, name) == ([], [six])
        assert published(engine, name) == [("::", number)]


def test_a_connection_that_fails_changes_nothing(
    engine: PrivateEngine, busybox: str, network: Callable[..., str]
) -> None:
    present = network("b")
    other = network("a", Options={BINDING: "203.0.113.9"})  # not an address of the host
    with running(engine, busybox, flags=("--network", present, "-p", "80")) as name:
        before = settings(engine, name)
        done = engine.cli("jaula", "network", "connect", other, name)
        assert done.returncode == 1
        assert "cannot assign requested address" in done.stderr
        assert settings(engine, name) == before
        assert routes(engine, name) == ([present], [])
        assert "eth1" not in engine.cli("jaula", "exec", name, "ip", "link").stdout
        answers(engine, name, "127.0.0.1")


def test_gateways_survive_a_killed_engine(
    new_engine: Callable[..., PrivateEngine], busybox_archive: Path
) -> None:
    engine = new_engine()
    assert engine.cli("jaula", "load", "-i", str(busybox_archive)).returncode == 0
    for name, fields in (("b", {}), ("a", {"EnableIPv4": False, "EnableIPv6": True})):
        body = {"Name": name, **fields}
        assert engine.request("POST", "/networks/create", body).status == 201
    with running(engine, "busybox", flags=("-p", "80")) as name:
        connect(engine, "b", name, priority=1)
        connect(engine, "a", name)
        ports = published(engine, name)
        assert [address for address, _ in ports] == ["0.0.0.0", "::"]
        document = containers.inspect(engine, name)
        former = document["NetworkSettings"]["Networks"]["bridge"]["Gateway"]
        engine.kill()
        # An engine that is killed while it moves a route leaves the former one.
        words = ("ip", "route", "replace", "default", "via", former)
        enter = ("nsenter", "-t", str(document["State"]["Pid"]), "-n")
        subprocess.run((*enter, *words), check=True, timeout=10)
        engine.start()
        assert routes(engine, name) == (["b"], ["a"])
        assert published(engine, name) == ports
        answers(engine, name, "127.0.0.1")
        disconnect(engine, "b", name)
        assert routes(engine, name) == (["bridge"], ["a"])
        assert published(engine, name) == ports
        answers(engine, name, "127.0.0.1")
