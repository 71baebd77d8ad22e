"""ADD, DEL, CHECK, GC and STATUS of a list of plugins, and the records of attachments."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from jaula.errors import (
    Conflict,
    CorruptState,
    InvalidRequest,
    JaulaError,
    NotFound,
    RuntimeFailure,
    Unavailable,
    Unsupported,
)
from jaula.features.kubernetes.cni import cni_cache, cni_config, netns
from jaula.features.kubernetes.cni.cni_cache import ResultCache
from jaula.features.kubernetes.cni.cni_config import NetworkConfig
from jaula.features.kubernetes.cni.network_list import Attachment, NetworkList, plugin_request
from jaula.features.kubernetes.cni.plugin import PluginError, PluginExec
from jaula.features.kubernetes.cni.runtime_config import (
    Bandwidth,
    CapabilityArgs,
    DNSConfig,
    PortMapping,
)

from .scripted_plugin import Plugins, conflist

NETNS = "/proc/7/ns/net"
GONE = "/proc/8/ns/net"
IDENTITIES = {NETNS: "4:1", "/proc/9/ns/net": "4:2"}


class Bench:
    """A list of scripted plugins with its cache."""

    def __init__(self, directory: Path) -> None:
        self.plugins = Plugins(directory)
        self.cache = ResultCache(directory / "cache")
        self.cache.prepare()
        self.records = directory / "cache" / "results"
        self.loopbacks: list[str] = []
        self.networks = self.restart()

    def restart(self) -> NetworkList:
        self.networks = NetworkList(PluginExec((str(self.plugins.directory),)), self.cache)
        return self.networks

    def add(self, network: NetworkConfig, container_id: str = "c1", **options: Any) -> Any:
        attachment = Attachment(container_id=container_id, netns=NETNS, **options)
        return asyncio.run(self.networks.add(network, attachment))

    def names(self) -> list[str]:
        return sorted(path.name for path in self.records.iterdir())


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Return a bench whose network namespaces are those of a table."""
    made = Bench(tmp_path)
    monkeypatch.setattr(netns, "identity", IDENTITIES.get)
    monkeypatch.setattr(netns, "set_loopback_up", made.loopbacks.append)
    return made


def network(*plugins: Any, **members: Any) -> NetworkConfig:
    return cni_config.parse_list(conflist(*plugins, **members), "test")


def test_the_request_has_what_the_runtime_derives() -> None:
    data = json.dumps(
        {"type": "a", "x": 1, "capabilities": {"portMappings": True, "mac": False, "other": True},
         "runtimeConfig": {"mac": "x"}, "prevResult": {}, "cni.dev/x": 1, "name": "other"}
    )  # fmt: skip
    plain = network(json.loads(data))
    values = CapabilityArgs(
        port_mappings=(PortMapping(host_port=80, container_port=8080, host_ip="127.0.0.1"),),
        mac="02:00:00:00:00:01",
    )
    assert json.loads(plugin_request(plain, plain.plugins[0], values)) == {
        "type": "a",
        "x": 1,
        "name": "net",
        "cniVersion": "1.0.0",
        "runtimeConfig": {
            "portMappings": [
                {"hostPort": 80, "containerPort": 8080, "protocol": "tcp", "hostIP": "127.0.0.1"}
            ]
        },
    }
    assert "runtimeConfig" not in json.loads(plugin_request(plain, plain.plugins[0]))


def test_every_capability_has_its_conventional_form() -> None:
    names = ["portMappings", "bandwidth", "dns", "ips", "mac", "cgroupPath"]
    plain = network({"type": "a", "capabilities": dict.fromkeys(names, True)})
    values = CapabilityArgs(
        port_mappings=(PortMapping(host_port=1, container_port=2, protocol="udp"),),
        bandwidth=Bandwidth(ingress_rate=1000, ingress_burst=10),
        dns=DNSConfig(servers=("10.0.0.1",), searches=("a",)),
        ips=("10.0.0.2/8",),
        mac="02:00:00:00:00:01",
        cgroup_path="/kubepods/pod1",
    )
    request = json.loads(plugin_request(plain, plain.plugins[0], values))
    assert request["runtimeConfig"] == {
        "portMappings": [{"hostPort": 1, "containerPort": 2, "protocol": "udp"}],
        "bandwidth": {"ingressRate": 1000, "ingressBurst": 10},
        "dns": {"servers": ["10.0.0.1"], "searches": ["a"]},
        "ips": ["10.0.0.2/8"],
        "mac": "02:00:00:00:00:01",
        "cgroupPath": "/kubepods/pod1",
    }


