"""The settings of the server of streams: address, port, idle time and TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from conftest import load_image
from harness.certificates import Authority
from harness.engine import PrivateEngine
from harness.pods import Cri, connected
from harness.stream_client import SpdyClient


async def exec_url(cri: Cri) -> str:
    pod = await cri.run_pod("streams")
    container = await cri.run_container(pod, "main", "sleep", "100")
    options = {"container_id": container, "cmd": ("cat",), "stdin": True, "stdout": True}
    return str((await cri.call("Exec", **options)).url)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_streams_have_a_port_a_certificate_and_an_idle_time(
    new_engine: Callable[..., PrivateEngine], tmp_path: Path
) -> None:
    authority, port = Authority(tmp_path / "ca"), free_port()
    place = authority.server()
    (place / "key.pem").chmod(0o600)
    engine = new_engine(
        *("--cri", "--stream-server-port", str(port), "--stream-idle-timeout", "2"),
        *("--stream-tls-cert", str(place / "cert.pem")),
        *("--stream-tls-key", str(place / "key.pem")),
    )
    load_image(engine, "busybox")

    async def work() -> None:
        async with connected(engine) as cri:
            url = await exec_url(cri)
            assert url.startswith(f"https://127.0.0.1:{port}/exec/")
            with pytest.raises(ssl.SSLCertVerificationError):  # the node's CAs do not know it
                await SpdyClient.connect(url, "v4.channel.k8s.io", ssl.create_default_context())
            context = ssl.create_default_context(cafile=str(authority.file))
            client = await SpdyClient.connect(url, "v4.channel.k8s.io", context)
            ids = await client.open_all("error", "stdin", "stdout")
            await client.send(ids["stdin"], b"over TLS")
            while bytes(client.received[ids["stdout"]]) != b"over TLS":
                assert await client.frame()
            started = asyncio.get_running_loop().time()
            await client.until_closed()
            assert 1 < asyncio.get_running_loop().time() - started < 20
            for pod in (await cri.call("ListPodSandbox")).items:
                await cri.call("RemovePodSandbox", pod_sandbox_id=pod.id)

    asyncio.run(work())


def test_streams_are_on_the_loopback_interface_by_default(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    engine = new_engine("--cri")
    load_image(engine, "busybox")

    async def work() -> None:
        async with connected(engine) as cri:
            parts = urlsplit(await exec_url(cri))
            assert (parts.scheme, parts.hostname) == ("http", "127.0.0.1")
            assert parts.port
            for pod in (await cri.call("ListPodSandbox")).items:
                await cri.call("RemovePodSandbox", pod_sandbox_id=pod.id)

    asyncio.run(work())


def test_an_engine_whose_port_is_in_use_does_not_start(
    new_engine: Callable[..., PrivateEngine],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        engine = new_engine("--cri", "--stream-server-port", str(port), start=False)
        with pytest.raises(AssertionError, match=f"127.0.0.1:{port}: Address already in use"):
            engine.start()
    assert engine.process is not None and engine.process.returncode == 125
    assert not (engine.run / "cri.sock").exists()
    engine.process = None
