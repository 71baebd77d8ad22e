"""The address of a target, and the files that a target accepts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jaula.engine.migration.files import FileReceiver, FileSender
from jaula.engine.migration.service import parse_target
from jaula.errors import InvalidRequest, RuntimeFailure
from jaula.spec.migration import SentFile


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tcp://b.example", ("b.example", 2376)),
        ("tcp://b.example:99", ("b.example", 99)),
        ("10.0.0.1:2376", ("10.0.0.1", 2376)),
        ("tcp://[fd00::1]:2377", ("fd00::1", 2377)),
        ("tcp://[fd00::1]", ("fd00::1", 2376)),
    ],
)
def test_targets(text: str, expected: tuple[str, int]) -> None:
    assert parse_target(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tcp://",
        "http://b:1",
        "b:0",
        "b:65536",
        "b:x",
        "tcp://b/x:1",
        "a b:1",
        "u@b:1",
        "b\r\n:1",
    ],
)
def test_what_is_not_a_target(text: str) -> None:
    with pytest.raises(InvalidRequest, match="not an address"):
        parse_target(text)


class Sink:
    """A channel that keeps what is sent, and gives it to a receiver."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.current = ""

    async def send(self, transfer: Any) -> None:
        self.current = transfer.name
        self.files[transfer.name] = b""

    async def send_data(self, data: bytes) -> None:
        self.files[self.current] += data

    async def end_data(self) -> None:
        self.current = ""

    async def send_small(self, transfer: Any, data: bytes) -> None:
        self.files[transfer.name] = data

    async def data(self) -> AsyncIterator[bytes]:
        content = self.files[self.current]
        for start in range(0, len(content), 3):
            yield content[start : start + 3]


def run_both(tmp_path: Path) -> tuple[Sink, tuple[SentFile, ...]]:
    """Send a directory while a file of it grows."""
    source = tmp_path / "source"
    source.mkdir()
    sink: Any = Sink()

    async def work() -> tuple[SentFile, ...]:
        sender = FileSender(sink, source)
        complete = asyncio.Event()
        sending = asyncio.ensure_future(sender.send_growing(complete))
        with (source / "pages-1.img").open("wb") as file:
            for number in range(20):
                file.write(b"%d " % number)
                file.flush()
                await asyncio.sleep(0.002)
        (source / "pages-2.img").write_bytes(b"second")
        (source / "core-1.img").write_bytes(b"core")
        (source / "affinity.json").write_bytes(b"{}")
        await asyncio.sleep(0.05)
        complete.set()
        await sending
        return await sender.send_rest()

    return sink, asyncio.run(work())


def test_a_file_that_grows_is_sent_once_and_whole(tmp_path: Path) -> None:
    sink, files = run_both(tmp_path)
    assert {each.name for each in files} == set(sink.files)
    for each in files:
        assert sink.files[each.name] == (tmp_path / "source" / each.name).read_bytes()
        assert each.size == len(sink.files[each.name])


def test_what_arrives_is_what_was_sent(tmp_path: Path) -> None:
    sink, files = run_both(tmp_path)
    target = tmp_path / "target"
    target.mkdir()

    async def receive() -> FileReceiver:
        channel: Any = sink
        receiver = FileReceiver(channel, target)
        for name in sink.files:
            sink.current = name
            await receiver.receive(name)
        return receiver

    receiver = asyncio.run(receive())
    assert receiver.check(files)["pages-2.img"].size == 6
    for each in files:
        assert (target / each.name).read_bytes() == sink.files[each.name]
    for wrong in (files[1:], (*files[1:], SentFile(files[0].name, 1, files[0].sha256))):
        with pytest.raises(InvalidRequest):
            receiver.check(wrong)


def test_a_file_that_changes_after_it_was_sent_fails_the_migration(tmp_path: Path) -> None:
    (tmp_path / "pages-1.img").write_bytes(b"pages")
    sink: Any = Sink()

    async def work() -> None:
        sender = FileSender(sink, tmp_path)
        complete = asyncio.Event()
        complete.set()
        await sender.send_growing(complete)
        (tmp_path / "pages-1.img").write_bytes(b"more pages")
        await sender.send_rest()

    with pytest.raises(RuntimeFailure, match="changed pages-1"):
        asyncio.run(work())


@pytest.mark.parametrize(
    "name", ["", "../x.img", "a/b.img", ".img", ".x.img", "x.so", "x.img\n", "x" * 200 + ".img"]
)
def test_a_name_that_no_image_has_is_refused(tmp_path: Path, name: str) -> None:
    channel: Any = Sink()
    receiver = FileReceiver(channel, tmp_path)
    with pytest.raises(InvalidRequest):
        asyncio.run(receiver.receive(name))
    assert list(tmp_path.iterdir()) == []
