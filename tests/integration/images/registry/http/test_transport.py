"""Connections to a registry through proxies, and with a private CA."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from harness.puller import Puller
from harness.registry import make_certificates
from harness.scripted_registry import Request, ScriptedRegistry, layer
from jaula.errors import JaulaError

pytestmark = pytest.mark.needs("openssl")

NAME = "registry.test"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    make_certificates(tmp_path / "keys")
    return tmp_path / "keys"


def server_context(keys: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / "server.crt", keys / "server.key")
    return context


class Tunnels:
    """A proxy that connects every tunnel to one port. ``heads`` are the requests it received."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.heads: list[str] = []
        self.answer = b"HTTP/1.1 200 Connection established\r\n\r\n"
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._tunnel, args=(client,), daemon=True).start()

    def _tunnel(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += client.recv(1)
            self.heads.append(head.decode())
            client.sendall(self.answer)
            if b" 200 " not in self.answer:
                return
            with (
                socket.create_connection(("127.0.0.1", self._port)) as server,
                selectors.DefaultSelector() as selector,  # select(2) refuses descriptors from 1024
            ):
                selector.register(client, selectors.EVENT_READ, server)
                selector.register(server, selectors.EVENT_READ, client)
                while True:
                    for key, _ in selector.select():
                        data = cast("socket.socket", key.fileobj).recv(65536)
                        if not data:
                            return
                        key.data.sendall(data)


@pytest.fixture
def tunnels(keys: Path) -> Iterator[tuple[Tunnels, ScriptedRegistry]]:
    with ScriptedRegistry(layer("far"), tls=server_context(keys)) as registry:
        made = Tunnels(registry.port)
        yield made, registry
        made.close()


def test_https_uses_a_tunnel_through_the_proxy(
    tmp_path: Path, tunnels: tuple[Tunnels, ScriptedRegistry]
) -> None:
    proxy, registry = tunnels
    puller = Puller(
        tmp_path,
        {
            "https_proxy": f"http://maria:s3cret@127.0.0.1:{proxy.port}",
            "no_proxy": "none",
            "insecure": (NAME,),
        },
    )
    puller.pull(f"{NAME}/box:1")
    assert registry.seen
    for head in proxy.heads:
        assert head.splitlines()[0] == f"CONNECT {NAME}:443 HTTP/1.1"
        assert "Proxy-Authorization: Basic bWFyaWE6czNjcmV0" in head
    assert not any("proxy-authorization" in headers for _, _, headers in registry.seen)


def test_a_tunnel_does_not_replace_verification(
    tmp_path: Path, tunnels: tuple[Tunnels, ScriptedRegistry]
) -> None:
    proxy, registry = tunnels
    settings = {"https_proxy": f"http://127.0.0.1:{proxy.port}", "no_proxy": "none"}
    with pytest.raises(JaulaError, match="failed to verify certificate"):
        Puller(tmp_path, settings).pull(f"{NAME}/box:1")
    assert proxy.heads
    assert registry.seen == []


def test_a_proxy_that_refuses_is_named(
    tmp_path: Path, tunnels: tuple[Tunnels, ScriptedRegistry]
) -> None:
    proxy, _ = tunnels
    proxy.answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    settings = {"https_proxy": f"http://127.0.0.1:{proxy.port}", "no_proxy": "none"}
    with pytest.raises(JaulaError, match=f"the proxy 127.0.0.1:{proxy.port} refused: 407"):
        Puller(tmp_path, settings).pull(f"{NAME}/box:1")


def test_plain_http_is_requested_from_the_proxy(tmp_path: Path) -> None:
    with ScriptedRegistry(layer("far")) as proxy:

        def forward(request: Request) -> None:
            assert request.path.startswith(f"http://{NAME}:5000/v2/")
            request.path = request.path.removeprefix(f"http://{NAME}:5000")
            ScriptedRegistry.honest(proxy, request)

        proxy.honest = forward  # type: ignore[method-assign]
        settings = {
            "http_proxy": f"http://maria:s3cret@127.0.0.1:{proxy.port}",
            "no_proxy": "none",
            "insecure": (f"{NAME}:5000",),
        }
        Puller(tmp_path, settings).pull(f"{NAME}:5000/box:1")
        for _, _, headers in proxy.seen:
            assert headers["host"] == f"{NAME}:5000"
            assert headers["proxy-authorization"] == "Basic bWFyaWE6czNjcmV0"


def test_a_client_certificate_is_sent(tmp_path: Path, keys: Path) -> None:
    context = server_context(keys)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(keys / "ca.crt")
    with ScriptedRegistry(layer("mine"), tls=context) as registry:
        own = tmp_path / "certs.d" / registry.name
        own.mkdir(parents=True)
        (own / "ca.crt").write_bytes((keys / "ca.crt").read_bytes())
        puller = Puller(tmp_path, {"certificates": (str(own.parent),)})
        with pytest.raises(JaulaError):
            puller.pull(f"{registry.name}/box:1")
        (own / "client.cert").write_bytes((keys / "server.crt").read_bytes())
        with pytest.raises(JaulaError, match=r"missing key client\.key"):
            puller.pull(f"{registry.name}/box:1")
        (own / "client.key").write_bytes((keys / "server.key").read_bytes())
        puller.pull(f"{registry.name}/box:1")
