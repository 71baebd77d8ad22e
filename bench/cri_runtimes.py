"""Private runtimes of pods: containerd with runc, and jaula, and the client that both have.

The client is jaula's own, so that only the runtime differs. Each runtime has its own network
namespace, which acts as the host's: firewall rules and bridges of one do not reach the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import json
import os
import signal
import socket
import subprocess
import tarfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import engines
from engines import IMAGE, Engine, parent, wait_for
from networks import new_namespace

from jaula.features.kubernetes.cni.bridge_config import bridge_conflist
from jaula.features.kubernetes.cni.cni_cache import ResultCache
from jaula.features.kubernetes.cni.cni_config import parse_list
from jaula.features.kubernetes.cni.network_list import Attachment, NetworkList
from jaula.features.kubernetes.cni.plugin import PluginExec
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.features.kubernetes.pods import pause_rootfs
from jaula.grpc.grpc_client import Channel
from jaula.grpc.http2_connection import Limits
from jaula.kernel.netlink import in_netns

PLUGINS = "/usr/lib/cni"
PAUSE_IMAGE = "bench-pause:latest"
HOST, CNI, PUBLISHED = "host", "cni", "published"  # networks of a pod
_SERVICE = "/runtime.v1.RuntimeService/"
_CALL_SECONDS = 120.0
_MASKED = (  # the kubelet's lists
    *("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug"),
    *("/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/firmware"),
)
_READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


class Client:
    """Calls of one connection."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def call(self, method: str, **fields: Any) -> Any:
        """Call a method of RuntimeService, whose request has these fields.

        :raises GrpcError: when it failed
        """
        request = getattr(api_pb2, f"{method}Request")(**fields)
        decode = getattr(api_pb2, f"{method}Response").FromString
        return await self._channel.unary(_SERVICE + method, request, decode, _CALL_SECONDS)

    async def timed(self, method: str, **fields: Any) -> tuple[float, Any]:
        """Return the milliseconds of a call, and its response."""
        start = time.perf_counter()
        response = await self.call(method, **fields)
        return (time.perf_counter() - start) * 1e3, response


def _accounting() -> Path:
    """Return the hierarchy of cgroups that counts processor time."""
    path = Path("/sys/fs/cgroup/cpuacct")
    return path if path.is_dir() else Path("/sys/fs/cgroup")


def _processor_seconds(group: Path) -> float:
    if not group.exists():  # no pod was started
        return 0.0
    if (usage := group / "cpuacct.usage").exists():
        return int(usage.read_text()) / 1e9
    words = (group / "cpu.stat").read_text().split()
    return int(words[words.index("usage_usec") + 1]) / 1e6


@contextlib.asynccontextmanager
async def connected(path: Path) -> AsyncIterator[Client]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, str(path))
        channel = Channel(Limits())
        running = asyncio.ensure_future(channel.run(sock))
        try:
            yield Client(channel)
        finally:
            channel.close()
            await running


@dataclass(frozen=True)
class Processes:
    """The processes of a runtime with pods, by their ids."""

    daemon: tuple[int, ...]  # the main process first, then its helpers
    shims: tuple[int, ...]
    pauses: tuple[int, ...]


def _network_configuration(base: Path, bridge: str, subnet: str) -> bytes:
    """Return a list of bridge (with host-local) and portmap; addresses are stored in ``base``."""
    document = json.loads(bridge_conflist([subnet], name="bench", bridge=bridge))
    document["plugins"][0]["ipam"]["dataDir"] = str(base / "addresses")
    document["cniVersion"] = "1.0.0"
    del document["cniVersions"]
    return json.dumps(document).encode()


class Plugins:
    """The plugins of CNI alone, executed in this program's network namespace."""

    def __init__(self, base: Path) -> None:
        base.mkdir()
        cache = ResultCache(base)
        cache.prepare()
        data = _network_configuration(base, "cnibench3", "10.198.28.0/22")
        self._config = parse_list(data, "bench")
        self._networks = NetworkList(PluginExec((PLUGINS,)), cache)

    async def cycle(self, number: int) -> tuple[float, float]:
        """Attach and detach a new network namespace; return the milliseconds of each."""
        netns = new_namespace()
        path, container = f"/proc/{os.getpid()}/fd/{netns}", f"plugins-{number}"
        try:
            begin = time.perf_counter()
            await self._networks.add(self._config, Attachment(container_id=container, netns=path))
            added = time.perf_counter()
            await self._networks.delete(container, namespace=path)
            return (added - begin) * 1e3, (time.perf_counter() - added) * 1e3
        finally:
            os.close(netns)


