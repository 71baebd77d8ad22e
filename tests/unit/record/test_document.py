"""Lines of a record: texts of a container survive, and hostile files are errors, never crashes."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import Conflict, InvalidRequest, NotFound, Unavailable
from jaula.features.record import record_reader
from jaula.features.record.compare_records import compare, document_of
from jaula.features.record.record_document import (
    Container,
    End,
    Entry,
    Header,
    Kernel,
    Loss,
    Program,
    Total,
    bytes_of,
    text_of,
)
from jaula.features.record.record_writer import RecordWriter

HEADER = Header(
    version=1,
    time="2026-01-01T00:00:00.000000Z",
    recorder="jaula 0",
    kernel=Kernel(release="6", version="#1", machine="x86_64", boot_id="b"),
    container=Container(id="c" * 64, name="web", image="busybox", image_id="sha256:0"),
    mechanism="ebpf-tracepoints",
    sources=("sys_exit",),
    cgroup="pids:/x",
)
END = End(reason="signal", duration=5, losses={})


def write(path: Path, *documents: Header | Program | Entry | Total | End) -> list[bytes]:
    writer = RecordWriter(str(path))
    for each in documents:
        assert writer.append(each)
    writer.flush()
    writer.close()
    return path.read_bytes().splitlines()


def small(path: Path, file: str = "/etc/passwd") -> list[bytes]:
    return write(
        path,
        HEADER,
        Program(path="/bin/cat"),
        Entry(kind="file", program=2, path=file, mode="read"),
        Entry(kind="syscall", program=2, syscall="mount", errno="EPERM"),
        Total(entry=3, count=7, first=1, last=9),
        END,
    )


@given(st.binary(max_size=200))
def test_a_text_has_one_form_and_is_reversible(data: bytes) -> None:
    assert bytes_of(text_of(data)) == data
    assert msgspec.json.decode(msgspec.json.encode(text_of(data))) == text_of(data)


@pytest.mark.parametrize("text", ["\\", "a\\b", "\\xzz", "\\x1"])
def test_a_text_that_was_not_escaped_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        bytes_of(text)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    small(tmp_path / "r")
    record = record_reader.read(str(tmp_path / "r"))
    assert record.errors == []
    assert record.header == HEADER
    assert record.end == END
    assert record.entries[3].count == 7
    assert record.entries[3].last == 9
    assert document_of(record, 4)["program"] == {"path": "/bin/cat"}
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("n", range(6))
def test_a_removed_line_is_reported(tmp_path: Path, n: int) -> None:
    lines = small(tmp_path / "r")
    assert record_reader.parse(lines[:n] + lines[n + 1 :]).errors


@pytest.mark.parametrize("n", range(6))
def test_a_changed_line_is_reported(tmp_path: Path, n: int) -> None:
    lines = small(tmp_path / "r")
    for old, new in (
        (b"web", b"wob"), (b"/bin/cat", b"/bin/dog"), (b"passwd", b"shadow"), (b"EPERM", b"EIO"),
        (b'"count":7', b'"count":8'), (b'"duration":5', b'"duration":6'),
    ):  # fmt: skip
        if old in lines[n]:
            lines[n] = lines[n].replace(old, new)
            break
    record = record_reader.parse(lines)
    if n == 5:  # the last line: only the head, kept elsewhere, proves it
        assert record.errors == []
        assert record.head != record_reader.parse(small(tmp_path / "s")).head
    else:
        assert record.errors


def test_an_exchanged_and_an_appended_line_are_reported(tmp_path: Path) -> None:
    lines = small(tmp_path / "r")
    assert record_reader.parse([*lines[:2], lines[3], lines[2], *lines[4:]]).errors
    assert record_reader.parse([*lines, lines[-1]]).errors


def test_a_record_without_an_end_says_so(tmp_path: Path) -> None:
    record = record_reader.parse(small(tmp_path / "r")[:-1])
    assert len(record.errors) == 1
    assert "no end" in record.errors[0]


@given(st.lists(st.binary(max_size=120), max_size=20))
def test_arbitrary_bytes_are_errors(lines: list[bytes]) -> None:
    assert record_reader.parse(lines).errors


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"entry","kind":"file","program":9}',
        b'{"type":"entry","kind":"file","program":-2}',
        b'{"type":"entry","kind":"other","program":0}',
        b'{"type":"entry","kind":"file","program":0,"count":-1}',
        b'{"type":"entry","kind":"file","program":0,"count":99999999999999999999}',
        b'{"type":"total","entry":9,"count":1,"first":0,"last":0}',
        b'{"type":"total","entry":3,"count":0,"first":0,"last":0}',
        b'{"type":"unknown"}',
        b'{"type":"header"}',
        b"[" * 5000,
        b'{"type":"end","reason":1,"duration":0,"losses":{}}',
    ],
)
def test_a_line_that_is_not_valid_is_an_error_with_its_number(tmp_path: Path, line: bytes) -> None:
    from jaula.state.audit_log import line_hash

    lines = small(tmp_path / "r")[:5]
    start = f'{{"n":6,"prev":"{line_hash(lines[-1])}",'.encode()
    lines.append(start + line[1:])
    assert any("line 6" in error for error in record_reader.parse(lines).errors)


def test_a_file_beyond_the_limits_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(b"x" * (1 << 17))
    with pytest.raises(InvalidRequest, match="a line of more than"):
        record_reader.read(str(path))
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(InvalidRequest, match="at most"):
        record_reader.read(str(tmp_path / "huge"))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(InvalidRequest, match="regular"):
        record_reader.read(str(tmp_path / "fifo"))
    with pytest.raises(NotFound):
        record_reader.read(str(tmp_path / "absent"))


def test_a_full_group_leaves_room_for_other_lines(tmp_path: Path) -> None:
    writer = RecordWriter(str(tmp_path / "r"), max_group=2000)
    writer.append(HEADER)
    added = [
        writer.append(Entry(kind="file", program=0, path=f"/{i:0100}"), "files") for i in range(100)
    ]
    assert 0 < sum(n > 0 for n in added) < 10
    assert added[-1] == 0
    assert writer.append(Entry(kind="exec", program=0), "execs")
    assert writer.append(Total(entry=2, count=5, first=0, last=1))
    assert writer.append(End(reason="signal", duration=1, losses={"files": Loss(entries=90)}))
    writer.flush()
    writer.close()
    assert record_reader.read(str(tmp_path / "r")).errors == []


def test_a_writer_overwrites_nothing_and_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("x")
    os.symlink("b", tmp_path / "link")
    for name in ("a", "link"):
        with pytest.raises(Conflict):
            RecordWriter(str(tmp_path / name))
    assert not (tmp_path / "b").exists()


def test_a_writer_removes_its_own_file_only(tmp_path: Path) -> None:
    path = tmp_path / "record"
    writer = RecordWriter(str(path))
    assert writer.is_empty()
    path.rename(tmp_path / "moved")
    writer.remove()
    path.write_text("another")
    writer.remove()
    assert path.read_text() == "another"
    (tmp_path / "moved").rename(path)
    writer.remove()
    assert not path.exists()
    writer.close()


def test_a_full_disk_is_one_error() -> None:
    writer = RecordWriter.__new__(RecordWriter)
    writer.path = "/dev/full"
    writer._pending, writer._fd = [b"x"], os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(Unavailable, match="No space left"):
        writer.flush()
    writer.close()


def test_a_difference_ignores_counts_and_numbers_of_lines(tmp_path: Path) -> None:
    first = record_reader.parse(small(tmp_path / "a"))
    second = record_reader.parse(
        write(
            tmp_path / "b",
            HEADER,
            Program(path="/bin/other"),
            Program(path="/bin/cat"),
            Entry(kind="syscall", program=3, syscall="mount", errno="EPERM", count=99),
            Entry(kind="file", program=2, path="/etc/passwd", mode="read"),
            END,
        )
    )
    difference = compare(first, second)
    assert [first.entries[n].path for n in difference.removed] == ["/etc/passwd"]
    assert [second.entries[n].path for n in difference.added] == ["/etc/passwd"]
    assert compare(first, first) == ((), ())
