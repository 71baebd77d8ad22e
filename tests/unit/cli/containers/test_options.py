"""The flags of ``run`` and ``create`` make the document that Docker's command line sends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jaula.cli import command_table, environ
from jaula.cli.cli_errors import UsageError
from jaula.cli.command_parser import parse
from jaula.cli.containers import create_body


def document(*words: str) -> dict[str, Any]:
    return create_body.document(parse(command_table.load("run"), words))


def test_the_plain_document_is_dockers() -> None:
    assert document("--rm", "busybox", "echo", "hi") == {
        "AttachStdout": True,
        "AttachStderr": True,
        "Cmd": ["echo", "hi"],
        "Image": "busybox",
        "HostConfig": {
            "LogConfig": {"Type": "", "Config": {}},
            "NetworkMode": "default",
            "RestartPolicy": {"Name": "no"},
            "AutoRemove": True,
        },
        "NetworkingConfig": {"EndpointsConfig": {"default": {}}},
    }


def test_streams_follow_interactive_attach_and_detach() -> None:
    result = document("-i", "busybox")
    assert result["OpenStdin"] and result["StdinOnce"] and result["AttachStdin"]
    result = document("-it", "-d", "busybox")
    assert result["OpenStdin"] and result["Tty"]
    assert not {"AttachStdin", "AttachStdout", "StdinOnce"} & set(result)
    result = document("-a", "STDERR", "busybox")
    assert result["AttachStderr"] and "AttachStdout" not in result


def test_everything_about_the_host_config() -> None:
    result = document(
        "-m", "64mb", "--memory-swap", "-1", "--memory-reservation", "32m", "--cpus", "0.5",
        "--cpu-shares", "512", "--cpuset-cpus", "0", "--pids-limit", "20", "--shm-size", "8m",
        "--ulimit", "nofile=10:20", "--ulimit", "core=0", "--cap-add", "net_admin",
        "--cap-drop", "ALL", "--privileged", "--read-only", "--init", "--userns", "host",
        "--pid", "host", "--ipc", "none", "--uts", "host", "--cgroupns", "host",
        "--network", "container:x", "--dns", "1.1.1.1", "--add-host", "a:1.2.3.4",
        "--add-host", "b=::1", "--sysctl", "net.a=1", "--device", "/dev/null:/dev/x:r",
        "--tmpfs", "/t:size=1m", "--tmpfs", "/u", "--oom-score-adj", "100", "--group-add", "7",
        "--restart", "on-failure:3", "--log-driver", "none", "--log-opt", "a=b",
        "--security-opt", "no-new-privileges", "--stop-timeout", "3", "busybox",
    )  # fmt: skip
    host = result["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["MemoryReservation"]) == (
        64 << 20,
        -1,
        32 << 20,
    )
    assert (host["NanoCpus"], host["CpuShares"], host["PidsLimit"]) == (500_000_000, 512, 20)
    assert host["ShmSize"] == 8 << 20
    assert host["Ulimits"] == [
        {"Name": "nofile", "Soft": 10, "Hard": 20},
        {"Name": "core", "Soft": 0, "Hard": 0},
    ]
    assert host["Privileged"] and host["ReadonlyRootfs"] and host["Init"]
    assert (host["UsernsMode"], host["PidMode"], host["IpcMode"], host["UTSMode"]) == (
        "host", "host", "none", "host",
    )  # fmt: skip
    assert host["CgroupnsMode"] == "host"
    assert host["NetworkMode"] == "container:x"
    assert "NetworkingConfig" not in result
    assert host["ExtraHosts"] == ["a:1.2.3.4", "b:::1"]
    assert host["Sysctls"] == {"net.a": "1"}
    assert host["Devices"] == [
        {"PathOnHost": "/dev/null", "PathInContainer": "/dev/x", "CgroupPermissions": "r"}
    ]
    assert host["Tmpfs"] == {"/t": "size=1m", "/u": ""}
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 3}
    assert host["LogConfig"] == {"Type": "none", "Config": {"a": "b"}}
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert (host["OomScoreAdj"], host["GroupAdd"], result["StopTimeout"]) == (100, ["7"], 3)


def test_init_false_differs_from_no_init() -> None:
    assert document("--init=false", "busybox")["HostConfig"]["Init"] is False
    assert "Init" not in document("busybox")["HostConfig"]


def test_a_stop_timeout_of_zero_is_sent() -> None:
    assert document("--stop-timeout", "0", "busybox")["StopTimeout"] == 0


def test_a_variable_of_the_image_is_unset_before_others_are_set() -> None:
    words = ("-e", "A=b", "--unsetenv", "A", "--unsetenv", "C", "busybox")
    assert document(*words)["Env"] == ["A", "C", "A=b"]


def test_an_empty_entrypoint_resets_the_images() -> None:
    assert document("--entrypoint", "", "busybox", "x")["Entrypoint"] == [""]
    assert "Entrypoint" not in document("busybox")


def test_volumes_differ_from_binds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    result = document("-v", "/data", "-v", "vol:/x:ro", "-v", "./sub:/y", "busybox")
    assert result["Volumes"] == {"/data": {}}
    assert result["HostConfig"]["Binds"] == ["vol:/x:ro", f"{tmp_path}/sub:/y"]


def test_variables_come_from_files_then_flags_then_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environ, "environ", {b"FROM": b"outside", b"\xff": b"\xfe"})
    file = tmp_path / "env"
    file.write_bytes(b"\xef\xbb\xbf# comment\n\n  A= spaced \r\nFROM\nNOT_SET\n")
    result = document("-e", "B=", "--env-file", str(file), "-e", "FROM", "-e", "GONE", "busybox")
    assert result["Env"] == ["A= spaced ", "FROM=outside", "B=", "FROM=outside", "GONE"]


@pytest.mark.parametrize("text", [b"=x", b"A B=c", b"\xff=1"])
def test_a_bad_environment_file_is_refused(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "env"
    file.write_bytes(text)
    with pytest.raises(UsageError):
        document("--env-file", str(file), "busybox")


def test_a_seccomp_profile_is_sent_with_its_content(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text('{\n  "defaultAction": "SCMP_ACT_ALLOW"\n}\n')
    result = document("--security-opt", f"seccomp={file}", "busybox")
    assert result["HostConfig"]["SecurityOpt"] == ['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}']
    file.write_text("{")
    with pytest.raises(UsageError, match="compacting json"):
        document("--security-opt", f"seccomp={file}", "busybox")


def test_unconfined_system_paths_are_empty_lists() -> None:
    host = document("--security-opt", "systempaths=unconfined", "busybox")["HostConfig"]
    assert host["MaskedPaths"] == [] and host["ReadonlyPaths"] == []


@pytest.mark.parametrize(
    ("text", "exposed", "bindings"),
    [
        ("80", ["80/tcp"], {"80/tcp": [("", "")]}),
        ("8080:80", ["80/tcp"], {"80/tcp": [("", "8080")]}),
        ("127.0.0.1:8080:80/udp", ["80/udp"], {"80/udp": [("127.0.0.1", "8080")]}),
        ("127.0.0.1::80", ["80/tcp"], {"80/tcp": [("127.0.0.1", "")]}),
        ("[::1]:8080:80", ["80/tcp"], {"80/tcp": [("::1", "8080")]}),
        ("90-91:80-81", ["80/tcp", "81/tcp"], {"80/tcp": [("", "90")], "81/tcp": [("", "91")]}),
        ("0:80-81", ["80/tcp", "81/tcp"], {"80/tcp": [("", "0")], "81/tcp": [("", "0")]}),
        ("8000-8010:80", ["80/tcp"], {"80/tcp": [("", "8000-8010")]}),
    ],
)
def test_ports(text: str, exposed: list[str], bindings: dict[str, list[tuple[str, str]]]) -> None:
    result = document("-p", text, "busybox")
    assert sorted(result["ExposedPorts"]) == exposed
    assert result["HostConfig"]["PortBindings"] == {
        port: [{"HostIp": address, "HostPort": host} for address, host in pairs]
        for port, pairs in bindings.items()
    }


@pytest.mark.parametrize(
    "text",
    ["", ":", "x", "0", "65536", "80/icmp", "1.2.3:80:80", "[::1:80:80", "90-92:80-81", "9-8",
     "a:80", "80:", "-", "٣"],
)  # fmt: skip
def test_a_bad_port_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        document("-p", text, "busybox")


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        (
            "type=bind,source=/a,target=/b,readonly",
            {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True},
        ),
        (
            "type=bind,src=/a,dst=/b,ro=false,bind-propagation=rslave",
            {
                "Type": "bind",
                "Source": "/a",
                "Target": "/b",
                "ReadOnly": False,
                "BindOptions": {"Propagation": "rslave"},
            },
        ),
        ("target=/b", {"Type": "volume", "Target": "/b"}),
        (
            'type=volume,"source=a,b",target=/b,volume-nocopy,volume-label=k=v',
            {
                "Type": "volume",
                "Source": "a,b",
                "Target": "/b",
                "VolumeOptions": {"NoCopy": True, "Labels": {"k": "v"}},
            },
        ),
        (
            "type=tmpfs,destination=/t,tmpfs-size=64m,tmpfs-mode=1770",
            {
                "Type": "tmpfs",
                "Target": "/t",
                "TmpfsOptions": {"SizeBytes": 64 << 20, "Mode": 0o1770},
            },
        ),
    ],
)
def test_mounts(text: str, mount: dict[str, object]) -> None:
    assert document("--mount", text, "busybox")["HostConfig"]["Mounts"] == [mount]


@pytest.mark.parametrize(
    "text",
    ["", "type=bind,target=/b", "type=nfs,target=/b", "target", "type=bind,source=/a",
     "type=tmpfs,target=/t,tmpfs-size=x", "type=tmpfs,target=/t,tmpfs-mode=9", "x=y,target=/t",
     "type=bind,source=/a,target=/b,volume-nocopy", 'target="/b', "target=/b,readonly=maybe",
     "type=bind,source=/a,target=/b,bind-recursive=x"],
)  # fmt: skip
def test_a_bad_mount_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        document("--mount", text, "busybox")


@pytest.mark.parametrize(
    "words",
    [
        ["--rm", "--restart", "always"],
        ["-d", "-a", "stdout"],
        ["-a", "stdnot"],
        ["--ulimit", "nofile"],
        ["--ulimit", "nofile=20:10"],
        ["--ulimit", "nofile=-1:10"],
        ["--ulimit", "=1"],
        ["--device", ""],
        ["--device", "a:b:c:rwm"],
        ["--add-host", "a"],
        ["--add-host", ":1.2.3.4"],
        ["--sysctl", "a"],
        ["-l", "=x"],
        ["-e", "=x"],
        ["--restart", "on-failure:x"],
        ["--security-opt", "what"],
        ["--security-opt", "seccomp=/nonexistent"],
        ["--network", "a", "--network", "a"],
        ["--network", "a", "--network", "host"],
        ["--network", "name=a,ip=1.2.3.4", "--ip", "1.2.3.4"],
        ["--network", "alias=a"],
        ["--network", "name=a,colour=red"],
        ["--network", "name=a,gw-priority="],
        ["--network", "name=a,gw-priority=1.5"],
        ["--network", "name=a,gw-priority=-"],
        ["--network", "name=a,gw-priority=9223372036854775808"],
        ["--network", "name=a,b"],
        ["--env-file", "/nonexistent"],
    ],
)
def test_an_invalid_flag_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        document(*words, "busybox")
    assert caught.value.status == 125


def test_networks_are_endpoints_and_network_flags_apply_to_the_first() -> None:
    body = document(
        *("--network", "front", "--network", "name=back,alias=db,alias=sql,ip=10.0.0.5"),
        *("--network-alias", "web", "--ip6", "fd00::5", "--mac-address", "02:00:00:00:00:01"),
        "busybox",
    )
    assert body["HostConfig"]["NetworkMode"] == "front"
    assert body["NetworkingConfig"]["EndpointsConfig"] == {
        "front": {
            "Aliases": ["web"],
            "IPAMConfig": {"IPv6Address": "fd00::5"},
            "MacAddress": "02:00:00:00:00:01",
        },
        "back": {"Aliases": ["db", "sql"], "IPAMConfig": {"IPv4Address": "10.0.0.5"}},
    }


@pytest.mark.parametrize(("text", "value"), [("7", 7), ("-7", -7), ("+7", 7), ("007", 7)])
def test_the_priority_of_a_gateway_is_a_number(text: str, value: int) -> None:
    sent = document("--network", f"name=a,gw-priority={text}", "busybox")
    assert sent["NetworkingConfig"]["EndpointsConfig"]["a"]["GwPriority"] == value


@pytest.mark.parametrize("mode", ["host", "none", "container:x"])
def test_a_special_network_mode_has_no_endpoint(mode: str) -> None:
    assert "NetworkingConfig" not in document("--network", mode, "busybox")
    assert "NetworkingConfig" in document("--network", "hostile", "busybox")
