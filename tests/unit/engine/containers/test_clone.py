"""The create request of a clone: that of the first container, without what is its own."""

from __future__ import annotations

import msgspec
import pytest

from jaula.features.checkpoint.checkpoint_store import ContainerDescription
from jaula.features.checkpoint.clone_container import clone_request, import_request
from jaula.spec.api_documents import (
    CheckpointClone,
    ContainerCreate,
    HostConfig,
    Mount,
    PortBinding,
    RestartPolicy,
)
from jaula.spec.api_networks import EndpointIPAMConfig, EndpointSettings

FIXED = EndpointSettings(
    ipam_config=EndpointIPAMConfig(ipv4_address="10.0.0.9"),
    mac_address="02:00:00:00:00:01",
    aliases=("db",),
)
DESCRIPTION = ContainerDescription(
    name="first",
    image_id="sha256:0",
    body=ContainerCreate(
        image="db:1",
        cmd=("serve",),
        mac_address="02:00:00:00:00:01",
        labels={"a": "1", "b": "1"},
        host_config=HostConfig(
            binds=("data:/data", "data:/again:ro", "logs:/logs:nocopy", "/etc:/etc:ro", "/own:ro"),
            mounts=(
                Mount(type="volume", source="data", target="/third"),
                Mount(type="bind", source="data", target="/fourth"),
            ),
            network_mode="back",
            port_bindings={"80/tcp": (PortBinding(host_port="8080"),)},
            publish_all_ports=True,
            container_id_file="/run/id",
            restart_policy=RestartPolicy(name="always"),
        ),
    ),
    networks={"back": FIXED},
)
NAMES = {"data": "data-new", "logs": ""}


def test_a_clone_has_no_address_and_no_port_of_the_first_container() -> None:
    body = clone_request(DESCRIPTION, CheckpointClone(labels={"b": "2"}), NAMES)
    host = body.host_config
    assert body.labels == {"a": "1", "b": "2"}
    assert (body.mac_address, host.port_bindings, host.publish_all_ports) == ("", {}, False)
    assert host.container_id_file == ""
    assert host.restart_policy.name == "always"
    assert body.networking_config.endpoints_config == {"back": EndpointSettings(aliases=("db",))}


def test_another_network_replaces_those_of_the_first_container() -> None:
    body = clone_request(DESCRIPTION, CheckpointClone(network_mode="front"), NAMES)
    assert body.host_config.network_mode == "front"
    assert body.networking_config.endpoints_config == {}


def test_volumes_get_their_new_names() -> None:
    host = import_request(DESCRIPTION, NAMES).host_config
    assert host.binds == (
        "data-new:/data",
        "data-new:/again:ro",
        "/logs:nocopy",
        "/etc:/etc:ro",
        "/own:ro",
    )
    assert [mount.source for mount in host.mounts] == ["data-new", "data"]


def test_an_import_keeps_addresses_and_ports() -> None:
    body = import_request(DESCRIPTION, {})
    assert body.host_config.port_bindings == DESCRIPTION.body.host_config.port_bindings
    assert body.networking_config.endpoints_config == {"back": FIXED}
    assert body.host_config.binds == DESCRIPTION.body.host_config.binds


@pytest.mark.parametrize(
    ("stored", "requested"), [(None, ("",)), (("/init",), ("/init",)), ((), ())]
)
def test_an_entry_point_that_was_reset_stays_so(
    stored: tuple[str, ...] | None, requested: tuple[str, ...]
) -> None:
    """The image's would be merged into a request without one."""
    body = msgspec.structs.replace(DESCRIPTION.body, entrypoint=stored)
    description = msgspec.structs.replace(DESCRIPTION, body=body)
    assert import_request(description, {}).entrypoint == requested
