"""The json-file writer: format, rotation, crashes and a full disk."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest
from jaula.logs import open_writer, validate
from jaula.logs.drivers.json_file import JsonFileWriter, _records
from jaula.logs.reader.read import read

STAMP = "2006-01-02T15:04:05.999999999Z"


def kept(path: Path, stream: str | None = None) -> bytes:
    return b"".join(r.data for r in read(str(path)) if stream in (None, r.stream))


def test_an_entry_has_dockers_format(tmp_path: Path) -> None:
    writer = open_writer("json-file", {}, str(tmp_path / "log"))
    writer.write("stderr", b'a "quoted" line\n')
    line = (tmp_path / "log").read_bytes()
    assert re.fullmatch(
        rb'\{"log":"a \\"quoted\\" line\\n","stream":"stderr",'
        rb'"time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z"\}\n',
        line,
    )
    assert os.stat(tmp_path / "log").st_mode & 0o7777 == 0o640
    writer.close()


@given(st.text(alphabet=st.sampled_from('ab\n\0\\"nu0,\r\u2028é\x1b'), max_size=60))
def test_any_text_comes_back_line_by_line(text: str) -> None:
    records = [json.loads(line) for line in _records(text.encode(), "stdout", STAMP).splitlines()]
    lines = [r["log"] for r in records]
    assert "".join(lines) == text
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in lines[:-1])
    assert all(r["time"] == STAMP and r["stream"] == "stdout" for r in records)


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_bytes_are_read_back_for_any_chunks(pieces: list[bytes]) -> None:
    path = Path(f"/dev/shm/jlt-log-{os.getpid()}")
    writer = JsonFileWriter(str(path))
    try:
        for piece in pieces:
            writer.write("stdout", piece)
        writer.close()
        whole = b"".join(pieces).decode("utf-8", "replace")
        assert kept(path).decode() == whole
    finally:
        path.unlink()


def test_an_unfinished_line_is_buffered(tmp_path: Path) -> None:
    writer = open_writer("json-file", {}, str(tmp_path / "log"))
    writer.write("stdout", b"pass")
    writer.write("stderr", b"other\n")
    assert kept(tmp_path / "log") == b"other\n"
    writer.write("stdout", b"word\nrest")
    assert kept(tmp_path / "log", "stdout") == b"password\n"
    writer.flush()
    assert kept(tmp_path / "log", "stdout") == b"password\nrest"
    writer.close()
    writer.close()
    writer.write("stdout", b"late\n")


def test_an_overlong_line_is_stored_in_chunks_between_characters(tmp_path: Path) -> None:
    writer = open_writer("json-file", {}, str(tmp_path / "log"))
    line = ("é" * 40_000 + "x\n").encode()
    for start in range(0, len(line), 4001):
        writer.write("stdout", line[start : start + 4001])
    writer.close()
    records = list(read(str(tmp_path / "log")))
    assert len(records) == 5
    assert max(len(record.data) for record in records) <= 16 * 1024
    assert "\ufffd" not in "".join(record.log for record in records)
    assert kept(tmp_path / "log") == line


def test_bytes_that_are_not_utf8_do_not_stop_the_writer(tmp_path: Path) -> None:
    writer = open_writer("json-file", {}, str(tmp_path / "log"))
    writer.write("stdout", b"\x80" * 40_000 + b"\xff\xfe\n\0\n")
    writer.close()
    assert kept(tmp_path / "log").decode().count("\ufffd") == 40_002


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_rotation_keeps_the_newest_entries_complete(tmp_path: Path, chunk: int) -> None:
    path = tmp_path / "log"
    writer = open_writer("json-file", {"max-size": "2k", "max-file": "3"}, str(path))
    lines = [f"line {number}\n".encode() for number in range(500)]
    for start in range(0, 500, chunk):
        writer.write("stdout", b"".join(lines[start : start + chunk]))
    writer.close()
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1", "log.2"]
    assert all((tmp_path / name).stat().st_size <= 2000 for name in os.listdir(tmp_path))
    result = kept(path).splitlines(keepends=True)
    assert 30 < len(result) < 90
    assert result == lines[-len(result) :]


def test_a_single_file_is_recreated_and_a_reader_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = open_writer("json-file", {"max-size": "200", "max-file": "1"}, str(path))
    writer.write("stdout", b"first\n")
    with path.open("rb") as old:
        for _ in range(4):
            writer.write("stdout", b"next\n")
        assert b"first" in old.read()
    assert os.listdir(tmp_path) == ["log"]
    assert b"first" not in kept(path)
    writer.close()


def test_an_entry_larger_than_a_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = open_writer("json-file", {"max-size": "10", "max-file": "2"}, str(path))
    writer.write("stdout", b"one\ntwo\nthree\n")
    writer.close()
    assert kept(path) == b"two\nthree\n"


def test_half_an_entry_of_a_crash_does_not_join_the_next(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'{"log":"whole\\n","stream":"stdout","time":"' + STAMP.encode() + b'"}\n{"lo')
    writer = open_writer("json-file", {}, str(path))
    writer.write("stdout", b"after\n")
    writer.close()
    assert kept(path) == b"whole\nafter\n"


def test_a_full_disk_drops_entries_and_reports_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = open_writer("json-file", {"max-size": "-1"}, str(path))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        for _ in range(30):
            writer.write("stdout", b"a line of some length\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert writer.dropped > 0
    assert "cannot write" in writer.error
    writer.write("stdout", b"there is room again\n")
    writer.close()
    written, report, last = re.split(rb"(jaula: .*\n)", kept(path))
    assert last == b"there is room again\n"
    missing = 30 - written.count(b"\n")
    assert report == b"jaula: %d lines are missing here: File too large\n" % missing
    assert [r.stream for r in read(str(path))][-2:] == ["stderr", "stdout"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_an_entry_that_is_half_written_is_reported_as_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A full disk and a used up quota alike: the space for half of an entry was left."""
    path = tmp_path / "log"
    writer = JsonFileWriter(str(path))
    writer.write("stdout", b"before\n")
    write, left = os.write, [20]

    def full(fd: int, data: bytes) -> int:
        if fd != writer._descriptor:
            return write(fd, data)
        if not left:
            raise OSError(number, os.strerror(number))
        return write(fd, data[: left.pop()])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        writer.write("stdout", b"lost\n")
        writer.write("stdout", b"lost too\n")
    assert writer.error == f"cannot write {path}: {os.strerror(number)}"
    writer.write("stdout", b"after\n")
    writer.close()
    report = f"jaula: 2 lines are missing here: {os.strerror(number)}\n"
    assert kept(path) == b"before\n" + report.encode() + b"after\n"


