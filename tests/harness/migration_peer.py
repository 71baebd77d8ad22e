"""A peer of a migration that sends what a test asks for, and an engine that accepts it.

The engine has a certificate of its own, and a policy with lines about the peer. Its TLS port is on
the loopback device.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from harness.certificates import Authority
from harness.engine import PrivateEngine
from jaula import tls
from jaula.features.migration import data_stream, migration_channel
from jaula.features.migration.data_stream import DataWriter
from jaula.features.migration.migration_channel import Channel
from jaula.features.migration.migrations import PATH
from jaula.spec.api_documents import AddressMode, ContainerCreate
from jaula.spec.decode import decode
from jaula.spec.migration import (
    VERSION,
    HostAnswer,
    HostDescription,
    HostQuery,
    Offer,
    OfferedMount,
    Prepare,
    Prepared,
    Verdict,
)

LINES = 'access = "run"\nmigrate = true'
"""The lines of a peer that may have its own containers only."""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Target:
    """An engine, and the certificate of a peer that it accepts."""

    def __init__(self, engine: PrivateEngine, port: int, files: tls.TlsFiles) -> None:
        self.engine = engine
        self.port = port
        self._files = files

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Channel]:
        """Connect as the peer."""
        context = tls.client_context(
            self._files.authority, self._files.certificate, self._files.key
        )
        channel = await migration_channel.connect("127.0.0.1", self.port, context, PATH)
        try:
            yield channel
        finally:
            await channel.close()

    def open_stream(self, token: str) -> DataWriter:
        """Connect for the files of a checkpoint. Blocks."""
        context = tls.client_context(
            self._files.authority, self._files.certificate, self._files.key
        )
        return data_stream.connect("127.0.0.1", self.port, context, token)

    async def describe_host(self) -> HostDescription:
        """Return the facts of the target's host."""
        async with self.connect() as channel:
            await channel.send(HostQuery(VERSION))
            return (await channel.expect(HostAnswer)).host

    async def offer(
        self,
        image: str,
        body: bytes,
        *,
        volumes: tuple[OfferedMount, ...] = (),
        stopped: bool = True,
        memory: int = 1 << 20,
    ) -> Offer:
        """Return an offer with a random id and name. ``body`` is the create request in JSON."""
        reply = self.engine.request("GET", f"/images/{image}/json")
        assert reply.status == 200, reply
        word = secrets.token_hex(8)
        return Offer(
            version=VERSION,
            id=word,
            name=f"moved-{word}",
            body=decode(body, ContainerCreate),
            image=reply.json()["Id"],
            asked_image=image,
            host=await self.describe_host(),
            memory=memory,
            volumes=volumes,
            address=AddressMode.NEW,
            stopped=stopped,
        )

    async def prepare(self, channel: Channel, offer: Offer) -> Prepared:
        """Send an offer, and let the target create the container."""
        await channel.send(offer)
        verdict = await channel.expect(Verdict)
        assert all(row.passed for row in verdict.rows), verdict.rows
        await channel.send(Prepare())
        return await channel.expect(Prepared)


@contextlib.contextmanager
def target(directory: Path, index: int, lines: str = LINES) -> Iterator[Target]:
    """Run an engine that accepts migrations of a peer; ``lines`` are its rule in the policy."""
    authority = Authority(directory / "authority")
    place = authority.sign("engine-t", usage="clientAuth,serverAuth", addresses=("127.0.0.1",))
    peer = authority.sign("engine-p", usage="clientAuth,serverAuth", addresses=("127.0.0.2",))
    policy, port = directory / "policy.toml", _free_port()
    policy.write_text(f'[certificate.engine-p]\n{lines}\n[user.root]\naccess = "all"\n')
    engine = PrivateEngine(
        index,
        extra_flags=(
            *("-H", f"tcp://127.0.0.1:{port}", "--tlsverify"),
            *("--tlscacert", str(authority.file), "--tlscert", str(place / "cert.pem")),
            *("--tlskey", str(place / "key.pem"), "--policy", str(policy)),
        ),
    )
    names = (authority.file, peer / "cert.pem", peer / "key.pem")
    try:
        engine.start()
        yield Target(engine, port, tls.TlsFiles(*(str(each) for each in names)))
    finally:
        try:
            engine.discard()
        finally:
            engine.delete_directories()


async def ended(channel: Channel) -> None:
    """Wait until the target has closed the connection."""
    with contextlib.suppress(migration_channel.LinkLost):
        while True:
            await asyncio.wait_for(channel.receive(), 60)
