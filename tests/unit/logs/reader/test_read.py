"""Reading a log back: selection, the tail, damage, and following one that grows and turns over."""

from __future__ import annotations

import asyncio
import os
import time
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jaula.logs import gzip_file, timestamp
from jaula.logs.drivers.json_file import JsonFileWriter
from jaula.logs.log_entry import LogEntry, Selection
from jaula.logs.reader.follow import follow
from jaula.logs.reader.read import read, read_tail
from unit.event_loop import idle

SECOND = 1_000_000_000


def record(text: str, second: int, stream: str = "stdout") -> bytes:
    time = timestamp.format_time(second * SECOND)
    return b'{"log":"%b\\n","stream":"%b","time":"%b"}\n' % (
        text.encode(),
        stream.encode(),
        time.encode(),
    )


def texts(records: object) -> list[str]:
    assert not isinstance(records, LogEntry)
    return [r.log.rstrip("\n") for r in records]  # type: ignore[attr-defined]


def packed(path: Path) -> None:
    """Pack a file as the writer does."""
    with path.open("rb") as plain, open(f"{path}.gz", "wb") as form:
        gzip_file.compress(plain.fileno(), form.fileno())
    path.unlink()


@pytest.fixture(params=[(), ("log.2",), ("log.1",), ("log.1", "log.2")], ids="-".join)
def rotated(tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Records 0 to 2999 over three files, plain and packed; the odd ones on stderr."""
    lines = [record(str(n), n, "stderr" if n % 2 else "stdout") for n in range(3000)]
    for name, part in (("log.2", lines[:1000]), ("log.1", lines[1000:2000]), ("log", lines[2000:])):
        (tmp_path / name).write_bytes(b"".join(part))
        if name in request.param:
            packed(tmp_path / name)
    return str(tmp_path / "log")


def test_a_log_that_was_never_written_is_empty(tmp_path: Path) -> None:
    assert list(read(str(tmp_path / "log"))) == []
    assert read_tail(str(tmp_path / "log"), 5, Selection()) == []


def test_all_files_are_read_from_the_oldest(rotated: str) -> None:
    assert texts(read(rotated)) == [str(n) for n in range(3000)]


@pytest.mark.parametrize("count", [0, 1, 10, 999, 1000, 1001, 2500, 3000, 9999])
def test_the_tail_reaches_over_files(rotated: str, count: int) -> None:
    expected = [str(n) for n in range(3000)]
    assert (
        texts(read_tail(rotated, count, Selection())) == expected[len(expected) - count :]
        if count <= 3000
        else (expected)
    )


def test_streams_and_times_select(rotated: str) -> None:
    some = Selection(stdout=False, since=5 * SECOND, until=10 * SECOND)
    assert texts(read(rotated, some)) == ["5", "7", "9"]
    assert texts(read_tail(rotated, 2, Selection(stderr=False))) == ["2996", "2998"]
    assert texts(read_tail(rotated, 10, Selection(since=2998 * SECOND))) == ["2998", "2999"]
    middle = Selection(since=1500 * SECOND, until=1504 * SECOND)
    assert texts(read_tail(rotated, 10, middle)) == ["1500", "1501", "1502", "1503"]
    assert texts(read_tail(rotated, 3, middle)) == ["1501", "1502", "1503"]
    assert texts(read_tail(rotated, 3, Selection(stdout=False, until=1002 * SECOND))) == [
        "997",
        "999",
        "1001",
    ]
    assert texts(read_tail(rotated, 2, Selection(until=3 * SECOND))) == ["1", "2"]
    assert texts(read(rotated, Selection(stdout=False, stderr=False))) == []


def test_times_without_their_zeros_compare_right(tmp_path: Path) -> None:
    path = tmp_path / "log"
    stamps = ("2006-01-02T15:04:05Z", "2006-01-02T15:04:05.1Z", "2006-01-02T15:04:05.12Z")
    path.write_bytes(
        b"".join(
            b'{"log":"%d\\n","stream":"stdout","time":"%b"}\n' % (n, s.encode())
            for n, s in enumerate(stamps)
        )
    )
    base = 1136214245 * SECOND
    assert texts(read(str(path), Selection(since=base + 1))) == ["1", "2"]
    assert texts(read(str(path), Selection(since=base + 110_000_000))) == ["2"]


@pytest.mark.parametrize("pack", [False, True])
def test_a_line_in_pieces_counts_once(tmp_path: Path, pack: bool) -> None:
    writer = JsonFileWriter(str(tmp_path / "log"))
    writer.write("stdout", b"before\n" + b"x" * 50_000 + b"\nafter\n")
    writer.close()
    if pack:
        (tmp_path / "log").rename(tmp_path / "log.1")
        packed(tmp_path / "log.1")
    tail = read_tail(str(tmp_path / "log"), 2, Selection())
    assert b"".join(r.data for r in tail) == b"x" * 50_000 + b"\nafter\n"


@pytest.mark.parametrize(
    "damage",
    [
        b"\n",
        b"garbage\n",
        b'{"log":"half',
        b"[" * 100_000 + b"\n",
        b'{"log":1,"stream":"stdout","time":"x"}\n',
        b'{"log":"x"}\n',
        b"\xff\xfe\x00\n",
        b'{"\xff":1}\n',
        b'{"log":"\xff","stream":"stdout","time":"x"}\n',
        b"x" * 3_000_000 + b"\n",
    ],
)
@pytest.mark.parametrize("pack", [False, True])
def test_damage_is_passed_over(tmp_path: Path, damage: bytes, pack: bool) -> None:
    path = tmp_path / "log"
    path.write_bytes(record("before", 1) + damage.rstrip(b"\n") + b"\n" + record("after", 2))
    if pack:
        path.rename(tmp_path / "log.1")
        packed(tmp_path / "log.1")
    assert texts(read(str(path))) == ["before", "after"]
    assert texts(read_tail(str(path), 1, Selection())) == ["after"]


@pytest.mark.parametrize("cut", [0, 1, 5, 23, 30, 2000, -4])
def test_a_truncated_compressed_file_is_read_up_to_its_end_and_the_next_follows(
    tmp_path: Path, cut: int
) -> None:
    lines = [record(f"{n * 7919 % 10007}", n) for n in range(1000)]
    (tmp_path / "log.2").write_bytes(record("oldest", 0))
    (tmp_path / "log.1").write_bytes(b"".join(lines))
    packed(tmp_path / "log.1")
    form = (tmp_path / "log.1.gz").read_bytes()
    (tmp_path / "log.1.gz").write_bytes(form[:cut])
    (tmp_path / "log").write_bytes(record("newest", 1000))
    path = str(tmp_path / "log")
    whole = ["oldest", *texts([LogEntry(f"{n * 7919 % 10007}", "", "") for n in range(1000)])]
    found = texts(read(path))
    assert found[-1] == "newest"
    assert found[:-1] == whole[: len(found) - 1]
    assert len(found) == 1002 if cut == -4 else len(found) < 1002
    assert texts(read_tail(path, 2000, Selection())) == found
    assert texts(read_tail(path, 3, Selection())) == found[-3:]


def test_a_reader_does_not_mistake_a_file_for_an_older_one_with_its_inode(
    tmp_path: Path,
) -> None:
    """A plain file that was packed gives its inode back, which the next file may get."""
    (tmp_path / "log.1").write_bytes(record("older", 1))
    (tmp_path / "log").write_bytes(record("newer", 2) + record("newest", 3))
    inode = (tmp_path / "log").stat().st_ino
    packed(tmp_path / "log.1")
    form = bytearray((tmp_path / "log.1.gz").read_bytes())
    form[16:24] = inode.to_bytes(8, "little")
    (tmp_path / "log.1.gz").write_bytes(form)
    path = str(tmp_path / "log")
    assert texts(read(path)) == ["older", "newer", "newest"]
    assert texts(read_tail(path, 3, Selection())) == ["older", "newer", "newest"]

    async def scenario() -> list[str]:
        stop, found = asyncio.Event(), list[str]()
        stop.set()
        await collect(follow(path, stop, tail=3), found)
        await collect(follow(path, stop), found)
        return found

    assert asyncio.run(scenario()) == ["older", "newer", "newest"] * 2


def test_the_tail_of_a_compressed_file_needs_memory_for_its_lines_only(tmp_path: Path) -> None:
    with (tmp_path / "log.1").open("wb") as plain:
        for start in range(0, 200_000, 1000):
            plain.write(b"".join(record(f"{n:060}", n) for n in range(start, start + 1000)))
    packed(tmp_path / "log.1")
    tracemalloc.start()
    try:
        found = texts(read_tail(str(tmp_path / "log"), 5, Selection()))
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()
    assert [int(text) for text in found] == [*range(199_995, 200_000)]


def test_records_written_during_a_read_are_left_out(tmp_path: Path) -> None:
    writer = JsonFileWriter(str(tmp_path / "log"), max_size=100_000, max_file=5)
    writer.write("stdout", b"before\n" * 2000)
    found = []
    for entry in read(str(tmp_path / "log")):
        found.append(entry.log)
        if len(found) % 100 == 0:
            writer.write("stdout", b"meanwhile\n" * 100)
    writer.close()
    assert found.count("before\n") == 2000
    assert found.count("meanwhile\n") <= 1000, "it reads on and on"


def test_a_record_that_is_being_written_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(record("whole", 1) + record("half", 2)[:-5])
    assert texts(read(str(path))) == ["whole"]


async def collect(source: AsyncIterator[list[LogEntry]], into: list[str]) -> None:
    async for batch in source:
        into.extend(texts(batch))


async def reach(found: list[str], count: int) -> None:
    async with asyncio.timeout(10):
        while len(found) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("watched", [True, False])
def test_a_follower_misses_nothing_over_rotations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: bool, compress: bool
) -> None:
    monkeypatch.setattr("jaula.logs.reader.follow._POLL", 0.001)
    if not watched:

        def refuse(*_: object) -> int:
            raise OSError(24, "too many inotify instances")

        monkeypatch.setattr("jaula.kernel.inotify.create", refuse)

    async def scenario() -> list[str]:
        writer = JsonFileWriter(
            str(tmp_path / "log"), max_size=20_000, max_file=9, compress=compress
        )
        stop, found = asyncio.Event(), list[str]()
        task = asyncio.create_task(collect(follow(str(tmp_path / "log"), stop), found))
        for start in range(0, 2000, 100):
            lines = "".join(f"{n}\n" for n in range(start, start + 100))
            writer.write("stdout", lines.encode())
            writer.poll()
            if start % 200:  # of two batches the reader sees one at once, the other late
                await reach(found, start + 100)
        writer.write("stdout", b"last without end")
        writer.close()
        stop.set()
        async with asyncio.timeout(10):
            await task
        return found

    assert asyncio.run(scenario()) == [*(str(n) for n in range(2000)), "last without end"]


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_slow_follower_continues_in_compressed_files(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        path = str(tmp_path / "log")
        writer = JsonFileWriter(path, max_size=2_000, max_file=200, compress=True)
        writer.write("stdout", b"0\n1\n")
        stop, found = asyncio.Event(), list[str]()
        task = asyncio.create_task(collect(follow(path, stop, tail=1), found))
        await reach(found, 1)
        for number in range(2, 600):  # the loop gets no turn meanwhile
            writer.write("stdout", b"%d\n" % number)
            if number % 30 == 0:
                while writer.poll() is not None:
                    time.sleep(0.001)  # noqa: ASYNC251
        assert sum(name.endswith(".gz") for name in os.listdir(tmp_path)) > 5
        writer.close()
        stop.set()
        async with asyncio.timeout(30):
            await task
        return found

    assert asyncio.run(scenario()) == [str(n) for n in range(1, 600)]


def test_a_follower_begins_with_the_tail_and_repeats_nothing(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        writer = JsonFileWriter(str(tmp_path / "log"))
        writer.write("stdout", b"1\n2\n3\n")
        stop, found = asyncio.Event(), list[str]()
        task = asyncio.create_task(collect(follow(str(tmp_path / "log"), stop, tail=2), found))
        await reach(found, 2)
        writer.write("stdout", b"4\n")
        await reach(found, 3)
        writer.close()
        stop.set()
        await task
        return found

    assert asyncio.run(scenario()) == ["2", "3", "4"]


def test_a_follower_waits_for_a_log_that_is_not_there_yet(tmp_path: Path) -> None:
    async def scenario() -> list[str]:
        stop, found = asyncio.Event(), list[str]()
        task = asyncio.create_task(collect(follow(str(tmp_path / "log"), stop), found))
        await idle()
        writer = JsonFileWriter(str(tmp_path / "log"))
        writer.write("stdout", b"1\n")
        await reach(found, 1)
        writer.close()
        stop.set()
        await task
        return found

    assert asyncio.run(scenario()) == ["1"]


def test_a_follower_that_is_cancelled_leaves_no_descriptor(tmp_path: Path) -> None:
    async def scenario() -> None:
        JsonFileWriter(str(tmp_path / "log")).close()
        await idle()
        before = len(list(Path("/proc/self/fd").iterdir()))
        task = asyncio.create_task(collect(follow(str(tmp_path / "log"), asyncio.Event()), []))
        await idle()
        assert len(list(Path("/proc/self/fd").iterdir())) > before
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_asyncgens()
        assert len(list(Path("/proc/self/fd").iterdir())) == before

    asyncio.run(scenario())


def test_a_follower_ends_at_until(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"".join(record(str(n), n + 1) for n in range(10)))

    async def scenario() -> list[str]:
        found: list[str] = []
        async with asyncio.timeout(5):
            await collect(follow(str(tmp_path / "log"), asyncio.Event(), until=4 * SECOND), found)
        return found

    assert asyncio.run(scenario()) == ["0", "1", "2"]
