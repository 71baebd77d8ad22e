"""Pods beside a kubelet that ends, an engine that is killed, and a node that starts again."""

from __future__ import annotations

from typing import Any

from harness import leaks
from harness.kubelet import Kubelet, Pending, container, pod

COUNT = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.1; done"


def life(node: Kubelet, name: str) -> tuple[str, int]:
    """Return the id and the number of restarts of the container ``main`` of a pod."""
    status = node.status(name, "main")
    return status["containerID"], status["restartCount"]


def numbers(node: Kubelet, name: str) -> list[int]:
    return [int(line) for line in node.read_log(name, "main").split()]


def test_a_pod_goes_on_while_the_kubelet_is_away(node: Kubelet) -> None:
    node.apply(pod("steady", container("main", COUNT)))
    node.ready("steady")
    before = life(node, "steady")
    node.stop()
    node.start()
    node.ready("steady")
    assert life(node, "steady") == before


def test_a_pod_goes_on_while_the_engine_is_killed(node: Kubelet) -> None:
    node.apply(pod("steady", container("main", COUNT)))
    node.ready("steady")
    before = life(node, "steady")
    for _ in range(3):
        node.kill_engine()
        node.start_engine()

        def counted_on(last: int = numbers(node, "steady")[-1]) -> None:
            if numbers(node, "steady")[-1] <= last:
                raise Pending("the program does not go on")

        node.until(counted_on)
    node.ready("steady")
    assert life(node, "steady") == before
    found = numbers(node, "steady")
    assert found == list(range(len(found)))


def test_pods_that_come_and_go_leave_nothing_when_the_engine_is_killed(node: Kubelet) -> None:
    for number in range(6):
        node.apply(pod(f"short{number}", container("main", "sleep 1000")))
        node.kill_engine(after=0.3 * number)
        node.start_engine()
    for number in range(6):
        node.ready(f"short{number}")
        (node.manifests / f"short{number}.json").unlink()
        node.kill_engine(after=0.2 * number)
        node.start_engine()

    def gone() -> None:
        left: list[Any] = node.engine.request("GET", "/containers/json?all=1&pods=1").json()
        if any("short" in item["Names"][0] for item in left) or node.addresses():
            raise Pending(f"there is still {left}, {node.addresses()}")

    node.until(gone)
    assert not leaks.of_containers(node.engine)


def test_pods_run_again_after_the_node_has_started_again(node: Kubelet) -> None:
    node.apply(pod("boot", container("main", COUNT)))
    node.ready("boot")
    before = life(node, "boot")
    node.power_off()
    node.start_engine()
    node.start()

    def again() -> None:
        if life(node, "boot")[0] == before[0]:
            raise Pending("the pod was not started again")

    node.until(again)
    node.ready("boot")
    assert len(node.addresses()) == 1
