"""The life of static pods: start, change, removal, order, restarts, hooks and probes."""

from __future__ import annotations

from typing import Any

import pytest

from harness.engine import PROJECT
from harness.kubelet import Kubelet, Pending, container, pod

GRPC_SERVER = """
import time
from concurrent import futures
import grpc
class Health(grpc.GenericRpcHandler):
    def service(self, call):
        if call.method == "/grpc.health.v1.Health/Check":
            return grpc.unary_unary_rpc_method_handler(lambda request, context: bytes([8, 1]))
server = grpc.server(futures.ThreadPoolExecutor(2))
server.add_generic_rpc_handlers((Health(),))
server.add_insecure_port("0.0.0.0:9000")
server.start()
server.wait_for_termination()
"""


def test_a_static_pod_runs_is_changed_and_is_removed(node: Kubelet) -> None:
    node.apply(pod("web", container("main", "echo first; sleep 1000")))
    first = node.ready("web")
    assert first["status"]["phase"] == "Running"
    assert first["status"]["podIP"].startswith("10.232.0.")
    node.apply(pod("web", container("main", "echo second; sleep 1000")))

    def changed() -> None:
        if "second" not in node.read_log("web", "main") or not node.status("web", "main")["ready"]:
            raise Pending("the pod is not changed")

    node.until(changed)
    node.delete("web")


def test_init_containers_end_before_the_others_begin_and_a_sidecar_goes_on(node: Kubelet) -> None:
    shared = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    node.apply(
        pod(
            "order",
            container("main", "cat /shared/log; echo main >> /shared/log; sleep 1000", **shared),
            initContainers=[
                container("one", "echo one >> /shared/log", **shared),
                container(
                    "sidecar",
                    "echo sidecar >> /shared/log; sleep 1000",
                    restartPolicy="Always",
                    startupProbe={"exec": {"command": ["grep", "sidecar", "/shared/log"]}},
                    **shared,
                ),
                container("two", "echo two >> /shared/log", **shared),
            ],
            volumes=[{"name": "shared", "emptyDir": {}}],
        )
    )
    node.ready("order")
    assert node.read_log("order", "main") == "one\nsidecar\ntwo\n"
    assert node.status("order", "one")["state"]["terminated"]["reason"] == "Completed"
    assert "running" in node.status("order", "sidecar")["state"]


def test_a_program_that_fails_is_started_again_with_back_off(node: Kubelet) -> None:
    node.apply(pod("fails", container("main", "echo broken; exit 3")))

    def backed_off() -> dict[str, Any]:
        status = node.status("fails", "main")
        if status.get("state", {}).get("waiting", {}).get("reason") != "CrashLoopBackOff":
            raise Pending(f"no back-off: {status}")
        return status

    status = node.until(backed_off)
    ended = status["lastState"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (3, "Error")
    assert status["restartCount"] >= 1
    assert node.read_log("fails", "main", "?previous=true") == "broken\n"


def test_hooks_run_after_the_start_and_before_the_stop(node: Kubelet) -> None:
    node.apply(
        pod(
            "hooks",
            container(
                "main",
                "trap 'echo stopped >> /out/log; exit 0' TERM; while :; do sleep 0.1; done",
                volumeMounts=[{"name": "out", "mountPath": "/out"}],
                lifecycle={
                    "postStart": {"exec": {"command": ["sh", "-c", "echo begun >> /out/log"]}},
                    "preStop": {"exec": {"command": ["sh", "-c", "echo ending >> /out/log"]}},
                },
            ),
            volumes=[{"name": "out", "hostPath": {"path": str(node.directory / "hooks")}}],
            terminationGracePeriodSeconds=20,
        )
    )
    (node.directory / "hooks").mkdir()
    node.ready("hooks")
    node.delete("hooks")
    log = (node.directory / "hooks" / "log").read_text().split()
    assert log == ["begun", "ending", "stopped"]


def test_a_container_is_ready_when_its_probe_succeeds(node: Kubelet) -> None:
    python = str(PROJECT / ".venv")
    hosts = ("/usr", "/lib", "/lib64", python)
    node.apply(
        pod(
            "probes",
            container(
                "exec",
                "sleep 2; touch /tmp/ready; sleep 1000",
                readinessProbe={"exec": {"command": ["test", "-e", "/tmp/ready"]}},
            ),
            container(
                "http",
                "mkdir /www; echo ok > /www/health; exec httpd -f -p 8080 -h /www",
                readinessProbe={"httpGet": {"path": "/health", "port": 8080}},
            ),
            container(
                "tcp",
                "exec httpd -f -p 8081",
                readinessProbe={"tcpSocket": {"port": 8081}},
            ),
            {
                **container("grpc", ""),
                "command": [f"{python}/bin/python", "-c", GRPC_SERVER],
                "readinessProbe": {"grpc": {"port": 9000}},
                "volumeMounts": [
                    {"name": f"host{number}", "mountPath": path, "readOnly": True}
                    for number, path in enumerate(hosts)
                ],
            },
            volumes=[
                {"name": f"host{number}", "hostPath": {"path": path}}
                for number, path in enumerate(hosts)
            ],
        )
    )
    node.ready("probes")


@pytest.mark.parametrize("probe", ["livenessProbe", "startupProbe"])
def test_a_probe_that_fails_restarts_the_container(node: Kubelet, probe: str) -> None:
    node.apply(
        pod(
            "sick",
            container(
                "main",
                "sleep 1000",
                **{
                    probe: {
                        "exec": {"command": ["false"]},
                        "periodSeconds": 1,
                        "failureThreshold": 1,
                    }
                },
            ),
        )
    )

    def restarted() -> None:
        if not node.status("sick", "main")["restartCount"]:
            raise Pending("the container was not started again")

    node.until(restarted)