def test_plugins_are_added_in_order_and_deleted_in_reverse(bench: Bench) -> None:
    for name in ("a", "b", "c"):
        bench.plugins.forward(name)
    added = bench.add(network("a", "b", "c"), args=(("K8S_POD_NAME", "web"),))
    assert added.addresses("eth0") == ("10.1.0.5",)
    assert bench.loopbacks == [NETNS]
    asyncio.run(bench.networks.delete("c1", namespace=NETNS))
    assert bench.plugins.names() == ["ADD a", "ADD b", "ADD c", "DEL c", "DEL b", "DEL a"]
    first, *rest = bench.plugins.calls
    assert "prevResult" not in first.request
    assert all(call.request["prevResult"]["ips"] for call in rest)
    assert {(call.ifname, call.netns) for call in bench.plugins.calls} == {("eth0", NETNS)}
    assert bench.names() == []
    asyncio.run(bench.networks.delete("c1", namespace=NETNS))
    assert len(bench.plugins.calls) == 6  # nothing is left to delete


def test_a_result_is_passed_in_the_version_of_the_network(bench: Bench) -> None:
    legacy = json.dumps({"cniVersion": "0.2.0", "ip4": {"ip": "10.0.0.1/8"}})
    bench.plugins.write("a", ADD=f"echo '{legacy}'")
    bench.plugins.forward("b")
    bench.add(network("a", "b", version="0.3.1"))
    assert bench.plugins.calls[1].request["prevResult"] == {
        "cniVersion": "0.3.1",
        "interfaces": [],
        "ips": [{"version": "4", "address": "10.0.0.1/8"}],
        "routes": [],
    }
    asyncio.run(bench.networks.delete("c1"))
    assert "prevResult" not in bench.plugins.calls[2].request  # before 0.4.0


@pytest.mark.parametrize("output", ["exit 1", "echo done", "echo '{\"ips\": 1}'", "true"])
def test_a_failed_add_is_undone(bench: Bench, output: str) -> None:
    bench.plugins.forward("a")
    bench.plugins.write("b", ADD=output)
    bench.plugins.forward("c")
    with pytest.raises(PluginError, match=r"cni plugin b failed \(ADD\)"):
        bench.add(network("a", "b", "c"))
    assert bench.plugins.names() == ["ADD a", "ADD b", "DEL b", "DEL a"]
    assert bench.names() == []


def test_an_undo_that_fails_is_completed_by_delete(bench: Bench) -> None:
    bench.plugins.forward("a", DEL="exit 1")
    bench.plugins.write("b", ADD="exit 2")
    with pytest.raises(PluginError, match="status 2"):
        bench.add(network("a", "b"))
    assert bench.names() == ["net-c1-eth0"]
    with pytest.raises(Conflict, match="eth0 of c1 is interrupted in network net"):
        bench.add(network("a"))
    with pytest.raises(PluginError, match="status 1"):
        asyncio.run(bench.networks.delete("c1", namespace=NETNS))
    bench.plugins.forward("a")
    asyncio.run(bench.networks.delete("c1", namespace=NETNS))
    assert bench.names() == []


def test_a_cancelled_add_is_undone(bench: Bench, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "started")
    bench.plugins.write("a", ADD=f"echo >{tmp_path}/started; exec sleep 600")

    async def cancel() -> None:
        attachment = Attachment(container_id="c1", netns=NETNS)
        work = asyncio.ensure_future(bench.networks.add(network("a"), attachment))
        await asyncio.to_thread((tmp_path / "started").read_text)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(cancel())
    assert bench.plugins.names() == ["ADD a", "DEL a"]
    assert bench.names() == []


def test_the_time_is_that_of_the_whole_operation(bench: Bench) -> None:
    bench.plugins.write("a", ADD="exec sleep 600")
    bench.networks = NetworkList(
        PluginExec((str(bench.plugins.directory),)), bench.cache, timeout=0.5
    )
    with pytest.raises(PluginError, match=r"has not exited after 0\.\d+ seconds|0\.5 seconds"):
        bench.add(network("a"))