class PodRuntime(Engine):
    """A runtime of pods under measurement."""

    bridge = ("", "")  # and its subnet

    def __init__(self, base: Path) -> None:
        super().__init__(base)
        self.netns = new_namespace()
        self.cgroup = f"jb{os.getpid()}{self.name}-pods"
        (base / "net.d").mkdir()
        configuration = _network_configuration(base, *self.bridge)
        (base / "net.d/10-bench.conflist").write_bytes(configuration)
        for name in ("hosts", "termination-log"):  # files that the kubelet mounts
            (base / name).touch()

    @property
    def cri_socket(self) -> Path:
        raise NotImplementedError

    def spawn(self, words: list[str]) -> None:
        with in_netns(self.netns):
            super().spawn(words)
        assert self.process is not None
        group = _accounting() / self._group
        group.mkdir(exist_ok=True)
        (group / "cgroup.procs").write_text(str(self.process.pid))

    @property
    def _group(self) -> str:
        """Return the cgroup of the daemon, of its shims and of the plugins."""
        return f"{self.cgroup}-runtime"

    def processor_seconds(self) -> float:
        """Return the time of all processes of the runtime and of its pods, past ones included."""
        return sum(_processor_seconds(_accounting() / name) for name in (self._group, self.cgroup))

    def load(self, archive: Path) -> None:
        """Load an image of docker's format."""
        raise NotImplementedError

    def stop(self) -> None:
        """Remove the pods, then stop the runtime by its process id, and remove the cgroups."""
        try:
            with contextlib.suppress(Exception):  # the process may not run at all
                asyncio.run(self._remove_pods())
            self._terminate()
        finally:
            os.close(self.netns)
            for top in Path("/sys/fs/cgroup").glob(f"**/{self.cgroup}"):
                for directory, _, _ in top.walk(top_down=False):
                    directory.rmdir()
            if (group := _accounting() / self._group).exists():
                wait_for(lambda: not (group / "cgroup.procs").read_text(), "end of all shims")
                group.rmdir()

    def _terminate(self) -> None:
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    async def _remove_pods(self) -> None:
        async with connected(self.cri_socket) as client:
            for pod in (await client.call("ListPodSandbox")).items:
                await client.call("StopPodSandbox", pod_sandbox_id=pod.id)
                await client.call("RemovePodSandbox", pod_sandbox_id=pod.id)

    def pods_processes(self) -> Processes:
        """Return the processes of the runtime; those of pods are found by their cgroups."""
        pids: dict[int, str] = {}
        for top in Path("/sys/fs/cgroup/pids").glob(f"**/{self.cgroup}"):
            for path in top.rglob("cgroup.procs"):
                for word in path.read_text().split():
                    pids[int(word)] = os.path.basename(os.readlink(f"/proc/{word}/exe"))
        pauses = tuple(pid for pid, name in pids.items() if name == "pause")
        shims = {parent(pid) for pid, name in pids.items() if name in ("pause", "busybox")}
        daemon = tuple(pid for pid in self._tree() if pid not in shims and pid not in pids)
        return Processes(daemon, tuple(sorted(shims)), pauses)

    def _tree(self) -> Iterator[int]:
        assert self.process is not None
        waiting = [self.process.pid]
        while waiting:
            pid = waiting.pop(0)
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                waiting += engines.children(pid)
                yield pid

    def sandbox_config(self, name: str, network: str) -> api_pb2.PodSandboxConfig:
        """Return the configuration of a pod as the kubelet sends it."""
        options = self._namespaces(network)
        published = network == PUBLISHED
        return api_pb2.PodSandboxConfig(
            metadata=api_pb2.PodSandboxMetadata(name=name, uid=f"uid-{name}", namespace="default"),
            hostname="" if network == HOST else name,
            log_directory=str(self.base / "pods" / name),
            dns_config=api_pb2.DNSConfig(servers=["192.0.2.1"], searches=["default.svc.bench"]),
            port_mappings=[api_pb2.PortMapping(container_port=80, host_port=18080)] * published,
            labels={"io.kubernetes.pod.name": name},
            linux=api_pb2.LinuxPodSandboxConfig(
                cgroup_parent=f"/{self.cgroup}/{name}",
                security_context=api_pb2.LinuxSandboxSecurityContext(
                    namespace_options=options, seccomp=_default_profile()
                ),
            ),
        )

    def container_config(self, network: str) -> api_pb2.ContainerConfig:
        """Return the configuration of a container as the kubelet sends it."""
        return api_pb2.ContainerConfig(
            metadata=api_pb2.ContainerMetadata(name="main"),
            image=api_pb2.ImageSpec(image=IMAGE),
            command=("sleep", "100000"),
            log_path="main.log",
            labels={"io.kubernetes.container.name": "main"},
            envs=[api_pb2.KeyValue(key="KUBERNETES_SERVICE_HOST", value=b"192.0.2.1")],
            mounts=[
                api_pb2.Mount(container_path="/etc/hosts", host_path=str(self.base / "hosts")),
                api_pb2.Mount(
                    container_path="/dev/termination-log",
                    host_path=str(self.base / "termination-log"),
                ),
            ],
            linux=api_pb2.LinuxContainerConfig(
                resources=api_pb2.LinuxContainerResources(cpu_shares=2, oom_score_adj=1000),
                security_context=api_pb2.LinuxContainerSecurityContext(
                    namespace_options=self._namespaces(network),
                    seccomp=_default_profile(),
                    masked_paths=_MASKED,
                    readonly_paths=_READ_ONLY,
                ),
            ),
        )

    @staticmethod
    def _namespaces(network: str) -> api_pb2.NamespaceOption:
        return api_pb2.NamespaceOption(
            network=api_pb2.NODE if network == HOST else api_pb2.POD,
            pid=api_pb2.CONTAINER,
            ipc=api_pb2.POD,
        )


