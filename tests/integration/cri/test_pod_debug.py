"""``jaula debug`` in the containers of a pod: the namespaces of the pod, and nothing left."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import containers
from harness.pod_node import Node, running_node
from harness.pods import Cri, container_config, sandbox_config
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.kernel.netlink import in_netns

pytestmark = pytest.mark.needs("/usr/lib/cni/bridge", "nsenter")
FIRST_ID = 1_900_000_000
NAMESPACES = ("user", "pid", "net", "ipc", "uts", "cgroup")
CONFINEMENT = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")

Change = Callable[[api_pb2.PodSandboxConfig, api_pb2.ContainerConfig], None]


@pytest.fixture(scope="module")
def node(worker_index: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running_node((worker_index + 113) % 250 + 1, tmp_path_factory.mktemp("cni")) as made:
        yield made


def debug(node: Node, *words: str) -> subprocess.CompletedProcess[str]:
    with in_netns(node.netns):
        return node.engine.cli("jaula", "debug", *words)


def output(node: Node, *words: str) -> str:
    done = debug(node, *words)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return done.stdout


def own_namespaces(pod: api_pb2.PodSandboxConfig, main: api_pb2.ContainerConfig) -> None:
    pass


def shared_processes(pod: api_pb2.PodSandboxConfig, main: api_pb2.ContainerConfig) -> None:
    for context in (pod.linux.security_context, main.linux.security_context):
        context.namespace_options.pid = api_pb2.POD


def own_users(pod: api_pb2.PodSandboxConfig, main: api_pb2.ContainerConfig) -> None:
    for context in (pod.linux.security_context, main.linux.security_context):
        options = context.namespace_options.userns_options
        options.mode = api_pb2.POD
        for mappings in (options.uids, options.gids):
            mappings.add(container_id=0, host_id=FIRST_ID, length=65536)


def restricted(pod: api_pb2.PodSandboxConfig, main: api_pb2.ContainerConfig) -> None:
    context = main.linux.security_context
    context.run_as_user.value, context.no_new_privs = 1000, True
    context.readonly_rootfs = True
    context.capabilities.drop_capabilities.append("ALL")


@pytest.mark.parametrize("change", [own_namespaces, shared_processes, own_users, restricted])
def test_a_session_has_the_namespaces_of_the_pod(node: Node, change: Change) -> None:
    async def work(cri: Cri) -> None:
        pod = sandbox_config("debugged", pid=api_pb2.CONTAINER, hostname="of-the-pod")
        pod.linux.security_context.namespace_options.network = api_pb2.POD
        main = container_config("main", "sleep", "1000")
        main.linux.security_context.namespace_options.pid = api_pb2.CONTAINER
        change(pod, main)
        sandbox = (await cri.call("RunPodSandbox", config=pod)).pod_sandbox_id
        created = await cri.call("CreateContainer", pod_sandbox_id=sandbox, config=main)
        await cri.call("StartContainer", container_id=created.container_id)
        name = created.container_id
        init = containers.pid(node.engine, name)
        table = Path(f"/proc/{init}/mountinfo").read_text()
        assert output(node, name, "which", "ls") == "/.debug/bin/ls\n"
        assert output(node, name, "hostname") == "of-the-pod\n"
        script = "; ".join(f"readlink /proc/self/ns/{kind}" for kind in NAMESPACES)
        inside = output(node, name, "sh", "-c", script).split()
        assert inside == [Path(f"/proc/{init}/ns/{kind}").readlink().name for kind in NAMESPACES]
        session = dict(
            line.split(":\t", 1)
            for line in output(node, name, "cat", "/proc/self/status").splitlines()
            if ":\t" in line
        )
        own = containers.status(init)
        assert {key: session[key] for key in CONFINEMENT} == {key: own[key] for key in CONFINEMENT}
        if change is shared_processes:
            assert "pause" in output(node, name, "ps")
            refused = debug(node, "--target", "pause", name, "true")  # of another container
            assert "has no process pause" in refused.stderr
        assert Path(f"/proc/{init}/mountinfo").read_text() == table

    node.calls(work)


def test_a_container_of_a_pod_that_has_exited_is_copied(node: Node) -> None:
    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("exited")
        name = await cri.run_container(pod, "main", "sh", "-c", "echo kept > /made")
        await containers_exit(cri, name)
        assert output(node, name, "cat", "/made") == "kept\n"
        listed = (await cri.call("ListContainers")).containers
        assert [container.id for container in listed] == [name]

    async def containers_exit(cri: Cri, name: str) -> None:
        while (await cri.container(name)).state != api_pb2.CONTAINER_EXITED:
            pass

    node.calls(work)
