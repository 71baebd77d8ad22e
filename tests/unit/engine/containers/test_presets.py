"""Presets complete a request and keep explicit options."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from jaula.engine.containers import presets
from jaula.errors import InvalidRequest
from jaula.spec.api_documents import ContainerCreate, HostConfig, LogConfig, PortBinding


def applied(default: str = "default", landlock: int = 6, **host: Any) -> HostConfig:
    body = ContainerCreate(image="x", host_config=HostConfig(**host))
    once = presets.apply(body, default, landlock)
    assert presets.apply(once, default, landlock) == once
    return once.host_config


def test_the_default_changes_nothing() -> None:
    assert applied() == HostConfig(profile="default")


def test_strict_removes_privileges_that_most_programs_do_not_need() -> None:
    host = applied(profile="strict")
    assert host.cap_drop == ("ALL",)
    assert set(host.security_opt) == {"no-new-privileges", "landlock=exec"}
    assert host.readonly_rootfs
    assert set(host.tmpfs) == {"/tmp", "/run", "/var/tmp"}
    assert host.network_mode == "none"
    assert host.pids_limit == presets.STRICT_PIDS
    assert host.memory == host.memory_swap == presets.STRICT_MEMORY
    assert presets.deviations(host) == ()


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({"network_mode": "bridge"}, {"network_mode": "bridge"}),
        ({"port_bindings": {"80/tcp": (PortBinding(),)}}, {"network_mode": ""}),
        ({"publish_all_ports": True}, {"network_mode": ""}),
        ({"pids_limit": 0}, {"pids_limit": 0}),
        ({"pids_limit": 10}, {"pids_limit": 10}),
        ({"memory": 1 << 30}, {"memory": 1 << 30, "memory_swap": 1 << 30}),
        ({"memory": 1 << 30, "memory_swap": -1}, {"memory_swap": -1}),
        ({"profile_keeps": ("Memory",)}, {"memory": 0, "memory_swap": 0}),
        ({"profile_keeps": ("ReadonlyRootfs",)}, {"readonly_rootfs": False, "tmpfs": {}}),
        (
            {"profile_keeps": ("NetworkMode",), "network_mode": "default"},
            {"network_mode": "default"},
        ),
        ({"cap_add": ("NET_RAW",)}, {"cap_add": ("NET_RAW",), "cap_drop": ("ALL",)}),
        ({"cap_drop": ("CHOWN",)}, {"cap_drop": ("ALL", "CHOWN")}),
        (
            {"security_opt": ("no-new-privileges=false", "landlock:off")},
            {"security_opt": ("no-new-privileges=false", "landlock:off")},
        ),
        ({"privileged": True}, {"security_opt": ("no-new-privileges",)}),
        ({"runtime": "crun"}, {"security_opt": ("no-new-privileges",)}),
    ],
)
def test_explicit_options_override_the_preset(asked: dict[str, Any], kept: dict[str, Any]) -> None:
    host = applied(profile="strict", **asked)
    assert {name: getattr(host, name) for name in kept} == kept


def test_strict_keeps_a_requested_mount() -> None:
    host = applied(profile="strict", binds=("data:/tmp",), tmpfs={"/run": "size=1m"})
    assert host.tmpfs == {"/run": "size=1m", "/var/tmp": presets.STRICT_TMPFS["/var/tmp"]}


def test_strict_without_landlock_is_the_rest_of_it() -> None:
    assert applied(landlock=0, profile="strict").security_opt == ("no-new-privileges",)


def test_the_docker_preset_has_dockers_defaults() -> None:
    host = applied(profile="docker")
    assert host.userns_mode == "host"
    assert host.pids_limit == 0
    assert host.log_config == LogConfig(type="json-file", config={"max-size": "-1"})
    assert host.security_opt == ("landlock=off",)
    assert host.masked_paths == presets.DOCKER_MASKED


def test_the_docker_preset_keeps_explicit_options() -> None:
    host = applied(profile="docker", userns_mode="private", pids_limit=7, masked_paths=())
    assert (host.userns_mode, host.pids_limit, host.masked_paths) == ("private", 7, ())
    assert applied(profile="docker", pid_mode="container:x").userns_mode == ""


def test_the_engines_default_counts_where_none_is_named() -> None:
    assert applied("strict").profile == "strict"
    assert applied("strict", profile="default") == HostConfig(profile="default")


def test_an_annotation_selects_the_preset_and_is_removed() -> None:
    host = applied(annotations={presets.ANNOTATION: "strict", "other": "stays"})
    assert host.profile == "strict"
    assert host.annotations == {"other": "stays"}


@pytest.mark.parametrize(
    "host",
    [
        {"profile": "paranoid"},
        {"profile": "Strict"},
        {"annotations": {presets.ANNOTATION: "x" * 5000}},
        {"profile": "strict", "annotations": {presets.ANNOTATION: "docker"}},
    ],
)
def test_an_unknown_or_contradicting_profile_is_refused(host: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        applied(**host)


def test_departures_from_strict_have_names() -> None:
    host = applied(profile="strict", cap_add=("NET_RAW",), network_mode="bridge", memory=1 << 40)
    assert presets.deviations(host) == ("cap-add=NET_RAW", "network=bridge", f"memory={1 << 40}")
    assert presets.deviations(msgspec.structs.replace(host, profile="default")) == ()
