"""gRPC on a socket pair: calls in both directions, ceilings, and hostile peers."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest

from jaula import errors
from jaula.caller_quota import CallerQuota, CallerShare
from jaula.errors import NotFound
from jaula.grpc import http2_connection
from jaula.grpc.grpc_client import Channel
from jaula.grpc.grpc_server import Call, Method, Server, as_grpc_error
from jaula.grpc.grpc_status import Code, GrpcError, decode_message, encode_message, parse_code
from jaula.grpc.http2_connection import Limits


class Text:
    """A message without protobuf."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def SerializeToString(self) -> bytes:
        return self.data


def decode(data: bytes) -> bytes:
    if data == b"bad":
        raise ValueError("it is bad")
    return data


async def echo(call: Call, request: bytes) -> Text:
    return Text(request[::-1])


async def refuse(call: Call, request: bytes) -> Text:
    raise NotFound("no such thing: é%\n")


async def break_(call: Call, request: bytes) -> Text:
    raise RuntimeError("a secret of the engine")


async def count(call: Call) -> AsyncIterator[Text]:
    while (message := await call.receive()) is not None:
        yield Text(message * 2)


class Forever:
    """A handler that runs until it is cancelled."""

    def __init__(self) -> None:
        self.running = 0

    async def __call__(self, call: Call, request: bytes) -> Text:
        self.running += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.running -= 1
        return Text(b"")

    async def wait(self, running: int) -> None:
        """Wait until this number of calls is running."""
        while self.running != running:  # noqa: ASYNC110 - another loop runs in each test
            await asyncio.sleep(0.01)


FOREVER = Forever()
METHODS = {
    "/a.B/Echo": Method(decode, unary=echo),
    "/a.B/Refuse": Method(decode, unary=refuse),
    "/a.B/Break": Method(decode, unary=break_),
    "/a.B/Forever": Method(decode, unary=FOREVER),
    "/a.B/Count": Method(decode, streaming=count),
}
Test = Callable[[Channel], Awaitable[None]]


async def serve(sock: socket.socket, limits: Limits, **options: Any) -> None:
    with sock:
        await Server(METHODS, limits, **options).serve(sock)


def served(test: Test, limits: Limits = Limits(), **options: Any) -> None:  # noqa: B008
    """Run a test with a channel to a server."""

    async def run() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            server = asyncio.ensure_future(serve(theirs, limits, **options))
            channel = Channel(Limits())
            client = asyncio.ensure_future(channel.run(ours))
            try:
                await asyncio.wait_for(test(channel), 20)
            finally:
                channel.close()
                await asyncio.wait_for(client, 5)
                ours.close()
                await asyncio.wait_for(server, 5)
            assert FOREVER.running == 0

    asyncio.run(run())


async def ask(channel: Channel, name: str, data: bytes = b"") -> bytes:
    return await channel.unary(f"/a.B/{name}", Text(data), decode, 5)


def test_a_call_is_answered() -> None:
    async def test(channel: Channel) -> None:
        assert await ask(channel, "Echo", b"abc") == b"cba"
        large = bytes(range(256)) * 8000
        assert await ask(channel, "Echo", large) == large[::-1]
        answers = await asyncio.gather(*(ask(channel, "Echo", b"%d" % n) for n in range(60)))
        assert all(answers)

    served(test)


def test_failures_have_a_status_and_reveal_nothing() -> None:
    async def test(channel: Channel) -> None:
        for name, data, code, text in (
            ("Refuse", b"", Code.NOT_FOUND, "no such thing: é%\n"),
            ("Break", b"", Code.INTERNAL, "internal error, see the log of the engine"),
            ("Echo", b"bad", Code.INVALID_ARGUMENT, "a request is not valid: it is bad"),
            ("None", b"", Code.UNIMPLEMENTED, "unknown method None for service a.B"),
        ):
            with pytest.raises(GrpcError) as raised:
                await ask(channel, name, data)
            assert (raised.value.code, raised.value.message) == (code, text)
        assert await ask(channel, "Echo", b"ab") == b"ba"  # the connection goes on

    served(test)


def test_a_stream_has_messages_in_both_directions() -> None:
    async def test(channel: Channel) -> None:
        stream = channel.open("/a.B/Count", [("key", "value")])
        for text in (b"a", b"", b"c" * 100_000):
            await stream.send(text)
            assert await stream.receive() == text * 2
        stream.end()
        assert await stream.receive() is None
        stream.close()

    served(test)