@pytest.mark.parametrize("error", [OSError(1, "not permitted")])
def test_a_namespace_without_loopback_is_one_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fail(path: str) -> None:
        raise error

    monkeypatch.setattr(netns, "set_loopback_up", fail)
    with pytest.raises(RuntimeFailure, match=f"cannot set up lo in {NETNS}: not permitted"):
        bench.add(network("a"))
    assert bench.names() == []


def test_a_record_that_cannot_be_written_is_one_error(bench: Bench) -> None:
    bench.plugins.forward("a")
    bench.records.rmdir()
    bench.records.write_text("")
    with pytest.raises(Unavailable, match="cannot store the record"):
        asyncio.run(
            NetworkList(
                PluginExec((str(bench.plugins.directory),)), _Unreadable(bench.records.parent)
            ).add(network("a"), Attachment(container_id="c1", netns=NETNS))
        )
    assert bench.plugins.calls == []


class _Unreadable(ResultCache):
    """A cache whose directory is a file: nothing is found in it."""

    def find(self, container_id: str, ifname: str) -> None:
        return None


def test_an_attachment_exists_once(bench: Bench) -> None:
    bench.plugins.forward("a")
    bench.add(network("a"))
    with pytest.raises(Conflict, match="eth0 of c1 is attached in network net"):
        bench.add(network("a"))
    bench.add(network("a"), ifname="eth1")
    bench.add(network("a"), "c1-eth0")
    assert bench.names() == ["net-c1-eth0", "net-c1-eth0-eth0", "net-c1-eth1"]
    asyncio.run(bench.networks.delete("c1"))
    assert bench.names() == ["net-c1-eth0-eth0", "net-c1-eth1"]


def test_delete_uses_the_configuration_of_the_add(bench: Bench) -> None:
    bench.plugins.forward("a")
    values = CapabilityArgs(mac="02:00:00:00:00:01")
    plugin = {"type": "a", "subnet": "old", "capabilities": {"mac": True}}
    bench.add(network(plugin), args=(("A", "1"),), capability_args=values)
    changed = network({"type": "a", "subnet": "new"})
    asyncio.run(bench.restart().delete("c1", namespace=NETNS, fallback=changed))
    request = bench.plugins.calls[1].request
    assert request["subnet"] == "old"
    assert request["runtimeConfig"] == {"mac": "02:00:00:00:00:01"}


@pytest.mark.parametrize("path", ["", GONE, "/proc/9/ns/net"])
def test_another_namespace_is_not_given_to_delete(bench: Bench, path: str) -> None:
    bench.plugins.forward("a")
    bench.add(network("a"))
    asyncio.run(bench.networks.delete("c1", namespace=path))
    assert bench.plugins.calls[1].netns == ""


def test_an_interrupted_add_is_deleted_with_its_configuration(bench: Bench) -> None:
    bench.plugins.forward("a")
    bench.cache.write(
        cni_cache.Record(
            config=network("a"), container_id="c1", ifname="eth0", netns=NETNS, netns_identity="4:1"
        )
    )
    with pytest.raises(NotFound):
        asyncio.run(bench.networks.check("c1"))
    asyncio.run(bench.networks.delete("c1", namespace=NETNS))
    assert bench.plugins.names() == ["DEL a"]
    assert "prevResult" not in bench.plugins.calls[0].request
    assert bench.names() == []


def test_a_record_has_the_format_of_libcni(bench: Bench) -> None:
    bench.plugins.forward("a")
    bench.add(network("a"), args=(("A", "1"),))
    path = bench.records / "net-c1-eth0"
    document = json.loads(path.read_bytes())
    assert document["kind"] == "cniCacheV1"
    assert document["containerId"] == "c1"
    assert (document["ifName"], document["networkName"]) == ("eth0", "net")
    assert (document["netns"], document["cniArgs"]) == (NETNS, [["A", "1"]])
    assert document["result"]["cniVersion"] == "1.0.0"
    assert json.loads(base64.b64decode(document["config"]))["plugins"] == [{"type": "a"}]
    assert path.stat().st_mode & 0o777 == 0o600
    assert bench.records.stat().st_mode & 0o777 == 0o700


