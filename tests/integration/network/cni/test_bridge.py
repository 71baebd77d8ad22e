"""ADD, CHECK, DEL and GC with Debian's plugins, in a network namespace that acts as the host."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.containers import eventually
from integration.network.conftest import client, new_namespace
from jaula.errors import Conflict, InvalidRequest
from jaula.features.kubernetes.cni.bridge_config import bridge_conflist
from jaula.features.kubernetes.cni.cni_cache import ResultCache
from jaula.features.kubernetes.cni.cni_config import NetworkConfig, parse_list
from jaula.features.kubernetes.cni.conf_monitor import ConfMonitor
from jaula.features.kubernetes.cni.network_list import Attachment, NetworkList
from jaula.features.kubernetes.cni.plugin import PluginError, PluginExec
from jaula.features.kubernetes.cni.runtime_config import CapabilityArgs, PortMapping
from jaula.kernel.netlink import in_netns
from jaula.kernel.rtnetlink import Rtnetlink, add_veth, set_link

pytestmark = pytest.mark.needs("/usr/lib/cni/bridge")

V4, V6 = "10.231.0.0/24", "fd00:231::/64"


class Pod:
    """A process in a network namespace of its own."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ("unshare", "--net", "sh", "-c", "echo ready; exec sleep 600"), stdout=subprocess.PIPE
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        self.id = secrets.token_hex(32)
        self.netns = f"/proc/{self._process.pid}/ns/net"

    def attachment(self, **options: Any) -> Attachment:
        return Attachment(container_id=self.id, netns=self.netns, **options)

    def fd(self) -> int:
        return os.open(self.netns, os.O_RDONLY)

    def end(self) -> None:
        if self._process.returncode is None:
            self._process.kill()
            self._process.communicate()


class Node:
    """A host: its network namespace, its network, and the caller of its plugins."""

    def __init__(self, directory: Path, *cidrs: str) -> None:
        self.netns = new_namespace()
        self.data = directory / "addresses"
        self.name = f"t{secrets.token_hex(4)}"
        document = json.loads(bridge_conflist(cidrs, name=self.name, bridge="jltcni0"))
        document["plugins"][0]["ipam"]["dataDir"] = str(self.data)
        self.conflist = json.dumps(document).encode()
        self.cache = ResultCache(directory / "cache")
        self.cache.prepare()
        self.records = directory / "cache" / "results"
        self.pods: list[Pod] = []
        self.networks = NetworkList(PluginExec(), self.cache)
        self.config = self.run(self.networks.negotiate(parse_list(self.conflist, "test")))

    def run(self, work: Any) -> Any:
        with in_netns(self.netns):
            return asyncio.run(work)

    def pod(self) -> Pod:
        made = Pod()
        self.pods.append(made)
        return made

    def links(self) -> set[str]:
        with Rtnetlink(self.netns) as host:
            return {link.name for link in host.links()} - {"lo", "jltcni0"}

    def addresses(self) -> set[str]:
        """Return the reserved addresses."""
        top = self.data / self.name
        return (
            {p.name for p in top.iterdir() if p.name[0].isalnum()}
            - {"lock"}
            - {p.name for p in top.iterdir() if p.name.startswith("last_reserved")}
        )

    def rules(self) -> str:
        """Return the rules that name the network, or a port."""
        with in_netns(self.netns):
            text = "".join(
                subprocess.run((program, "-t", "nat"), capture_output=True, text=True).stdout
                for program in ("iptables-save", "ip6tables-save")
            )
        return "\n".join(line for line in text.splitlines() if self.name in line)

    def close(self) -> None:
        for pod in self.pods:
            pod.end()
        os.close(self.netns)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path, V4, V6)
    yield made
    made.close()


