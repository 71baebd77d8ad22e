"""Documents of profiles complete a request and keep explicit options."""

from __future__ import annotations

from typing import Any

import pytest

from jaula.engine.containers import presets
from jaula.errors import InvalidRequest
from jaula.spec import confinement_profile
from jaula.spec.api_documents import ContainerCreate, DeviceMapping, HostConfig
from jaula.spec.api_networks import EndpointSettings, NetworkingConfig

DOCUMENT = """
version = 1
name = "web"
capabilities = ["NET_BIND_SERVICE", "CAP_SETUID"]
devices = ["/dev/fuse", "/dev/zero:/dev/nothing:r"]

[process]
user = "101:101"

[seccomp.syscalls]
x86_64 = ["read", "write"]
x86 = ["write", "waitpid"]

[seccomp.unavailable]
x86_64 = ["clone3", "read"]

[files]
read = ["/etc/nginx/", "/a,b=c"]
write = ["/run/web.pid"]
execute = ["/usr/sbin/nginx"]
masked = ["/etc/shadow"]
volumes = ["/data"]

[files.tmpfs]
"/tmp" = "size=1m"
"/run" = ""

[network]
listen = ["tcp:80", "udp:53"]
egress = ["tcp:192.0.2.1:443"]

[limits]
pids = 10
memory = 1048576
cpus = 0.5
"""
LANDLOCK = (
    "landlock=exec",
    "landlock=read=/etc/nginx/",
    "landlock=read=/a,b=c",
    "landlock=write=/run/web.pid",
    "landlock=execute=/usr/sbin/nginx",
    "landlock=tcp-bind=0",
    "landlock=tcp-bind=80",
)


def completed(
    text: str = DOCUMENT, landlock: int = 6, body: dict[str, Any] | None = None, **host: Any
) -> ContainerCreate:
    request = ContainerCreate(
        image="x", host_config=HostConfig(profile=text, **host), **(body or {})
    )
    once = presets.apply(request, "default", landlock)
    assert presets.apply(once, "default", landlock) == once
    return once


def test_a_document_completes_a_request() -> None:
    body = completed()
    host = body.host_config
    assert host.cap_drop == ("ALL",)
    assert host.cap_add == ("NET_BIND_SERVICE", "CAP_SETUID")
    assert host.security_opt == (
        "no-new-privileges",
        "seccomp-allow=x86:waitpid,write",
        "seccomp-allow=x86_64:read,write",
        "seccomp-enosys=x86_64:clone3",
        *LANDLOCK,
        "mask=/etc/shadow",
    )
    assert host.readonly_rootfs
    assert host.tmpfs == {"/tmp": "size=1m", "/run": ""}
    assert list(body.volumes) == ["/data"]
    assert body.user == "101:101"
    assert (host.pids_limit, host.nano_cpus) == (10, 500_000_000)
    assert host.memory == host.memory_swap == 1048576
    assert host.egress == ("tcp:192.0.2.1:443",)
    assert host.devices == (
        DeviceMapping(
            path_on_host="/dev/fuse", path_in_container="/dev/fuse", cgroup_permissions="rwm"
        ),
        DeviceMapping(
            path_on_host="/dev/zero", path_in_container="/dev/nothing", cgroup_permissions="r"
        ),
    )
    assert presets.deviations(host) == ()
    assert list(presets.warnings(host)) == []


@pytest.mark.parametrize(
    ("asked", "kept", "weaker"),
    [
        ({"cap_add": ("net_raw",)}, {}, ["cap-add=net_raw"]),
        ({"cap_drop": ("SETUID",)}, {"cap_add": ("NET_BIND_SERVICE",)}, []),
        ({"cap_add": ("setuid",)}, {"cap_add": ("setuid", "NET_BIND_SERVICE")}, []),
        ({"privileged": True}, {}, ["privileged", "other Landlock rules"]),
        (
            {"security_opt": ("seccomp=unconfined",)},
            {},
            ["other seccomp filter"],
        ),
        ({"security_opt": ("landlock=off",)}, {}, ["other Landlock rules"]),
        ({"security_opt": ("no-new-privileges=false",)}, {}, ["new privileges"]),
        (
            {"profile_keeps": ("ReadonlyRootfs",)},
            {"readonly_rootfs": False},
            ["writable root"],
        ),
        ({"tmpfs": {"/tmp": "size=9m"}}, {"tmpfs": {"/tmp": "size=9m", "/run": ""}}, []),
        ({"binds": ("data:/run",)}, {"tmpfs": {"/tmp": "size=1m"}}, []),
        ({"pids_limit": 20}, {"pids_limit": 20}, ["pids-limit=20"]),
        ({"pids_limit": 5}, {"pids_limit": 5}, []),
        ({"memory": 2097152}, {"memory_swap": 2097152}, ["memory=2097152"]),
        ({"profile_keeps": ("Memory",)}, {"memory": 0}, ["memory=0"]),
        ({"nano_cpus": 10**9}, {"nano_cpus": 10**9}, ["cpus=1"]),
        ({"cpu_quota": 1000}, {"nano_cpus": 0}, ["cpus=0"]),
        (
            {"egress": ("tcp:192.0.2.2:443",)},
            {"egress": ("tcp:192.0.2.2:443",)},
            ["other egress list"],
        ),
        ({"egress": ()}, {"egress": ()}, []),
        ({"listen": ("tcp:81",)}, {"listen": ("tcp:81",)}, ["other listen list"]),
        ({"listen": ("tcp:80",)}, {"listen": ("tcp:80",)}, []),
        (
            {"network_mode": "host"},
            {"egress": None, "listen": None},
            ["other egress list", "other listen list"],
        ),
        (
            {"network_mode": "container:x"},
            {"egress": None, "listen": None},
            ["other egress list", "other listen list"],
        ),
        ({"devices": (DeviceMapping(path_on_host="/dev/kvm"),)}, {}, ["device=/dev/kvm"]),
    ],
)
def test_explicit_options_win_and_are_named_if_weaker(
    asked: dict[str, Any], kept: dict[str, Any], weaker: list[str]
) -> None:
    host = completed(**asked).host_config
    assert {name: getattr(host, name) for name in kept} == kept
    assert presets.deviations(host) == tuple(weaker)
    assert len(list(presets.warnings(host))) == bool(weaker)


