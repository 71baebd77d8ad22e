"""A kubelet that runs static pods on a private engine, without an API server.

The program is the one that the environment variable ``KUBELET`` names. Both run in a network
namespace of their own, and in a directory that is a shared mount, as a node's root is.

Source: https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from harness import leaks
from harness.engine import SLOW, PrivateEngine, Reply
from jaula.features.kubernetes.cni.bridge_config import bridge_conflist
from jaula.kernel.netlink import in_netns

PORT = 10250
SYSTEMD = Path("/run/systemd/system").exists()
POD_CIDR = "10.232.0.0/24"
NODE = "node"
TIMEOUT = 90.0 * SLOW  # seconds

T = TypeVar("T")


class Pending(Exception):
    """A condition is not true yet."""


@dataclass
class Kubelet:
    """A kubelet with its engine."""

    program: str
    engine: PrivateEngine
    netns: int
    directory: Path
    process: subprocess.Popen[bytes] | None = None
    features: dict[str, bool] = field(default_factory=dict)

    @property
    def manifests(self) -> Path:
        return self.directory / "manifests"

    @property
    def logs(self) -> Path:
        """The directory of the logs of pods."""
        return self.directory / "pods"

    @property
    def log(self) -> Path:
        return self.directory / "kubelet.log"

    def start(self) -> None:
        """Start the kubelet and wait until it is healthy."""
        config = self.directory / "config.json"
        config.write_text(json.dumps(self._config()))
        with self.log.open("ab") as log, in_netns(self.netns):
            self.process = subprocess.Popen(
                [
                    self.program,
                    f"--config={config}",
                    f"--root-dir={self.directory / 'root'}",
                    f"--cert-dir={self.directory / 'pki'}",
                    f"--hostname-override={NODE}",
                    "--node-ip=10.233.0.1",
                    "--v=4",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.until(self._healthy)

    def _healthy(self) -> None:
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the kubelet ended:\n{self.log_tail()}")
        if self.request("GET", "/healthz").status != 200:
            raise Pending("the kubelet is not healthy")

    def _config(self) -> dict[str, Any]:
        endpoint = f"unix://{self.engine.run / 'cri.sock'}"
        return {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": "127.0.0.1",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupRoot": f"/{self.cgroup}",
            "clusterDNS": ["10.96.0.10"],
            "clusterDomain": "cluster.test",
            "containerLogMaxFiles": 3,
            "containerLogMaxSize": "64Ki",
            "containerLogMonitorInterval": "3s",
            "containerRuntimeEndpoint": endpoint,
            "enableControllerAttachDetach": False,
            "evictionHard": {"memory.available": "1Mi", "nodefs.available": "1%"},
            "failCgroupV1": False,
            "failSwapOn": False,
            "featureGates": self.features,
            "fileCheckFrequency": "1s",
            "healthzPort": 0,
            "makeIPTablesUtilChains": False,
            "podLogsDir": str(self.logs),
            "port": PORT,
            "protectKernelDefaults": False,
            "resolvConf": "/etc/resolv.conf",
            "staticPodPath": str(self.manifests),
            "syncFrequency": "2s",
            "volumePluginDir": str(self.directory / "plugins"),
        }

    @property
    def cgroup(self) -> str:
        """The name of the cgroup of the node's pods, as the kubelet has it."""
        return f"{self.engine.tag}k"

    @property
    def cgroup_directory(self) -> str:
        return f"{self.cgroup}.slice" if SYSTEMD else self.cgroup

    def stop(self) -> None:
        """End the kubelet; its pods go on."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def start_engine(self) -> None:
        """Start the engine in the network of the node."""
        with in_netns(self.netns):
            self.engine.start()

    def kill_engine(self, after: float = 0.0) -> None:
        """Kill the engine, and nothing else, after some seconds."""
        time.sleep(after)
        self.engine.kill()

    def power_off(self) -> None:
        """End what a node loses when it starts again: processes, mounts, cgroups, /run."""
        self.stop()
        self.engine.kill()
        _kill_processes(self.cgroup_directory)
        leaks.clean_up(self.engine)
        _unmount(self.directory / "root")
        shutil.rmtree(self.engine.run)
        self.engine.run.mkdir()
        _remove_cgroups(self.cgroup_directory)
        _make_cgroups(self.cgroup_directory)

    def addresses(self) -> list[str]:
        """Return the addresses that pods have by the plugin host-local."""
        return [path.name for path in (self.directory / "addresses").rglob("10.*")]

    def log_tail(self, size: int = 6000) -> str:
        return self.log.read_text(errors="replace")[-size:] if self.log.exists() else ""

    def connect(self, port: int, host: str = "127.0.0.1") -> socket.socket:
        """Connect to a port of the node, or of another address of its network."""
        with in_netns(self.netns):
            return socket.create_connection((host, port), 10)

    def request(self, method: str, path: str, *, timeout: float = 30.0) -> Reply:
        """Make a request to the API of the kubelet; status 0 if nothing listens."""
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=timeout)
        with contextlib.closing(connection):
            try:
                connection.sock = tls_context().wrap_socket(self.connect(PORT))
            except OSError:
                return Reply(0, {}, b"")
            connection.sock.settimeout(timeout)
            connection.request(method, path)
            response = connection.getresponse()
            return Reply(response.status, dict(response.getheaders()), response.read())

    def read_log(self, name: str, container: str, query: str = "") -> str:
        """Return the log of a container of a pod.

        :raises Pending: when there is none.
        """
        path = f"/containerLogs/default/{name}-{NODE}/{container}{query}"
        reply = self.request("GET", path)
        if reply.status != 200:
            raise Pending(f"{path}: {reply.status} {reply.body!r}")
        return reply.body.decode(errors="replace")

    def run(self, name: str, container: str, *command: str) -> str:
        """Run a command in a container, by the kubelet's own call, and return its output.

        :raises Pending: when that fails.
        """
        query = urllib.parse.urlencode({"cmd": " ".join(command)})
        reply = self.request("POST", f"/run/default/{name}-{NODE}/{container}?{query}")
        if reply.status != 200:
            raise Pending(f"{command}: {reply.status} {reply.body!r}")
        return reply.body.decode(errors="replace")

    # -- pods ------------------------------------------------------------------------------------

    def apply(self, pod: dict[str, Any]) -> str:
        """Write the manifest of a static pod and return the name that the kubelet gives it."""
        name = pod["metadata"]["name"]
        path = self.manifests / f"{name}.json"
        part = self.manifests / f".{name}"
        part.write_text(json.dumps({"apiVersion": "v1", "kind": "Pod", **pod}))
        part.rename(path)
        return f"{name}-{NODE}"

    def delete(self, name: str) -> None:
        """Remove the manifest of a static pod and wait until its programs have ended.

        The kubelet removes the containers later.
        """
        (self.manifests / f"{name}.json").unlink()
        self.until(lambda: self._gone(f"{name}-{NODE}"))

    def _gone(self, name: str) -> None:
        if any(pod["metadata"]["name"] == name for pod in self.pods()):
            raise Pending(f"the pod {name} is still there")
        listed = self.engine.request("GET", "/containers/json?pods=1").json()
        if any(f"_{name}_" in container["Names"][0] for container in listed):
            raise Pending(f"containers of the pod {name} still run")

    def pods(self) -> list[dict[str, Any]]:
        """Return the pods of the node.

        :raises Pending: when the kubelet does not answer.
        """
        reply = self.request("GET", "/pods")
        if reply.status != 200:
            raise Pending(f"the kubelet does not list pods: {reply.status} {reply.body!r}")
        return list(reply.json()["items"] or [])

    def pod(self, name: str) -> dict[str, Any]:
        """Return a pod.

        :raises Pending: when there is none.
        """
        for pod in self.pods():
            if pod["metadata"]["name"] == f"{name}-{NODE}":
                return pod
        raise Pending(f"there is no pod {name}")

    def status(self, name: str, container: str) -> dict[str, Any]:
        """Return the status of a container of a pod.

        :raises Pending: when there is none.
        """
        status = self.pod(name)["status"]
        for kind in ("containerStatuses", "initContainerStatuses"):
            for found in status.get(kind) or ():
                if found["name"] == container:
                    return dict(found)
        raise Pending(f"there is no container {container} in the pod {name}")

    def until(self, condition: Callable[[], T]) -> T:
        """Return the result of a condition as soon as it does not raise Pending.

        :raises AssertionError: when it raises Pending for too long.
        """
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                return condition()
            except Pending as error:
                if time.monotonic() > deadline:
                    raise AssertionError(f"{error}\n{self.log_tail()}") from None
            time.sleep(0.2)

    def ready(self, name: str) -> dict[str, Any]:
        """Wait until every container of a pod is ready, and return the pod."""

        def check() -> dict[str, Any]:
            pod = self.pod(name)
            statuses = pod["status"].get("containerStatuses") or []
            if not statuses or not all(status["ready"] for status in statuses):
                raise Pending(f"the pod {name} is not ready: {pod['status']}")
            return pod

        return self.until(check)


def tls_context() -> ssl.SSLContext:
    """Return the context for the API of a kubelet, which made its certificate itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def container(name: str, command: str, **fields: Any) -> dict[str, Any]:
    """Return a container of busybox that runs a shell command."""
    return {
        "name": name,
        "image": "busybox",
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", command],
        **fields,
    }


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """Return the manifest of a pod that ends at once when it is told to."""
    spec = {"terminationGracePeriodSeconds": 1, "containers": list(containers), **spec}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