def test_a_dual_stack_pod_is_attached_checked_and_detached(node: Node) -> None:
    pod = node.pod()
    added = node.run(node.networks.add(node.config, pod.attachment()))
    assert added.addresses("eth0") == ("10.231.0.2", "fd00:231::2")
    assert {interface.name for interface in added.interfaces if interface.sandbox} == {"eth0"}
    assert node.addresses() == {"10.231.0.2", "fd00:231::2"}
    fd = pod.fd()
    with Rtnetlink(fd) as inside:
        links = {link.index: link for link in inside.links()}
        addresses = {(links[a.index].name, a.address) for a in inside.addresses()}
    assert {("eth0", "10.231.0.2"), ("eth0", "fd00:231::2"), ("lo", "127.0.0.1")} <= addresses
    assert all(link.up for link in links.values() if link.name in ("eth0", "lo"))

    node.run(node.networks.check(pod.id))
    with pytest.raises(Conflict, match="is attached in network"):
        node.run(node.networks.add(node.config, pod.attachment()))

    node.run(node.networks.delete(pod.id, namespace=pod.netns))
    with Rtnetlink(fd) as inside:
        assert {link.name for link in inside.links()} & {"eth0"} == set()
    os.close(fd)
    assert (node.links(), node.addresses(), node.rules()) == (set(), set(), "")
    assert list(node.records.iterdir()) == []
    node.run(node.networks.delete(pod.id, namespace=pod.netns))  # a second time


def test_a_missing_interface_is_reported_by_check(node: Node) -> None:
    pod = node.pod()
    node.run(node.networks.add(node.config, pod.attachment()))
    fd = pod.fd()
    with Rtnetlink(fd) as inside:
        link = inside.link("eth0")
        assert link is not None
        inside.send(set_link(link.index, up=False), set_link(link.index, name="other0"))
    os.close(fd)
    with pytest.raises(PluginError, match=r"cni plugin bridge failed \(CHECK\): .*eth0"):
        node.run(node.networks.check(pod.id))


def test_a_published_port_leads_to_the_pod(node: Node) -> None:
    pod = node.pod()
    mapping = PortMapping(host_port=18080, container_port=80)
    values = CapabilityArgs(port_mappings=(mapping,))
    added = node.run(node.networks.add(node.config, pod.attachment(capability_args=values)))
    assert "18080" in node.rules()
    fd = pod.fd()
    with in_netns(fd):
        server = socket.create_server(("", 80))
    os.close(fd)
    server.settimeout(5)
    gateway = next(ip.gateway for ip in added.ips if "." in ip.address)
    with client(node.netns, timeout=5) as near:
        near.connect((gateway, 18080))
        far, _ = server.accept()
        far.close()
    server.close()
    node.run(node.networks.delete(pod.id, namespace=pod.netns))
    assert node.rules() == ""


def test_pods_reach_each_other_and_have_their_own_addresses(node: Node) -> None:
    pods = [node.pod() for _ in range(3)]

    async def add_all() -> list[str]:
        results = await asyncio.gather(
            *(node.networks.add(node.config, pod.attachment()) for pod in pods)
        )
        return [result.addresses("eth0")[0] for result in results]

    addresses = node.run(add_all())
    assert len(set(addresses)) == 3
    first, second = pods[0].fd(), pods[1].fd()
    with in_netns(second):
        server = socket.create_server(("", 81))
    server.settimeout(5)
    with client(first, timeout=5) as near:
        near.connect((addresses[1], 81))
        far, seen = server.accept()
        far.close()
    assert seen[0] == addresses[0]
    server.close()
    os.close(first)
    os.close(second)


def test_the_configuration_of_the_add_is_used_after_a_restart(node: Node, tmp_path: Path) -> None:
    pod = node.pod()
    node.run(node.networks.add(node.config, pod.attachment()))
    restarted = NetworkList(PluginExec(), ResultCache(tmp_path / "cache"))
    other = parse_list(
        b'{"cniVersion": "1.0.0", "name": "other", "plugins": [{"type": "absent"}]}', "other"
    )
    node.run(restarted.check(pod.id))
    node.run(restarted.delete(pod.id, namespace=pod.netns, fallback=other))
    assert (node.links(), node.addresses(), node.rules()) == (set(), set(), "")


def test_a_pod_whose_namespace_is_gone_releases_its_addresses(node: Node) -> None:
    pod = node.pod()
    node.run(node.networks.add(node.config, pod.attachment()))
    pod.end()
    node.run(node.networks.delete(pod.id, namespace=pod.netns))
    assert node.addresses() == set()
    eventually(lambda: node.links() == set(), "the kernel deletes the links of the namespace")
    assert list(node.records.iterdir()) == []