def test_a_kill_while_a_record_is_written_leaves_the_former_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def rename(source: object, target: object) -> None:
        raise Killed

    bench.plugins.forward("a")
    bench.add(network("a"))
    before = (bench.records / "net-c1-eth0").read_bytes()
    record = bench.cache.find("c1", "eth0")
    assert record is not None
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        with pytest.raises(Killed):
            bench.cache.write(record)
    assert bench.names() == [".new-net-c1-eth0", "net-c1-eth0"]
    assert (bench.records / "net-c1-eth0").read_bytes() == before
    bench.cache.prepare()
    assert bench.names() == ["net-c1-eth0"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        b'{"kind": "x", "containerId": "c1", "config": "", "ifName": "eth0", "networkName": "n"}',
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_a_damaged_record_is_replaced_by_the_fallback(bench: Bench, data: bytes) -> None:
    bench.plugins.forward("a")
    path = bench.records / "net-c1-eth0"
    path.write_bytes(data)
    path.chmod(0o600)
    with pytest.raises(CorruptState, match=f"damaged record of an attachment {path}"):
        asyncio.run(bench.networks.delete("c1"))
    asyncio.run(bench.networks.delete("c1", fallback=network("a")))
    assert bench.plugins.names() == ["DEL a"]
    assert bench.names() == []


def test_check_passes_the_result_of_the_add(bench: Bench) -> None:
    bench.plugins.forward("a")
    bench.plugins.forward("b")
    with pytest.raises(NotFound, match="no such attachment: eth0 of c1"):
        asyncio.run(bench.networks.check("c1"))
    bench.add(network("a", "b"))
    asyncio.run(bench.networks.check("c1"))
    assert bench.plugins.names()[2:] == ["CHECK a", "CHECK b"]
    assert bench.plugins.calls[2].request["prevResult"]["ips"]
    bench.plugins.forward("b", CHECK='echo \'{"code": 100, "msg": "gone"}\'; exit 1')
    with pytest.raises(PluginError, match=r"b failed \(CHECK\): gone"):
        asyncio.run(bench.networks.check("c1"))


def test_check_needs_its_version_and_namespace(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.plugins.forward("a")
    bench.add(network("a", version="0.3.1"))
    with pytest.raises(Unsupported, match=r"cniVersion 0\.3\.1: no CHECK"):
        asyncio.run(bench.networks.check("c1"))
    bench.add(network("a", disableCheck=True), "c2")
    asyncio.run(bench.networks.check("c2"))
    bench.add(network("a"), "c3")
    monkeypatch.setattr(netns, "identity", {NETNS: "4:9"}.get)
    with pytest.raises(Conflict, match="is gone"):
        asyncio.run(bench.networks.check("c3"))
    assert [name for name in bench.plugins.names() if "CHECK" in name] == []


def test_gc_deletes_the_stale_and_asks_every_plugin(bench: Bench) -> None:
    bench.plugins.forward("a", GC="exit 1")
    bench.plugins.forward("b")
    used = network("a", "b", version="1.1.0")
    for container_id in ("c1", "c2"):
        bench.add(used, container_id)
    with pytest.raises(JaulaError, match=r"garbage collection of network net: .*a failed \(GC\)"):
        asyncio.run(bench.networks.gc(used, lambda: [("c1", "eth0")]))
    calls = bench.plugins.calls[4:]
    assert [f"{call.command} {call.plugin}" for call in calls] == ["DEL b", "DEL a", "GC a", "GC b"]
    assert {call.netns for call in calls} == {""}
    rows = [{"containerID": "c1", "ifname": "eth0"}]
    assert calls[3].request["cni.dev/valid-attachments"] == rows
    assert calls[3].request["cni.dev/attachments"] == rows
    assert bench.names() == ["net-c1-eth0"]


def test_gc_respects_version_and_configuration(bench: Bench) -> None:
    bench.plugins.forward("a")
    bench.add(network("a"))
    asyncio.run(bench.networks.gc(network("a", disableGC=True), list))
    assert bench.names() == ["net-c1-eth0"]
    other = cni_config.parse_list(conflist("a").replace(b'"net"', b'"other"'), "x")
    asyncio.run(bench.networks.gc(other, list))
    assert bench.names() == ["net-c1-eth0"]
    asyncio.run(bench.networks.gc(network("a"), list))
    assert bench.plugins.names() == ["ADD a", "DEL a"]  # no GC before 1.1.0


def test_gc_runs_alone(bench: Bench, tmp_path: Path) -> None:
    for name in ("started", "go"):
        os.mkfifo(tmp_path / name)
    bench.plugins.forward("a")
    hold = f"echo >{tmp_path}/started; cat {tmp_path}/go >/dev/null; echo '{{}}'"
    bench.plugins.write("slow", ADD=hold)
    used = network("a", version="1.1.0")
    order: list[str] = []

    async def overlap() -> None:
        slow = asyncio.ensure_future(
            bench.networks.add(network("slow"), Attachment(container_id="c1", netns=NETNS))
        )
        await asyncio.to_thread((tmp_path / "started").read_text)

        def attached() -> list[tuple[str, str]]:
            order.append("gc" if slow.done() else "gc during add")
            return [("c1", "eth0"), ("c2", "eth0")]

        collection = asyncio.ensure_future(bench.networks.gc(used, attached))
        await asyncio.sleep(0)
        other = asyncio.ensure_future(
            bench.networks.add(used, Attachment(container_id="c2", netns=NETNS))
        )
        await asyncio.sleep(0.05)
        assert bench.plugins.names() == ["ADD slow"]
        await asyncio.to_thread((tmp_path / "go").write_text, "")
        await asyncio.gather(slow, collection, other)

    asyncio.run(overlap())
    assert order == ["gc"]
    assert bench.plugins.names() == ["ADD slow", "GC a", "ADD a"]


def test_status_is_asked_from_its_version_on(bench: Bench) -> None:
    bench.plugins.write("a", STATUS='echo \'{"code": 50, "msg": "not yet"}\'; exit 1')
    asyncio.run(bench.networks.status(network("a")))
    with pytest.raises(PluginError, match="not yet") as e:
        asyncio.run(bench.networks.status(network("a", version="1.1.0")))
    assert (e.value.code, e.value.status) == (50, 503)


def test_negotiation_takes_the_highest_common_version(bench: Bench) -> None:
    for name, versions in (("a", ["0.4.0", "1.0.0", "1.1.0"]), ("b", ["0.4.0", "1.0.0"])):
        answer = json.dumps({"cniVersion": "1.1.0", "supportedVersions": versions})
        bench.plugins.write(name, VERSION=f"echo '{answer}'")
    several = network("a", "b", "a", cniVersions=["0.4.0", "1.1.0"])
    assert several.version == "1.1.0"
    assert asyncio.run(bench.networks.negotiate(several)).version == "1.0.0"
    assert bench.plugins.names() == ["VERSION ", "VERSION "]
    with pytest.raises(PluginError, match=r"supports 0\.4\.0, 1\.0\.0, but .* needs one of") as e:
        asyncio.run(bench.networks.negotiate(network("b", version="0.3.1", cniVersions=["0.3.0"])))
    assert e.value.code == 1
    assert asyncio.run(bench.networks.negotiate(network("b"))).version == "1.0.0"
    with pytest.raises(PluginError, match=r"cni plugin absent failed .*it is not in"):
        asyncio.run(bench.networks.negotiate(network("b", "absent")))


@pytest.mark.parametrize(
    "attachment",
    [
        {"container_id": ""},
        {"container_id": "../x"},
        {"container_id": "x" * 97},
        {"ifname": ""},
        {"ifname": ".."},
        {"ifname": "eth0/x"},
        {"ifname": "eth:0"},
        {"ifname": "a b"},
        {"ifname": "x" * 16},
        {"ifname": "é" * 8},
        {"netns": "relative"},
        {"netns": "/a\0"},
        {"netns": ""},
        {"netns": GONE},
        {"args": (("A", "1;B=2"),)},
        {"args": (("", "1"),)},
        {"args": (("A=", "1"),)},
        {"args": (("A", "\0"),)},
    ],
)
def test_an_invalid_parameter_is_one_error(bench: Bench, attachment: dict[str, Any]) -> None:
    bench.plugins.forward("a")
    fields = {"container_id": "c1", "netns": NETNS} | attachment
    with pytest.raises(InvalidRequest):
        asyncio.run(bench.networks.add(network("a"), Attachment(**fields)))
    assert bench.plugins.calls == []
    assert bench.names() == []


def test_the_directories_of_records_are_of_the_engine_alone(tmp_path: Path) -> None:
    top = tmp_path / "cache"
    ResultCache(top).prepare()
    assert [path.stat().st_mode & 0o777 for path in (top, top / "results")] == [0o700, 0o700]
