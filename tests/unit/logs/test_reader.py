"""Reading a log back: selection, the tail, damage, and following one that grows and turns over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jaula.logs import timestamp
from jaula.logs.follow import follow
from jaula.logs.json_file import JsonFileWriter
from jaula.logs.reader import Record, read

SECOND = 1_000_000_000


def record(text: str, second: int, stream: str = "stdout") -> bytes:
    time = timestamp.text(second * SECOND)
    return b'{"log":"%b\\n","stream":"%b","time":"%b"}\n' % (
        text.encode(),
        stream.encode(),
        time.encode(),
    )


def texts(records: object) -> list[str]:
    assert not isinstance(records, Record)
    return [r.log.rstrip("\n") for r in records]  # type: ignore[attr-defined]


@pytest.fixture
def rotated(tmp_path: Path) -> str:
    """Records 0 to 2999 over three files, the odd ones on stderr."""
    lines = [record(str(n), n, "stderr" if n % 2 else "stdout") for n in range(3000)]
    for name, part in (("log.2", lines[:1000]), ("log.1", lines[1000:2000]), ("log", lines[2000:])):
        (tmp_path / name).write_bytes(b"".join(part))
    return str(tmp_path / "log")


def test_a_log_that_was_never_written_is_empty(tmp_path: Path) -> None:
    assert list(read(str(tmp_path / "log"))) == []
    assert list(read(str(tmp_path / "log"), tail=5)) == []


def test_all_files_are_read_from_the_oldest(rotated: str) -> None:
    assert texts(read(rotated)) == [str(n) for n in range(3000)]


@pytest.mark.parametrize("count", [0, 1, 10, 999, 1000, 1001, 2500, 3000, 9999])
def test_the_tail_reaches_over_files(rotated: str, count: int) -> None:
    wanted = [str(n) for n in range(3000)]
    assert (
        texts(read(rotated, tail=count)) == wanted[len(wanted) - count :]
        if count <= 3000
        else (wanted)
    )


def test_streams_and_times_select(rotated: str) -> None:
    assert texts(read(rotated, stdout=False, since=5 * SECOND, until=10 * SECOND)) == [
        "5",
        "7",
        "9",
    ]
    assert texts(read(rotated, stderr=False, tail=2)) == ["2996", "2998"]
    assert texts(read(rotated, since=2998 * SECOND, tail=10)) == ["2998", "2999"]
    assert texts(read(rotated, until=3 * SECOND, tail=2)) == ["1", "2"]
    assert texts(read(rotated, stdout=False, stderr=False)) == []


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
    assert texts(read(str(path), since=base + 1)) == ["1", "2"]
    assert texts(read(str(path), since=base + 110_000_000)) == ["2"]


def test_a_line_in_pieces_counts_once(tmp_path: Path) -> None:
    writer = JsonFileWriter(str(tmp_path / "log"))
    writer.write("stdout", b"before\n" + b"x" * 50_000 + b"\nafter\n")
    writer.close()
    tail = list(read(str(tmp_path / "log"), tail=2))
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
        b"x" * 3_000_000 + b"\n",
    ],
)
def test_damage_is_passed_over(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "log"
    path.write_bytes(record("before", 1) + damage.rstrip(b"\n") + b"\n" + record("after", 2))
    assert texts(read(str(path))) == ["before", "after"]
    assert texts(read(str(path), tail=1)) == ["after"]


def test_a_record_that_is_being_written_is_left_for_later(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(record("whole", 1) + record("half", 2)[:-5])
    assert texts(read(str(path))) == ["whole"]


async def collect(source: AsyncIterator[list[Record]], into: list[str]) -> None:
    async for batch in source:
        into.extend(texts(batch))


async def reach(found: list[str], count: int) -> None:
    async with asyncio.timeout(10):
        while len(found) < count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("watched", [True, False])
def test_a_follower_misses_nothing_over_rotations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: bool
) -> None:
    if not watched:

        def refuse(*_: object) -> int:
            raise OSError(24, "too many inotify instances")

        monkeypatch.setattr("jaula.logs.follow._inotify_init1", refuse)

    async def scenario() -> list[str]:
        writer = JsonFileWriter(str(tmp_path / "log"), max_size=20_000, max_file=5)
        stop, found = asyncio.Event(), list[str]()
        task = asyncio.create_task(collect(follow(str(tmp_path / "log"), stop), found))
        for start in range(0, 2000, 100):
            lines = "".join(f"{n}\n" for n in range(start, start + 100))
            writer.write("stdout", lines.encode())
            await asyncio.sleep(0.002 if watched else 0.15)
        writer.write("stdout", b"last without end")
        writer.close()
        stop.set()
        async with asyncio.timeout(10):
            await task
        return found

    assert asyncio.run(scenario()) == [*(str(n) for n in range(2000)), "last without end"]


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
        await asyncio.sleep(0.02)
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
        await asyncio.sleep(0)
        before = len(list(Path("/proc/self/fd").iterdir()))
        task = asyncio.create_task(collect(follow(str(tmp_path / "log"), asyncio.Event()), []))
        await asyncio.sleep(0.02)
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
