"""The log of a pod's container: format, parts of lines, rotation by another program, readers."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest
from jaula.logs import NAMES, cri_format, open_writer, readable, validate
from jaula.logs.drivers.cri_driver import CriWriter
from jaula.logs.log_driver import PARTIAL
from jaula.logs.log_entry import LogEntry, Selection
from jaula.logs.pod_log import PodLog
from jaula.logs.reader.follow import follow
from jaula.logs.reader.read import read, read_tail

# A shim has one thread; the programs that run tests have more.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

STAMP = "2006-01-02T15:04:05.999999999Z"


@pytest.fixture
def log(tmp_path: Path) -> PodLog:
    return PodLog(str(tmp_path), "web/0.log")


def lines_of(path: str | Path) -> list[bytes]:
    """Return the entries of a file without their times."""
    return [line.split(b" ", 1)[1] for line in Path(path).read_bytes().splitlines()]


def kept(log: PodLog) -> bytes:
    return b"".join(entry.data for entry in read(log))


def test_a_line_has_the_format_of_the_kubelet(log: PodLog) -> None:
    writer = open_writer("cri", {"directory": log.directory, "path": log.path}, "")
    writer.write("stdout", b"one\n\ntwo words \n")
    writer.write("stderr", b"three\n")
    writer.close()
    text = Path(log.name).read_bytes()
    time = rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"
    expected = (b"stdout F one", b"stdout F ", b"stdout F two words ", b"stderr F three")
    pattern = b"".join(time + b" " + re.escape(line) + b"\n" for line in expected)
    assert re.fullmatch(pattern, text)
    assert os.stat(log.name).st_mode & 0o7777 == 0o640
    assert os.stat(os.path.dirname(log.name)).st_mode & 0o7777 == 0o755


def test_modes_do_not_depend_on_the_umask(log: PodLog) -> None:
    before = os.umask(0o077)
    try:
        CriWriter(log).close()
    finally:
        os.umask(before)
    assert os.stat(log.name).st_mode & 0o7777 == 0o640
    assert os.stat(os.path.dirname(log.name)).st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("length", [PARTIAL - 4, PARTIAL + 1, 3 * PARTIAL + 5])
def test_a_long_line_is_stored_in_parts(log: PodLog, length: int) -> None:
    writer = CriWriter(log)
    writer.write("stdout", b"x" * length)
    writer.write("stdout", b"end\n")
    writer.close()
    *parts, last = lines_of(log.name)
    assert last.startswith(b"stdout F ")
    assert all(part == b"stdout P " + b"x" * PARTIAL for part in parts)
    assert len(parts) == length // PARTIAL
    assert kept(log) == b"x" * length + b"end\n"


def test_an_unfinished_last_line_gets_no_newline(log: PodLog) -> None:
    """The kubelet adds one to a full line."""
    writer = CriWriter(log)
    writer.write("stdout", b"DONE")
    assert Path(log.name).read_bytes() == b""
    writer.close()
    assert lines_of(log.name) == [b"stdout P DONE"]
    assert kept(log) == b"DONE"


@given(st.lists(st.tuples(st.sampled_from(("stdout", "stderr")), st.binary(max_size=40))))
def test_any_bytes_are_read_back_for_any_chunks(pieces: list[tuple[str, bytes]]) -> None:
    directory = tempfile.mkdtemp(prefix="jlt-log-", dir="/dev/shm")
    try:
        log = PodLog(directory, "0.log")
        writer = CriWriter(log)
        for stream, data in pieces:
            writer.write(stream, data)
        writer.close()
        for stream in ("stdout", "stderr"):
            whole = b"".join(data for name, data in pieces if name == stream)
            assert b"".join(e.data for e in read(log) if e.stream == stream) == whole
        entries = list(read(log))
        assert entries == read_tail(log, len(entries) + 1, Selection())
    finally:
        shutil.rmtree(directory)


@given(st.binary(max_size=200))
def test_any_file_is_decoded(data: bytes) -> None:
    for entry in cri_format.decode(data):
        assert entry.stream in ("stdout", "stderr")
        assert entry.time.endswith("Z")


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        (b"2024-05-06T07:08:09.5Z stdout F text", ("text\n", "2024-05-06T07:08:09.5Z")),
        (b"2024-05-06T07:08:09Z stdout P text", ("text", "2024-05-06T07:08:09Z")),
        (b"2024-05-06T07:08:09Z stdout P:x text", ("text", "2024-05-06T07:08:09Z")),
        (b"2024-05-06T01:08:09.25+02:00 stdout F a b", ("a b\n", "2024-05-05T23:08:09.25Z")),
        (b"2024-05-06T23:08:09.25-02:30 stdout F ", ("\n", "2024-05-07T01:38:09.25Z")),
    ],
)
def test_entries_of_other_runtimes_are_read(line: bytes, entry: tuple[str, str]) -> None:
    assert cri_format.decode(line + b"\n") == [LogEntry(entry[0], "stdout", entry[1])]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"05-06T07:08:09Z stdout F torn",
        b"2024-05-06T07:08:09Z stdout F",
        b"2024-05-06T07:08:09Z stdin F text",
        b"2024-05-06T07:08:09 stdout F text",
        b"2024-99-06T07:08:09+01:00 stdout F text",
        b"0001-01-01T00:00:00+23:00 stdout F text",
        b"\xd9\xa02024-05-06T07:08:09Z stdout F text",
        b'{"log":"text\\n","stream":"stdout","time":"2024-05-06T07:08:09Z"}',
    ],
)
def test_other_lines_are_skipped(line: bytes) -> None:
    good = b"2024-05-06T07:08:09Z stderr F good\n"
    assert [e.log for e in cri_format.decode(line + b"\n" + good)] == ["good\n"]


def test_a_killed_writer_leaves_half_an_entry_and_the_next_starts_a_line(log: PodLog) -> None:
    CriWriter(log).close()
    pid = os.fork()
    if not pid:
        try:
            writer = CriWriter(log)
            writer.write("stdout", b"whole\nin the buffer")
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.waitpid(pid, 0)
    with open(log.name, "ab") as file:
        file.write(f"{STAMP} stdout F ha".encode())
    again = CriWriter(log)
    again.write("stdout", b"next\n")
    again.close()
    assert lines_of(log.name) == [b"stdout F whole", b"stdout F ha", b"stdout F next"]
    assert kept(log) == b"whole\nha\nnext\n"


def test_after_a_reopen_lines_go_to_the_new_file(log: PodLog) -> None:
    writer = CriWriter(log)
    writer.write("stdout", b"one\nunfin")
    rotated = f"{log.name}.20240506-070809"
    os.rename(log.name, rotated)
    writer.write("stderr", b"two\n")
    writer.reopen()
    writer.write("stdout", b"ished\n")
    writer.close()
    writer.reopen()  # does nothing
    assert lines_of(rotated) == [b"stdout F one", b"stderr F two"]
    assert lines_of(log.name) == [b"stdout F unfinished"]


def test_a_reopen_of_the_same_file_changes_nothing(log: PodLog) -> None:
    writer = CriWriter(log)
    writer.write("stdout", b"one\n")
    before = len(os.listdir("/proc/self/fd"))
    writer.reopen()
    assert len(os.listdir("/proc/self/fd")) == before
    writer.write("stdout", b"two\n")
    writer.close()
    assert kept(log) == b"one\ntwo\n"


def test_a_failed_reopen_keeps_the_file(log: PodLog) -> None:
    writer = CriWriter(log)
    rotated = f"{log.name}.1"
    os.rename(log.name, rotated)
    os.mkfifo(log.name)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="not a regular file") as error:
        writer.reopen()
    assert error.value.filename == log.name
    assert len(os.listdir("/proc/self/fd")) == before
    writer.write("stdout", b"goes on\n")
    writer.close()
    assert lines_of(rotated) == [b"stdout F goes on"]


def test_a_log_that_does_not_exist_has_no_entries(log: PodLog) -> None:
    assert list(read(log)) == []
    assert read_tail(log, 5, Selection()) == []


def test_rotated_files_are_not_read(log: PodLog) -> None:
    writer = CriWriter(log)
    writer.write("stdout", b"old\n")
    os.rename(log.name, f"{log.name}.1")
    writer.reopen()
    writer.write("stdout", b"new\n")
    writer.close()
    assert kept(log) == b"new\n"
    assert [e.log for e in read_tail(log, 5, Selection())] == ["new\n"]


def test_the_tail_counts_a_line_in_parts_once(log: PodLog) -> None:
    writer = CriWriter(log)
    for number in range(5000):
        writer.write("stdout", b"%d\n" % number)
    writer.write("stderr", b"y" * 40_000 + b"\n")
    writer.write("stdout", b"last\n")
    writer.close()
    tail = read_tail(log, 3, Selection())
    assert b"".join(e.data for e in tail) == b"4999\n" + b"y" * 40_000 + b"\nlast\n"
    assert [e.log for e in read_tail(log, 2, Selection(stderr=False))] == ["4999\n", "last\n"]
    since = Selection(since=2**62)
    assert read_tail(log, 5, since) == []
    assert list(read(log, since)) == []
    assert read_tail(log, 0, Selection()) == []


def test_a_follower_goes_on_in_the_file_that_replaces_the_first(log: PodLog) -> None:
    async def scenario() -> list[str]:
        writer, stop, seen = CriWriter(log), asyncio.Event(), list[str]()
        for line in (b"not in the tail\n", b"stored\n"):
            writer.write("stdout", line)

        async def read_all() -> None:
            async for batch in follow(log, stop, tail=1):
                seen.extend(entry.log for entry in batch)

        async def until(line: str) -> None:
            async with asyncio.timeout(20):
                while seen[-1:] != [line]:  # noqa: ASYNC110
                    await asyncio.sleep(0.005)

        task = asyncio.create_task(read_all())
        await until("stored\n")
        for rotation in range(3):
            writer.write("stdout", b"before %d\n" % rotation)
            os.rename(log.name, f"{log.name}.{rotation}")
            writer.write("stdout", b"renamed %d\n" % rotation)
            if rotation == 1:
                await asyncio.sleep(0.02)  # the follower finds no file
            writer.reopen()
            writer.write("stdout", b"after %d\n" % rotation)
            await until(f"after {rotation}\n")
        writer.write("stdout", b"the end")
        writer.close()
        stop.set()
        await task
        return seen

    expected = [f"{word} {n}\n" for n in range(3) for word in ("before", "renamed", "after")]
    assert asyncio.run(scenario()) == ["stored\n", *expected, "the end"]


def test_a_follower_waits_for_the_file(log: PodLog) -> None:
    async def scenario() -> list[str]:
        stop, seen = asyncio.Event(), list[str]()

        async def read_all() -> None:
            async for batch in follow(log, stop, tail=10):
                seen.extend(entry.log for entry in batch)
                stop.set()

        task = asyncio.create_task(read_all())
        await asyncio.sleep(0.05)
        writer = CriWriter(log)
        writer.write("stdout", b"late\n")
        async with asyncio.timeout(20):
            await task
        writer.close()
        return seen

    assert asyncio.run(scenario()) == ["late\n"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"directory": "/d", "path": "0.log", "max-size": "1m"}, "unknown log opt 'max-size'"),
        ({"directory": "/d"}, "needs the option 'path'"),
        ({"path": "0.log"}, "needs the option 'directory'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        open_writer("cri", options, "/nowhere")


def test_a_request_cannot_have_the_driver(log: PodLog) -> None:
    assert "cri" not in NAMES
    assert readable("cri", {})
    with pytest.raises(InvalidRequest, match="no log driver named 'cri' is registered"):
        validate("cri", {"directory": log.directory, "path": log.path})
