"""Limits of static pods in their cgroups, and how a container ends that is out of memory."""

from __future__ import annotations

from pathlib import Path

from harness.kubelet import Kubelet, Pending, container, pod


def limit(node: Kubelet, name: str, container_name: str, v1: str, v2: str) -> str:
    """Return the content of a file of a container's cgroup, by its name in each version."""
    id = node.status(name, container_name)["containerID"].partition("://")[2]
    pid = node.engine.request("GET", f"/containers/{id}/json").json()["State"]["Pid"]
    groups = dict(
        line.split(":", 2)[1:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    )
    controller = v1.partition(".")[0]
    if controller in groups:
        return Path(f"/sys/fs/cgroup/{controller}{groups[controller]}/{v1}").read_text().strip()
    return Path(f"/sys/fs/cgroup{groups['']}/{v2}").read_text().strip()


def test_limits_are_in_the_cgroup_below_that_of_the_pod(node: Kubelet) -> None:
    node.apply(
        pod(
            "limits",
            container(
                "main",
                "sleep 1000",
                resources={
                    "requests": {"cpu": "100m", "memory": "32Mi"},
                    "limits": {"cpu": "500m", "memory": "64Mi"},
                },
            ),
        )
    )
    found = node.ready("limits")
    assert found["status"]["qosClass"] == "Burstable"
    assert limit(node, "limits", "main", "memory.limit_in_bytes", "memory.max") == str(64 << 20)
    quota = limit(node, "limits", "main", "cpu.cfs_quota_us", "cpu.max")
    assert quota.split()[0] == "50000"
    group = node.run("limits", "main", "cat", "/proc/1/cgroup")
    assert node.cgroup not in group  # the container does not see where it is


def test_a_container_out_of_memory_is_killed_and_said_to_be(node: Kubelet) -> None:
    node.apply(
        pod(
            "hungry",
            container("main", "tail /dev/zero", resources={"limits": {"memory": "16Mi"}}),
            restartPolicy="Never",
        )
    )

    def killed() -> None:
        ended = node.status("hungry", "main").get("state", {}).get("terminated")
        if not ended:
            raise Pending("the container was not killed")
        assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)

    node.until(killed)


def test_the_kubelet_reads_the_use_of_a_pod(node: Kubelet) -> None:
    node.apply(pod("busy", container("main", "while :; do :; done")))
    node.ready("busy")

    def used() -> None:
        summary = node.request("GET", "/stats/summary").json()
        for found in summary["pods"]:
            if found["podRef"]["name"].startswith("busy-") and found.get("containers"):
                (main,) = found["containers"]
                if main.get("cpu", {}).get("usageNanoCores", 0) > 0 and main.get("memory"):
                    assert main["rootfs"]["usedBytes"] >= 0
                    return
        raise Pending(f"no use of the pod: {summary['pods']}")

    node.until(used)
