"""Pairs of streams of forwarded ports."""

from __future__ import annotations

import asyncio

import pytest

from jaula.features.kubernetes.cri.streaming import portforward, spdy
from jaula.features.kubernetes.cri.streaming.portforward import StreamPairs, parse_pair
from jaula.features.kubernetes.cri.streaming.streaming_transport import BufferPool


@pytest.mark.parametrize(
    ("headers", "parsed"),
    [
        ({"streamtype": "data", "port": "80", "requestid": "7"}, ("7", "data", 80)),
        ({"streamtype": "error", "port": "65535", "requestid": "x"}, ("x", "error", 65535)),
        ({"streamtype": "error", "port": "80"}, ("9", "error", 80)),
        ({"streamtype": "data", "port": "80"}, ("7", "data", 80)),
        ({"streamtype": "data"}, None),
        ({"port": "80"}, None),
        ({"streamtype": "stdin", "port": "80"}, None),
        ({"streamtype": "data", "port": "0"}, None),
        ({"streamtype": "data", "port": "65536"}, None),
        ({"streamtype": "data", "port": "+80"}, None),
        ({"streamtype": "data", "port": "8_0"}, None),
        ({"streamtype": "data", "port": "٨٠"}, None),
        ({"streamtype": "data", "port": "9" * 5000}, None),
        ({"streamtype": "data", "port": "80", "requestid": "x" * 129}, None),
    ],
)
def test_the_headers_of_a_stream_are_parsed(
    headers: dict[str, str], parsed: tuple[str, str, int] | None
) -> None:
    assert parse_pair(headers, 9) == parsed


class Sent:
    """A connection that records the frames of its streams."""

    def __init__(self) -> None:
        self.resets: list[int] = []
        self.opened = 0

    def queue(self, frame: bytes) -> None:
        for parsed in spdy.FrameReader().feed(frame):
            if isinstance(parsed, spdy.Reset):
                self.resets.append(parsed.stream_id)

    def forget_ended(self, stream: spdy.Stream) -> None:
        pass

    def stream(self, kind: str, request_id: str) -> spdy.Stream:
        self.opened += 1
        headers = {"streamtype": kind, "port": "80", "requestid": request_id}
        return spdy.Stream(self, 2 * self.opened - 1, headers, BufferPool())  # type: ignore[arg-type]


def test_a_pair_is_forwarded_when_both_streams_are_open() -> None:
    async def main() -> None:
        sent, forwarded = Sent(), []
        pairs = StreamPairs(lambda *pair: forwarded.append(pair), 30)
        data, error = sent.stream("data", "1"), sent.stream("error", "1")
        assert pairs.accept(data) is None
        assert forwarded == []
        assert pairs.accept(error) is None
        assert forwarded == [(data, error, 80)]
        assert sent.resets == []

    asyncio.run(main())


def test_a_stream_that_is_there_already_is_refused() -> None:
    async def main() -> None:
        sent = Sent()
        pairs = StreamPairs(lambda *pair: None, 30)
        pairs.accept(sent.stream("data", "1"))
        assert pairs.accept(sent.stream("data", "1")) is spdy.ResetStatus.CANCEL
        pairs.close()

    asyncio.run(main())


def test_a_pair_that_is_not_completed_is_reset() -> None:
    async def main() -> None:
        sent, forwarded = Sent(), []
        pairs = StreamPairs(lambda *pair: forwarded.append(pair), 0.001)
        pairs.accept(sent.stream("data", "1"))
        await asyncio.sleep(0.05)
        assert sent.resets == [1]
        assert pairs.accept(sent.stream("error", "1")) is None
        assert forwarded == []
        pairs.close()

    asyncio.run(main())


def test_pairs_of_reset_streams_need_no_memory() -> None:
    async def main() -> None:
        sent = Sent()
        pairs = StreamPairs(lambda *pair: None, 30)
        for number in range(4 * portforward.MAX_FORWARDS):
            stream = sent.stream("data", str(number))
            assert pairs.accept(stream) is None
            stream.received_reset()

    asyncio.run(main())


def test_the_number_of_incomplete_pairs_is_limited() -> None:
    async def main() -> None:
        sent = Sent()
        pairs = StreamPairs(lambda *pair: None, 30)
        answers = [
            pairs.accept(sent.stream("data", str(number)))
            for number in range(portforward.MAX_FORWARDS + 1)
        ]
        assert answers[-2:] == [None, spdy.ResetStatus.REFUSED_STREAM]
        pairs.close()

    asyncio.run(main())