def _default_profile() -> api_pb2.SecurityProfile:
    return api_pb2.SecurityProfile(profile_type=api_pb2.SecurityProfile.RuntimeDefault)


class Containerd(PodRuntime):
    """containerd with runc. Its image of the sandbox has the same program as jaula's sandbox."""

    name = "containerd"
    bridge = ("cnibench0", "10.198.16.0/22")

    @property
    def socket(self) -> Path:
        return self.base / "containerd.sock"

    cri_socket = socket

    def start(self) -> None:
        config = self.base / "config.toml"
        config.write_text(_CONFIG.format(base=self.base, plugins=PLUGINS, pause=PAUSE_IMAGE))
        if not os.path.ismount(_SHIM_SOCKETS):  # their directory is not configurable
            os.makedirs(_SHIM_SOCKETS, exist_ok=True)
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", _SHIM_SOCKETS], check=True)
        self.spawn(["containerd", "--config", str(config)])
        wait_for(self.answers, "containerd")

    def environment(self) -> dict[str, str]:
        return dict(os.environ) | {"PATH": engines.sbin_path()}

    def words(self, *words: str) -> list[str]:
        return ["ctr", "--address", str(self.socket), "--namespace", "k8s.io", *words]

    def answers(self) -> bool:
        return not self.run("version", check=False, capture_output=True).returncode

    def load(self, archive: Path) -> None:
        self.run("images", "import", str(archive), stdout=subprocess.DEVNULL)
        if self.process is not None and not (pause_archive := self.base / "pause.tar").exists():
            program = pause_rootfs.program(os.uname().machine)
            write_image(pause_archive, PAUSE_IMAGE, {"pause": program}, ["/pause"])
            self.run("images", "import", str(pause_archive), stdout=subprocess.DEVNULL)


_SHIM_SOCKETS = "/run/containerd"
_CONFIG = """\
version = 2
root = "{base}/lib"
state = "{base}/run"
disabled_plugins = [
    "io.containerd.nri.v1.nri", "io.containerd.internal.v1.tracing",
    "io.containerd.tracing.processor.v1.otlp", "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
address = "{base}/containerd.sock"
[debug]
level = "error"
[plugins."io.containerd.internal.v1.opt"]
path = "{base}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/library/{pause}"
netns_mounts_under_state_dir = true
restrict_oom_score_adj = true  # as jaula does, where a lower score is not permitted
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{base}/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"""


class JaulaPods(PodRuntime, engines.Jaula):
    """The engine of jaula with CRI."""

    bridge = ("cnibench1", "10.198.20.0/22")

    @property
    def cri_socket(self) -> Path:
        return self.base / "run/cri.sock"

    def spawn(self, words: list[str]) -> None:
        pods = ("--cri", "--cni-conf-dir", str(self.base / "net.d"), "--cni-bin-dir", PLUGINS)
        super().spawn([*words, *pods])

    def load(self, archive: Path) -> None:
        self.run("load", "--input", str(archive), stdout=subprocess.DEVNULL)


class BaselinePods(JaulaPods):
    """Another checkout of jaula, with CRI."""

    name, project = engines.Baseline.name, engines.Baseline.project
    bridge = ("cnibench2", "10.198.24.0/22")


KINDS: dict[str, type[PodRuntime]] = {
    "containerd": Containerd,
    "jaula": JaulaPods,
    "baseline": BaselinePods,
}


def write_image(
    path: Path, name: str, files: dict[str, bytes], entrypoint: list[str], tree: Path | None = None
) -> None:
    """Write an archive of docker's format with one layer: ``tree``, and executable files."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        if tree is not None:
            tar.add(tree, arcname=".")
        for file, content in files.items():
            _add(tar, file, content, 0o755)
    data = layer.getvalue()
    config = {
        "architecture": "arm64" if os.uname().machine == "aarch64" else "amd64",
        "os": "linux",
        "config": {"Entrypoint": entrypoint, "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(data).hexdigest()}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        _add(tar, "layer.tar", data)
        _add(tar, "config.json", json.dumps(config).encode())
        _add(tar, "manifest.json", json.dumps(manifest).encode())


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))
