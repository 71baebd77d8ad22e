"""Published ports and signals, read."""

from __future__ import annotations

import pytest

from jaula.engine.networks.port_bindings import host_network_warnings, port_mappings
from jaula.errors import InvalidRequest
from jaula.spec import signals
from jaula.spec.api_documents import ContainerCreate, HostConfig, PortBinding
from jaula.spec.decode import Empty
from jaula.state.container_records import PortMapping


def body(port: str, host_port: str = "", host_ip: str = "", **more: object) -> ContainerCreate:
    bindings = {port: (PortBinding(host_ip=host_ip, host_port=host_port),)}
    return ContainerCreate(host_config=HostConfig(port_bindings=bindings), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_body", "mapping"),
    [
        (body("80/tcp", "8080"), PortMapping(80, "tcp", "", 8080)),
        (body("53/UDP", ""), PortMapping(53, "udp")),
        (body("80", "8000-8010"), PortMapping(80, "tcp", "", 8000, 8010)),
        (body("80", "80", "127.0.0.1"), PortMapping(80, "tcp", "127.0.0.1", 80)),
    ],
)
def test_a_binding_is_read(request_body: ContainerCreate, mapping: PortMapping) -> None:
    assert port_mappings(request_body) == (mapping,)


def test_publishing_all_takes_the_exposed_ones_that_are_not_published() -> None:
    asked = ContainerCreate(
        exposed_ports={"80/tcp": Empty(), "53/udp": Empty()},
        host_config=HostConfig(
            publish_all_ports=True, port_bindings={"80/tcp": (PortBinding(host_port="8080"),)}
        ),
    )
    assert [mapping.container_port for mapping in port_mappings(asked)] == [80, 53]


@pytest.mark.parametrize(
    "request_body",
    [
        body("0"),
        body("65536"),
        body("x"),
        body("80/icmp"),
        body("80", "70000"),
        body("80", "9-8"),
        body("80", "8-"),
        body("80", "80", "localhost"),
        body("٨٠"),
    ],
)
def test_an_invalid_port_is_refused(request_body: ContainerCreate) -> None:
    with pytest.raises(InvalidRequest):
        port_mappings(request_body)


@pytest.mark.parametrize(
    ("text", "number"),
    [("SIGTERM", 15), ("term", 15), ("9", 9), ("RTMIN+1", 35), ("SIGRTMAX-1", 63), ("64", 64)],
)
def test_a_signal_is_read(text: str, number: int) -> None:
    assert signals.parse(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "SIGNOPE", "-9", "RTMIN+99", "TERM+1", "9 9"])
def test_an_invalid_signal_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="invalid signal"):
        signals.parse(text)


@pytest.mark.parametrize(
    ("exposed", "first", "warned"),
    [
        ((), 1024, ""),
        (("8080/tcp",), 1024, ""),
        (("443/tcp", "80/tcp", "80/udp", "8080"), 1024, "80, 443"),
        (("443/tcp", "80/tcp"), 443, "80"),
        (("80/tcp",), 0, ""),
    ],
)
def test_ports_of_the_host_that_only_its_root_may_bind_are_reported(
    exposed: tuple[str, ...], first: int, warned: str
) -> None:
    warnings = host_network_warnings(exposed, first)
    assert [f"(exposed: {warned})" in text for text in warnings] == ([True] if warned else [])
    assert all("--userns=host" in text for text in warnings)


def test_a_container_publishes_a_bounded_number_of_ports() -> None:
    def published(number: int) -> ContainerCreate:
        bindings = {"80/tcp": (PortBinding(host_port="1-65535"),) * number}
        return ContainerCreate(host_config=HostConfig(port_bindings=bindings))

    assert len(port_mappings(published(16384))) == 16384
    with pytest.raises(InvalidRequest, match="16385 published ports; at most 16384 are allowed"):
        port_mappings(published(16385))
    exposed = {f"{number}/tcp": Empty() for number in range(1, 16386)}
    everything = ContainerCreate(
        exposed_ports=exposed, host_config=HostConfig(publish_all_ports=True)
    )
    with pytest.raises(InvalidRequest, match="16385 published ports"):
        port_mappings(everything)
