"""The streaming server on a TCP socket, with SPDY and WebSocket clients."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from harness import stream_client as client
from harness.certificates import Authority
from harness.stream_client import SpdyClient, Tunnel, WebSocketClient
from jaula.errors import InvalidRequest, NotFound, TooManyRequests
from jaula.features.kubernetes.cri.streaming import streaming_server, streaming_transport
from jaula.features.kubernetes.cri.streaming.backend import (
    AttachRequest,
    ClientGone,
    Duplex,
    ExecRequest,
    PortForwardRequest,
    Request,
    Size,
    Streams,
)
from jaula.features.kubernetes.cri.streaming.streaming_server import RequestCache, StreamServer
from jaula.features.kubernetes.cri.streaming.streaming_transport import Timeouts
from unit.event_loop import idle

V4, V5 = "v4.channel.k8s.io", "v5.channel.k8s.io"
PORT_FORWARD = "portforward.k8s.io"
TUNNEL = "SPDY/3.1+portforward.k8s.io"


def bind(address: str = "127.0.0.1") -> socket.socket:
    return socket.create_server(
        (address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET
    )


class Scripted:
    """A backend whose commands are the methods ``run_NAME``."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.written = 0
        self.gone = asyncio.Event()
        self.release = asyncio.Event()

    async def exec(self, container_id: str, command: tuple[str, ...], streams: Streams) -> int:
        self.calls.append(("exec", container_id, command))
        run: Callable[[Streams], Awaitable[int]] = getattr(self, f"run_{command[0]}")
        return await run(streams)

    async def attach(self, container_id: str, streams: Streams) -> None:
        self.calls.append(("attach", container_id))
        await self.run_cat(streams)

    async def port_forward(self, sandbox_id: str, port: int, stream: Duplex) -> None:
        self.calls.append(("port_forward", sandbox_id, port))
        if port == 1:
            raise NotFound("no process listens on port 1")
        if port == 2:
            raise RuntimeError("a secret of the engine")
        if port == 3:
            await self.run_wait(None)
        while data := await stream.read():
            await stream.write(data.upper())
        stream.end()

    async def run_cat(self, streams: Streams) -> int:
        assert streams.stdin is not None
        assert streams.stdout is not None
        while data := await streams.stdin.read():
            await streams.stdout.write(data)
        return 0

    async def run_fail(self, streams: Streams) -> int:
        assert streams.stdout is not None
        await streams.stdout.write(b"out")
        if streams.stderr is not None:
            await streams.stderr.write(b"err")
        return 3

    async def run_missing(self, streams: Streams) -> int:
        raise NotFound("no such program")

    async def run_break(self, streams: Streams) -> int:
        raise RuntimeError("a secret of the engine")

    async def run_sizes(self, streams: Streams) -> int:
        assert streams.stdout is not None
        async for size in streams.resize:
            await streams.stdout.write(f"{size.columns}x{size.rows} ".encode())
            if size == Size(0, 0):
                break
        return 0

    async def run_wait(self, streams: Streams | None) -> int:
        """Wait until the client is gone or the test releases it."""
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.gone.set()
            raise
        return 0

    async def run_burst(self, streams: Streams) -> int:
        """Write until the client has no room, and exit."""
        assert streams.stdout is not None
        try:
            while True:
                self.written += 65536
                async with asyncio.timeout(0.2):
                    await streams.stdout.write(b"x" * 65536)
        except TimeoutError:
            self.gone.set()
            return 0

    async def run_flood(self, streams: Streams) -> int:
        assert streams.stdout is not None
        try:
            while True:
                await streams.stdout.write(b"x" * 65536)
                self.written += 65536
        except ClientGone:
            self.gone.set()
            raise


@contextlib.asynccontextmanager
async def serving(
    **options: Any,
) -> AsyncIterator[tuple[Scripted, Callable[[Request], str], StreamServer]]:
    backend = Scripted()
    server = StreamServer(**options)
    server.listen(bind())
    try:
        yield backend, lambda request: server.get_url(request, backend), server
    finally:
        await server.close()