def test_a_silent_reader_stops_the_sender_and_not_other_calls() -> None:
    async def test(channel: Channel) -> None:
        stream = channel.open("/a.B/Count")
        sending = asyncio.ensure_future(send_forever(stream))
        await asyncio.sleep(0.3)
        assert not sending.done()
        assert await ask(channel, "Echo", b"ab") == b"ba"
        stream.close()
        with pytest.raises(GrpcError):
            await sending

    async def send_forever(stream: Any) -> None:
        while True:
            await stream.send(b"x" * 100_000)

    served(test)


def test_a_cancelled_call_and_the_end_of_the_connection_end_handlers() -> None:
    async def test(channel: Channel) -> None:
        stream = channel.open("/a.B/Forever")
        await stream.send(b"")
        await FOREVER.wait(1)
        stream.close()
        await FOREVER.wait(0)
        await channel.open("/a.B/Forever").send(b"")
        await FOREVER.wait(1)

    served(test)


def test_a_server_that_stops_finishes_its_calls_and_takes_no_more() -> None:
    async def run() -> None:
        ours, theirs = socket.socketpair()
        release = asyncio.Event()

        async def wait(call: Call, request: bytes) -> Text:
            await release.wait()
            return Text(b"done")

        methods = METHODS | {"/a.B/Wait": Method(decode, unary=wait)}
        with ours, theirs:
            server = Server(methods, Limits())
            serving = asyncio.ensure_future(server.serve(theirs))
            channel = Channel(Limits())
            client = asyncio.ensure_future(channel.run(ours))
            stream = channel.open("/a.B/Count")
            await stream.send(b"x")
            assert await stream.receive() == b"xx"
            waiting = asyncio.ensure_future(ask(channel, "Wait"))
            await asyncio.sleep(0.05)
            server.stop()
            with pytest.raises(GrpcError):
                await stream.receive()
            with pytest.raises(GrpcError, match="REFUSED_STREAM"):
                await ask(channel, "Echo", b"ab")
            assert not serving.done()
            release.set()
            assert await waiting == b"done"
            await asyncio.wait_for(serving, 5)
            await asyncio.wait_for(client, 5)

    asyncio.run(run())


def test_a_deadline_ends_a_call() -> None:
    async def test(channel: Channel) -> None:
        stream = channel.open("/a.B/Forever", [("grpc-timeout", "50m")])
        await stream.send(b"")
        with pytest.raises(GrpcError) as raised:
            await stream.receive()
        assert raised.value.code is Code.DEADLINE_EXCEEDED
        stream.close()

    served(test)


def test_a_call_is_checked_before_its_request_is_read() -> None:
    def check(path: str) -> None:
        raise NotFound(f"not for you: {path}")

    async def test(channel: Channel) -> None:
        with pytest.raises(GrpcError, match="not for you"):
            await ask(channel, "Echo")

    served(test, check=check)


def test_a_message_above_the_limit_fails_its_call_only() -> None:
    async def test(channel: Channel) -> None:
        with pytest.raises(GrpcError, match="2000 bytes exceeds 1000") as raised:
            await ask(channel, "Echo", b"x" * 2000)
        assert raised.value.code is Code.RESOURCE_EXHAUSTED
        assert await ask(channel, "Echo", b"x" * 1000) == b"x" * 1000

    served(test, Limits(message=1000))


def test_too_many_calls_at_once_are_refused() -> None:
    async def test(channel: Channel) -> None:
        streams = [channel.open("/a.B/Forever") for _ in range(3)]
        for stream in streams:
            await stream.send(b"")
        await FOREVER.wait(3)
        with pytest.raises(GrpcError, match="streams is 3"):  # h2 knows the peer's limit
            channel.open("/a.B/Forever")

    served(test, Limits(streams=3))


# -- a peer that speaks frames ---------------------------------------------------------------------