def test_garbage_collection_deletes_stale_attachments_only(node: Node) -> None:
    kept, stale = node.pod(), node.pod()
    for pod in (kept, stale):
        node.run(node.networks.add(node.config, pod.attachment()))
    stale.end()
    node.run(node.networks.gc(node.config, lambda: [(kept.id, "eth0")]))
    assert node.addresses() == {"10.231.0.2", "fd00:231::2"}
    assert [path.name for path in node.records.iterdir()] == [f"{node.name}-{kept.id}-eth0"]
    node.run(node.networks.check(kept.id))
    node.run(node.networks.delete(kept.id, namespace=kept.netns))
    assert node.addresses() == set()


def test_a_failed_plugin_leaves_nothing(node: Node) -> None:
    document = json.loads(node.conflist)
    document["plugins"].append({"type": "tuning", "sysctl": {"net.absent.name": "1"}})
    broken = node.run(node.networks.negotiate(parse_list(json.dumps(document).encode(), "test")))
    pod = node.pod()
    with pytest.raises(PluginError, match="cni plugin tuning failed"):
        node.run(node.networks.add(broken, pod.attachment()))
    assert (node.links(), node.addresses(), node.rules()) == (set(), set(), "")
    assert list(node.records.iterdir()) == []
    node.run(node.networks.add(node.config, pod.attachment()))


def test_the_namespace_of_the_host_is_refused(node: Node) -> None:
    with Rtnetlink(node.netns) as host:
        host.send(add_veth("eth0", mtu=1500, peer_name="eth0p"))
    own = Attachment(container_id="a", netns=f"/proc/{os.getpid()}/fd/{node.netns}")
    with pytest.raises(InvalidRequest, match="is the namespace of the host"):
        node.run(node.networks.add(node.config, own))
    with pytest.raises(InvalidRequest, match="is the namespace of the host"):
        node.run(node.networks.delete("a", namespace=own.netns, fallback=node.config))
    assert node.links() == {"eth0", "eth0p"}


def test_a_path_that_leads_to_another_namespace_is_not_touched(node: Node) -> None:
    pod, other = node.pod(), node.pod()
    for one in (pod, other):
        node.run(node.networks.add(node.config, one.attachment()))
    node.run(node.networks.delete(pod.id, namespace=other.netns))
    assert node.addresses() == {"10.231.0.3", "fd00:231::3"}
    node.run(node.networks.check(other.id))


@pytest.mark.parametrize("cidrs", [(V4,), (V6,)])
def test_a_single_family_works(tmp_path: Path, cidrs: tuple[str, ...]) -> None:
    node = Node(tmp_path, *cidrs)
    try:
        pod = node.pod()
        added = node.run(node.networks.add(node.config, pod.attachment()))
        assert len(added.ips) == 1
        node.run(node.networks.delete(pod.id, namespace=pod.netns))
        assert (node.links(), node.addresses(), node.rules()) == (set(), set(), "")
    finally:
        node.close()


def test_the_highest_common_version_is_chosen(node: Node) -> None:
    assert node.config.versions == ("0.4.0", "1.0.0", "1.1.0")
    own = json.loads(
        subprocess.run(
            ("/usr/lib/cni/bridge",),
            env={"CNI_COMMAND": "VERSION"},
            input=b'{"cniVersion": "1.1.0"}',
            capture_output=True,
        ).stdout
    )["supportedVersions"]
    assert node.config.version == [one for one in node.config.versions if one in own][-1]


def test_a_written_configuration_makes_the_network_ready(node: Node, tmp_path: Path) -> None:
    directory = tmp_path / "net.d"

    async def follow() -> NetworkConfig | None:
        monitor = ConfMonitor(node.networks.negotiate, str(directory))
        await monitor.start()
        assert not monitor.state.ready
        assert monitor.state.reason == "NetworkPluginNotReady"
        directory.mkdir()
        (directory / "10-jaula.conflist").write_bytes(node.conflist)
        state = await monitor.reload()
        await monitor.close()
        return state.config

    assert node.run(follow()) == parse_list(
        node.conflist, str(directory / "10-jaula.conflist")
    ).with_version(node.config.version)
