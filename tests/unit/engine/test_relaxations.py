"""Every field of a request that gives power over the host is an ask of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jaula.engine import relaxations
from jaula.engine.containers.resolved_request import resolve
from jaula.spec import decode
from jaula.spec.api_documents import ContainerCreate, ExecCreate, HostConfig, LogConfig
from jaula.spec.api_networks import NetworkCreate
from jaula.state.container_records import MountRecord


def of(**host: Any) -> list[str]:
    document = json.dumps({"Image": "x", "HostConfig": host}).encode()
    body = decode.decode(document, ContainerCreate)
    return [str(ask) for ask in relaxations.of_request(body, resolve(body))]


def test_inherited_mounts_ask_for_what_they_share_with_the_host() -> None:
    mounts = (
        MountRecord("bind", "/b", source="/a", propagation="rshared"),
        MountRecord("bind", "/d", source="/c", propagation="rslave"),
        MountRecord("volume", "/e", source="/v"),
    )
    asks = relaxations.of_mounts(mounts, foreign=False, read_only=True)
    assert [str(ask) for ask in asks] == [
        *("host-mount=/a:ro", "security-option=propagation=rshared", "host-mount=/c:ro")
    ]


def test_a_plain_container_asks_for_nothing() -> None:
    usual = {"CapAdd": ["CHOWN", "net_raw"], "CapDrop": ["ALL"], "Tmpfs": {"/t": ""}}
    assert (
        of(**usual, Binds=["data:/data"], SecurityOpt=["no-new-privileges"], Memory=1 << 30) == []
    )
    assert of(SecurityOpt=["seccomp=builtin", "apparmor=jaula-default", "landlock=exec"]) == []


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ({"Binds": ["/a:/b"]}, ["host-mount=/a"]),
        ({"SecurityOpt": ["seccomp-listener=/run/x"]}, ["security-option=seccomp-listener"]),
        ({"Binds": ["/a/../c:/b:ro"]}, ["host-mount=/c:ro"]),
        ({"Binds": ["/a:/b:ro,z"]}, ["host-mount=/a:ro", "security-option=relabel"]),
        (
            {"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True}]},
            ["host-mount=/a:ro"],
        ),
        (
            {"Binds": ["/a:/b:rshared"]},
            ["host-mount=/a", "security-option=propagation=rshared"],
        ),
        ({"Binds": ["/a:/b:rslave"]}, ["host-mount=/a"]),
        ({"Privileged": True}, ["privileged"]),
        ({"CapAdd": ["CAP_SYS_ADMIN", "all"]}, ["capability=SYS_ADMIN", "capability=ALL"]),
        ({"PidMode": "host", "IpcMode": "host"}, ["host-namespace=pid", "host-namespace=ipc"]),
        ({"NetworkMode": "container:x"}, ["others=x"]),
        ({"VolumesFrom": ["y:ro"]}, ["others=y"]),
        ({"Links": ["/z:db"]}, ["others=z"]),
        ({"Links": ["/z:db"], "NetworkMode": "shop"}, []),
        ({"Runtime": "crun", "Annotations": {"a": "b"}}, ["annotation=a"]),
        ({"Annotations": {"a": "b"}}, []),
        ({"OomScoreAdj": 5}, []),
        ({"Mounts": [{"Type": "engine-socket"}]}, ["engine-socket"]),
        ({"MaskedPaths": []}, ["security-option=systempaths=unconfined"]),
        ({"DeviceRequests": [{"Driver": "nvidia"}]}, ["device=nvidia"]),
    ],
)
def test_a_relaxation_has_a_name(host: dict[str, Any], expected: list[str]) -> None:
    assert of(**host) == expected


def test_an_engine_socket_asks_for_its_entry_of_the_policy() -> None:
    document = b'{"Image": "x", "HostConfig": {"Mounts": [{"Type": "engine-socket"}]}}'
    body = decode.decode(document, ContainerCreate)
    found = relaxations.of_request(body, resolve(body), "web")
    assert [str(ask) for ask in found] == ["engine-socket=web"]


def test_a_mount_by_another_runtime_is_marked() -> None:
    body = ContainerCreate(host_config=HostConfig(binds=("/a:/b",), runtime="crun"))
    assert [ask.foreign for ask in relaxations.of_request(body, resolve(body))] == [True]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("unix:///run/mine.sock", ["log-address=unix:///run/mine.sock"]),
        ("unixgram:///dev/../dev/log", ["log-address=unixgram:///dev/../dev/log"]),
        ("tcp://127.0.0.1", ["log-address=tcp://127.0.0.1:514"]),
        ("udp://127.9.9.9:99", ["log-address=udp://127.9.9.9:99"]),
        ("tcp+tls://[::1]", ["log-address=tcp+tls://::1:6514"]),
        ("tcp://[::ffff:127.0.0.1]:5", ["log-address=tcp://::ffff:127.0.0.1:5"]),
        ("udp://169.254.169.254:80", ["log-address=udp://169.254.169.254:80"]),
        ("udp://[fe80::1%eth0]:80", ["log-address=udp://fe80::1%eth0:80"]),
        ("tcp://0.0.0.0:80", ["log-address=tcp://0.0.0.0:80"]),
        ("tcp://localhost:80", ["log-address=tcp://localhost:80"]),
        ("tcp://x.LocalHost.:80", ["log-address=tcp://x.LocalHost.:80"]),
        ("unix:///dev/log", []),
        ("unixgram:///dev/log", []),
        ("udp://192.0.2.1", []),
        ("tcp://[2001:db8::1]:99", []),
        ("tcp://logs.example.com", []),
    ],
)
def test_a_log_server_on_the_host_asks(address: str, expected: list[str]) -> None:
    for driver in ("syslog", ""):  # "" is the engine's default, which may be syslog
        assert of(LogConfig={"Type": driver, "Config": {"syslog-address": address}}) == expected


@pytest.mark.parametrize("address", ["tcp://logs.example.com", "udp://127.1:99", "tcp://0x7f1"])
def test_a_log_server_by_name_is_judged_when_it_is_resolved(address: str) -> None:
    """``127.1`` and ``0x7f1`` are addresses to getaddrinfo(3) alone."""
    log = LogConfig(type="syslog", config={"syslog-address": address})
    privilege = relaxations.of_log_name(log)
    assert privilege is not None
    assert privilege.kind is relaxations.Relaxation.LOG_ADDRESS
    for text in ("unix:///x", "tcp://127.0.0.1", "udp://192.0.2.1"):
        log = LogConfig(type="syslog", config={"syslog-address": text})
        assert relaxations.of_log_name(log) is None


def test_a_network_with_addresses_or_options_of_ones_own_asks() -> None:
    document = b"""{"Name": "n", "Options": {"mtu": "9000"}, "EnableIPv6": true,
        "IPAM": {"Config": [{"Subnet": "1.1.1.0/24"}, {"Gateway": "1.2.3.4"}]}}"""
    body = decode.decode(document, NetworkCreate)
    assert [str(ask) for ask in relaxations.of_network(body)] == [
        "network-option=subnet=1.1.1.0/24",
        "network-option=mtu",
    ]
    assert relaxations.of_network(NetworkCreate(name="plain", internal=True)) == ()


def test_a_privileged_exec_asks() -> None:
    assert [str(ask) for ask in relaxations.of_exec(ExecCreate(privileged=True))] == ["privileged"]
    assert relaxations.of_exec(ExecCreate()) == ()
