"""Rotation with compression: one suite for each file driver, and interruptions."""

from __future__ import annotations

import gzip
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaula.errors import InvalidRequest
from jaula.logs import open_writer, rotation, validate
from jaula.logs.drivers.json_file import JsonFileWriter
from jaula.logs.log_driver import LogWriter
from jaula.logs.log_entry import Selection
from jaula.logs.reader.read import read, read_tail
from unit.logs.workers import end_when_killed

# A shim has one thread; the programs that run tests have more.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

DRIVERS = ("json-file", "local")
PACKING = {"compress": "true", "max-size": "2k", "max-file": "3"}


def kept(path: Path) -> bytes:
    return b"".join(record.data for record in read(str(path)))


_others: set[int] = set()
"""Children that were there before the test: engines of other tests."""


def children() -> list[int]:
    words = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [int(word) for word in words if int(word) not in _others]


@pytest.fixture(autouse=True)
def nobody_is_left() -> Iterator[None]:
    _others.clear()
    _others.update(children())
    descriptors = len(os.listdir("/proc/self/fd"))
    yield
    assert children() == []
    assert len(os.listdir("/proc/self/fd")) == descriptors


def poll(writer: LogWriter) -> None:
    """Poll like the shim until no helper runs."""
    end = time.monotonic() + 20
    while (pause := writer.poll()) is not None:
        assert time.monotonic() < end
        time.sleep(min(pause, 0.01))


def numbered(count: int, start: int = 0) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(start, start + count))


def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the process that packs begin to, and not end."""

    def pack(source: int, target: int) -> None:
        os.write(target, os.read(source, 100))
        signal.pause()

    monkeypatch.setattr("jaula.logs.gzip_file.compress", pack)
    monkeypatch.setattr(rotation, "_TIMEOUT", 0.05)
    end_when_killed(monkeypatch)


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("compress", ["true", "false"])
@pytest.mark.parametrize("mode", ["blocking", "non-blocking"])
@pytest.mark.parametrize("chunk", [1, 20, 3000])
def test_the_newest_records_are_kept_whole(
    tmp_path: Path, driver: str, compress: str, mode: str, chunk: int
) -> None:
    path = tmp_path / "log"
    given = PACKING | {"compress": compress, "mode": mode}
    writer = open_writer(driver, given, str(path))
    for start in range(0, 300, chunk):
        writer.write("stdout", numbered(min(chunk, 300 - start), start))
        poll(writer)
    writer.close()
    names = sorted(os.listdir(tmp_path))
    assert [name.removesuffix(".gz") for name in names] == ["log", "log.1", "log.2"]
    if compress == "false":
        assert not any(name.endswith(".gz") for name in names)
    elif mode == "blocking" and chunk < 3000:
        assert names == ["log", "log.1.gz", "log.2.gz"]
    result = kept(path)
    assert result and numbered(300).endswith(result)
    assert b"".join(r.data for r in read_tail(str(path), 7, Selection())) == numbered(7, 293)


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_packed_file_is_gzip_s_with_the_rights_and_records_of_the_plain_one(
    tmp_path: Path, driver: str
) -> None:
    writer = open_writer(driver, PACKING, str(tmp_path / "log"))
    writer.write("stdout", numbered(30))
    poll(writer)
    writer.close()
    packed = tmp_path / "log.1.gz"
    assert packed.stat().st_mode & 0o7777 == 0o640
    assert gzip.decompress(packed.read_bytes()).startswith(b'{"log":"line 0\\n"')
    assert kept(tmp_path / "log") == numbered(30)


def test_local_compresses_by_default_and_json_file_on_request(tmp_path: Path) -> None:
    for driver, given, packs in (
        ("local", {}, True),
        ("local", {"compress": "0"}, False),
        ("json-file", {}, False),
        ("json-file", {"compress": "T"}, True),
    ):
        path = tmp_path / f"{driver}{len(given)}"
        writer = open_writer(driver, {"max-size": "2k"} | given, str(path))
        writer.write("stdout", numbered(30))
        poll(writer)
        writer.close()
        assert os.path.exists(f"{path}.1.gz") is packs


@pytest.mark.parametrize(
    ("driver", "given", "words"),
    [
        ("json-file", {"compress": "true", "max-file": "1"}, "compress cannot be true when max-f"),
        ("json-file", {"compress": "1", "max-size": "-1"}, "less than 2 or max-size is not set"),
        ("local", {"compress": "true", "max-file": "1"}, "cannot be enabled when max file count"),
        ("local", {"compress": "yes"}, "invalid boolean value for compress: 'yes'"),
        ("json-file", {"compress": ""}, "invalid boolean value for compress"),
    ],
)
def test_compression_without_rotation_is_refused_in_dockers_words(
    driver: str, given: dict[str, str], words: str
) -> None:
    with pytest.raises(InvalidRequest, match=words):
        validate(driver, given)


def test_one_file_of_local_is_allowed_without_a_compress_option(tmp_path: Path) -> None:
    validate("local", {"max-file": "1"})
    writer = open_writer("local", {"max-file": "1", "max-size": "2k"}, str(tmp_path / "log"))
    writer.write("stdout", numbered(100))
    assert writer.poll() is None
    writer.close()
    assert os.listdir(tmp_path) == ["log"]


def test_the_writer_does_not_wait_for_compression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names move while a file is compressed, and the compressed one gets its current number."""
    path = tmp_path / "log"
    writer = JsonFileWriter(str(path), max_size=2000, max_file=5, compress=True)
    writer.write("stdout", numbered(30))  # the first rotation
    (packing,) = children()
    os.kill(packing, signal.SIGSTOP)
    begin = time.monotonic()
    writer.write("stdout", numbered(60, 30))
    assert time.monotonic() - begin < 1
    assert children() == [packing], "a second one meets the first"
    names = set(os.listdir(tmp_path))
    assert {"log", "log.1", "log.2", "log.3"} <= names <= {"log.gz.part", *names}
    assert kept(path) == numbered(90)
    os.kill(packing, signal.SIGCONT)
    poll(writer)
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1.gz", "log.2.gz", "log.3.gz"]
    assert kept(path) == numbered(90)
    writer.close()


