"""A peer that may have its own containers only, against what others have at the target."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import secrets
import tarfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from harness import criu_program, images, migration_peer
from harness.migration_peer import Target
from jaula.features.migration.migration_channel import Channel, LinkLost, TargetFailed
from jaula.spec.api_networks import NetworkCreate
from jaula.spec.migration import (
    MAX_DATA,
    Cancel,
    DataKind,
    Keep,
    Kept,
    OfferedMount,
    OfferedNetwork,
    Ready,
    Removed,
    Transfer,
    TransferKind,
    pack_data_head,
)

IMAGE = "moved"
pytestmark = pytest.mark.needs("openssl")


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    directory = tmp_path_factory.mktemp("target")
    programs = directory / "programs"
    programs.mkdir()
    criu_program.write(programs)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{programs}:{before}"
    try:
        with migration_peer.target(directory, 232) as made:
            images.import_image(made.engine, IMAGE, images.busybox_entries())
            yield made
    finally:
        os.environ["PATH"] = before


@pytest.fixture
def name() -> str:
    return f"data{secrets.token_hex(5)}"


def write(target: Target, volume: str, text: str) -> None:
    """Put a file into a volume, which is created by root if it is absent."""
    done = target.engine.cli("jaula", "volume", "create", volume)
    assert done.returncode == 0, done.stderr
    path = target.engine.request("GET", f"/volumes/{volume}").json()["Mountpoint"]
    (Path(path) / "file").write_text(text)


def content(target: Target, volume: str) -> str | None:
    reply = target.engine.request("GET", f"/volumes/{volume}")
    if reply.status == 404:
        return None
    file = Path(reply.json()["Mountpoint"]) / "file"
    return file.read_text() if file.exists() else ""


def body(volume: str = "", mode: str = "") -> bytes:
    binds = [f"{volume}:/v{mode}"] if volume else []
    return json.dumps({"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"Binds": binds}}).encode()


def mount(volume: str) -> tuple[OfferedMount, ...]:
    return (OfferedMount("/v", volume),)


def archive(text: str) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text.encode()))
    return data.getvalue()


async def arrive(target: Target, volume: str, mode: str) -> str:
    """Move a container with a volume, in which is a file; return its id."""
    async with target.connect() as channel:
        offer = await target.offer(IMAGE, body(volume, mode), volumes=mount(volume))
        prepared = await target.prepare(channel, offer)
        await channel.send(Transfer(TransferKind.VOLUME, "/v"))
        await channel.send_data(archive("first"))
        await channel.end_data()
        await channel.send(Keep())
        await channel.expect(Kept)
        return prepared.container


def audited(target: Target, action: str, subject: str) -> list[str]:
    """Return the lines of the audit log about an action on a subject."""
    done = target.engine.cli("jaula", "system", "audit-log", "--format", "json")
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if action in line and subject in line]


def test_a_volume_that_root_creates_after_the_offer_stays(target: Target, name: str) -> None:
    async def run() -> None:
        async with target.connect() as channel:
            await target.prepare(channel, await target.offer(IMAGE, body(), volumes=mount(name)))
            await asyncio.to_thread(write, target, name, "root's")
            await channel.send(Cancel("enough"))
            await migration_peer.ended(channel)

    asyncio.run(run())
    assert content(target, name) == "root's"


def test_a_volume_that_root_uses_meanwhile_stays(target: Target, name: str) -> None:
    """The migration has created it. Another client that asks for it by name gets the same one."""

    async def run() -> None:
        async with target.connect() as channel:
            offer = await target.offer(IMAGE, body(name), volumes=mount(name))
            await target.prepare(channel, offer)
            await asyncio.to_thread(write, target, name, "root's")
            await channel.send(Cancel("enough"))
            await migration_peer.ended(channel)

    asyncio.run(run())
    assert content(target, name) == "root's"


def test_a_volume_that_root_creates_again_stays(target: Target, name: str) -> None:
    """Its name is the same, and it is not the one that the migration has created."""

    async def run() -> None:
        async with target.connect() as channel:
            offer = await target.offer(IMAGE, body(name), volumes=mount(name))
            prepared = await target.prepare(channel, offer)
            path = f"/containers/{prepared.container}?force=1"
            reply = await asyncio.to_thread(target.engine.request, "DELETE", path)
            assert reply.status == 204, reply
            reply = await asyncio.to_thread(target.engine.request, "DELETE", f"/volumes/{name}")
            assert reply.status == 204, reply
            await asyncio.to_thread(write, target, name, "root's")
            await channel.send(Cancel("enough"))
            await migration_peer.ended(channel)

    asyncio.run(run())
    assert content(target, name) == "root's"


def test_an_undone_migration_removes_its_own_volume_and_says_who(target: Target, name: str) -> None:
    async def run() -> str:
        async with target.connect() as channel:
            offer = await target.offer(IMAGE, body(name), volumes=mount(name))
            await target.prepare(channel, offer)
            assert content(target, name) == ""
            await channel.send(Cancel("enough"))
            await migration_peer.ended(channel)
            return offer.name

    container = asyncio.run(run())
    assert content(target, name) is None
    assert target.engine.request("GET", f"/containers/{container}/json").status == 404
    (row,) = audited(target, "volume remove", name)
    assert "engine-p" in row


@pytest.mark.parametrize("mode", ["", ":ro"])
@pytest.mark.parametrize("message", ["files", "removal"])
def test_files_of_an_existing_volume_are_not_changed(
    target: Target, name: str, mode: str, message: str
) -> None:
    """Whatever the offer says of its volumes, the target decides."""
    asyncio.run(arrive(target, name, ""))
    created = target.engine.request("GET", f"/volumes/{name}").json()["CreatedAt"]

    async def run() -> None:
        async with target.connect() as channel:
            offer = await target.offer(IMAGE, body(name, mode))  # it names none
            await target.prepare(channel, offer)
            with contextlib.suppress(LinkLost):  # it has failed, and why is still to be read
                if message == "files":
                    await channel.send(Transfer(TransferKind.VOLUME, "/v"))
                    await channel.send_data(archive("peer's"))
                    await channel.end_data()
                else:
                    await channel.send(Removed(TransferKind.VOLUME, "/v", ("file",)))
                await channel.send(Keep())
            with pytest.raises(TargetFailed, match=f"volume {name} keeps its files"):
                await channel.expect(Kept)

    asyncio.run(run())
    assert content(target, name) == "first"
    assert target.engine.request("GET", f"/volumes/{name}").json()["CreatedAt"] == created


@pytest.mark.parametrize("mode", ["", ":ro"])
def test_files_of_a_new_volume_arrive(target: Target, name: str, mode: str) -> None:
    container = asyncio.run(arrive(target, name, mode))
    assert content(target, name) == "first"
    assert target.engine.request("DELETE", f"/containers/{container}").status == 204
    assert content(target, name) == "first"


def test_a_volume_that_has_arrived_stays_when_another_migration_fails(
    target: Target, name: str
) -> None:
    """Both are of one peer, at the same time, and have the volume."""

    async def run() -> None:
        async with target.connect() as second, target.connect() as first:
            offer = await target.offer(IMAGE, body(name), volumes=mount(name))
            container = (await target.prepare(first, offer)).container
            await target.prepare(second, await target.offer(IMAGE, body(name), volumes=mount(name)))
            await first.send(Keep())
            await first.expect(Kept)
            path = f"/containers/{container}"
            reply = await asyncio.to_thread(target.engine.request, "DELETE", path)
            assert reply.status == 204, reply
            await second.send(Cancel("enough"))
            await migration_peer.ended(second)

    asyncio.run(run())
    assert content(target, name) == ""


def test_a_network_that_root_creates_again_stays(target: Target, name: str) -> None:
    """The migration has created one with the name."""
    request = target.engine.request

    async def run() -> str:
        async with target.connect() as channel:
            definition = NetworkCreate(name=name, driver="bridge")
            offer = await target.offer(IMAGE, body())
            networks = (OfferedNetwork(name, definition=definition),)
            offer = msgspec.structs.replace(offer, networks=networks)
            container = (await target.prepare(channel, offer)).container
            path = f"/containers/{container}?force=1"
            await asyncio.to_thread(request, "DELETE", path)
            reply = await asyncio.to_thread(request, "DELETE", f"/networks/{name}")
            assert reply.status == 204, reply
            reply = await asyncio.to_thread(request, "POST", "/networks/create", {"Name": name})
            assert reply.status == 201, reply
            await channel.send(Cancel("enough"))
            await migration_peer.ended(channel)
            return str(reply.json()["Id"])

    identity = asyncio.run(run())
    assert request("GET", f"/networks/{name}").json()["Id"] == identity
    request("DELETE", f"/networks/{name}")


def test_a_next_engine_removes_volumes_of_an_interrupted_migration(
    target: Target, name: str
) -> None:
    """And no volume that root has created since."""
    other = f"{name}-other"

    async def run() -> None:
        async with target.connect() as channel:
            offer = await target.offer(
                IMAGE, body(name), volumes=(*mount(name), OfferedMount("/w", other))
            )
            await target.prepare(channel, offer)
            await asyncio.to_thread(write, target, other, "root's")
            await asyncio.to_thread(target.engine.kill)

    asyncio.run(run())
    target.engine.start()
    assert content(target, name) is None
    assert content(target, other) == "root's"


def test_a_peer_sends_no_more_than_it_has_offered(target: Target) -> None:
    """Frames of zeros would make a sparse file of any size from some bytes."""

    async def run() -> None:
        async with target.connect() as channel:
            offer = await target.offer(IMAGE, body(), stopped=False, memory=1 << 20)
            prepared = await target.prepare(channel, offer)
            stream = await asyncio.to_thread(target.open_stream, prepared.token)
            zeros = pack_data_head(DataKind.ZEROS, MAX_DATA) * 4096

            def send() -> None:
                stream.write(DataKind.NAME, b"pages-1.img")
                for _ in range(256):
                    stream._send(zeros)

            with pytest.raises(LinkLost):
                await asyncio.to_thread(send)
            with pytest.raises(TargetFailed, match="larger than"):
                await channel.expect(Ready)

    asyncio.run(run())


def test_a_peer_has_a_share_of_what_may_arrive(target: Target) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    async def prepared(channel: Channel) -> bool:
        """Return whether the target has accepted one more container."""
        offer = await target.offer(IMAGE, body(), stopped=False, memory=memory // 4)
        try:
            await target.prepare(channel, offer)
        except TargetFailed as error:
            if "more than this engine may move here now" not in error.message:
                raise
            return False
        return True

    async def run() -> None:
        async with contextlib.AsyncExitStack() as stack:
            accepted = 0
            while await prepared(await stack.enter_async_context(target.connect())):
                accepted += 1
            assert 1 < accepted < 64
        async with asyncio.timeout(60):  # in which all of them are undone
            ended = False
            while not ended:
                async with target.connect() as channel:
                    ended = await prepared(channel)

    asyncio.run(run())