class Peer:
    """A client made of h2, for what a client of ours does not send."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)
        config = h2.config.H2Configuration(client_side=True, validate_outbound_headers=False)
        self.h2 = h2.connection.H2Connection(config)
        self.h2.initiate_connection()

    async def send(self, data: bytes = b"") -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(self.sock, self.h2.data_to_send() + data)

    async def closed(self) -> bool:
        """Return whether the server ends the connection soon."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(3):
                while await loop.sock_recv(self.sock, 65536):
                    pass
        except TimeoutError:
            return False
        except ConnectionError:
            pass
        return True

    async def statuses(self, number: int) -> dict[int, str]:
        """Return the statuses of calls by their stream, "reset" for one without."""
        loop = asyncio.get_running_loop()
        seen: dict[int, str] = {}
        async with asyncio.timeout(5):
            while len(seen) < number:
                data = await loop.sock_recv(self.sock, 65536)
                assert data, "the connection has ended"
                for event in self.h2.receive_data(data):
                    match event:
                        case h2.events.StreamReset():
                            seen.setdefault(event.stream_id, "reset")
                        case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                            names = {str(k, "ascii"): str(v, "ascii") for k, v in event.headers}
                            if status := names.get("grpc-status"):
                                seen[event.stream_id] = status
        return seen

    def call(self, path: str | bytes = "/a.B/Forever", **headers: str | bytes) -> int:
        id = self.h2.get_next_available_stream_id()
        fields: dict[str, str | bytes] = {":method": "POST", ":scheme": "http", ":path": path}
        fields[":authority"] = "a"
        fields |= {"content-type": "application/grpc"} | headers
        self.h2.send_headers(id, list(fields.items()))
        return id


def frame(kind: int, flags: int, id: int, payload: bytes) -> bytes:
    return struct.pack("!BHBBI", len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, id) + (
        payload
    )


def attacked(attack: Callable[[Peer], Awaitable[None]], limits: Limits = Limits()) -> None:  # noqa: B008
    async def run() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            server = asyncio.ensure_future(serve(theirs, limits))
            try:
                await asyncio.wait_for(attack(Peer(ours)), 30)
            finally:
                ours.close()
                await asyncio.wait_for(server, 5)
            assert FOREVER.running == 0

    asyncio.run(run())


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n" * 4,
        b"\0" * 100,
        frame(0, 0, 1, b"x"),
        frame(0, 8, 1, b"\x05xxxxxxxx"),
        frame(0, 0, 0, b"x"),
        frame(1, 4, 1, b"\xff" * 40),
        frame(4, 0, 0, b"\0\x04\xff\xff\xff\xff"),
        frame(8, 0, 0, b"\xff\xff\xff\xff"),
        b"\xff\xff\xff\0\0\0\0\0\x01",
        frame(9, 4, 1, b"x"),
        frame(1, 4, 2, b""),
    ],
)
@pytest.mark.parametrize("preface", [True, False])
def test_garbage_ends_the_connection(data: bytes, preface: bool) -> None:
    async def attack(peer: Peer) -> None:
        if not preface:
            peer.h2.data_to_send()
        await peer.send(data + b"\0" * 24)
        peer.sock.shutdown(socket.SHUT_WR)
        assert await peer.closed()

    attacked(attack)


def test_resets_have_a_rate() -> None:
    async def attack(peer: Peer) -> None:
        for _ in range(1000):
            peer.h2.reset_stream(peer.call())
            try:
                await peer.send()
            except ConnectionError:
                return
        assert await peer.closed()

    attacked(attack)


def test_empty_frames_are_counted() -> None:
    async def attack(peer: Peer) -> None:
        id = peer.call()
        await peer.send(frame(0, 0, id, b"") * 12_000)
        assert await peer.closed()

    attacked(attack)


def test_more_than_the_window_ends_the_connection() -> None:
    limits = Limits(window=200_000, message=100_000)

    async def attack(peer: Peer) -> None:
        id = peer.call()
        message = struct.pack("!BI", 0, 9000) + b"x" * 9000
        try:
            for _ in range(200):
                await peer.send(frame(0, 0, id, message))
        except ConnectionError:
            return
        assert await peer.closed()

    attacked(attack, limits)


def test_many_incomplete_messages_end_the_connection() -> None:
    limits = Limits(window=400_000, message=200_000, partial=500_000)

    async def attack(peer: Peer) -> None:
        for _ in range(10):
            id = peer.call()
            part = struct.pack("!BI", 0, 199_000) + b"x" * 16_000
            try:
                await peer.send(frame(0, 0, id, part))
                for _ in range(10):
                    await peer.send(frame(0, 0, id, b"x" * 16_000))
                await asyncio.sleep(0.01)
            except ConnectionError:
                return
        assert await peer.closed()

    attacked(attack, limits)


def test_large_headers_end_the_connection() -> None:
    async def attack(peer: Peer) -> None:
        peer.call(**{f"x{n}": "y" * 1000 for n in range(100)})
        await peer.send()
        assert await peer.closed()

    attacked(attack, Limits(headers=10_000))