def test_a_file_removed_during_compression_stays_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    writer = JsonFileWriter(str(path), max_size=2000, max_file=2, compress=True)
    writer.write("stdout", numbered(30))
    (packing,) = children()
    os.kill(packing, signal.SIGSTOP)
    writer.write("stdout", numbered(60, 30))
    os.kill(packing, signal.SIGCONT)
    poll(writer)
    writer.close()
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1.gz"]
    result = kept(path)
    assert numbered(90).endswith(result)
    assert b"line 10\n" not in result


@pytest.mark.parametrize("driver", DRIVERS)
def test_after_a_killed_compression_the_file_stays_plain_until_the_next_rotation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    path = tmp_path / "log"
    writer = open_writer(driver, PACKING | {"max-file": "9"}, str(path))
    with monkeypatch.context() as patch:
        slow(patch)
        writer.write("stdout", numbered(30))
        (packing,) = children()
    assert (tmp_path / "log.gz.part").exists()
    os.kill(packing, signal.SIGKILL)
    poll(writer)
    assert "was not compressed" in writer.error
    assert (writer.dropped, sorted(os.listdir(tmp_path))) == (0, ["log", "log.1"])
    assert kept(path) == numbered(30)
    writer.write("stdout", numbered(30, 30))
    poll(writer)
    assert "log.1.gz" in os.listdir(tmp_path)
    assert all(name.endswith(".gz") for name in os.listdir(tmp_path) if name != "log")
    assert kept(path) == numbered(60)
    writer.close()


def test_a_long_compression_does_not_delay_the_close(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch)
    writer = open_writer("json-file", PACKING, str(tmp_path / "log"))
    writer.write("stdout", numbered(30))
    begin = time.monotonic()
    writer.close()
    assert time.monotonic() - begin < 2
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1"]
    assert kept(tmp_path / "log") == numbered(30)


def packing_begins(directory: Path) -> None:
    """Wait until the process that packs has written something."""
    part = directory / "log.gz.part"
    end = time.monotonic() + 10
    while not part.exists() or not part.stat().st_size:
        assert time.monotonic() < end
        time.sleep(0.001)


