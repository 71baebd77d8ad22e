"""A client of the engine's CRI socket, which calls as the kubelet does."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest

from harness.api_user import acting_as
from harness.engine import PrivateEngine
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.grpc.grpc_client import Channel
from jaula.grpc.grpc_status import GrpcError
from jaula.grpc.http2_connection import Limits

RUNTIME, IMAGE = "/runtime.v1.RuntimeService/", "/runtime.v1.ImageService/"
TIMEOUT = 60.0  # seconds


class Cri:
    """Calls on one connection: ``await cri.call("Version", ...)``."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    async def call(self, method: str, **fields: Any) -> Any:
        """Call a method of RuntimeService, or ImageFsInfo; its request has these fields."""
        request = getattr(api_pb2, f"{method}Request")(**fields)
        response = getattr(api_pb2, f"{method}Response")
        service = IMAGE if method == "ImageFsInfo" else RUNTIME
        return await self.channel.unary(service + method, request, response.FromString, TIMEOUT)

    async def image(self, method: str, **fields: Any) -> Any:
        """Call a method of ImageService, whose request has these fields."""
        request = getattr(api_pb2, f"{method}Request")(**fields)
        response = getattr(api_pb2, f"{method}Response")
        return await self.channel.unary(IMAGE + method, request, response.FromString, TIMEOUT)

    async def stream(self, method: str, request: Any) -> AsyncGenerator[Any, None]:
        """Yield the responses of a streaming method."""
        name = "ContainerEvent" if method == "GetContainerEvents" else method
        response = getattr(api_pb2, f"{name}Response")
        stream = self.channel.open(RUNTIME + method)
        try:
            await stream.send(request.SerializeToString())
            stream.end()
            while (data := await stream.receive()) is not None:
                yield response.FromString(data)
        finally:
            stream.close()

    async def run_pod(self, name: str, **options: Any) -> str:
        """Run a sandbox on the host's network and return its id."""
        config = sandbox_config(name, **options)
        return str((await self.call("RunPodSandbox", config=config)).pod_sandbox_id)

    async def run_container(self, pod: str, name: str, *command: str, **fields: Any) -> str:
        """Create and start a container of busybox, and return its id."""
        config = container_config(name, *command, **fields)
        created = await self.call("CreateContainer", pod_sandbox_id=pod, config=config)
        await self.call("StartContainer", container_id=created.container_id)
        return str(created.container_id)

    async def container(self, container_id: str) -> Any:
        """Return the status of a container."""
        return (await self.call("ContainerStatus", container_id=container_id)).status

    async def run(self, container_id: str, *command: str) -> str:
        """Run a command in a container and return its output."""
        done = await self.call("ExecSync", container_id=container_id, cmd=command)
        assert done.exit_code == 0, done
        return str(done.stdout.decode())


def sandbox_config(name: str, pid: Any = api_pb2.POD, **fields: Any) -> api_pb2.PodSandboxConfig:
    """Return the configuration of a pod on the host's network."""
    config = api_pb2.PodSandboxConfig(
        metadata=api_pb2.PodSandboxMetadata(name=name, uid=f"uid-{name}", namespace="default"),
        **fields,
    )
    options = config.linux.security_context.namespace_options
    options.network, options.pid = api_pb2.NODE, pid
    return config


def container_config(name: str, *command: str, **fields: Any) -> api_pb2.ContainerConfig:
    """Return the configuration of a container of busybox."""
    return api_pb2.ContainerConfig(
        metadata=api_pb2.ContainerMetadata(name=name),
        image=api_pb2.ImageSpec(image="busybox"),
        command=command,
        **fields,
    )


@asynccontextmanager
async def connected(
    engine: PrivateEngine, uid: int = 0, gid: int = 0, groups: tuple[int, ...] = ()
) -> AsyncIterator[Cri]:
    """Connect to the CRI socket of an engine, as another user if ids are given."""
    with socket.socket(socket.AF_UNIX) as sock:
        with acting_as(uid, gid, groups) if uid else nullcontext():
            sock.connect(str(engine.run / "cri.sock"))
        sock.setblocking(False)
        channel = Channel(Limits())
        running = asyncio.ensure_future(channel.run(sock))
        try:
            yield Cri(channel)
        finally:
            channel.close()
            await running


def calls(engine: PrivateEngine, work: Callable[[Cri], Awaitable[None]]) -> None:
    """Run ``work`` with a connection, then remove every pod."""

    async def run() -> None:
        async with connected(engine) as cri:
            try:
                await work(cri)
            finally:
                for pod in (await cri.call("ListPodSandbox")).items:
                    await cri.call("RemovePodSandbox", pod_sandbox_id=pod.id)

    asyncio.run(run())


async def refused(call: Awaitable[object]) -> GrpcError:
    """Return the error of a call that has to fail."""
    with pytest.raises(GrpcError) as caught:
        await call
    return caught.value


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition is true."""
    for _ in range(400):
        if condition():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the condition does not become true")
