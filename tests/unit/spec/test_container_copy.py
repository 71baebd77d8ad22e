"""A copy of a container changes nothing of others."""

from __future__ import annotations

from typing import Any

from jaula.spec.container_copy import copied_host_config

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