def test_pings_are_answered_only_as_fast_as_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_connection, "_SPARE_FRAMES", 1 << 30)

    async def attack(peer: Peer) -> None:
        await peer.send()
        loop = asyncio.get_running_loop()
        sent = 0
        pings = frame(6, 0, 0, b"12345678") * 1000
        try:
            async with asyncio.timeout(2):
                while sent < 32 << 20:
                    await loop.sock_sendall(peer.sock, pings)
                    sent += len(pings)
        except TimeoutError:
            pass
        assert 0 < sent < 16 << 20

    attacked(attack)


def test_compressed_messages_and_other_contents_are_refused() -> None:
    async def attack(peer: Peer) -> None:
        id = peer.call("/a.B/Echo")
        peer.h2.send_data(id, b"\x01\0\0\0\x01x", end_stream=True)
        other = peer.call("/a.B/Echo", **{"content-type": "text/html"})
        peer.h2.end_stream(other)
        await peer.send()
        assert await peer.statuses(2) == {id: "12", other: "12"}

    attacked(attack)


UNKNOWN, PRIORITY, RESET, SETTINGS, PING, WINDOW_UPDATE, CONTINUATION = 99, 2, 3, 4, 6, 8, 9


@pytest.mark.parametrize(
    "flood",
    [
        frame(UNKNOWN, 0, 0, b"x"),
        frame(UNKNOWN, 0xFF, 0x7FFFFFFF, b""),
        frame(PRIORITY, 0, 1, b"\0\0\0\0\x10"),
        frame(SETTINGS, 0, 0, b""),
        frame(SETTINGS, 1, 0, b""),
        frame(SETTINGS, 0, 0, b"\0\x01\0\0\x10\0" * 100),
        frame(PING, 0, 0, b"12345678"),
        frame(PING, 1, 0, b"12345678"),
        frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\x01"),
        frame(RESET, 0, 1, b"\0\0\0\x08"),
        frame(0, 0, 1, b""),
        frame(0, 0, 1, b"\0"),
        frame(0, 0, 3, b"\0"),
    ],
)
def test_a_flood_ends_its_connection_and_other_connections_are_served(flood: bytes) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        pairs = [socket.socketpair() for _ in range(2)]
        servers = [asyncio.ensure_future(serve(theirs, Limits())) for _, theirs in pairs]
        peer = Peer(pairs[0][0])
        peer.call()
        channel = Channel(Limits())
        client = asyncio.ensure_future(channel.run(pairs[1][0]))
        try:
            await ask(channel, "Echo", b"ab")

            async def attack() -> None:
                await peer.send()
                for _ in range(2000):
                    await loop.sock_sendall(peer.sock, flood * 50)

            async def read() -> None:
                while await loop.sock_recv(peer.sock, 1 << 20):
                    pass

            attacking = asyncio.ensure_future(attack())
            reading = asyncio.ensure_future(read())
            answers = 0
            while not attacking.done():
                assert await ask(channel, "Echo", b"ab") == b"ba"
                answers += 1
            assert isinstance(attacking.exception(), ConnectionError)
            await asyncio.wait((reading,), timeout=5)
            assert reading.done()
            reading.exception()
            assert answers > 1  # a flood that is served first leaves one, after its end
        finally:
            channel.close()
            await client
            for ours, _ in pairs:
                ours.close()
            await asyncio.wait_for(asyncio.gather(*servers), 5)
        assert FOREVER.running == 0

    asyncio.run(run())


def test_streams_that_the_server_is_made_to_reset_have_a_rate() -> None:
    async def attack(peer: Peer) -> None:
        try:
            for _ in range(1000):
                id = peer.call()
                await peer.send(frame(WINDOW_UPDATE, 0, id, b"\x7f\xff\xff\xff"))
        except ConnectionError:
            return
        assert await peer.closed()

    attacked(attack)


def test_refused_streams_have_a_rate() -> None:
    async def attack(peer: Peer) -> None:
        try:
            for _ in range(1000):
                peer.call()
                await peer.send()
        except ConnectionError:
            return
        assert await peer.closed()

    attacked(attack, Limits(streams=5))


@pytest.mark.parametrize("size", [0, 10])
def test_a_header_list_without_an_end_ends_the_connection(size: int) -> None:
    async def attack(peer: Peer) -> None:
        await peer.send(frame(1, 0, 1, b"\0\x01x\x7f\xff\xff\xff\x0f"))
        try:
            for _ in range(10_000):
                await peer.send(frame(CONTINUATION, 0, 1, b"x" * size))
        except ConnectionError:
            return
        assert await peer.closed()

    attacked(attack)


