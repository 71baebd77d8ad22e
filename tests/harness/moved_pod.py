"""A pod that moves between two engines with CRI, whose pods are in the network of both."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from harness.engine import PrivateEngine
from harness.migration import IMAGE, SUBNET, Site
from harness.pods import Cri, connected, container_config, sandbox_config
from jaula.features.kubernetes.cri.proto import api_pb2

POD = "web"
PORT = 7001
_FIRST_ID = 65536 * 60
_SERVER = "trap '' TERM; echo kept > /dev/shm/f; exec 3</dev/shm/f; exec /server"
_Result = TypeVar("_Result")


class PodEngine(PrivateEngine):
    """An engine with CRI, whose pods are in the network of both engines."""

    def __init__(self, index: int, extra_flags: tuple[str, ...], netns: str) -> None:
        super().__init__(index, extra_flags=(*extra_flags, "--cri"), netns=netns)
        configuration = self.root / "net.d"
        configuration.mkdir(parents=True)
        self.extra_flags = (
            *self.extra_flags,
            *("--cni-conf-dir", str(configuration), "--cni-bin-dir", "/usr/lib/cni"),
        )
        self.configure(netns[-1])

    def configure(self, site: str, first: int = 100) -> None:
        """Give pods addresses of the common network, from ``first`` on."""
        ranges = {"subnet": f"{SUBNET}.0/24", "rangeStart": f"{SUBNET}.{first}",
                  "rangeEnd": f"{SUBNET}.{first + 20}"}  # fmt: skip
        plugin = {
            "type": "bridge",
            "bridge": f"jm{site}lan",
            "ipam": {"type": "host-local", "dataDir": str(self.root / "ips"), "ranges": [[ranges]]},
        }
        document = {"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]}
        (self.root / "net.d/10-pods.conflist").write_text(json.dumps(document))


def call(site: Site, work: Callable[[Cri], Awaitable[_Result]]) -> _Result:
    async def run() -> _Result:
        async with connected(site.engine) as cri:
            return await work(cri)

    return asyncio.run(run())


class Pod:
    """A pod of two containers: a server, and a relay which asks it over the loopback."""

    def __init__(
        self, site: Site, logs: Path, *, userns: bool = False, mount: Path | None = None
    ) -> None:
        """``mount`` is a file of the host that the server has at /dev/termination-log."""
        self.site = site
        self.mount = mount
        self.userns = userns
        self.logs = logs
        self.id = call(site, self._run)
        self.address = self.status(site).network.ip

    async def _run(self, cri: Cri) -> str:
        config = sandbox_config(
            POD, api_pb2.CONTAINER, log_directory=str(self.logs), hostname="box"
        )
        config.linux.security_context.namespace_options.network = api_pb2.POD
        config.labels["app"] = POD
        if self.userns:
            ids = config.linux.security_context.namespace_options.userns_options
            ids.mode = api_pb2.POD
            for rows in (ids.uids, ids.gids):
                rows.add(container_id=0, host_id=_FIRST_ID, length=65536)
        pod = str((await cri.call("RunPodSandbox", config=config)).pod_sandbox_id)
        for name, command in (
            ("server", ("sh", "-c", _SERVER)),
            ("relay", ("/relay", "127.0.0.1", "7000", str(PORT))),
        ):
            request = container_config(name, *command, log_path=f"{name}.log")
            request.image.image = IMAGE
            if self.mount is not None and name == "server":
                source = str(self.mount)
                request.mounts.add(container_path="/dev/termination-log", host_path=source)
            created = await cri.call("CreateContainer", pod_sandbox_id=pod, config=request)
            await cri.call("StartContainer", container_id=created.container_id)
        return pod

    def status(self, site: Site) -> Any:
        async def read(cri: Cri) -> Any:
            pods = (await cri.call("ListPodSandbox")).items
            assert len(pods) == 1, pods
            return (await cri.call("PodSandboxStatus", pod_sandbox_id=pods[0].id)).status

        return call(site, read)

    def containers(self, site: Site) -> dict[str, Any]:
        async def read(cri: Cri) -> dict[str, Any]:
            found = (await cri.call("ListContainers")).containers
            return {each.metadata.name: each for each in found}

        return call(site, read)

    def runs(self, site: Site) -> bool:
        states = {each.state for each in self.containers(site).values()}
        return self.status(site).state == api_pb2.SANDBOX_READY and states == {
            api_pb2.CONTAINER_RUNNING
        }


def pid_at(site: Site) -> int:
    """Return a process of the pod of a site."""
    found = site.engine.request("GET", "/containers/json?pods=1").json()
    state = site.state(found[0]["Id"])
    assert state is not None
    return int(state["State"]["Pid"])


def pods_of(site: Site) -> list[str]:
    async def read(cri: Cri) -> list[str]:
        return [each.id for each in (await cri.call("ListPodSandbox")).items]

    return call(site, read)


def remove_pods(site: Site) -> None:
    """Remove all pods of a site."""

    async def remove(cri: Cri) -> None:
        for each in (await cri.call("ListPodSandbox")).items:
            await cri.call("RemovePodSandbox", pod_sandbox_id=each.id)

    call(site, remove)