def run(test: Callable[[], Awaitable[None]], seconds: float = 30) -> None:
    async def main() -> None:
        await asyncio.wait_for(test(), seconds)
        await idle()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left

    asyncio.run(main())


def command(*words: str, stdin: bool = False, stderr: bool = False, tty: bool = False) -> Request:
    return ExecRequest(
        container_id="c", command=words, stdin=stdin, stdout=True, stderr=stderr, tty=tty
    )


# -- commands over SPDY ------------------------------------------------------------------------


def test_a_command_over_spdy() -> None:
    async def test() -> None:
        async with serving() as (backend, url, _):
            spdy = await SpdyClient.connect(url(command("fail", "x", stderr=True)), V4)
            ids = await spdy.open_all("error", "stdout", "stderr")
            await spdy.until_closed()
            received = {kind: bytes(spdy.received[n]) for kind, n in ids.items()}
            assert received["stdout"] == b"out"
            assert received["stderr"] == b"err"
            assert b'"causes":[{"reason":"ExitCode","message":"3"}]' in received["error"]
            assert spdy.ended == set(ids.values())
            assert spdy.goaway == 0
            assert backend.calls == [("exec", "c", ("fail", "x"))]

    run(test)


@pytest.mark.parametrize("protocol", ["v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"])
def test_older_versions_have_a_text_as_error(protocol: str) -> None:
    async def test() -> None:
        async with serving() as (_, url, _):
            spdy = await SpdyClient.connect(url(command("fail")), protocol)
            ids = await spdy.open_all("error", "stdout")
            await spdy.until_closed()
            text = b"command terminated with non-zero exit code: exit status 3"
            assert spdy.received[ids["error"]] == text

    run(test)


def test_the_end_of_stdin_is_the_end_of_its_stream() -> None:
    async def test() -> None:
        async with serving() as (_, url, _):
            spdy = await SpdyClient.connect(url(command("cat", stdin=True)), V4)
            ids = await spdy.open_all("error", "stdin", "stdout")
            await spdy.send(ids["stdin"], b"some input", fin=True)
            await spdy.until_closed()
            assert spdy.received[ids["stdout"]] == b"some input"
            assert b"Success" in spdy.received[ids["error"]]

    run(test)


def test_input_that_arrives_with_the_request_is_not_lost() -> None:
    async def test() -> None:
        async with serving() as (_, url, _):
            deflater = client.Deflater()
            early = b"".join(
                deflater.syn_stream(n, streamtype=kind)
                for n, kind in ((1, "error"), (3, "stdin"), (5, "stdout"))
            )
            early += client.data(3, b"early", client.FIN)
            headers = client.spdy_headers(V4)
            answer, reader, writer = await client.request(
                url(command("cat", stdin=True)), headers, early=early
            )
            assert answer.status == 101
            spdy = SpdyClient(reader, writer)
            await spdy.until_closed()
            assert spdy.received[5] == b"early"

    run(test)


def test_the_size_of_the_terminal_is_told() -> None:
    async def test() -> None:
        async with serving() as (_, url, _):
            spdy = await SpdyClient.connect(url(command("sizes", tty=True)), V4)
            ids = await spdy.open_all("error", "stdout", "resize")
            await spdy.send(ids["resize"], b'{"Width":80,"Height":24}\n')
            while not spdy.received[ids["stdout"]]:
                await spdy.frame()
            await spdy.send(ids["resize"], b'{"Width":0,"Height":0}\n')
            await spdy.until_closed()
            assert spdy.received[ids["stdout"]] == b"80x24 0x0 "

    run(test)


