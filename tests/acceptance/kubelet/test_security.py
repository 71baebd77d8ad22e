"""Security contexts of static pods, read from the kernel."""

from __future__ import annotations

from pathlib import Path

from harness.kubelet import Kubelet, container, pod


def status_of(node: Kubelet, name: str, container_name: str) -> dict[str, str]:
    """Return /proc/PID/status of the first process of a container."""
    id = node.status(name, container_name)["containerID"].partition("://")[2]
    pid = node.engine.request("GET", f"/containers/{id}/json").json()["State"]["Pid"]
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def test_a_security_context_is_in_effect(node: Kubelet) -> None:
    node.apply(
        pod(
            "confined",
            container(
                "main",
                "sleep 1000",
                securityContext={
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]},
                    "readOnlyRootFilesystem": True,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
            ),
            container("open", "sleep 1000", securityContext={"runAsUser": 0}),
            securityContext={
                "runAsUser": 1000,
                "runAsGroup": 2000,
                "supplementalGroups": [3000],
                "fsGroup": 4000,
                "sysctls": [{"name": "net.ipv4.ip_local_port_range", "value": "20000 30000"}],
            },
            volumes=[{"name": "data", "emptyDir": {}}],
        )
    )
    node.ready("confined")
    main = status_of(node, "confined", "main")
    assert (main["Uid"].split()[0], main["Gid"].split()[0]) == ("1000", "2000")
    assert set(main["Groups"].split()) == {"2000", "3000", "4000"}
    assert (main["NoNewPrivs"], main["Seccomp"]) == ("1", "2")
    assert int(main["CapBnd"], 16) == 1 << 10  # CAP_NET_BIND_SERVICE
    other = status_of(node, "confined", "open")
    assert (other["Uid"].split()[0], other["NoNewPrivs"]) == ("0", "0")
    ports = node.run("confined", "open", "cat", "/proc/sys/net/ipv4/ip_local_port_range")
    assert ports.split() == ["20000", "30000"]
    assert "Read-only" in node.run("confined", "main", "sh", "-c", "touch${IFS}/x${IFS}2>&1||true")


def test_the_kubelet_chooses_the_ids_of_a_user_namespace(node: Kubelet) -> None:
    for name in ("apart", "beside"):
        node.apply(
            pod(
                name,
                container("main", "sleep 1000", volumeMounts=[{"name": "d", "mountPath": "/d"}]),
                volumes=[{"name": "d", "emptyDir": {}}],
                hostUsers=False,
            )
        )
        node.ready(name)
    maps = [
        node.run(name, "main", "cat", "/proc/self/uid_map").split() for name in ("apart", "beside")
    ]
    assert all(inside == "0" and count == "65536" for inside, _, count in maps)
    assert maps[0][1] != maps[1][1] and min(int(row[1]) for row in maps) >= 65536
    node.run("apart", "main", "touch", "/d/file")
    assert node.run("apart", "main", "stat", "-c", "%u", "/d/file") == "0\n"


def test_processes_are_shared_when_the_pod_asks_for_it(node: Kubelet) -> None:
    node.apply(
        pod(
            "shared",
            container("one", "exec sleep 1001"),
            container("two", "exec sleep 1002"),
            shareProcessNamespace=True,
        )
    )
    node.ready("shared")
    listed = node.run("shared", "two", "ps", "-o", "args")
    assert {"/pause", "sleep 1001", "sleep 1002"} <= {
        line.replace("pause", "/pause").replace("//", "/") for line in listed.splitlines()
    }


def test_a_pod_of_the_host_sees_the_host(node: Kubelet) -> None:
    node.apply(
        pod(
            "host",
            container("main", "sleep 1000", securityContext={"privileged": True}),
            hostNetwork=True,
            hostPID=True,
            hostIPC=True,
        )
    )
    node.ready("host")
    assert "node0" in node.run("host", "main", "ls", "/sys/class/net")
    assert node.run("host", "main", "readlink", "/proc/self/ns/pid") == (
        f"{Path('/proc/self/ns/pid').readlink()}\n"
    )
    assert int(status_of(node, "host", "main")["CapEff"], 16) >= 1 << 40
