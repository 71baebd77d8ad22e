"""A copy of a container changes nothing of others."""

from __future__ import annotations

from typing import Any

from jaula.spec.api_documents import HostConfig, PortBinding
from jaula.spec.container_copy import clone_members, confinement, copied_host_config

HOST: dict[str, Any] = {
    "Binds": ["data:/data", "/etc:/host:rw,z"],
    "Mounts": [{"Type": "tmpfs", "Target": "/tmp"}, {"Type": "bind", "Target": "/srv"}],
    "VolumesFrom": ["first", "second:rw", "third:ro"],
    "Memory": 5,
    "AutoRemove": True,
}


def test_without_copies_everything_is_read_only() -> None:
    host = copied_host_config(HOST)
    assert host["Binds"] == ["data:/data:ro", "/etc:/host:ro"]
    assert [mount["ReadOnly"] for mount in host["Mounts"]] == [False, True]
    assert host["VolumesFrom"] == ["first:ro", "second:ro", "third:ro"]
    assert (host["Memory"], host["AutoRemove"]) == (5, False)


def test_a_volume_of_another_container_gets_its_copy_too() -> None:
    host = copied_host_config(HOST, {"/data": "copy1", "/shared": "copy2"})
    assert host["Binds"][0] == "copy1:/data"
    assert host["Mounts"][-1] == {"Type": "volume", "Source": "copy2", "Target": "/shared"}
    assert host["VolumesFrom"] == ["first:ro", "second:ro", "third:ro"]


def test_the_document_is_not_changed() -> None:
    before = {name: list(value) for name, value in HOST.items() if isinstance(value, list)}
    copied_host_config(HOST, {"/data": "copy1"})
    assert {name: HOST[name] for name in before} == before


def test_a_clone_publishes_nothing() -> None:
    host = HostConfig(
        port_bindings={"80/tcp": (PortBinding(),)}, publish_all_ports=True, container_id_file="/x"
    )
    assert clone_members(host) == {
        "port_bindings": {},
        "publish_all_ports": False,
        "container_id_file": "",
    }


def test_a_debug_session_has_every_limit_and_no_device_network_or_file() -> None:
    members = confinement(HostConfig(memory=5, cap_drop=("ALL",)))
    assert (members["memory"], members["cap_drop"]) == (5, ("ALL",))
    for name in (
        *("blkio_device_write_bps", "oom_score_adj", "masked_paths", "userns_mode", "runtime"),
        *("security_opt", "privileged", "sysctls", "ulimits", "pids_limit", "cgroup_parent"),
    ):
        assert name in members
    for name in ("devices", "binds", "mounts", "network_mode", "pid_mode", "profile", "egress"):
        assert name not in members
