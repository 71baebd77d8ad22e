"""Hostile clients of the streaming server of a real engine, and hostile programs in pods."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest

from conftest import load_image
from harness import leaks
from harness.engine import SLOW, PrivateEngine
from harness.pods import Cri, calls
from harness.stream_client import SpdyClient, request, spdy_headers
from jaula.grpc.grpc_status import Code, GrpcError

V4 = "v4.channel.k8s.io"


@pytest.fixture(scope="module")
def node(worker_index: int) -> Iterator[PrivateEngine]:
    private = PrivateEngine((worker_index + 73) % 250 + 1, extra_flags=("--cri",))
    with leaks.nothing_left(private):
        load_image(private, "busybox")
        yield private
        assert "Traceback" not in private.log.read_text(errors="replace")


async def exec_url(cri: Cri, container: str, *command: str) -> str:
    made = await cri.call("Exec", container_id=container, cmd=command, stdout=True)
    return str(made.url)


def test_a_port_that_accepts_nobody_does_not_keep_other_calls(node: PrivateEngine) -> None:
    """The queue of a program's listening socket is full, so a connection is never made."""

    async def work(cri: Cri) -> None:
        pod = await cri.run_pod("full")  # on the host's network
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen(0)
            port = server.getsockname()[1]
            filling = [socket.socket() for _ in range(4)]
            for sock in filling:
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", port))
            url = (await cri.call("PortForward", pod_sandbox_id=pod, port=[port])).url
            client = await SpdyClient.connect(url, "portforward.k8s.io")
            try:
                for number in range(40):
                    headers = {"port": str(port), "requestid": str(number)}
                    await client.open(streamtype="error", **headers)
                    await client.open(streamtype="data", **headers)
                await asyncio.sleep(0.2)
                began = time.monotonic()
                container = await cri.run_container(pod, "main", "sleep", "100")
                assert await cri.run(container, "echo", "in") == "in\n"
                await cri.call("ContainerStats", container_id=container)
                assert time.monotonic() - began < 5 * SLOW
            finally:
                client.close()
                for sock in filling:
                    sock.close()

    calls(node, work)


def test_unused_urls_are_limited_and_give_nothing_to_a_guesser(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    node = new_engine("--cri")
    load_image(node, "busybox")

    async def work(cri: Cri) -> None:
        container = await cri.run_container(await cri.run_pod("urls"), "main", "sleep", "100")
        urls: list[str] = []

        async def use_up() -> None:
            while len(urls) < 2000:
                urls.append(await exec_url(cri, container, "true"))

        with pytest.raises(GrpcError, match="in-flight") as caught:
            await use_up()
        assert caught.value.code is Code.RESOURCE_EXHAUSTED and len(urls) == 1000
        base = urls[0].rpartition("/")[0]
        for guess in ("", "x", "A" * 22, urls[0].rpartition("/")[2][:-1], "%2e%2e/x"):
            answer, _, writer = await request(f"{base}/{guess}", spdy_headers(V4))
            writer.close()
            assert answer.status == 404
        client = await SpdyClient.connect(urls[-1], V4)  # a valid one works all the same
        await client.open_all("error", "stdout")
        await client.until_closed()
        again, _, writer = await request(urls[-1], spdy_headers(V4))
        writer.close()
        assert again.status == 404
        assert len(await exec_url(cri, container, "true")) > 22  # the used one made room

    calls(node, work)


def test_clients_without_a_token_do_not_keep_one_with_it(node: PrivateEngine) -> None:
    """Any process of the host reaches the server's port: slow, huge and broken heads."""

    async def work(cri: Cri) -> None:
        container = await cri.run_container(await cri.run_pod("slow"), "main", "sleep", "100")
        parts = urlsplit(await exec_url(cri, container, "true"))
        writers = []
        for number in range(300):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write((b"GET /exec/", b"\0" * 100, b"X: " + b"y" * 20_000)[number % 3])
            writers.append(writer)
        client = await SpdyClient.connect(await exec_url(cri, container, "echo", "out"), V4)
        ids = await client.open_all("error", "stdout")
        await client.until_closed()
        assert client.received[ids["stdout"]] == b"out\n"
        for writer in writers:
            writer.close()

    calls(node, work)


def test_a_session_of_garbage_ends_its_command(node: PrivateEngine) -> None:
    async def work(cri: Cri) -> None:
        container = await cri.run_container(await cri.run_pod("bad"), "main", "sleep", "100")
        for garbage in (
            struct.pack(">II", 0x80030001, 0xFFFFFF),  # a frame that is too large
            struct.pack(">IIIIH", 0x80030001, 10, 1, 0, 0) + b"\xff" * 20,  # not zlib
            struct.pack(">II", 99, 4) + b"late" + struct.pack(">II", 0x80030099, 0),
        ):
            client = await SpdyClient.connect(await exec_url(cri, container, "sleep", "98"), V4)
            await client.open_all("error", "stdout")
            client.writer.write(garbage)
            await client.until_closed()
            assert client.goaway == 1
        assert await cri.run(container, "echo", "alive") == "alive\n"

    calls(node, work)