@pytest.mark.parametrize(
    ("host", "abi", "rules"),
    [
        ({}, 6, ["0", "80"]),
        ({"network_mode": "host"}, 6, ["80"]),
        ({"listen": ("tcp:81", "udp:1")}, 4, ["0", "81"]),
        ({"network_mode": "host", "listen": ()}, 4, ["none"]),
        ({}, 3, []),
    ],
)
def test_ports_of_tcp_are_rules_of_landlock_too(
    host: dict[str, Any], abi: int, rules: list[str]
) -> None:
    made = completed(landlock=abi, **host).host_config
    prefix = "landlock=tcp-bind="
    assert [o.removeprefix(prefix) for o in made.security_opt if o.startswith(prefix)] == rules


def test_the_user_of_the_request_wins() -> None:
    assert completed(body={"user": "0"}).user == "0"


def test_no_network_is_a_network_mode_unless_one_is_requested() -> None:
    text = 'name = "x"\n[network]\nmode = "none"\n'
    assert completed(text).host_config.network_mode == "none"
    assert completed(text, network_mode="shop").host_config.network_mode == "shop"
    assert completed(text, publish_all_ports=True).host_config.network_mode == ""
    assert completed(text, profile_keeps=("NetworkMode",)).host_config.network_mode == ""
    networking = NetworkingConfig(endpoints_config={"default": EndpointSettings()})
    assert completed(text, body={"networking_config": networking}).networking_config == (
        NetworkingConfig()
    )


@pytest.mark.parametrize("host", [{"runtime": "crun"}, {"pid_mode": "host"}, {"privileged": True}])
def test_landlock_is_left_out_where_it_cannot_apply(host: dict[str, Any]) -> None:
    options = completed(**host).host_config.security_opt
    assert not any(option.startswith("landlock") for option in options)


def test_a_kernel_without_landlock_has_the_rest() -> None:
    assert completed(landlock=0).host_config.security_opt == (
        "no-new-privileges",
        "seccomp-allow=x86:waitpid,write",
        "seccomp-allow=x86_64:read,write",
        "seccomp-enosys=x86_64:clone3",
        "mask=/etc/shadow",
    )


def test_a_document_may_come_in_an_annotation() -> None:
    body = ContainerCreate(
        image="x", host_config=HostConfig(annotations={presets.ANNOTATION: DOCUMENT, "a": "b"})
    )
    host = presets.apply(body, "default", 6).host_config
    assert host.profile == DOCUMENT
    assert host.annotations == {"a": "b"}
    assert host.cap_drop == ("ALL",)


def test_a_packaged_document_is_found_by_name(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "web.toml").write_text(DOCUMENT)
    (tmp_path / "README").write_text("x")
    monkeypatch.setattr(confinement_profile, "_PACKAGED", str(tmp_path))
    assert completed("web") == completed()
    with pytest.raises(InvalidRequest) as refusal:
        completed("../web")
    assert ", ".join((*presets.NAMES, "web")) in (refusal.value.hint or "")


def test_every_packaged_document_is_valid_and_has_its_name() -> None:
    for name in confinement_profile.packaged_names():
        text = confinement_profile.packaged(name)
        assert confinement_profile.load(text.encode(), name).name == name
        completed(text)


@pytest.mark.parametrize(
    "text",
    [
        "a = ",
        'name = "x"\nunknown = 1\n',
        'name = "x"\nversion = 2\n',
        'name = "x"\ncapabilities = ["ALL"]\n',
        'name = "x"\ncapabilities = ["NO_SUCH"]\n',
        'name = "x"\n[limits]\npids = -1\n',
        'name = "x"\n[files.tmpfs]\ntmp = ""\n',
        'name = "x"\n[network]\nmode = "host"\n',
        "x = " + "[" * 5000,
        "#" + "x" * (1 << 20) + '\nname = "x"',
    ],
)
def test_a_hostile_document_is_one_error(text: str) -> None:
    with pytest.raises(InvalidRequest):
        completed(text)