def test_a_small_block_that_decodes_to_large_headers_ends_the_connection() -> None:
    async def attack(peer: Peer) -> None:
        entry = b"\x40\x01x\x7f\xe1\x1e" + b"y" * 4000  # an entry of the dynamic table
        block = entry + b"\xbe" * 12_000  # and references to it: 48 MiB
        await peer.send(frame(1, 4, 1, block))
        assert await peer.closed()

    attacked(attack)


def test_headers_that_are_not_utf_8_and_trailers_of_a_client_fail_no_other_call() -> None:
    async def attack(peer: Peer) -> None:
        first, second = peer.call(b"/a.B/\xff", x=b"\xff"), peer.call("/a.B/Echo")
        peer.h2.send_data(second, b"\0\0\0\0\x01x")
        peer.h2.send_headers(second, [("grpc-status", "9")], end_stream=True)
        peer.h2.end_stream(first)
        await peer.send()
        assert await peer.statuses(2) == {first: "12", second: "0"}

    attacked(attack)


def test_the_requests_of_a_client_have_a_share_of_memory() -> None:
    quota = CallerQuota(400_000, 0)

    async def test(channel: Channel) -> None:
        for _ in range(5):  # what has ended is given back
            assert len(await ask(channel, "Echo", b"x" * 60_000)) == 60_000
        waiting = channel.open("/a.B/Forever")
        await waiting.send(b"x" * 150_000)
        await FOREVER.wait(1)
        with pytest.raises(GrpcError, match="too many bytes") as raised:
            await ask(channel, "Echo", b"x" * 60_000)
        assert raised.value.code is Code.RESOURCE_EXHAUSTED
        waiting.close()
        await FOREVER.wait(0)
        assert len(await ask(channel, "Echo", b"x" * 60_000)) == 60_000

    served(test, share=CallerShare(quota, "client"))
    assert quota.take("other", 200_000, root=False)  # all was given back


def test_a_peer_that_does_not_read_its_answer_loses_it() -> None:
    async def attack(peer: Peer) -> None:
        peer.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        id = peer.call("/a.B/Echo")
        peer.h2.send_data(id, b"\0\0\0\0\x01x", end_stream=True)
        await peer.send()
        assert await peer.statuses(1) == {id: "1"}

    attacked(attack, Limits(stall=0.2))


def test_a_peer_that_reads_nothing_is_disconnected() -> None:
    async def attack(peer: Peer) -> None:
        peer.h2.increment_flow_control_window(1 << 30)
        for _ in range(20):
            id = peer.call("/a.B/Echo")
            peer.h2.increment_flow_control_window(1 << 30, id)
            try:
                await peer.send(frame(0, 0, id, struct.pack("!BI", 0, 1 << 20)))
                for part in range(64):
                    await peer.send(frame(0, part == 63, id, b"x" * 16384))
            except ConnectionError:
                return
        await asyncio.sleep(1)
        assert await peer.closed()

    attacked(attack, Limits(stall=0.2))


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "plain", "100 %", "é\n\0\x7f", "\ud800", "x" * 9000])
def test_messages_survive_a_header(text: str) -> None:
    value = encode_message(text)
    assert value.isascii() and value.isprintable()
    expected = text.encode("utf-8", "replace").decode()[:8192]
    assert decode_message(value) == expected


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidRequest("x"), Code.INVALID_ARGUMENT),
        (errors.NotAuthorized("x"), Code.PERMISSION_DENIED),
        (errors.NotFound("x"), Code.NOT_FOUND),
        (errors.Conflict("x"), Code.FAILED_PRECONDITION),
        (errors.NotModified("x"), Code.FAILED_PRECONDITION),
        (errors.TooManyRequests("x"), Code.RESOURCE_EXHAUSTED),
        (errors.Unsupported("x"), Code.UNIMPLEMENTED),
        (errors.Unavailable("x"), Code.UNAVAILABLE),
        (errors.RuntimeFailure("x", errno=errno.ENOSPC), Code.UNAVAILABLE),
        (errors.RuntimeFailure("x", exit_code=127), Code.INVALID_ARGUMENT),
        (errors.RuntimeFailure("x"), Code.UNKNOWN),
        (errors.CorruptState("x"), Code.DATA_LOSS),
        (errors.JaulaError("x"), Code.UNKNOWN),
    ],
)
def test_each_class_of_errors_has_the_code_that_containerd_gives(
    error: errors.JaulaError, code: Code
) -> None:
    assert as_grpc_error(error).code is code


def test_codes_are_parsed() -> None:
    assert parse_code("5") is Code.NOT_FOUND
    for text in ("", "99", "-1", "x", "1" * 100, "٣"):
        assert parse_code(text) is Code.UNKNOWN
