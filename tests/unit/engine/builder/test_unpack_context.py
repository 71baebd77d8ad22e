"""The context of a build whose client is gone while it is unpacked."""

from __future__ import annotations

import asyncio
import gc
import io
import tarfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jaula.features.build.builder.build_sources import unpack_context
from jaula.images.registry.cancellation import Cancellation


def _beginning_of_tar() -> bytes:
    """Return a tar that ends inside its only file."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        entry = tarfile.TarInfo("f")
        entry.size = 1 << 20
        tar.addfile(entry, io.BytesIO(bytes(entry.size)))
    return data.getvalue()[: 1 << 16]


@pytest.mark.parametrize("cancels", [0, 1, 2])
def test_a_client_that_hangs_up_leaves_nothing_in_the_log(tmp_path: Path, cancels: int) -> None:
    """The stream fails and the thread fails; the caller gets one of both, the loop none."""
    reported: list[dict[str, Any]] = []

    async def stream(gone: asyncio.Event) -> AsyncIterator[bytes]:
        yield _beginning_of_tar()
        await gone.wait()
        raise ConnectionError("the client is gone")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: reported.append(context)
        )
        gone = asyncio.Event()
        task = asyncio.create_task(unpack_context(stream(gone), str(tmp_path), Cancellation()))
        await asyncio.sleep(0.05)
        gone.set()
        for _ in range(cancels):
            task.cancel()
            await asyncio.sleep(0)
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(outcome, BaseException)
        del task, outcome
        for thread in threading.enumerate():
            if thread.name == "own-thread":
                await asyncio.to_thread(thread.join, 10)
        await asyncio.sleep(0)
        gc.collect()

    asyncio.run(main())
    assert not reported
