"""The result of a command and the sizes of its terminal."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.features.kubernetes.cri.streaming import remotecommand
from jaula.features.kubernetes.cri.streaming.backend import Size
from jaula.features.kubernetes.cri.streaming.remotecommand import (
    ResizeEvents,
    SizeParser,
    encode_status,
)


@pytest.mark.parametrize("protocol", ["v4.channel.k8s.io", "v5.channel.k8s.io"])
def test_the_exit_status_is_a_cause_of_the_failure(protocol: str) -> None:
    status = json.loads(encode_status(remotecommand.exit_status(3), protocol))
    assert status["status"] == "Failure"
    assert status["reason"] == "NonZeroExitCode"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "3"}]
    assert status["message"] == "command terminated with non-zero exit code: exit status 3"


def test_success_is_a_status_too() -> None:
    status = encode_status(remotecommand.exit_status(0), "v4.channel.k8s.io")
    assert json.loads(status) == {"metadata": {}, "status": "Success"}


def test_a_command_that_cannot_run_is_an_internal_error() -> None:
    status = json.loads(encode_status(remotecommand.failure("no é"), "v4.base64.channel.k8s.io"))
    assert (status["reason"], status["code"]) == ("InternalError", 500)
    assert status["message"] == "Internal error occurred: no é"


@pytest.mark.parametrize("protocol", ["channel.k8s.io", "v2.channel.k8s.io", "v3.channel.k8s.io"])
def test_older_versions_have_a_text_for_failures_only(protocol: str) -> None:
    assert encode_status(remotecommand.exit_status(0), protocol) == b""
    text = encode_status(remotecommand.exit_status(3), protocol)
    assert text == b"command terminated with non-zero exit code: exit status 3"


@pytest.mark.parametrize(
    ("sent", "size"),
    [
        (b'{"Width":80,"Height":24}\n', Size(80, 24)),
        (b'{"Width":80,"Height":24}{"Width":1,"Height":2}', Size(1, 2)),
        (b' {"width":80, "HEIGHT":24, "other":"x"}', Size(80, 24)),
        (b'{"Width":65535}', Size(65535, 0)),
        (b'{"Width":80,"Hei', None),
        (b'{"Width":65536,"Height":24}', None),
        (b'{"Width":-1,"Height":24}', None),
        (b'{"Width":true,"Height":24}', None),
        (b'{"Width":8.5,"Height":24}', None),
        (b"[1]}", None),
        (b"null}", None),
        (b"}", None),
        (b"[" * 100000 + b"}", None),
        (b'{"a":"' + b"x" * 300 + b'"}', None),
    ],
)
def test_a_size_is_parsed(sent: bytes, size: Size | None) -> None:
    assert SizeParser().feed(sent) == size


def test_a_size_may_arrive_in_pieces() -> None:
    parser = SizeParser()
    assert [parser.feed(bytes((byte,))) for byte in b'{"Width":8,"Height":2}'][-1] == Size(8, 2)


@pytest.mark.parametrize("hostile", [b"x}", b"x" * 1000])
def test_nothing_is_parsed_after_an_invalid_document(hostile: bytes) -> None:
    parser = SizeParser()
    assert parser.feed(hostile) is None
    assert parser.feed(b'{"Width":80,"Height":24}') is None


@given(st.lists(st.binary(max_size=50)))
def test_no_bytes_fail(pieces: list[bytes]) -> None:
    parser = SizeParser()
    for piece in pieces:
        parser.feed(piece)


class Chunks:
    """A source of chunks."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = list(chunks)

    async def read(self) -> bytes:
        return self.chunks.pop(0) if self.chunks else b""


def test_only_the_last_of_several_sizes_is_told() -> None:
    async def main() -> list[Size]:
        one, two = b'{"Width":1,"Height":1}', b'{"Width":2,"Height":2}'
        return [size async for size in ResizeEvents(Chunks(one + two, b'{"Wid', b"x}", two))]

    assert asyncio.run(main()) == [Size(2, 2)]


def test_a_command_without_a_terminal_has_no_sizes() -> None:
    async def main() -> list[Size]:
        return [size async for size in ResizeEvents(None)]

    assert asyncio.run(main()) == []
