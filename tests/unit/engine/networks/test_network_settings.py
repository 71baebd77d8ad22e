"""``NetworkSettings``: the ports and the sandbox of a running container."""

from __future__ import annotations

import msgspec
import pytest

from jaula.engine.containers.resolved_request import resolve
from jaula.engine.networks.network_settings import LISTED, listed_ports, ports, settings
from jaula.spec.api_documents import ContainerCreate, HostConfig
from jaula.spec.decode import Empty
from jaula.spec.endpoint_record import Endpoint, PublishedPort
from jaula.state.container_records import ContainerRecord


def endpoint(**fields: object) -> Endpoint:
    required = ("n", "e" * 64, "c" * 64, "web", "10.9.0.2", 24, "10.9.0.1", "02:42:0a:09:00:02")
    return Endpoint(*required, "veth0", **fields)  # type: ignore[arg-type]


def record(*endpoints: Endpoint, **fields: object) -> ContainerRecord:
    return ContainerRecord(
        id="c" * 64,
        name="web",
        created=0,
        body=ContainerCreate(image="x", exposed_ports={"80/tcp": Empty(), "53/udp": Empty()}),
        image="sha256:abc",
        pid=7,
        endpoint=next(iter(endpoints), None),
        more_endpoints=endpoints[1:],
        **fields,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("endpoints", "exposed"),
    [
        ((), False),  # host, none, container:X
        ((endpoint(),), True),
        ((endpoint(internal=True),), False),
        ((endpoint(publishes=False),), False),  # macvlan, ipvlan
        ((endpoint(internal=True), endpoint()), True),
    ],
)
def test_ports_are_exposed_on_a_network_for_published_ports(
    endpoints: tuple[Endpoint, ...], exposed: bool
) -> None:
    one = record(*endpoints)
    assert ports(one) == ({"80/tcp": None, "53/udp": None} if exposed else {})
    assert [port["PrivatePort"] for port in listed_ports(one)] == ([80, 53] if exposed else [])


def test_a_published_port_is_not_listed_twice() -> None:
    one = record(endpoint(), ports=(PublishedPort(80, "tcp", "127.0.0.1", 8080),))
    assert ports(one) == {
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}],
        "53/udp": None,
    }
    assert [(p["PrivatePort"], p.get("PublicPort")) for p in listed_ports(one)] == [
        (80, 8080),
        (53, None),
    ]


def test_a_container_in_the_network_of_another_has_no_sandbox() -> None:
    body = ContainerCreate(image="x", host_config=HostConfig(network_mode="container:" + "d" * 64))
    one = ContainerRecord(
        id="c" * 64,
        name="side",
        created=0,
        body=body,
        image="sha256:abc",
        pid=7,
        resolved_request=resolve(body),
    )
    document = settings(one, str)
    assert (document["SandboxKey"], document["Ports"], document["Networks"]) == ("", {}, {})


def test_the_exposed_ports_of_a_list_are_bounded_and_those_of_inspect_are_not() -> None:
    exposed = {f"{number}/tcp": Empty() for number in range(1, 65536)}
    one = record(endpoint(), ports=(PublishedPort(60000, "tcp", "127.0.0.1", 8080),))
    one = msgspec.structs.replace(
        one, body=msgspec.structs.replace(one.body, exposed_ports=exposed)
    )
    listed = listed_ports(one)
    assert len(listed) == LISTED + 1
    assert listed[0]["PublicPort"] == 8080
    assert len(ports(one)) == 65535
