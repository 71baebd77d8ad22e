"""The body of a container that joins a pod, and that of a pod of ``run --pod new:``."""

from __future__ import annotations

from typing import Any

import pytest

from jaula.cli.cli_errors import CliError, UsageError
from jaula.features.kubernetes.cli.pod import shared
from jaula.features.kubernetes.cli.pods import api_pods


def pod(*, mode: str = "bridge", **labels: str) -> api_pods.Pod:
    all_labels = {api_pods.NAME_LABEL: "web", **{f"io.jaula.pod-{k}": v for k, v in labels.items()}}
    infra = {"Id": "i" * 64, "Labels": all_labels, "HostConfig": {"NetworkMode": mode}}
    return api_pods.Pod("web", infra, [])


def joined(target: api_pods.Pod, **host: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"HostConfig": host}
    api_pods.join(body, target)
    result: dict[str, Any] = body["HostConfig"]
    return result


INFRA = "container:" + "i" * 64


def test_a_container_shares_the_namespaces_of_its_pod() -> None:
    host = joined(pod())
    modes = ("IpcMode", "NetworkMode", "UTSMode", "UsernsMode")
    assert {key: host[key] for key in modes} == dict.fromkeys(modes, INFRA)
    assert "PidMode" not in host
    assert joined(pod(share="ipc,net,pid"))["PidMode"] == INFRA
    assert "UTSMode" not in joined(pod(share="ipc,net,pid"))
    assert joined(pod(share=""))["UsernsMode"] == INFRA
    assert joined(pod(), IpcMode="private")["IpcMode"] == "private"
    host = joined(pod(mode="host"))
    assert host["NetworkMode"] == "host"
    assert "UTSMode" not in host


def test_the_restart_policy_of_a_pod_is_for_containers_without_one() -> None:
    target = pod(restart="on-failure:3")
    expected = {"Name": "on-failure", "MaximumRetryCount": 3}
    assert joined(target, RestartPolicy={"Name": "no"})["RestartPolicy"] == expected
    always = {"Name": "always"}
    assert joined(target, RestartPolicy=always)["RestartPolicy"] == always
    assert "RestartPolicy" not in joined(target, AutoRemove=True)  # --rm excludes it


@pytest.mark.parametrize("member", ["PortBindings", "ExtraHosts", "UsernsMode"])
def test_what_belongs_to_the_pod_is_refused_for_a_container(member: str) -> None:
    with pytest.raises(CliError, match="belongs to the pod web"):
        joined(pod(), **{member: ["x"]})


def test_the_network_of_a_container_becomes_that_of_its_new_pod() -> None:
    body: dict[str, Any] = {
        "Image": "busybox", "Hostname": "h", "ExposedPorts": {"80/tcp": {}},
        "HostConfig": {"PortBindings": {"80/tcp": []}, "NetworkMode": "n", "Memory": 1},
        "NetworkingConfig": {"EndpointsConfig": {"n": {}}},
    }  # fmt: skip
    infra = api_pods.split_infra(body)
    assert body == {"Image": "busybox", "HostConfig": {"Memory": 1}}
    assert infra["HostConfig"] == {"PortBindings": {"80/tcp": []}, "NetworkMode": "n"}
    assert infra["Hostname"] == "h"
    api_pods.join(body, pod())  # nothing is left that join refuses


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["net"], ["net"]),
        (["ipc,net", "pid"], ["ipc", "net", "pid"]),
        (["+pid"], ["ipc", "net", "uts", "pid"]),
        (["none"], []),
        ([""], []),
        (["user,net,net"], ["net"]),
    ],
)
def test_shared_namespaces_are_parsed(values: list[str], expected: list[str]) -> None:
    assert shared(values) == expected


@pytest.mark.parametrize("value", ["mnt", "net,cgroup", "+x"])
def test_a_namespace_that_is_not_shared_is_refused(value: str) -> None:
    with pytest.raises(UsageError, match="--share"):
        shared([value])