def test_attach_has_no_exit_status() -> None:
    async def test() -> None:
        async with serving() as (backend, url, _):
            request = AttachRequest(container_id="c", stdin=True, stdout=True)
            spdy = await SpdyClient.connect(url(request), V4)
            ids = await spdy.open_all("error", "stdin", "stdout")
            await spdy.send(ids["stdin"], b"x", fin=True)
            await spdy.until_closed()
            assert spdy.received[ids["stdout"]] == b"x"
            assert spdy.received[ids["error"]] == b'{"metadata":{},"status":"Success"}'
            assert backend.calls == [("attach", "c")]

    run(test)


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing", b"no such program"), ("break", b"internal error (RuntimeError)")],
)
def test_a_command_that_cannot_run_has_an_error(name: str, message: bytes) -> None:
    async def test() -> None:
        async with serving() as (_, url, _):
            spdy = await SpdyClient.connect(url(command(name)), V4)
            ids = await spdy.open_all("error", "stdout")
            await spdy.until_closed()
            status = bytes(spdy.received[ids["error"]])
            assert b'"reason":"InternalError"' in status
            assert b"error executing command in container: " + message in status
            assert b"secret" not in status

    run(test)


def test_streams_that_were_not_requested_are_refused() -> None:
    async def test() -> None:
        async with serving() as (backend, url, _):
            spdy = await SpdyClient.connect(url(command("wait")), V4)
            assert await spdy.open(streamtype="error")
            assert not await spdy.open(streamtype="error")
            assert not await spdy.open(streamtype="stdin")
            assert not await spdy.open(streamtype="resize")
            assert not await spdy.open()
            assert backend.calls == []
            assert await spdy.open(streamtype="stdout")
            assert not await spdy.open(streamtype="stderr")
            assert set(spdy.resets.values()) == {3}
            backend.release.set()
            await spdy.until_closed()

    run(test)


def test_a_client_that_opens_no_streams_is_disconnected() -> None:
    async def test() -> None:
        async with serving(timeouts=Timeouts(creation=0.05)) as (backend, url, _):
            spdy = await SpdyClient.connect(url(command("fail")), V4)
            await spdy.open(streamtype="error")
            await spdy.until_closed()
            assert backend.calls == []

    run(test)


def test_a_silent_session_is_ended() -> None:
    async def test() -> None:
        async with serving(timeouts=Timeouts(idle=0.1)) as (backend, url, _):
            spdy = await SpdyClient.connect(url(command("wait")), V4)
            await spdy.open_all("error", "stdout")
            await backend.gone.wait()
            await spdy.until_closed()

    run(test)


@pytest.mark.parametrize("goaway", [False, True])
def test_a_command_is_cancelled_when_its_client_is_gone(
    monkeypatch: pytest.MonkeyPatch, goaway: bool
) -> None:
    monkeypatch.setattr(streaming_transport, "DRAIN_SECONDS", 0.05)

    async def test() -> None:
        async with serving() as (backend, url, _):
            spdy = await SpdyClient.connect(url(command("wait")), V4)
            await spdy.open_all("error", "stdout")
            if goaway:
                spdy.writer.write(client.control(client.GOAWAY, b"\0" * 8))
            else:
                spdy.close()
            await backend.gone.wait()
            spdy.close()

    run(test)


def test_a_client_that_is_not_read_is_missed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_transport, "WATCH_SECONDS", 0.05)

    async def test() -> None:
        async with serving() as (backend, url, _):
            spdy = await SpdyClient.connect(url(command("wait", stdin=True)), V4)
            ids = await spdy.open_all("error", "stdin", "stdout")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await spdy.send(ids["stdin"], b"x" * (64 << 20))
            reset = struct.pack("ii", 1, 0)  # otherwise the kernel first sends what it has
            sock = spdy.writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            spdy.writer.transport.abort()
            await backend.gone.wait()

    run(test)


def test_a_client_that_does_not_read_stops_the_command() -> None:
    async def test() -> None:
        async with serving() as (backend, url, _):
            spdy = await SpdyClient.connect(url(command("flood")), V4)
            await spdy.open_all("error", "stdout")
            before = -1
            while backend.written != before:
                before = backend.written
                await asyncio.sleep(0.1)
            assert 0 < before < 32 << 20  # the buffers of both sockets, mostly
            spdy.writer.transport.abort()
            await backend.gone.wait()

    run(test)


