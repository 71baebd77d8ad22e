"""Readers during rotation and compression at full speed."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from jaula.logs.drivers.json_file import JsonFileWriter
from jaula.logs.log_entry import LogEntry, Selection
from jaula.logs.reader import rotated_files
from jaula.logs.reader.follow import follow
from jaula.logs.reader.log_reader import LogReader
from jaula.logs.reader.read import read, read_tail

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
COUNT = 60_000


def numbers(records: list[LogEntry]) -> list[int]:
    return [int(record.log) for record in records]


def write_all(path: str) -> None:
    """Sixty files, of which none is rotated away."""
    writer = JsonFileWriter(path, max_size=80_000, max_file=200, compress=True)
    for start in range(0, COUNT, 500):
        writer.write("stdout", b"".join(b"%d\n" % n for n in range(start, start + 500)))
        writer.poll()
        time.sleep(0.002)
    writer.close()


def test_every_reader_sees_each_record_once_while_names_move(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    pid = os.fork()
    if not pid:
        try:
            write_all(path)
        finally:
            os._exit(0)

    async def scenario() -> tuple[list[int], int]:
        stop, followed, looks = asyncio.Event(), list[int](), 0

        async def following() -> None:
            async for batch in follow(path, stop):
                followed.extend(numbers(batch))

        task = asyncio.create_task(following())
        while not os.waitpid(pid, os.WNOHANG)[0]:  # noqa: ASYNC222
            result = numbers(list(read(path)))
            assert result == list(range(len(result)))
            tail = numbers(await asyncio.to_thread(read_tail, path, 3000, Selection()))
            assert tail == list(range(tail[0], tail[0] + len(tail))) if tail else not tail
            looks += 1
            await asyncio.sleep(0.003)
        stop.set()
        async with asyncio.timeout(30):
            await task
        return followed, looks

    followed, looks = asyncio.run(scenario())
    assert followed == list(range(COUNT))
    assert looks > 1
    assert any(name.endswith(".gz") for name in os.listdir(tmp_path))


def test_a_reader_begins_with_the_oldest_record_when_names_move_before_it_opens_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "log")
    writer = JsonFileWriter(path, max_size=2_000, max_file=9)
    writer.write("stdout", b"".join(b"%d\n" % number for number in range(100)))
    opened = rotated_files.open_file

    def opened_after_a_rotation(name: str) -> int:
        monkeypatch.setattr(rotated_files, "open_file", opened)
        count = len(os.listdir(tmp_path))
        number = 100
        while len(os.listdir(tmp_path)) == count:
            writer.write("stdout", b"%d\n" % number)
            number += 1
        return opened(name)

    monkeypatch.setattr(rotated_files, "open_file", opened_after_a_rotation)
    reader = LogReader(path)
    first = reader.next_entries()
    reader.close()
    writer.close()
    assert rotated_files.open_file is opened, "no file was opened while names moved"
    assert numbers(first)[0] == 0


def test_a_bounded_reader_ends_where_the_log_did_though_all_was_rotated_away(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "log")
    writer = JsonFileWriter(path, max_size=2_000, max_file=2)
    writer.write("stdout", b"1\n2\n")
    reader = LogReader(path, bounded=True)
    for number in range(3, 200):
        writer.write("stdout", b"%d\n" % number)
    writer.close()
    result = []
    while records := reader.next_entries():
        result += numbers(records)
    reader.close()
    assert result[:2] == [1, 2]
    assert max(result) < 40, "it goes on behind the file that was the newest"
