"""The runtime service over a scripted engine."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from harness.cri import serve
from jaula.errors import JaulaError, Unavailable
from jaula.features.kubernetes.cri.proto import api_pb2
from jaula.features.kubernetes.cri.runtime_service import SERVICE, RuntimeService
from jaula.grpc.grpc_status import Code, GrpcError


def remove(error: JaulaError | None = None) -> list[str]:
    """Remove a container and return the calls of the engine; ``error`` is that of its disk."""
    made: list[str] = []

    async def remove_container(ref: str) -> None:
        made.append(f"remove {ref}")

    async def sync() -> None:
        await asyncio.sleep(0)
        made.append("sync")
        if error is not None:
            raise error

    async def run() -> None:
        engine = SimpleNamespace(
            service=lambda make: SimpleNamespace(remove_container=remove_container), sync=sync
        )
        methods = RuntimeService(cast(Any, engine), cast(Any, None)).methods()
        async with serve(methods, SERVICE) as client:
            request = api_pb2.RemoveContainerRequest(container_id="c1")
            await client.call("RemoveContainer", request, api_pb2.RemoveContainerResponse)
        made.append("answer")

    try:
        asyncio.run(run())
    except GrpcError as failure:
        made.append(failure.code.name)
    return made


def test_an_answer_waits_until_the_change_is_on_the_disk() -> None:
    assert remove() == ["remove c1", "sync", "answer"]


def test_a_change_that_the_disk_does_not_take_is_not_answered_as_done() -> None:
    assert remove(Unavailable("the disk is full")) == ["remove c1", "sync", Code.UNAVAILABLE.name]
