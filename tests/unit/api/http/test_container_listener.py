"""Clients in a container, on its engine socket."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

from jaula.api.http.api_server import Server
from jaula.api.http.container_listener import ContainerListener
from jaula.spec.api_params import ContainerPeer, Origin
from unit.api.client import Client, Served, served
from unit.event_loop import idle

PEER = ContainerPeer("3f" * 32, "web")


class Box:
    """The engine socket of one container, which another process holds too."""

    def __init__(self, server: Served, peer: ContainerPeer = PEER) -> None:
        self.path = Path(f"{server.path}-{peer.container[:4]}")
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.bind(str(self.path))
        self.sock.listen(8)
        self.held = self.sock.dup()
        self.listener = self.serve(server.server, peer)

    def serve(self, server: Server, peer: ContainerPeer = PEER) -> ContainerListener:
        sock = self.held.dup() if self.sock.fileno() < 0 else self.sock
        sock.setblocking(False)
        return server.listen_container(sock, peer)

    async def client(self) -> Client:
        return Client(*await asyncio.open_unix_connection(str(self.path)))


def watched(server: Served) -> list[Origin | None]:
    """Record the peers of connections."""
    peers: list[Origin | None] = []
    enter = server.server._enter

    def record(peer: Origin | None) -> object:
        peers.append(peer)
        return enter(peer)

    server.server._enter = record  # type: ignore[assignment]
    return peers


def test_the_caller_is_the_container_and_not_its_process() -> None:
    async def test(server: Served) -> None:
        peers = watched(server)
        box = Box(server)
        client = await box.client()
        assert (await client.ask("GET", "/_ping")).status == 200
        (peer,) = peers
        assert isinstance(peer, ContainerPeer)
        assert (peer.container, peer.entry, peer.pid) == ("3f" * 32, "web", os.getpid())
        client.close()
        box.held.close()

    served(test)


def test_the_end_of_a_container_ends_its_connections_alone() -> None:
    async def test(server: Served) -> None:
        one, two = Box(server), Box(server, ContainerPeer("4a" * 32, "web"))
        ended, other, host = await one.client(), await two.client(), await server.client()
        for client in (ended, other, host):
            assert (await client.ask("GET", "/_ping")).status == 200
        one.listener.close()
        one.listener.close()  # a second time is harmless
        assert await ended.until_closed() == b""
        for client in (other, host):
            assert (await client.ask("GET", "/_ping")).status == 200
        for box in (one, two):
            box.held.close()
        other.close()

    served(test)


def test_a_client_waits_for_the_next_engine() -> None:
    async def test(server: Served) -> None:
        peers = watched(server)
        box = Box(server)
        box.listener.pause()
        client = await box.client()  # the kernel accepts it for whoever holds the socket
        await idle()
        assert not peers
        box.listener.close()
        await idle()
        box.serve(server.server)
        assert (await client.ask("GET", "/_ping")).status == 200
        assert len(peers) == 1
        client.close()
        box.held.close()

    served(test)


def test_connections_of_a_container_are_its_share_of_all() -> None:
    async def test(server: Served) -> None:
        box = Box(server)
        server.access.caller = "container:3f"
        clients = [await box.client() for _ in range(8)]
        answers = [await client.ask("GET", "/_ping") for client in clients]
        assert 0 < [answer.status for answer in answers].count(200) < 8
        assert answers[-1].status == 503
        server.access.caller = "0"
        assert (await (await server.client()).ask("GET", "/_ping")).status == 200
        for client in clients:
            client.close()
        box.held.close()

    served(test, max_connections=8)
