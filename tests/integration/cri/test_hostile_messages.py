"""Hostile requests of every method of CRI: one clear status each, and nothing is left of them.

The requests are those of :mod:`harness.hostile_messages`. The default run takes a part of them;
``JAULA_FUZZ_SEED`` chooses another part, and ``JAULA_FUZZ_SECONDS`` a larger one.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from google.protobuf.message import Message

from conftest import load_image
from harness import leaks
from harness.engine import PrivateEngine
from harness.hostile_messages import Mutation, damaged, mutations
from harness.pods import IMAGE, RUNTIME, TIMEOUT, Cri, connected, container_config, sandbox_config
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.grpc.grpc_status import Code, GrpcError

DURATIONS = [6, pytest.param(20, marks=pytest.mark.slow)]  # seconds
if "JAULA_FUZZ_SECONDS" in os.environ:
    DURATIONS = [float(os.environ["JAULA_FUZZ_SECONDS"])]
SEED = int(os.environ.get("JAULA_FUZZ_SEED", "20261129"))
CLEAR = {
    Code.INVALID_ARGUMENT,
    Code.NOT_FOUND,
    Code.FAILED_PRECONDITION,
    Code.RESOURCE_EXHAUSTED,
    Code.UNIMPLEMENTED,
}
KNOWN = ("RegistryUnavailable: ", "ImageVolumeMountFailed: ")
"""Texts that the kubelet knows, and sees with the code UNKNOWN only."""

MAX_MESSAGE = 8192  # bytes
IMAGE_METHODS = ("ListImages", "ImageStatus", "PullImage", "RemoveImage", "ImageFsInfo")
CREATING = ("RunPodSandbox", "CreateContainer")
ENDLESS = ("GetContainerEvents",)


class Raw:
    """A request that is bytes already."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def SerializeToString(self) -> bytes:
        return self._data


class Bases(NamedTuple):
    """A pod with a running container and one that has exited, for valid requests."""

    pod: str
    running: str
    exited: str

    def request(self, method: str) -> Message:
        """Return a valid request, if there is one without effects."""
        sandbox, container = sandbox_config("hostile"), container_config("hostile", "sleep", "100")
        requests: dict[str, Message] = {
            "RunPodSandbox": api_pb2.RunPodSandboxRequest(config=sandbox),
            "CreateContainer": api_pb2.CreateContainerRequest(
                pod_sandbox_id=self.pod, config=container, sandbox_config=sandbox
            ),
            "UpdateContainerResources": api_pb2.UpdateContainerResourcesRequest(
                container_id=self.running
            ),
            "ExecSync": api_pb2.ExecSyncRequest(container_id=self.running, cmd=["true"]),
            "Exec": api_pb2.ExecRequest(container_id=self.running, cmd=["true"], stdout=True),
            "StopContainer": api_pb2.StopContainerRequest(container_id=self.exited),
            "ContainerStatus": api_pb2.ContainerStatusRequest(container_id=self.running),
            "PodSandboxStatus": api_pb2.PodSandboxStatusRequest(pod_sandbox_id=self.pod),
            "PullImage": api_pb2.PullImageRequest(image=api_pb2.ImageSpec(image="127.0.0.1:1/x:1")),
        }
        return requests.get(method) or request_type(method)()


def request_type(method: str) -> Any:
    return getattr(api_pb2, {"GetContainerEvents": "GetEvents"}.get(method, method) + "Request")


def methods() -> list[str]:
    """Return the methods of both services by the interface."""
    services = api_pb2.DESCRIPTOR.services_by_name.values()
    return [method.name for service in services for method in service.methods]


@pytest.fixture(scope="module")
def node(worker_index: int) -> Iterator[PrivateEngine]:
    private = PrivateEngine((worker_index + 61) % 250 + 1, extra_flags=("--cri",))
    with leaks.nothing_left(private):
        load_image(private, "busybox")
        yield private
        assert "Traceback" not in private.log.read_text(errors="replace")


def files(node: PrivateEngine) -> set[str]:
    """Return the directories of containers and snapshots."""
    places = (node.root / "lib").glob("*/*")
    return {
        str(path) for path in places if path.parent.name in ("containers", "snapshots", "overlay")
    }


