"""Mounts of CRI as requests, and mounts of a record as those of a status."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest
from jaula.features.kubernetes.cri.container_config import container_request
from jaula.features.kubernetes.cri.proto import api_pb2


def config(**fields: object) -> api_pb2.ContainerConfig:
    return api_pb2.ContainerConfig(
        metadata=api_pb2.ContainerMetadata(name="main"),
        mounts=[api_pb2.Mount(container_path="/data", **fields)],  # type: ignore[arg-type]
    )


def test_a_recursive_read_only_mount_is_read_only_and_private() -> None:
    accepted = config(host_path="/srv", readonly=True, recursive_read_only=True)
    (mount,) = container_request("s", accepted).body.host_config.mounts
    assert mount.bind_options is not None
    assert mount.bind_options.read_only_force_recursive


@pytest.mark.parametrize(
    "fields",
    [
        {"readonly": False},
        {"readonly": True, "propagation": api_pb2.PROPAGATION_HOST_TO_CONTAINER},
        {"readonly": True, "propagation": api_pb2.PROPAGATION_BIDIRECTIONAL},
    ],
)
def test_another_recursive_read_only_mount_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match=r"/data.*recursive_read_only"):
        container_request("s", config(host_path="/srv", recursive_read_only=True, **fields))


def test_the_mount_of_an_image_must_be_read_only() -> None:
    with pytest.raises(InvalidRequest, match=r"/data.*read-only"):
        container_request("s", config(image=api_pb2.ImageSpec(image="app")))
