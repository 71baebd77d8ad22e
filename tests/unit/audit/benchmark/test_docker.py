"""dockerd's command line, rules and shims, and its own judges."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from jaula.features.audit.benchmark import docker
from jaula.features.audit.benchmark.container_state import ContainerState, Port, translated
from jaula.features.audit.benchmark.control import Kind, State
from jaula.features.audit.benchmark.docker import DockerState, Shim
from jaula.features.audit.benchmark.engine import BridgeState

ID = "a" * 64
RULES = """*filter
:DOCKER - [0:0]
-A FORWARD -i docker0 -o docker0 -j {verdict}
COMMIT
*nat
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.4:80
-A DOCKER -d 127.0.0.1/32 ! -i docker0 -p udp --dport 53 -j DNAT --to-destination 172.17.0.4:53
-A DOCKER ! -d 10.0.0.1/32 -p tcp -m tcp --dport 99 -j DNAT --to-destination 172.17.0.5:99
"""
DOCKER = DockerState(
    info={"Plugins": {}, "SecurityOptions": ["name=seccomp,profile=builtin"]},
    version={},
    bridge=BridgeState("docker0", 0, 0),
    rules=RULES.format(verdict="DROP"),
)
BY_ID = {control.id: control for control in docker.PROFILE.controls}


def state_of(id: str, **changes: Any) -> State:
    return BY_ID[id].judges[Kind.ENGINE](msgspec.structs.replace(DOCKER, **changes)).state


def test_a_shim_has_its_container_and_containerd() -> None:
    words = ["/usr/bin/containerd-shim-runc-v2", "-namespace", "moby", "-id", ID, "-address", "/s"]
    assert docker.parse_shim(5, words) == Shim(5, ID, "/s", "moby")
    for bad in ([], ["containerd-shim-runc-v2"], ["sh", *words[1:]], words[:3], words[:4]):
        assert docker.parse_shim(5, bad) is None


def test_flags_have_values_by_their_long_names() -> None:
    words = "dockerd -H unix:///s --icc=false -D --userland-proxy=false --log-level info x"
    assert docker.parse_options(words.split()) == {
        "host": "unix:///s", "icc": "false", "debug": "true", "userland-proxy": "false",
        "log-level": "info",
    }  # fmt: skip
    assert docker.parse_options([]) == {}


@pytest.mark.parametrize("data", [b"[]", b"{", b"\xff", b"1", b"[" * 100_000])
def test_a_damaged_configuration_is_refused(data: bytes) -> None:
    with pytest.raises((ValueError, RecursionError)):
        docker.parse_config(data)


def test_a_configuration_has_the_names_of_flags() -> None:
    data = b'{"hosts": ["fd://"], "icc": false, "log-level": "warn", "default-ulimits": {"a": 1}}'
    assert docker.parse_config(data) == {
        "host": '["fd://"]', "icc": "false", "log-level": "warn", "default-ulimit": '{"a": 1}',
    }  # fmt: skip


def test_translated_ports_are_those_of_the_container() -> None:
    ports = translated(RULES, ["172.17.0.4"])
    assert ports == (Port("0.0.0.0", 8080), Port("127.0.0.1", 53, "udp"))
    assert translated(RULES, ["172.17.0.5"]) == (Port("0.0.0.0", 99),), "! is not an address"
    assert translated("-A x -j DNAT --to-destination\n--dport\n", ["172.17.0.4"]) == ()


def test_a_proxy_has_the_container_and_the_port() -> None:
    words = ["/usr/sbin/docker-proxy", "-proto", "tcp", "-host-ip", "::", "-host-port", "80",
             "-container-ip", "172.17.0.4", "-container-port", "80"]  # fmt: skip
    assert docker.parse_proxy(words) == ("172.17.0.4", Port("::", 80))
    assert docker.parse_proxy(words[:6]) is None
    assert docker.parse_proxy([*words[:6], "x", *words[7:]]) is None


def test_layers_are_listed_from_the_lowest() -> None:
    data = {"LowerDir": "/b/diff:/a/diff", "UpperDir": "/c/diff"}
    document = {"GraphDriver": {"Name": "overlay2", "Data": data}}
    assert docker.layer_trees(document) == ["/a/diff", "/b/diff", "/c/diff"]
    assert docker.layer_trees({"GraphDriver": {"Name": "btrfs", "Data": None}}) is None
    assert docker.layer_trees({}) is None


@pytest.mark.parametrize(
    ("id", "changes", "state"),
    [
        ("2.2", {}, State.PASS),
        ("2.2", {"rules": RULES.format(verdict="ACCEPT")}, State.FAIL),
        ("2.2", {"rules": None}, State.UNKNOWN),
        ("2.2", {"bridge": BridgeState("", 0, 0)}, State.NOT_APPLICABLE),
        ("2.3", {}, State.PASS),
        ("2.3", {"options": {"log-level": "debug"}}, State.FAIL),
        ("2.4", {}, State.PASS),
        ("2.4", {"options": {"iptables": "false"}}, State.FAIL),
        ("2.4", {"rules": ""}, State.FAIL),
        ("2.8", {}, State.MANUAL),
        ("2.8", {"options": {"default-ulimit": "nofile=1:2"}}, State.PASS),
        ("2.8", {"containers": (ContainerState(name="c", nofile=None),)}, State.FAIL),
        ("2.10", {}, State.PASS),
        ("2.10", {"options": {"cgroup-parent": "/x"}}, State.MANUAL),
        ("2.12", {}, State.FAIL),
        ("2.12", {"info": {"Plugins": {"Authorization": ["opa"]}}}, State.PASS),
        ("2.14", {}, State.FAIL),
        ("2.14", {"info": {"SecurityOptions": ["name=no-new-privileges"]}}, State.PASS),
        ("2.16", {}, State.FAIL),
        ("2.16", {"options": {"userland-proxy": "false"}}, State.PASS),
        ("2.16", {"options": {"userland-proxy": "false"}, "proxies": 1}, State.FAIL),
        ("4.5", {}, State.FAIL),
    ],
)
def test_dockerd_is_judged_by_its_own_evidence(
    id: str, changes: dict[str, Any], state: State
) -> None:
    assert state_of(id, **changes) is state


def test_a_container_that_the_api_hides_is_judged_by_the_kernel_alone() -> None:
    hidden = ContainerState(name="c", id=ID, cgroup=f"/docker/{ID}", unlisted=True)
    states = {
        id: control.judges[Kind.CONTAINER](hidden).state
        for id, control in BY_ID.items()
        if Kind.CONTAINER in control.judges
    }
    assert {id for id, state in states.items() if state is State.UNKNOWN} == {
        "5.15", "5.27", "5.28", "5.30",
    }  # fmt: skip
    assert states["5.5"] is State.PASS


def test_remediations_are_for_docker() -> None:
    judgement = BY_ID["5.11"].judges[Kind.CONTAINER](ContainerState(name="c", memory=None))
    assert judgement.remediation == "docker update --memory SIZE"
    assert BY_ID["1.1.14"].title == "Changes of containerd are recorded"
    assert BY_ID["3.6"].title == "Mode of /etc/docker: 0755 or stricter"


class FakeDocker:
    """dockerd with a container that has no shim, and one that has exited since it was listed."""

    rules, containerd = "", "/run/containerd/containerd.sock"

    def __init__(self) -> None:
        self.api = self

    def get(self, target: str) -> Any:
        if target == "/containers/json":
            return [{"Id": ID, "Names": ["/lost"]}, {"Id": "b" * 64, "Names": ["/gone"]}]
        if target == f"/containers/{ID}/json":
            return {"State": {"Running": True}}
        return None if target.startswith("/containers/") else []

    def proxies(self) -> dict[str, list[Port]]:
        return {}

    def inits(self) -> dict[str, int]:
        return {}


def test_a_listed_container_without_a_shim_is_not_left_out() -> None:
    fake: Any = FakeDocker()
    [subject] = docker._containers(fake, "/var/lib/docker")
    assert subject.name == "lost" and "no shim of /run/containerd" in subject.error