def test_a_command_that_does_not_read_stops_the_client() -> None:
    async def test() -> None:
        async with serving() as (backend, url, _):
            spdy = await SpdyClient.connect(url(command("wait", stdin=True)), V4)
            ids = await spdy.open_all("error", "stdin", "stdout")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await spdy.send(ids["stdin"], b"x" * (64 << 20))
            backend.release.set()  # the client still gets the status, and can send the rest
            await spdy.until_closed()
            assert b"Success" in spdy.received[ids["error"]]

    run(test)


def test_the_output_is_complete_if_the_client_reads_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_transport, "CLOSE_SECONDS", 0.05)

    async def test() -> None:
        async with serving() as (backend, url, _):
            spdy = await SpdyClient.connect(url(command("burst")), V4)
            ids = await spdy.open_all("error", "stdout")
            await backend.gone.wait()
            await asyncio.sleep(0.3)  # the command has ended, and the client reads now
            await spdy.until_closed()
            assert len(spdy.received[ids["stdout"]]) == backend.written
            assert b"Success" in spdy.received[ids["error"]]

    run(test)


def test_a_session_ends_with_the_server() -> None:
    async def test() -> None:
        async with serving() as (backend, url, server):
            spdy = await SpdyClient.connect(url(command("wait")), V4)
            await spdy.open_all("error", "stdout")
            await server.close()
            assert backend.gone.is_set()
            await spdy.until_closed()

    run(test)


def test_a_hostile_client_does_not_disturb_others() -> None:
    async def test() -> None:
        async with serving() as (_, url, _):
            hostile = await SpdyClient.connect(url(command("cat", stdin=True)), V4)
            hostile.writer.write(struct.pack(">II", 0x80030001, 0xFFFFFF) + b"x" * 100000)
            good = await SpdyClient.connect(url(command("fail")), V4)
            ids = await good.open_all("error", "stdout")
            await good.until_closed()
            assert good.received[ids["stdout"]] == b"out"
            await hostile.until_closed()
            assert hostile.goaway == 1

    run(test)


def test_a_command_over_tls(tmp_path: Path) -> None:
    import ssl

    place = Authority(tmp_path / "ca").sign("server", usage="serverAuth")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "cert.pem", place / "key.pem")
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.check_hostname = False
    trusting.load_verify_locations(place / "ca.pem")

    async def test() -> None:
        async with serving(tls=context) as (_, url, _):
            address = url(command("cat", stdin=True))
            assert address.startswith("https://127.0.0.1:")
            plain = address.replace("https", "http")
            with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                await client.request(plain, client.spdy_headers(V4))
            spdy = await SpdyClient.connect(address, V4, trusting)
            ids = await spdy.open_all("error", "stdin", "stdout")
            sending = asyncio.ensure_future(spdy.send(ids["stdin"], b"x" * (4 << 20), fin=True))
            await spdy.until_closed()
            await sending
            assert len(spdy.received[ids["stdout"]]) == 4 << 20

    run(test)


# -- commands over WebSockets ------------------------------------------------------------------


def test_a_command_over_a_websocket() -> None:
    async def test() -> None:
        async with serving() as (_, url, _):
            socket = await WebSocketClient.connect(url(command("fail", stderr=True)), V5)
            first, *output, status = await socket.messages()
            assert first == b"\1"  # the session is established
            assert output == [b"\1out", b"\2err"]
            assert status[:1] == b"\3"
            assert b'"causes":[{"reason":"ExitCode","message":"3"}]' in status
            assert socket.close_code == 1000

    run(test)


def test_version_5_ends_stdin() -> None:
    async def test() -> None:
        async with serving() as (_, url, _):
            socket = await WebSocketClient.connect(url(command("cat", stdin=True)), V5)
            socket.send(b"\0input")
            socket.send(b"\xff\0")
            _, output, status = await socket.messages()
            assert output == b"\1input"
            assert status == b'\3{"metadata":{},"status":"Success"}'

    run(test)


def test_base64_messages_are_texts() -> None:
    async def test() -> None:
        async with serving() as (_, url, _):
            request = command("sizes", tty=True)
            socket = await WebSocketClient.connect(url(request), "v4.base64.channel.k8s.io")
            assert await socket.receive() == (1, b"1")
            socket.send(b"4eyJXaWR0aCI6MCwiSGVpZ2h0IjowfQ==", 1)
            assert await socket.receive() == (1, b"1MHgwIA==")
            assert len(await socket.messages()) == 1

    run(test)


