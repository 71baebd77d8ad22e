"""Configurations of CRI as requests to the engine, and records as statuses of CRI."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import ImageMountFailed, InvalidRequest, Unsupported
from jaula.features.kubernetes.cri.container_config import container_request
from jaula.features.kubernetes.cri.cri_resources import container_update
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.features.kubernetes.cri.sandbox_config import sandbox_request
from jaula.features.kubernetes.pods.pause_rootfs import layer, program
from jaula.features.kubernetes.pods.pods import container_name, sandbox_name
from jaula.spec.pod import PodContainerRequest, PodIds, PodMetadata


def sandbox(**context: Any) -> api_pb2.PodSandboxConfig:
    config = api_pb2.PodSandboxConfig(
        metadata=api_pb2.PodSandboxMetadata(name="web", uid="1", namespace="default", attempt=2)
    )
    for name, value in context.items():
        setattr(config.linux.security_context.namespace_options, name, value)
    return config


def container(**fields: Any) -> api_pb2.ContainerConfig:
    return api_pb2.ContainerConfig(
        metadata=api_pb2.ContainerMetadata(name="main"),
        image=api_pb2.ImageSpec(image="app"),
        **fields,
    )


@pytest.mark.parametrize(
    ("modes", "expected"),
    [
        ({}, ("none", "shareable", "", True)),
        ({"network": api_pb2.NODE}, ("host", "shareable", "", True)),
        ({"ipc": api_pb2.NODE, "pid": api_pb2.CONTAINER}, ("none", "host", "", False)),
        ({"pid": api_pb2.NODE}, ("none", "shareable", "host", False)),
    ],
)
def test_namespaces_of_a_sandbox(modes: dict[str, Any], expected: tuple[Any, ...]) -> None:
    request = sandbox_request(sandbox(**modes), "")
    host = request.body.host_config
    assert (host.network_mode, host.ipc_mode, host.pid_mode, request.shared_pid) == expected
    assert host.userns_mode == "host"
    assert request.metadata == PodMetadata("web", "1", "default", 2)


def test_a_sandbox_is_confined_whatever_its_pod_asks_for() -> None:
    config = sandbox()
    config.linux.security_context.privileged = True
    config.linux.security_context.seccomp.profile_type = api_pb2.SecurityProfile.Unconfined
    host = sandbox_request(config, "").body.host_config
    assert (host.cap_drop, host.readonly_rootfs, host.privileged) == (("ALL",), True, False)
    assert host.security_opt == ("no-new-privileges",)


def test_only_ports_of_the_host_are_forwarded() -> None:
    config = sandbox()
    config.port_mappings.add(container_port=80)
    config.port_mappings.add(
        container_port=53, host_port=5353, protocol=api_pb2.UDP, host_ip="10.0.0.1"
    )
    (port,) = sandbox_request(config, "").ports
    assert (port.host_port, port.container_port, port.protocol, port.host_ip) == (
        *(5353, 53, "udp"),
        "10.0.0.1",
    )


def test_a_sandbox_without_metadata_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no metadata"):
        sandbox_request(api_pb2.PodSandboxConfig(), "")


def mapped(*rows: tuple[int, int, int], gids: bool = True) -> api_pb2.PodSandboxConfig:
    config = sandbox()
    options = config.linux.security_context.namespace_options.userns_options
    options.mode = api_pb2.POD
    for container_id, host_id, length in rows:
        for mappings in (options.uids, options.gids)[: 2 if gids else 1]:
            mappings.add(container_id=container_id, host_id=host_id, length=length)
    return config


def test_a_pod_has_the_ids_that_the_kubelet_has_chosen() -> None:
    request = sandbox_request(mapped((0, 131072, 65536)), "")
    assert request.ids == PodIds(131072, 65536)
    assert request.body.host_config.userns_mode == ""
    assert sandbox_request(mapped((0, 1000, 100000)), "").ids == PodIds(1000, 100000)
    assert sandbox_request(sandbox(), "jaula-userns").body.host_config.userns_mode == ""


@pytest.mark.parametrize(
    "config",
    [
        mapped(),
        mapped((0, 0, 65536)),
        mapped((0, 131072, 0)),
        mapped((0, 4294967000, 65536)),
        mapped((1, 131072, 65536)),
        mapped((0, 131072, 10), (10, 262144, 10)),
        mapped((0, 131072, 65536), gids=False),
    ],
)
def test_other_mappings_of_a_pod_are_refused(config: api_pb2.PodSandboxConfig) -> None:
    with pytest.raises(InvalidRequest, match="user namespace of a pod"):
        sandbox_request(config, "")


def test_the_security_context_of_a_container(tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW"}))
    profile.chmod(0o600)
    config = container()
    context = config.linux.security_context
    context.no_new_privs = True
    context.seccomp.profile_type = api_pb2.SecurityProfile.Localhost
    context.seccomp.localhost_ref = f"localhost/{profile}"
    context.selinux_options.level = "s0:c1,c2"
    context.capabilities.add_capabilities.append("NET_ADMIN")
    context.run_as_user.value, context.run_as_group.value = 1000, 2000
    context.supplemental_groups.append(3000)
    request = container_request("s", config)
    host = request.body.host_config
    assert host.security_opt == (
        'seccomp={"defaultAction": "SCMP_ACT_ALLOW"}',
        "label=level:s0:c1,c2",
        "no-new-privileges",
    )
    assert (request.body.user, host.group_add, host.cap_add) == (
        "1000:2000",
        ("3000",),
        ("NET_ADMIN",),
    )
    assert (host.masked_paths, host.readonly_paths) == (None, None)
    context.masked_paths.append("/proc/kcore")
    assert container_request("s", config).body.host_config.masked_paths == ("/proc/kcore",)


@pytest.mark.parametrize(
    ("ref", "text"),
    [("relative.json", "absolute"), ("/absent", "No such file"), ("/dev/null", "not a regular")],
)
def test_a_seccomp_profile_must_be_a_file(ref: str, text: str) -> None:
    config = container()
    config.linux.security_context.seccomp.profile_type = api_pb2.SecurityProfile.Localhost
    config.linux.security_context.seccomp.localhost_ref = ref
    with pytest.raises(InvalidRequest, match=text):
        container_request("s", config)


def test_mounts_and_the_stop_signal_of_a_container() -> None:
    config = container(stop_signal=api_pb2.SIGNAL_SIGRTMINPLUS3)
    config.mounts.add(
        container_path="/data",
        host_path="/srv",
        readonly=True,
        propagation=api_pb2.PROPAGATION_BIDIRECTIONAL,
    )
    config.mounts.add(
        container_path="/img",
        image=api_pb2.ImageSpec(image="data:1"),
        image_sub_path="a",
        readonly=True,
    )
    config.linux.security_context.privileged = True
    body = container_request("s", config).body
    bind, image = body.host_config.mounts
    assert (bind.type, bind.source, bind.target, bind.read_only) == ("bind", "/srv", "/data", True)
    assert bind.bind_options is not None
    assert (bind.bind_options.propagation, bind.bind_options.create_mountpoint) == ("rshared", True)
    assert (image.type, image.source, image.target) == ("image", "data:1", "/img")
    assert image.image_options is not None and image.image_options.subpath == "a"
    assert body.stop_signal == "SIGRTMIN+3"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"readonly": False}, "must be read-only"),
        ({"host_path": "/etc"}, "has a path of the host, /etc"),
        ({"image_sub_path": "/etc"}, "must be a path within"),
        ({"image_sub_path": "a/../b"}, "must be a path within"),
        ({"image_sub_path": ".."}, "must be a path within"),
        ({"image_sub_path": "a\0b"}, "must be a path within"),
    ],
)
def test_an_image_is_mounted_read_only_and_within_itself(
    fields: dict[str, Any], message: str
) -> None:
    config = container()
    mount = {"container_path": "/img", "image": api_pb2.ImageSpec(image="data:1"), "readonly": True}
    config.mounts.add(**(mount | fields))
    with pytest.raises(ImageMountFailed, match=message):
        container_request("s", config)


def test_devices_of_cdi_and_the_policy_of_groups() -> None:
    config = container()
    config.CDI_devices.add(name="vendor.com/gpu=0")
    (request,) = container_request("s", config).body.host_config.device_requests
    assert (request.driver, request.device_ids) == ("cdi", ("vendor.com/gpu=0",))
    assert container_request("s", config).groups_policy == "Merge"
    config.linux.security_context.supplemental_groups_policy = api_pb2.Strict
    assert container_request("s", config).groups_policy == "Strict"


def test_a_group_without_a_user_is_refused() -> None:
    config = container()
    config.linux.security_context.run_as_group.value = 5
    with pytest.raises(InvalidRequest, match="run_as_group"):
        container_request("s", config)


def test_an_update_changes_swap_with_memory() -> None:
    update = container_update(api_pb2.LinuxContainerResources(memory_limit_in_bytes=1 << 26))
    assert (update.memory, update.memory_swap) == (1 << 26, 1 << 26)


@given(st.binary(max_size=400))
def test_any_message_is_a_request_or_one_error(data: bytes) -> None:
    for kind, work in (
        (api_pb2.PodSandboxConfig, lambda m: sandbox_request(m, "")),
        (api_pb2.ContainerConfig, lambda m: container_request("s", m)),
    ):
        message = kind()
        try:
            message.ParseFromString(data)
        except Exception:  # noqa: BLE001 - the transport refuses it
            continue
        with contextlib.suppress(InvalidRequest, Unsupported):
            work(message)


@pytest.mark.parametrize("path", ["pid", "signal", "propagation", "protocol"])
def test_an_unknown_value_of_an_enumeration_is_refused(path: str) -> None:
    pod, config = sandbox(), container()
    if path == "pid":
        config.linux.security_context.namespace_options.pid = 99  # type: ignore[assignment]
    elif path == "signal":
        config.stop_signal = 99  # type: ignore[assignment]
    elif path == "propagation":
        config.mounts.add(propagation=99)
    else:
        pod.port_mappings.add(protocol=99, host_port=1)
    requests: list[Callable[[], object]] = [
        lambda: sandbox_request(pod, ""),
        lambda: container_request("s", config),
    ]
    with pytest.raises(InvalidRequest, match="99"):
        [request() for request in requests]


def test_names_of_containers_fit_and_differ() -> None:
    metadata = PodMetadata("web", "u", "default")
    request = PodContainerRequest(
        sandbox="s", name="main", body=container_request("s", container()).body
    )
    assert container_name(metadata, request) == "k8s_main_web_default_u_0"
    assert sandbox_name(metadata) == "k8s_POD_web_default_u_0"
    long = [sandbox_name(PodMetadata("n" * 253, "u" * 36, "d" * 60, n)) for n in (0, 1)]
    assert len(set(long)) == 2
    assert all(len(name) <= 255 for name in long)


def test_the_program_of_a_sandbox_is_a_small_elf_file_for_known_machines() -> None:
    for machine, number in (("x86_64", 62), ("aarch64", 183)):
        content = program(machine)
        assert content[:4] == b"\x7fELF" and content[18] == number and len(content) < 400
    with pytest.raises(Unsupported, match="riscv64"):
        program("riscv64")
    assert layer() == layer()
