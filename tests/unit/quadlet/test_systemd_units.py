"""Services of existing containers: commands that make the same container again."""

import shlex
from typing import Any

import pytest

from jaula.cli import command_table
from jaula.cli.command_parser import parse
from jaula.cli.containers import create_body
from jaula.features.quadlet import systemd_units, unit_words
from jaula.features.quadlet.systemd_units import (
    UnitOptions,
    container_unit,
    pod_unit,
    run_arguments,
)
from jaula.features.quadlet.unit_file import UnitFile

IMAGE = {"Env": ["PATH=/bin"], "Cmd": ["sh"], "Entrypoint": None, "Labels": {"of": "image"}}


def document(config: dict[str, Any] | None = None, **host: Any) -> dict[str, Any]:
    return {
        "Id": "1234567890abcdef",
        "Name": "/web",
        "Config": {
            "Image": "busybox", "Hostname": "1234567890ab", "Env": ["PATH=/bin"], "Cmd": ["sh"],
            "Labels": {"of": "image"}, **(config or {}),
        },
        "HostConfig": {"NetworkMode": "bridge", "IpcMode": "private", "UsernsMode": "private",
                       "PidsLimit": 4096, **host},
        "NetworkSettings": {"Networks": {"bridge": {}}},
    }  # fmt: skip


def unit(text: str) -> UnitFile:
    result = UnitFile()
    result.read(text)
    return result


def test_values_of_the_image_and_the_engine_are_left_out() -> None:
    assert run_arguments(document(), IMAGE) == ["busybox"]


@pytest.mark.parametrize(
    ("config", "host", "expected"),
    [
        ({"User": "1"}, {}, "--user 1 busybox"),
        ({"Env": ["PATH=/bin", "A=b c"]}, {}, "--env 'A=b c' busybox"),
        ({"Cmd": ["a", "b"]}, {}, "busybox a b"),
        ({"Entrypoint": ["x", "y"], "Cmd": ["z"]}, {}, "--entrypoint x busybox y z"),
        ({"Labels": {"of": "image", "k": "v"}}, {}, "--label k=v busybox"),
        ({"Tty": True}, {"Privileged": True}, "--tty --privileged busybox"),
        ({}, {"Memory": 64, "NanoCpus": 1_500_000_000}, "--memory 64 --cpus 1.5 busybox"),
        ({}, {"Binds": ["/a:/b:ro"], "CapAdd": ["X"]}, "--volume /a:/b:ro --cap-add X busybox"),
        ({}, {"PortBindings": {"80/tcp": [{"HostIp": "::1", "HostPort": "8"}]}},
         "--publish [::1]:8:80/tcp busybox"),
        ({}, {"Sysctls": {"a": "1"}, "Tmpfs": {"/t": "size=1m", "/u": ""}},
         "--sysctl a=1 --tmpfs /t:size=1m --tmpfs /u busybox"),
        ({}, {"NetworkMode": "none"}, "--network none busybox"),
        ({}, {"Mounts": [{"Type": "volume", "Source": "v", "Target": "/v", "ReadOnly": True}]},
         "--mount type=volume,source=v,target=/v,readonly busybox"),
    ],
)  # fmt: skip
def test_a_value_of_a_container_is_a_flag_that_run_takes(
    config: dict[str, Any], host: dict[str, Any], expected: str
) -> None:
    arguments = run_arguments(document(config, **host), IMAGE)
    assert arguments == shlex.split(expected)
    create_body.document(parse(command_table.load("run"), arguments))


def test_a_service_makes_its_container_and_systemd_replaces_nothing_in_it() -> None:
    settings = UnitOptions("/usr/bin/jaula")
    settings.new = True
    settings.wants = ["db.service"]
    made = unit(
        container_unit("c.service", document({"Cmd": ["echo", "50% $HOME"]}), IMAGE, settings)
    )
    start = made.last_words("Service", "ExecStart")
    assert start[-2:] == ["echo", "50%% $$HOME"]
    assert start[2:4] == ["--name", "web"]
    assert made.texts("Unit", "Wants")[-1] == "db.service"
    assert made.last_words("Service", "ExecStop")[1:4] == ["stop", "-i", "--cidfile=%t/%n.cid"]


def test_a_service_starts_a_container_that_exists() -> None:
    settings = UnitOptions("jaula")
    settings.header = "c.service\nby jaula"
    text = container_unit("c.service", document(), {}, settings, "pod-p.service")
    assert text.startswith("# c.service\n# by jaula\n\n[Unit]\n")
    made = unit(text)
    assert made.text("Unit", "BindsTo") == "pod-p.service"
    assert unit_words.split(made.text("Service", "ExecStart")) == [
        *("jaula", "start", "--attach", "--sdnotify=conmon", "web")
    ]


def test_a_service_of_a_pod_is_before_those_of_its_containers() -> None:
    made = unit(pod_unit("pod-p.service", "p", document(), ["c.service"], UnitOptions("jaula")))
    assert made.text("Unit", "Before") == "c.service"
    assert made.last_words("Service", "ExecStart")[-1] == "p"


def test_a_service_makes_a_pod_and_its_containers_join_it() -> None:
    infra = document(
        {"Labels": {"io.jaula.pod": "p", "io.jaula.pod-role": "infra", "mine": "1",
                    "io.jaula.pod-exit-policy": "stop", "io.jaula.pod-share": "net,ipc"},
         "Hostname": "h", "Entrypoint": ["/pause"], "StopTimeout": 0},
        IpcMode="shareable", Binds=["v:/v"],
        PortBindings={"80/tcp": [{"HostIp": "", "HostPort": "8080"}]},
    )  # fmt: skip
    settings = UnitOptions("jaula")
    settings.new = True
    made = unit(pod_unit("pod-p.service", "p", infra, ["c.service"], settings))
    create = made.last_words("Service", "ExecStartPre")
    assert shlex.join(create[1:]) == (
        "pod create --pod-id-file=%t/pod-p.service.pod-id --replace --name p --hostname h "
        "--label mine=1 --volume v:/v --publish 8080:80/tcp --exit-policy stop --share net,ipc"
    )
    parse(command_table.load("pod create"), create[3:])  # the flags exist
    for key in ("ExecStart", "ExecStop", "ExecStopPost"):
        line = made.last_words("Service", key)
        assert line[-1] == create[3]
        parse(command_table.load(" ".join(line[1:3])), line[3:])
    holder = f"container:{'i' * 64}"
    member = document(
        {"Labels": {"io.jaula.pod": "p", "io.jaula.pod-role": "member"}, "Hostname": "h"},
        NetworkMode=holder, UsernsMode=holder, IpcMode=holder, UTSMode=holder,
        VolumesFrom=["i" * 64, "other"],
    )  # fmt: skip
    text = container_unit("c.service", member, IMAGE, settings, "pod-p.service")
    run = unit(text).last_words("Service", "ExecStart")
    joined = ["--pod-id-file", "%t/pod-p.service.pod-id", "--volumes-from", "other", "busybox"]
    assert run[-5:] == joined


def test_the_policies_are_those_of_systemd() -> None:
    assert "always" in systemd_units.RESTART_POLICIES
