"""A twin has one flag more than the container, and never a part of the host."""

from __future__ import annotations

from typing import Any

import pytest

from jaula.features.why import twin
from jaula.features.why.diagnosis import Diagnosis, Operation
from jaula.features.why.layers import Explanation, Layer

INSPECT: dict[str, Any] = {
    "Image": "sha256:1",
    "Config": {"Image": "web", "Env": ["A=1"], "User": "5"},
    "HostConfig": {
        "Binds": ["/data:/data"], "CapDrop": ["NET_RAW"], "PortBindings": {"80/tcp": []},
        "SecurityOpt": ["no-new-privileges", "seccomp={}"], "NetworkMode": "bridge",
        "UsernsMode": "", "Privileged": False,
    },
}  # fmt: skip
COPY = twin.request(INSPECT, ["sh", "-c", "id"], "")


def lifted(flag: str) -> dict[str, Any]:
    result = twin.lift(COPY, flag)
    assert result is not None
    return result


def test_a_copy_runs_the_command_and_changes_no_file_of_the_host() -> None:
    assert COPY["Entrypoint"] == ["sh", "-c", "id"]
    assert COPY["HostConfig"]["Binds"] == ["/data:/data:ro"]
    assert COPY["HostConfig"]["PortBindings"] == {}
    assert twin.request(INSPECT, ["id"], "7")["User"] == "7"


def test_one_flag_is_added() -> None:
    assert lifted("--cap-add NET_RAW")["HostConfig"]["CapAdd"] == ["NET_RAW"]
    assert lifted("--cap-add NET_RAW")["HostConfig"]["CapDrop"] == []
    both = lifted("--cap-add SYS_PTRACE --user 0")
    assert (both["User"], both["HostConfig"]["CapAdd"]) == ("0", ["SYS_PTRACE"])
    assert lifted("--pids-limit 40")["HostConfig"]["PidsLimit"] == 40
    assert lifted("--memory 64m")["HostConfig"]["Memory"] == 64 << 20
    assert lifted("--tmpfs /t:size=SIZE")["HostConfig"]["Tmpfs"] == {"/t": "size=512m"}
    sysctl = '--sysctl net.ipv4.ping_group_range="0 2147483647"'
    assert lifted(sysctl)["HostConfig"]["Sysctls"] == {"net.ipv4.ping_group_range": "0 2147483647"}
    assert lifted("without --security-opt no-new-privileges")["HostConfig"]["SecurityOpt"] == [
        "seccomp={}"
    ]
    profile = "--security-opt seccomp=FILE, a profile that allows keyctl too"
    result = twin.lift(COPY, profile, b'{"a": 1}')
    assert result is not None
    assert result["HostConfig"]["SecurityOpt"] == ["no-new-privileges", 'seccomp={"a": 1}']
    assert twin.lift(COPY, profile) is None
    assert "CapAdd" not in COPY["HostConfig"]


@pytest.mark.parametrize(
    "flag",
    [
        "", "--userns=host", "--cap-add SYS_TIME --userns=host", "--device /dev/sda",
        "--privileged", "--network host", "-v SOURCE:/x without :ro", "--sysctl a.b=VALUE",
        "jaula network connect bridge CONTAINER", "--memory SIZE",
        "--security-opt unmask=/proc/irq --userns=host",
    ],
)  # fmt: skip
def test_no_twin_has_a_part_of_the_host(flag: str) -> None:
    assert twin.lift(COPY, flag) is None


@pytest.mark.parametrize(
    "field", [{"UsernsMode": "host"}, {"Privileged": True}, {"PidMode": "container:db"}]
)
def test_a_container_with_a_part_of_the_host_has_no_twin(field: dict[str, Any]) -> None:
    host = INSPECT["HostConfig"] | field
    copy = twin.request(INSPECT | {"HostConfig": host}, ["id"], "")
    assert twin.lift(copy, "--cap-add SYS_ADMIN") is None


def test_the_proof_says_what_the_twin_showed() -> None:
    def diagnosis(layer: Layer, flag: str) -> Diagnosis:
        return Diagnosis(
            explanation=Explanation(layer=layer, rule="r", proof="p", flag=flag, gives_away="g"),
            operations=(Operation(call="mount", object="/x", errno="EPERM", program="a"),),
        )

    first = diagnosis(Layer.SECCOMP, "--cap-add SYS_ADMIN")
    assert "was not refused" in twin.proven(first, ()).explanation.proof
    second = diagnosis(Layer.USER_NAMESPACE, "--userns=host")
    proof = twin.proven(first, (second,)).explanation.proof
    assert "the next layer refused: user namespace, which needs --userns=host" in proof
    assert "for the same reason" in twin.proven(first, (first,)).explanation.proof