def test_a_websocket_without_a_protocol_is_the_first_version() -> None:
    async def test() -> None:
        async with serving() as (_, url, _):
            socket = await WebSocketClient.connect(url(command("fail")))
            *_, status = await socket.messages()
            assert status == b"\3command terminated with non-zero exit code: exit status 3"

    run(test)


# -- forwarded ports ---------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def forwarding(url: Callable[[Request], str], *, tunnel: bool) -> AsyncIterator[SpdyClient]:
    address = url(PortForwardRequest(sandbox_id="s"))
    if tunnel:
        connection: Any = Tunnel(await WebSocketClient.connect(address, TUNNEL))
        spdy = SpdyClient(connection, connection)
    else:
        spdy = await SpdyClient.connect(address, PORT_FORWARD)
    try:
        yield spdy
    finally:
        spdy.close()


async def open_pair(spdy: SpdyClient, port: int, request_id: str) -> tuple[int, int]:
    headers = {"port": str(port), "requestid": request_id}
    error = await spdy.open(streamtype="error", **headers)
    spdy.writer.write(client.data(error, b"", client.FIN))
    return error, await spdy.open(streamtype="data", **headers)


@pytest.mark.parametrize("tunnel", [False, True])
def test_connections_are_forwarded(tunnel: bool) -> None:
    async def test() -> None:
        async with serving() as (backend, url, _), forwarding(url, tunnel=tunnel) as spdy:
            pairs = [await open_pair(spdy, 80 + n, str(n)) for n in range(3)]
            for n, (_, data) in enumerate(pairs):
                await spdy.send(data, b"text %d" % n, fin=True)
            for n, (error, data) in enumerate(pairs):
                await spdy.until_ended(error, data)
                assert spdy.received[data] == b"TEXT %d" % n
                assert spdy.received[error] == b""
            assert spdy.resets == {}
            assert backend.calls == [("port_forward", "s", 80 + n) for n in range(3)]

    run(test)


@pytest.mark.parametrize(
    ("port", "message"),
    [(1, b"no process listens on port 1"), (2, b"internal error (RuntimeError)")],
)
def test_a_port_that_cannot_be_reached_has_an_error(port: int, message: bytes) -> None:
    async def test() -> None:
        async with serving() as (_, url, _), forwarding(url, tunnel=False) as spdy:
            error, data = await open_pair(spdy, port, "0")
            await spdy.until_ended(error, data)
            expected = b"error forwarding port %d to pod s: " % port + message
            assert spdy.received[error] == expected
            assert list(spdy.resets) == [data]
            error, data = await open_pair(spdy, 80, "1")  # the session goes on
            await spdy.send(data, b"x", fin=True)
            await spdy.until_ended(data)
            assert spdy.received[data] == b"X"

    run(test)


def test_a_connection_that_the_client_resets_is_cancelled() -> None:
    async def test() -> None:
        async with serving() as (backend, url, _), forwarding(url, tunnel=False) as spdy:
            _, data = await open_pair(spdy, 3, "0")
            spdy.writer.write(client.control(client.RST_STREAM, struct.pack(">II", data, 5)))
            await backend.gone.wait()

    run(test)


def test_a_stream_with_invalid_headers_is_reset() -> None:
    async def test() -> None:
        async with serving() as (_, url, _), forwarding(url, tunnel=False) as spdy:
            assert not await spdy.open(streamtype="data", port="0")
            assert not await spdy.open(streamtype="stdin", port="80")
            assert set(spdy.resets.values()) == {5}

    run(test)


def test_ports_of_the_request_are_channels() -> None:
    async def test() -> None:
        async with serving() as (_, url, _):
            request = PortForwardRequest(sandbox_id="s", ports=(1, 258))
            socket = await WebSocketClient.connect(url(request), V4)
            first = sorted([(await socket.receive() or (0, b""))[1] for _ in range(4)])
            assert first == [b"\0\1\0", b"\1\1\0", b"\2\2\1", b"\3\2\1"]
            error = b"\1error forwarding port 1 to pod s: no process listens on port 1"
            assert await socket.receive() == (2, error)
            socket.send(b"\2text")
            assert await socket.receive() == (2, b"\2TEXT")
            socket.send(b"\x03\xe8", 8)
            assert await socket.receive() is None
            socket.close()

    run(test)