def test_a_lost_part_of_a_line_counts_as_a_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = JsonFileWriter(str(path))
    writer.lose(0, 16384, "a reason")
    writer.write("stdout", b"the end of a long line\n")
    writer.close()
    assert kept(path) == b"jaula: 1 line is missing here: a reason\nthe end of a long line\n"


def test_a_symbolic_link_as_a_log_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        open_writer("json-file", {}, str(tmp_path / "log"))
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("driver", "options"),
    [
        ("json-file", {"max-sise": "1m"}),
        ("json-file", {"max-size": "ten"}),
        ("json-file", {"max-size": "10x"}),
        ("json-file", {"max-size": "-5"}),
        ("json-file", {"max-size": ""}),
        ("json-file", {"max-size": "k"}),
        ("json-file", {"max-size": "1.2.3m"}),
        ("json-file", {"max-size": "0.1"}),
        ("json-file", {"max-size": "9" * 400}),
        ("json-file", {"max-size": "१m"}),
        ("json-file", {"max-file": "0"}),
        ("json-file", {"max-file": "1e3"}),
        ("json-file", {"max-file": "99999"}),
        ("none", {"max-size": "1m"}),
        ("syslogg", {}),
    ],
)
def test_invalid_options_are_refused_before_a_file_is_created(
    tmp_path: Path, driver: str, options: dict[str, str]
) -> None:
    with pytest.raises(InvalidRequest):
        validate(driver, options)
    with pytest.raises(InvalidRequest):
        open_writer(driver, options, str(tmp_path / "log"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "size"),
    [("10m", 10**7), ("1.5g", 1_500_000_000), ("4096", 4096), ("20MB", 2 * 10**7), ("1KiB", 1000)],
)
def test_sizes_are_decimal_as_in_docker(tmp_path: Path, text: str, size: int) -> None:
    from jaula.logs.log_opt import parse_size as parse

    assert parse("max-size", text) == size


def test_none_discards_output(tmp_path: Path) -> None:
    writer = open_writer("none", {}, str(tmp_path / "log"))
    writer.write("stdout", b"x\n")
    writer.flush()
    writer.close()
    assert os.listdir(tmp_path) == []
    assert (writer.dropped, writer.error) == (0, "")