class Fuzzer:
    """Sends requests on one connection and checks each answer."""

    def __init__(self, node: PrivateEngine, cri: Cri, bases: Bases) -> None:
        self.node = node
        self.cri = cri
        self.bases = bases
        self.seen: dict[Code, int] = {}

    async def check(self, method: str, mutation: Mutation) -> None:
        before = files(self.node) if method in CREATING else set()
        error = await self._send(method, mutation.data)
        what = f"{method} with {mutation.label}: {error and (error.code.name, error.message[:300])}"
        if error is not None:
            allowed = CLEAR
            if error.message.startswith(KNOWN):
                allowed = CLEAR | {Code.UNKNOWN}
            assert error.code in allowed, what
            assert error.message and len(error.message.encode()) <= MAX_MESSAGE, what
            assert "Traceback" not in error.message, what
            self.seen[error.code] = self.seen.get(error.code, 0) + 1
        if method in CREATING:
            await self._remove_others(what, made=error is None)
            assert files(self.node) == before, what

    async def _send(self, method: str, data: bytes) -> GrpcError | None:
        service = IMAGE if method in IMAGE_METHODS or method == "StreamImages" else RUNTIME
        stream = self.cri.channel.open(service + method)
        try:
            async with asyncio.timeout(0.05 if method in ENDLESS else TIMEOUT):
                await stream.send(data)
                stream.end()
                while await stream.receive() is not None:
                    pass
        except TimeoutError:
            assert method in ENDLESS, method
        except GrpcError as error:
            return error
        finally:
            stream.close()
        return None

    async def _remove_others(self, what: str, *, made: bool) -> None:
        """Start and remove the containers that a request has made, and remove its pods."""
        kept = {self.bases.running, self.bases.exited, self.bases.pod}
        for container in (await self.cri.call("ListContainers")).containers:
            if container.id in kept:
                continue
            assert made, what
            request = api_pb2.StartContainerRequest(container_id=container.id)
            error = await self._send("StartContainer", request.SerializeToString())
            assert error is None or error.code in CLEAR, f"start after {what}: {error}"
            await self.cri.call("RemoveContainer", container_id=container.id)
        for pod in (await self.cri.call("ListPodSandbox")).items:
            if pod.id not in kept:
                assert made, what
                await self.cri.call("RemovePodSandbox", pod_sandbox_id=pod.id)


@pytest.mark.parametrize("seconds", DURATIONS)
def test_hostile_requests_get_one_clear_status_and_leave_nothing(
    node: PrivateEngine, seconds: float
) -> None:
    async def run() -> None:
        random_ = random.Random(SEED)
        async with connected(node) as cri:
            pod = await cri.run_pod("base")
            running = await cri.run_container(pod, "main", "sleep", "1000")
            exited = await cri.run_container(pod, "exited", "true")
            bases = Bases(pod, running, exited)
            fuzzer = Fuzzer(node, cri, bases)
            work = []
            for method in methods():
                base = bases.request(method)
                some = [*mutations(base), *damaged(base, random_, 20)]
                random_.shuffle(some)
                share = len(some) if len(some) < 40 else 40 + len(some) // 2
                work += [(method, mutation) for mutation in some[:share]]
            random_.shuffle(work)
            deadline, done = time.monotonic() + seconds, 0
            for method, mutation in work:
                if time.monotonic() > deadline:
                    break
                await fuzzer.check(method, mutation)
                done += 1
            assert done > 10 * seconds, done
            assert fuzzer.seen.keys() >= {Code.INVALID_ARGUMENT, Code.NOT_FOUND}, fuzzer.seen
            status = await cri.container(running)  # the container that all requests named
            assert status.state == api_pb2.CONTAINER_RUNNING
            await cri.call("RemovePodSandbox", pod_sandbox_id=pod)

    asyncio.run(run())


def test_one_pod_cannot_make_the_lists_too_large(node: PrivateEngine, tmp_path: Path) -> None:
    async def run() -> None:
        async with connected(node) as cri:
            for field in ("labels", "annotations"):
                config = sandbox_config("large")
                getattr(config, field)["key"] = "x" * (3 << 20)
                with pytest.raises(GrpcError, match="labels and annotations") as caught:
                    await cri.call("RunPodSandbox", config=config)
                assert caught.value.code is Code.INVALID_ARGUMENT
            pod = await cri.run_pod("base", log_directory=str(tmp_path / "logs"))
            config = container_config("large", "true")
            config.envs.add(key="key", value=b"x" * (3 << 20))
            with pytest.raises(GrpcError, match="the request has") as caught:
                await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)
            assert caught.value.code is Code.INVALID_ARGUMENT
            config = container_config("binary", "true")
            config.envs.add(key="key", value=b"\xff")
            with pytest.raises(GrpcError, match="not UTF-8"):
                await cri.call("CreateContainer", pod_sandbox_id=pod, config=config)
            assert not (await cri.call("ListContainers")).containers
            await cri.call("RemovePodSandbox", pod_sandbox_id=pod)

    asyncio.run(run())