# -- requests ----------------------------------------------------------------------------------

WEBSOCKET = client.websocket_headers(V5)


@pytest.mark.parametrize(
    ("method", "headers", "status", "message"),
    [
        ("POST", [], 400, "no X-Stream-Protocol-Version"),
        ("POST", [("X-Stream-Protocol-Version", V4)], 400, "no Upgrade to SPDY/3.1"),
        (
            "POST",
            client.spdy_headers("v9.channel.k8s.io"),
            403,
            "client supports v9.channel.k8s.io",
        ),
        ("PUT", client.spdy_headers(V4), 405, "must be one of GET and POST"),
        ("POST", WEBSOCKET, 405, "needs the method GET"),
        ("GET", client.websocket_headers("x"), 403, "client supports x"),
        ("GET", [*WEBSOCKET[:2], *WEBSOCKET[3:]], 400, "Sec-WebSocket-Version must be 13"),
        ("GET", WEBSOCKET[:3], 400, "not 16 bytes in base64"),
        ("POST", [*client.spdy_headers(V4), ("Content-Length", "1")], 400, "has a body"),
        ("POST", [*client.spdy_headers(V4), ("X", "x" * 20000)], 431, "larger than 16384 bytes"),
        ("POST", [*client.spdy_headers(V4), ("X", "x" * 200000)], 431, "bad request"),
        ("P\0ST", client.spdy_headers(V4), 400, "bad request"),
    ],
)
def test_a_request_that_cannot_be_upgraded_is_refused(
    method: str, headers: list[tuple[str, str]], status: int, message: str
) -> None:
    async def test() -> None:
        async with serving() as (backend, url, _):
            answer, reader, writer = await client.request(
                url(command("fail")), headers, method=method, early=b"x"
            )
            assert (answer.status, message in answer.body) == (status, True), answer
            assert await reader.read() == b""
            writer.close()
            assert backend.calls == []

    run(test)


def test_a_client_is_told_which_protocols_there_are() -> None:
    async def test() -> None:
        async with serving() as (_, url, _):
            headers = client.spdy_headers("x")
            answer, _, writer = await client.request(url(command("fail")), headers)
            assert "x-accepted-stream-protocol-versions" in answer.headers
            writer.close()

    run(test)


def test_the_first_protocol_of_the_client_is_chosen() -> None:
    async def test() -> None:
        async with serving() as (_, url, _):
            headers = client.spdy_headers("x, v3.channel.k8s.io", V4)
            answer, _, writer = await client.request(url(command("fail")), headers)
            assert answer.headers["x-stream-protocol-version"] == "v3.channel.k8s.io"
            writer.close()

    run(test)


def test_channels_for_ports_need_ports() -> None:
    async def test() -> None:
        async with serving() as (_, url, _):
            answer, _, writer = await client.request(
                url(PortForwardRequest(sandbox_id="s")),
                client.websocket_headers(V4),
                method="GET",
            )
            assert (answer.status, "has no ports" in answer.body) == (400, True)
            writer.close()

    run(test)


async def status_of(url: str) -> int:
    answer, _, writer = await client.request(url, client.spdy_headers(V4))
    writer.close()
    return answer.status


def test_a_url_is_valid_once() -> None:
    async def test() -> None:
        async with serving() as (_, url, _):
            address = url(command("wait"))
            assert await status_of(address) == 101
            assert await status_of(address) == 404

    run(test)


def test_a_url_is_for_one_kind_of_request() -> None:
    async def test() -> None:
        async with serving() as (_, url, _):
            address = url(command("fail"))
            assert await status_of(address.replace("/exec/", "/attach/")) == 404
            assert await status_of(address) == 404  # it is used up

    run(test)


