"""Readers during fast rotation and compression."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from jaula.logs.drivers.json_file import JsonFileWriter
from jaula.logs.entry import LogEntry, Selection
from jaula.logs.reader.follow import follow
from jaula.logs.reader.read import read, read_tail
from jaula.logs.reader.reader import LogReader

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
COUNT = 60_000


def numbers(records: list[LogEntry]) -> list[int]:
    return [int(record.log) for record in records]


def write_all(path: str) -> None:
    """Sixty files, none of which is removed by a rotation."""
    writer = JsonFileWriter(path, max_size=80_000, max_file=200, compress=True)
    for start in range(0, COUNT, 500):
        writer.write("stdout", b"".join(b"%d\n" % n for n in range(start, start + 500)))
        writer.poll()
        time.sleep(0.002)
    writer.close()


def test_every_reader_gets_each_entry_once_during_rotations(tmp_path: Path) -> None:
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
            found = numbers(list(read(path)))
            assert found == list(range(len(found)))
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


def test_a_bounded_reader_stops_at_the_initial_end_although_all_files_were_removed(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "log")
    writer = JsonFileWriter(path, max_size=2_000, max_file=2)
    writer.write("stdout", b"1\n2\n")
    walk = LogReader(path, bounded=True)
    for number in range(3, 200):
        writer.write("stdout", b"%d\n" % number)
    writer.close()
    found = []
    while records := walk.next_entries():
        found += numbers(records)
    walk.close()
    assert found[:2] == [1, 2]
    assert max(found) < 40, "it goes on behind the file that was the newest"
