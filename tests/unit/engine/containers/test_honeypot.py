"""The request of a honeypot: completed to the strictest values, refused if it opens a way out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from jaula import feature
from jaula.engine.containers import presets
from jaula.engine.hooks import Hooks
from jaula.engine.oci_spec.inputs import HostFacts
from jaula.errors import InvalidRequest
from jaula.features.honeypot import honeypot_container
from jaula.spec.api_documents import ContainerCreate, DeviceMapping, HostConfig, Mount
from jaula.spec.runtime_spec import Spec
from jaula.state.container_records import PortMapping


def completed(**members: Any) -> HostConfig:
    host = HostConfig(profile="honeypot", **members)
    body = ContainerCreate(image="x", host_config=host)
    return presets.apply(body, "default", 5).host_config


def _check(host: HostConfig, *, rootless: bool) -> None:
    services: Any = SimpleNamespace(host=HostFacts(rootless=rootless))
    resolved: Any = SimpleNamespace(ports=())
    Hooks(feature.features()).request_resolved(
        services, ContainerCreate(host_config=host), resolved
    )


def test_a_honeypot_has_no_network_of_the_engine_and_no_rights_beyond_a_login_service() -> None:
    host = completed()
    assert host.network_mode == "none"
    assert host.cap_drop == ("ALL",)
    assert not {"NET_RAW", "NET_ADMIN", "SYS_ADMIN", "MKNOD", "SETFCAP"} & set(host.cap_add)
    assert "no-new-privileges" in host.security_opt
    assert host.pids_limit == honeypot_container.PIDS
    assert host.memory == host.memory_swap == honeypot_container.MEMORY
    assert host.nano_cpus == honeypot_container.CPUS
    assert {limit.name: limit.hard for limit in host.ulimits} == {
        "fsize": honeypot_container.FILE_SIZE, "core": 0,
    }  # fmt: skip
    assert not host.readonly_rootfs


def test_completing_twice_changes_nothing() -> None:
    once = completed()
    body = ContainerCreate(image="x", host_config=once)
    assert presets.apply(body, "default", 5).host_config == once


def test_lower_limits_stay_and_higher_ones_do_not() -> None:
    assert completed(memory=64 << 20).memory == 64 << 20
    assert completed(memory=64 << 30).memory == honeypot_container.MEMORY
    assert completed(pids_limit=10).pids_limit == 10
    assert completed(pids_limit=-1).pids_limit == honeypot_container.PIDS


@pytest.mark.parametrize(
    "members",
    [
        {"privileged": True},
        {"cap_add": ("NET_RAW",)},
        {"binds": ("/:/host",)},
        {"mounts": (Mount(type="volume", target="/x"),)},
        {"volumes_from": ("other",)},
        {"tmpfs": {"/x": ""}},
        {"devices": (DeviceMapping(path_on_host="/dev/kmsg"),)},
        {"device_cgroup_rules": ("a *:* rwm",)},
        {"network_mode": "host"},
        {"network_mode": "bridge"},
        {"network_mode": "container:other"},
        {"pid_mode": "host"},
        {"ipc_mode": "host"},
        {"uts_mode": "host"},
        {"userns_mode": "host"},
        {"cgroupns_mode": "host"},
        {"cgroup_parent": "/x"},
        {"security_opt": ("seccomp=unconfined",)},
        {"security_opt": ("landlock=off",)},
        {"masked_paths": ()},
        {"readonly_paths": ()},
        {"sysctls": {"net.ipv4.ip_forward": "1"}},
        {"runtime": "runc"},
        {"dns": ("8.8.8.8",)},
        {"extra_hosts": ("a:1.2.3.4",)},
        {"links": ("other:o",)},
        {"publish_all_ports": True},
        {"oom_kill_disable": True},
    ],
    ids=lambda members: next(iter(members)),
)
def test_a_request_that_opens_the_confinement_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="not possible with the profile honeypot"):
        completed(**members)


def test_a_rootless_engine_has_no_honeypots() -> None:
    with pytest.raises(InvalidRequest, match="needs an engine that runs as root"):
        _check(completed(), rootless=True)
    _check(completed(), rootless=False)
    _check(HostConfig(), rootless=True)


@pytest.mark.parametrize(
    ("mapping", "reason"),
    [
        (PortMapping(53, "udp", "", 53), "53/udp"),
        (PortMapping(22, "tcp"), "needs a port of the host"),
        (PortMapping(22, "tcp", "", 2000, 2010), "needs a port of the host"),
    ],
)
def test_a_published_port_is_tcp_with_a_number(mapping: PortMapping, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason):
        honeypot_container.ports((mapping,))


def test_the_supervisor_is_the_last_hook_before_the_program() -> None:
    spec = honeypot_container.supervised(Spec(oci_version="1.2.0"), "/x/run")
    assert spec.hooks is not None
    hook = spec.hooks.create_runtime[-1]
    assert hook.args[-3:] == ("-m", "jaula.features.honeypot", "/x/run")
    assert msgspec.structs.replace(spec, hooks=None) == Spec(oci_version="1.2.0")
