"""aiodocker, an unmodified asynchronous client for Python."""

from __future__ import annotations

import asyncio
from typing import Any

import aiodocker
import pytest
from aiodocker.exceptions import DockerError

from harness.engine import PrivateEngine

pytestmark = pytest.mark.client(name="aiodocker")


def with_client(engine: PrivateEngine, script: Any) -> Any:
    """Run ``script(client)`` to completion on an event loop."""

    async def run() -> Any:
        client = aiodocker.Docker(url=engine.host)
        try:
            return await asyncio.wait_for(script(client), 60)
        finally:
            await client.close()

    return asyncio.run(run())


def test_a_container_is_created_started_and_deleted(engine: PrivateEngine, busybox: str) -> None:
    async def script(client: Any) -> None:
        command = ["sh", "-c", "echo out; echo err >&2; read line; echo got $line; exit 3"]
        container = await client.containers.create_or_replace(
            name="aio",
            config={
                "Image": busybox,
                "Cmd": command,
                "OpenStdin": True,
                "StdinOnce": True,
                "AttachStdin": True,
                "HostConfig": {"Memory": 64 << 20},
            },
        )
        stream = container.attach(stdin=True, stdout=True, stderr=True)
        async with stream:
            await container.start()
            await stream.write_in(b"words\n")
            reported = []
            while (message := await stream.read_out()) is not None:
                reported.append((message.stream, message.data))
        assert b"".join(d for s, d in reported if s == 1) == b"out\ngot words\n"
        assert b"".join(d for s, d in reported if s == 2) == b"err\n"
        assert (await container.wait())["StatusCode"] == 3
        assert await container.log(stdout=True) == ["out\n", "got words\n"]
        document = await container.show()
        assert document["HostConfig"]["Memory"] == 64 << 20
        await container.delete()
        with pytest.raises(DockerError) as caught:
            await client.containers.get("aio")
        assert caught.value.status == 404

    with_client(engine, script)


def test_exec_archives_and_events_work(engine: PrivateEngine, busybox: str) -> None:
    async def script(client: Any) -> None:
        events = client.events.subscribe()
        container = await client.containers.run(
            {"Image": busybox, "Cmd": ["sleep", "60"], "HostConfig": {"Init": True}}, name="aio-2"
        )
        try:
            execution = await container.exec(
                ["sh", "-c", "echo one > /tmp/file; echo done; exit 4"]
            )
            async with execution.start() as stream:
                message = await stream.read_out()
                assert message.data == b"done\n"
                assert await stream.read_out() is None
            assert (await execution.inspect())["ExitCode"] == 4
            archive = await container.get_archive("/tmp/file")
            assert archive.extractfile("file").read() == b"one\n"
            stats = await container.stats(stream=False)
            assert stats[0]["memory_stats"]["usage"] > 0
        finally:
            await container.delete(force=True)
        seen = set()
        while "destroy" not in seen:
            event = await asyncio.wait_for(events.get(), 20)
            if event["Actor"]["ID"] == container.id:
                seen.add(event["Action"].partition(":")[0])
        assert {"start", "exec_create", "exec_start", "die", "destroy"} <= seen

    with_client(engine, script)


def test_networks_volumes_and_images_work(engine: PrivateEngine, busybox: str) -> None:
    async def script(client: Any) -> None:
        network = await client.networks.create({"Name": "aio-net", "Labels": {"a": "b"}})
        volume = await client.volumes.create({"Name": "aio-volume"})
        try:
            assert (await network.show())["Labels"] == {"a": "b"}
            assert "aio-volume" in [v["Name"] for v in (await client.volumes.list())["Volumes"]]
            assert (await client.images.inspect(busybox))["Os"] == "linux"
            assert (await client.version())["ApiVersion"] == "1.55"
            assert (await client.system.info())["OSType"] == "linux"
        finally:
            await volume.delete()
            await network.delete()

    with_client(engine, script)