@contextlib.contextmanager
def node(engine: PrivateEngine, netns: int, program: str) -> Iterator[Kubelet]:
    """Start an engine and a kubelet; at the end remove every pod, then end both."""
    directory = Path(tempfile.mkdtemp(prefix="jlk"))
    for name in ("manifests", "net.d", "root", "plugins"):
        (directory / name).mkdir(parents=True)
    document = json.loads(bridge_conflist((POD_CIDR,), bridge="jltkube0"))
    bridge = document["plugins"][0]
    bridge["ipam"]["dataDir"] = str(directory / "addresses")
    bridge["ipMasq"] = False  # pods need no other network, and not every kernel can
    (directory / "net.d" / "10-test.conflist").write_text(json.dumps(document))
    engine.extra_flags += (
        *("--cri", "--cni-conf-dir", str(directory / "net.d")),
        *("--cni-bin-dir", "/usr/lib/cni"),
    )
    kubelet = Kubelet(program, engine, netns, directory)
    _run("mount", "--bind", str(directory), str(directory))
    try:
        _run("mount", "--make-rshared", str(directory))
        _make_cgroups(kubelet.cgroup_directory)
        with in_netns(netns):
            _run("ip", "link", "add", "node0", "type", "veth", "peer", "name", "peer0")
            _run("ip", "address", "add", "10.233.0.1/24", "dev", "node0")
            _run("ip", "link", "set", "node0", "up")
            _run("ip", "link", "set", "peer0", "up")
            _run("ip", "route", "add", "default", "via", "10.233.0.2")
            engine.start()
        kubelet.start()
        try:
            yield kubelet
            for path in kubelet.manifests.glob("*.json"):
                kubelet.delete(path.stem)
        finally:
            kubelet.stop()
        engine.discard()
        left = leaks.of_engine(engine)
        assert not left, left
    finally:
        if engine.process is not None:
            engine.kill()
        leaks.clean_up(engine)
        _remove_cgroups(kubelet.cgroup_directory)
        _unmount(directory)
        engine.delete_directories()
        shutil.rmtree(directory)