def killed_during_compression(tmp_path: Path) -> int:
    """Kill a writer in a child process and return the process that compressed for it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            writer = open_writer("json-file", PACKING | {"max-file": "9"}, str(tmp_path / "log"))
            writer.write("stdout", numbered(30))
            os.write(writing, b"%d" % (children() or [0])[0])
            signal.pause()
        finally:
            os._exit(1)
    try:
        packing = int(os.read(reading, 20))
        packing_begins(tmp_path)
    finally:
        os.close(reading)
        os.close(writing)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return packing


def test_a_killed_writer_ends_its_compression(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        slow(patch)
        packing = killed_during_compression(tmp_path)
    end = time.monotonic() + 10
    while Path(f"/proc/{packing}").exists() and time.monotonic() < end:
        stat = Path(f"/proc/{packing}/stat").read_text()
        if stat.rpartition(")")[2].split()[0] == "Z":
            break  # it waits for its new parent
        time.sleep(0.01)
    else:
        assert not Path(f"/proc/{packing}").exists()
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1", "log.gz.part"]
    assert kept(tmp_path / "log") == numbered(30)
    writer = open_writer("json-file", PACKING, str(tmp_path / "log"))
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1"], "the part is left"
    writer.write("stdout", numbered(30, 30))
    poll(writer)
    writer.close()
    assert kept(tmp_path / "log") == numbered(60)


@pytest.mark.parametrize("call", ["replace", "unlink"])
@pytest.mark.parametrize("count", range(1, 8))
def test_a_writer_killed_between_two_steps_leaves_every_record_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, count: int
) -> None:
    """It is killed at its ``count``-th rename or removal."""
    real: Callable[..., None] = getattr(os, call)
    seen = 0

    def last_one(*words: str) -> None:
        nonlocal seen
        if not words[0].startswith(str(tmp_path)):
            return real(*words)
        seen += 1
        if seen == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*words)

    pid = os.fork()
    if not pid:
        setattr(os, call, last_one)
        writer = open_writer("json-file", PACKING | {"max-file": "9"}, str(tmp_path / "log"))
        for start in range(0, 90, 10):
            writer.write("stdout", numbered(10, start))
            poll(writer)
        os._exit(0)
    os.waitpid(pid, 0)
    result = kept(tmp_path / "log")
    assert result == numbered(result.count(b"\n"))
    writer = open_writer("json-file", PACKING | {"max-file": "9"}, str(tmp_path / "log"))
    writer.write("stdout", b"after\n" * 60)
    poll(writer)
    writer.close()
    assert kept(tmp_path / "log") == result + b"after\n" * 60
    names = os.listdir(tmp_path)
    assert all(name.endswith(".gz") for name in names if name != "log"), names


def test_the_compression_helper_inherits_no_descriptor_of_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow(monkeypatch)
    reading, writing = os.pipe()
    writer = open_writer("json-file", PACKING, str(tmp_path / "log"))
    writer.write("stdout", numbered(30))
    (packing,) = children()
    packing_begins(tmp_path)
    places = [os.readlink(entry) for entry in Path(f"/proc/{packing}/fd").iterdir()]
    assert sorted(p.rpartition("/")[2] for p in places if p.startswith(str(tmp_path))) == [
        "log.1",
        "log.gz.part",
    ]
    assert len(places) <= 5
    assert os.getpriority(os.PRIO_PROCESS, packing) > os.getpriority(os.PRIO_PROCESS, 0)
    os.close(writing)
    assert os.read(reading, 1) == b"", "the pipe is held open"
    os.close(reading)
    writer.close()


def test_the_compression_helper_may_be_reaped_by_another_part(tmp_path: Path) -> None:
    """The shim may reap it with the orphans of another runtime; the file is compressed later."""
    writer = open_writer("json-file", PACKING | {"max-file": "9"}, str(tmp_path / "log"))
    writer.write("stdout", numbered(30))
    os.waitpid(children()[0], 0)
    poll(writer)
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1"]
    writer.write("stdout", numbered(30, 30))
    poll(writer)
    writer.close()
    assert "log.1.gz" in os.listdir(tmp_path)
    assert kept(tmp_path / "log") == numbered(60)


def test_no_process_may_be_had_and_the_log_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", refuse)
    writer = open_writer("json-file", PACKING, str(tmp_path / "log"))
    writer.write("stdout", numbered(60))
    assert writer.poll() is None
    writer.close()
    assert "cannot compress" in writer.error
    assert (writer.dropped, kept(tmp_path / "log")) == (0, numbered(60))
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1", "log.2"]


def test_a_full_disk_during_compression_keeps_the_plain_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: int, target: int) -> None:
        os.write(target, b"\x1f\x8b")
        os._exit(1)  # as after ENOSPC, without a traceback in the test's output

    monkeypatch.setattr("jaula.logs.gzip_file.compress", full)
    writer = open_writer("json-file", PACKING, str(tmp_path / "log"))
    writer.write("stdout", numbered(30))
    poll(writer)
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1"]
    assert kept(tmp_path / "log") == numbered(30)
    writer.close()
