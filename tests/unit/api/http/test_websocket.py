"""The key of a handshake, and a WebSocket with a raw stream and malicious clients."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaula.api.http import raw_websocket
from jaula.errors import InvalidRequest
from jaula.spec.websocket_accept import accept_token

CLOSED = b"\x88\x02\x03\xe8"  # a close frame with code 1000


def masked(
    opcode: int, data: bytes, *, final: bool = True, mask: bytes = b"\x01\x02\x03\x04"
) -> bytes:
    size = len(data)
    first = (0x80 if final else 0) | opcode
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 1 << 16:
        head = bytes((first, 0x80 | 126)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0x80 | 127)) + size.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))


async def _read(end: socket.socket) -> bytes:
    """Read to the end; a client answers a close frame by closing."""
    loop, result = asyncio.get_running_loop(), b""
    while data := await loop.sock_recv(end, 1 << 16):
        result += data
        if result.endswith(CLOSED):
            end.shutdown(socket.SHUT_WR)
    return result


async def _bridged(pieces: list[bytes], output: bytes, early: bytes, binary: bool) -> list[bytes]:
    loop = asyncio.get_running_loop()
    client, theirs = socket.socketpair()
    stream, container = socket.socketpair()
    for end in (client, theirs, stream, container):
        end.setblocking(False)

    async def use_client() -> bytes:
        for piece in pieces:
            await loop.sock_sendall(client, piece)
        if not output:
            client.shutdown(socket.SHUT_WR)
        return await _read(client)

    async def use_container() -> bytes:
        if output:
            await loop.sock_sendall(container, output)
            container.shutdown(socket.SHUT_WR)
        return await _read(container)

    async def carry() -> None:
        with theirs, stream:
            bridge = raw_websocket.Bridge(theirs, stream, binary=binary)
            await bridge.run(early, loop.create_future())

    with client, container:
        results = await asyncio.gather(use_client(), use_container(), carry())
    return [results[0], results[1]]


def bridged(
    *pieces: bytes, output: bytes = b"", early: bytes = b"", binary: bool = True
) -> tuple[bytes, bytes]:
    """What the client and the container receive; ``output`` is all that the container writes."""
    received, stdin = asyncio.run(
        asyncio.wait_for(_bridged(list(pieces), output, early, binary), 20)
    )
    return received, stdin


def test_the_key_of_the_standard_has_its_answer() -> None:
    assert accept_token("dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize("key", ["", "x", "dGhlIHNhbXBsZQ==", "dGhlIHNhbXBsZSBub25jZQ==\n"])
def test_an_invalid_key_is_rejected(key: str) -> None:
    with pytest.raises(InvalidRequest):
        accept_token(key)


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (1, b"\x82\x01"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\0\x7e"),
        (65535, b"\x82\x7e\xff\xff"),
    ],
)
def test_output_is_binary_messages_and_the_end_is_a_normal_close(size: int, head: bytes) -> None:
    assert bridged(output=b"x" * size) == (head + b"x" * size + CLOSED, b"")


def test_output_of_old_clients_is_text_without_broken_characters() -> None:
    received, _ = bridged(output=b"\xc3\xa9\xff", binary=False)
    assert received == b"\x81\x05\xc3\xa9\xef\xbf\xbd" + CLOSED


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=300), max_size=5), st.integers(1, 50))
def test_messages_are_the_same_in_any_cut(messages: list[bytes], step: int) -> None:
    data = b"".join(masked(2, message) for message in messages)
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    assert bridged(*pieces)[1] == b"".join(messages)


def test_bytes_that_came_with_the_handshake_are_read_first() -> None:
    data = masked(2, b"hello")
    assert bridged(data[3:], early=data[:3])[1] == b"hello"


@pytest.mark.parametrize("size", [200, 200_000])
def test_a_long_message_arrives_in_parts_with_a_ping_between(size: int) -> None:
    data = os.urandom(size)
    stream = masked(2, data[:100], final=False) + masked(9, b"hey") + masked(0, data[100:])
    assert bridged(stream) == (b"\x8a\x03hey", data)


def test_text_is_forwarded_and_a_pong_is_not() -> None:
    stream = masked(1, b"\xc3", final=False) + masked(10, b"x") + masked(0, b"\xa9")
    assert bridged(stream) == (b"", "é".encode())


@pytest.mark.parametrize("payload", [b"", b"\x03\xe8bye", b"\x0f\xa0"])
def test_a_close_frame_is_answered_with_the_normal_code(payload: bytes) -> None:
    assert bridged(masked(2, b"a") + masked(8, payload) + masked(2, b"b")) == (CLOSED, b"a")


def test_a_client_that_does_not_answer_our_close_frame_is_left_after_a_second() -> None:
    async def run() -> float:
        loop = asyncio.get_running_loop()
        client, theirs = socket.socketpair()
        stream, container = socket.socketpair()
        with client, theirs, stream:
            for end in (theirs, stream):
                end.setblocking(False)
            container.close()
            client.sendall(masked(9, b"ping"))
            began = loop.time()
            bridge = raw_websocket.Bridge(theirs, stream, binary=True)
            await bridge.run(b"", loop.create_future())
            return loop.time() - began

    assert 0.9 < asyncio.run(run()) < 10


def test_an_error_is_a_close_frame_with_a_reason_that_fits() -> None:
    assert raw_websocket.close_frame("é" * 200) == b"\x88\x7c\x03\xf3" + "é".encode() * 61
    assert raw_websocket.close_frame("a\udc80") == b"\x88\x04\x03\xf3a?"


@pytest.mark.parametrize(
    "stream",
    [
        b"\x82\x01x",  # not masked
        b"\xc2\x80\0\0\0\0",  # a reserved bit
        b"\x83\x80\0\0\0\0",  # an unknown opcode
        masked(9, b"x" * 126),  # a long control frame
        masked(8, b"", final=False),  # a control frame in parts
        masked(8, b"\x03"),  # half a code
        masked(8, b"\x03\xec"),  # a code that no peer may send
        masked(0, b"x"),  # a continuation without a beginning
        masked(2, b"x", final=False) + masked(2, b"y"),  # one message in another
        b"\x82\xff" + b"\xff" * 8 + b"\0\0\0\0",  # 64 bits of length
        b"\x82\xfe\0\x01\0\0\0\0x",  # a length in more bytes than it needs
    ],
)
def test_a_broken_frame_closes_with_a_protocol_error(stream: bytes) -> None:
    assert bridged(stream)[0][2:4] == b"\x03\xea"


@pytest.mark.parametrize("stream", [masked(1, b"\xff"), masked(1, b"\xc3")])
def test_text_that_is_not_utf8_closes_with_its_code(stream: bytes) -> None:
    received, stdin = bridged(stream)
    assert received[2:4] == b"\x03\xef"
    assert stdin == b""


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400))
def test_noise_is_data_or_a_close_frame(noise: bytes) -> None:
    bridged(noise)


def test_an_error_of_the_attach_ends_the_bridge() -> None:
    async def run() -> None:
        client, theirs = socket.socketpair()
        stream, container = socket.socketpair()
        with client, theirs, stream, container:
            for end in (theirs, stream):
                end.setblocking(False)
            attached = asyncio.get_running_loop().create_future()
            attached.set_exception(InvalidRequest("no"))
            await raw_websocket.Bridge(theirs, stream, binary=True).run(b"", attached)

    with pytest.raises(InvalidRequest):
        asyncio.run(run())


def test_the_server_loads_no_websocket_code_before_it_is_used() -> None:
    script = (
        "import sys, jaula.api.http.api_server, jaula.api.routes; print('wsproto' in sys.modules)"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert printed.stdout == "False\n"