def _unmount(directory: Path) -> None:
    """Unmount what is mounted at a directory and below."""
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        target = Path(line.split()[4])
        if target.is_relative_to(directory):
            _run("umount", str(target))


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _hierarchies() -> list[Path]:
    root = Path("/sys/fs/cgroup")
    if (root / "cgroup.controllers").exists():
        return [root]
    return [path for path in root.iterdir() if (path / "cgroup.procs").exists()]


def _make_cgroups(name: str) -> None:
    """Make the cgroup of the node's pods: the kubelet asks that it exists."""
    if SYSTEMD:
        _run("systemctl", "start", name)
        return
    for hierarchy in _hierarchies():
        group = hierarchy / name
        group.mkdir()
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (group / file).exists() and hierarchy.name == "cpuset":
                (group / file).write_text((hierarchy / file).read_text())


def _processes(name: str) -> set[int]:
    found = set()
    for hierarchy in _hierarchies():
        for directory, _, _ in os.walk(hierarchy / name):
            with contextlib.suppress(OSError):  # ENOENT and ENODEV: it was removed
                found |= set(map(int, (Path(directory) / "cgroup.procs").read_text().split()))
    return found


def _kill_processes(name: str) -> None:
    """Kill the processes of pods, and wait until they are gone."""
    deadline = time.monotonic() + 30
    while found := _processes(name):
        assert time.monotonic() < deadline, found
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _remove_cgroups(name: str) -> None:
    _kill_processes(name)
    if SYSTEMD:
        _run("systemctl", "stop", name)
    for hierarchy in _hierarchies():
        for directory, _, _ in os.walk(hierarchy / name, topdown=False):
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(directory)


def program() -> str | None:
    """Return the path of the kubelet that ``KUBELET`` names."""
    name = os.environ.get("KUBELET")
    return shutil.which(name) if name else None