@pytest.mark.parametrize("path", ["/", "/exec", "/exec/", "/exec/x", "/exec/a/b", "/logs/x"])
def test_other_paths_do_not_exist(path: str) -> None:
    async def test() -> None:
        async with serving() as (_, url, _):
            base = url(command("fail")).rpartition("/exec")[0]
            assert await status_of(base + path) in (400, 404)

    run(test)


def test_the_path_may_have_a_query() -> None:
    async def test() -> None:
        async with serving() as (_, url, _):
            reader, writer = await asyncio.open_connection(*url_address(url(command("fail"))))
            path = url(command("fail")).split("/", 3)[3]
            lines = [f"GET /{path}?tty=1 HTTP/1.1", "Host: x"]
            lines += [f"{name}: {value}" for name, value in client.spdy_headers(V4)]
            writer.write("\r\n".join([*lines, "", ""]).encode())
            assert (await reader.readline()).startswith(b"HTTP/1.1 101")
            writer.close()

    run(test)


def url_address(url: str) -> tuple[str, int]:
    host, _, port = url.split("/")[2].partition(":")
    return host, int(port)


def test_a_slow_head_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_server, "HEAD_SECONDS", 0.1)

    async def test() -> None:
        async with serving() as (_, url, _):
            reader, writer = await asyncio.open_connection(*url_address(url(command("fail"))))
            writer.write(b"POST /exec/x HTTP/1.1\r\n")
            assert await reader.read() == b""
            writer.close()

    run(test)


def test_the_oldest_of_many_slow_clients_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_server, "MAX_WAITING", 3)

    async def test() -> None:
        async with serving() as (_, url, _):
            address = url(command("wait"))
            slow = [await asyncio.open_connection(*url_address(address)) for _ in range(5)]
            assert await status_of(address) == 101
            assert await slow[0][0].read() == b""
            for _, writer in slow:
                writer.close()

    run(test)


def test_the_number_of_sessions_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming_server, "MAX_SESSIONS", 1)

    async def test() -> None:
        async with serving() as (backend, url, _):
            spdy = await SpdyClient.connect(url(command("wait")), V4)
            await spdy.open_all("error", "stdout")
            assert await status_of(url(command("wait"))) == 503
            backend.release.set()
            await spdy.until_closed()

    run(test)


def test_a_token_expires() -> None:
    now = [0.0]
    cache = RequestCache(lambda: now[0])
    first, second = cache.insert(command("fail")), cache.insert(command("fail"))
    now[0] = 59.9
    assert cache.consume(first) is not None
    now[0] = 60.1
    assert cache.consume(second) is None
    assert cache.consume(first) is None


def test_tokens_are_limited_until_they_expire() -> None:
    now = [0.0]
    cache = RequestCache(lambda: now[0])
    tokens = {cache.insert(command("fail")) for _ in range(1000)}
    assert len(tokens) == 1000
    with pytest.raises(TooManyRequests, match="in-flight"):
        cache.insert(command("fail"))
    now[0] = 61
    assert len(cache.insert(command("fail"))) == 22


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"container_id": "", "stdout": True}, "container_id"),
        ({"container_id": "c"}, "one of stdin, stdout, or stderr"),
        ({"container_id": "c", "tty": True, "stderr": True}, "tty and stderr"),
    ],
)
def test_an_invalid_request_gets_no_url(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        ExecRequest(command=("x",), **options)
    with pytest.raises(InvalidRequest, match=message):
        AttachRequest(**options)


@pytest.mark.parametrize("ports", [(0,), (65536,), tuple(range(1, 102))])
def test_invalid_ports_get_no_url(ports: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest, match="port"):
        PortForwardRequest(sandbox_id="s", ports=ports)


def test_urls_have_the_base_that_is_configured() -> None:
    async def test() -> None:
        server = StreamServer()
        with bind("0.0.0.0") as wildcard, pytest.raises(InvalidRequest, match="base URL"):
            server.listen(wildcard)
        server.listen(bind("::1"), "https://node:1234/")
        assert server.get_url(command("fail"), Scripted()).startswith("https://node:1234/exec/")
        await server.close()

    run(test)
