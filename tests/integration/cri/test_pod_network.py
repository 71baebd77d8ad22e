"""Pods with a network: Debian's CNI plugins, in a network namespace that acts as the host's."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator

import pytest

from harness.pod_node import CIDRS, Node, running_node
from harness.pods import Cri, connected, sandbox_config
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.grpc.grpc_status import GrpcError

pytestmark = pytest.mark.needs("/usr/lib/cni/bridge")


@pytest.fixture(scope="module")
def node(worker_index: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    directory = tmp_path_factory.mktemp("cni")
    flags = ("--add-runtime", "other=runc")
    with running_node((worker_index + 59) % 250 + 1, directory, *flags) as made:
        yield made


def calls(node: Node, work: Callable[[Cri], Awaitable[None]]) -> None:
    node.calls(work)


def networked(name: str) -> api_pb2.PodSandboxConfig:
    config = sandbox_config(name, hostname=name)
    config.linux.security_context.namespace_options.network = api_pb2.POD
    config.dns_config.servers.append("192.0.2.53")
    config.dns_config.searches.append("svc.cluster.local")
    return config


async def run_pod(cri: Cri, name: str) -> tuple[str, list[str]]:
    """Run a pod; return its id and addresses."""
    pod = (await cri.call("RunPodSandbox", config=networked(name))).pod_sandbox_id
    network = (await cri.call("PodSandboxStatus", pod_sandbox_id=pod)).status.network
    return pod, [network.ip, *(entry.ip for entry in network.additional_ips)]


def test_pods_reach_each_other_by_both_families(node: Node) -> None:
    async def work(cri: Cri) -> None:
        one, first = await run_pod(cri, "one")
        two, second = await run_pod(cri, "two")
        assert [address.partition(".")[0] for address in first[:1]] == ["10"]
        assert first[1].startswith("fd00:231:") and len(first) == len(second) == 2
        serve = "while :; do echo hello | nc -l -p 8080; done"
        a = await cri.run_container(one, "main", "sleep", "100")
        b = await cri.run_container(two, "main", "sh", "-c", serve)
        assert (await cri.run(a, "hostname")).strip() == "one"
        resolver = await cri.run(a, "cat", "/etc/resolv.conf")
        assert "nameserver 192.0.2.53" in resolver and "search svc.cluster.local" in resolver
        shown = await cri.run(a, "ip", "addr", "show", "eth0")
        assert all(address in shown for address in first)
        assert await cri.run(a, "ping", "-c", "1", "-W", "5", second[0])
        ask = f"until nc {second[0]} 8080; do sleep 0.1; done"
        assert await cri.run(a, "timeout", "10", "sh", "-c", ask) == "hello\n"
        assert (await cri.container(b)).state == api_pb2.CONTAINER_RUNNING

    calls(node, work)
    assert not node.used()


def test_statistics_and_metrics_have_every_interface_of_a_pod(node: Node) -> None:
    async def work(cri: Cri) -> None:
        pod, _addresses = await run_pod(cri, "one")
        host = await cri.run_pod("host")
        id = (await run_pod(cri, "two"))[0]
        await cri.call("StopPodSandbox", pod_sandbox_id=id)
        pid = node.engine.request("GET", f"/containers/{pod}/json").json()["State"]["Pid"]
        link = ("ip", "link", "add", b"net\xff", "type", "veth", "peer", "name", "net2")
        enter = ("nsenter", "-t", str(pid), "-n", *link)
        await asyncio.to_thread(subprocess.run, enter, check=True, timeout=60)
        listed = (await cri.call("ListPodSandboxStats")).stats
        networks = {s.attributes.id: s.linux.network for s in listed}
        assert [i.name for i in networks[pod].interfaces] == ["eth0", "net2", "net\\xff"]
        assert networks[pod].default_interface == networks[pod].interfaces[0]
        assert networks[pod].default_interface.tx_bytes.value > 0
        assert not networks[host].interfaces and not networks[id].interfaces
        metrics = (await cri.call("ListPodSandboxMetrics")).pod_metrics
        assert {m.pod_sandbox_id for m in metrics} == {pod, host}
        (samples,) = (m.metrics for m in metrics if m.pod_sandbox_id == pod)
        sent = {
            m.label_values[5]: m.value.value
            for m in samples
            if m.name == "container_network_transmit_bytes_total"
        }
        assert sent.keys() == {"eth0", "net2", "net\\xff"} and sent["eth0"] > 0
        assert {tuple(m.label_values[:5]) for m in samples} == {("one", "default", "", pod, "")}

    calls(node, work)


def test_addresses_are_returned_also_after_the_engine_or_the_sandbox_was_killed(node: Node) -> None:
    async def begin() -> tuple[str, str]:
        async with connected(node.engine) as cri:
            return (await run_pod(cri, "one"))[0], (await run_pod(cri, "two"))[0]

    one, _two = asyncio.run(begin())
    assert len(node.used()) == 2
    node.engine.kill()
    node.start()
    pid = node.engine.request("GET", f"/containers/{one}/json").json()["State"]["Pid"]
    os.kill(pid, 9)

    async def work(cri: Cri) -> None:
        assert len((await cri.call("ListPodSandbox")).items) == 2

    calls(node, work)
    assert not node.used()


def test_the_network_is_ready_as_long_as_there_is_a_configuration(node: Node) -> None:
    async def ready(cri: Cri) -> tuple[bool, str]:
        (condition,) = (
            c for c in (await cri.call("Status")).status.conditions if c.type == "NetworkReady"
        )
        return condition.status, condition.reason

    async def becomes(cri: Cri, expected: bool) -> None:
        for _ in range(200):
            if (await ready(cri))[0] is expected:
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"NetworkReady does not become {expected}")

    async def work(cri: Cri) -> None:
        await becomes(cri, True)
        text = node.config.read_text()
        node.config.unlink()
        await becomes(cri, False)
        assert (await ready(cri))[1] == "NetworkPluginNotReady"
        with pytest.raises(GrpcError) as caught:
            await cri.call("RunPodSandbox", config=networked("none"))
        assert "hostNetwork" in str(caught.value)
        assert not (await cri.call("ListPodSandbox")).items
        node.config.write_text(text)
        await becomes(cri, True)

    calls(node, work)


@pytest.mark.parametrize(
    "handler", ["jaula-userns", pytest.param("other", marks=pytest.mark.needs("runc"))]
)
def test_pods_of_every_runtime_handler_are_attached(node: Node, handler: str) -> None:
    async def work(cri: Cri) -> None:
        call = {"config": networked("handled"), "runtime_handler": handler}
        pod = (await cri.call("RunPodSandbox", **call)).pod_sandbox_id
        network = (await cri.call("PodSandboxStatus", pod_sandbox_id=pod)).status.network
        container = await cri.run_container(pod, "main", "sleep", "100")
        assert network.ip in await cri.run(container, "ip", "addr", "show", "eth0")
        assert "UP" in (await cri.run(container, "ip", "link", "show", "lo")).split("<")[1]

    calls(node, work)
    assert not node.used()


def test_a_sysctl_of_the_pods_interface_is_set_after_the_plugins(node: Node) -> None:
    async def work(cri: Cri) -> None:
        config = networked("tuned")
        config.linux.sysctls["net.ipv4.conf.eth0.arp_filter"] = "1"
        pod = (await cri.call("RunPodSandbox", config=config)).pod_sandbox_id
        container = await cri.run_container(pod, "main", "sleep", "100")
        setting = "/proc/sys/net/ipv4/conf/eth0/arp_filter"
        assert await cri.run(container, "cat", setting) == "1\n"

    calls(node, work)


def test_a_sandbox_that_cannot_start_is_detached(node: Node) -> None:
    async def work(cri: Cri) -> None:
        config = networked("broken")
        config.hostname = "h" * 65  # of at most 64 characters, which the kernel checks
        with pytest.raises(GrpcError) as caught:
            await cri.call("RunPodSandbox", config=config)
        assert "hostname" in str(caught.value)
        assert not (await cri.call("ListPodSandbox")).items

    calls(node, work)
    assert not node.used()


def test_a_plugin_that_fails_leaves_no_sandbox(node: Node) -> None:
    async def failure(cri: Cri) -> str:
        """Run pods until the changed configuration is in use."""
        for _ in range(100):
            try:
                pod, _addresses = await run_pod(cri, "broken")
            except GrpcError as error:
                return str(error)
            await cri.call("RemovePodSandbox", pod_sandbox_id=pod)
            await asyncio.sleep(0.1)
        raise AssertionError("the changed configuration is not used")

    async def work(cri: Cri) -> None:
        text = node.config.read_text()
        node.config.write_text(text.replace(CIDRS[0], "10.231.0.0/33"))
        try:
            assert "10.231.0.0/33" in await failure(cri)
        finally:
            node.config.write_text(text)
        assert not (await cri.call("ListPodSandbox")).items

    calls(node, work)
    assert not node.used()
