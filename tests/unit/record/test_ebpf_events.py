"""Events of the kernel as entries: whatever a container chose, there is an entry."""

from __future__ import annotations

import mmap
import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.features.record import ebpf_events, recorded_cgroup
from jaula.features.record.ebpf_events import Counts, Event, Key
from jaula.features.record.record_document import Entry
from jaula.features.record.record_reader import read
from jaula.features.record.record_writer import RecordWriter
from jaula.features.record.recorder import Ledger

BITS = st.integers(0, (1 << 32) - 1)


def entry(key: Key, text: bytes | None = b"") -> Entry:
    return ebpf_events.entry(
        key, text, syscall_name=lambda number, abi: f"{abi}{number}", line_of=lambda number: 0
    )


@given(
    st.integers(0, (1 << 64) - 1), st.sampled_from(sorted(ebpf_events.TABLES)[2:]), BITS,
    st.binary(max_size=200),
)  # fmt: skip
def test_every_event_is_an_entry(subject: int, kind: int, detail: int, text: bytes) -> None:
    if kind == ebpf_events.ADDRESS:
        detail = detail & ~0xF000 | detail % 5 << 12
    if kind == ebpf_events.MOUNT:
        detail = detail & ~0xF000 | detail % 3 << 12
    entry(Key(5, subject, kind, detail), text)
    entry(Key(5, subject, kind, detail), None)


@given(st.binary(max_size=140))
def test_every_address_is_printed(data: bytes) -> None:
    assert "address" in ebpf_events.socket_address(data)


def test_addresses_are_decoded() -> None:
    inet = struct.pack("<H", socket.AF_INET) + struct.pack(">H", 80) + bytes([10, 0, 0, 1]) * 3
    assert ebpf_events.socket_address(inet) == {"family": "inet", "port": 80, "address": "10.0.0.1"}
    inet6 = struct.pack("<H", 10) + struct.pack(">H", 53) + bytes(4) + bytes(15) + b"\1" + bytes(4)
    assert ebpf_events.socket_address(inet6)["address"] == "::1"
    assert ebpf_events.socket_address(b"\1\0/run/x.sock\0junk")["address"] == "/run/x.sock"
    assert ebpf_events.socket_address(b"\1\0\0a\0b")["address"] == "@a\0b"


def test_paths_arrive_with_their_last_component_first() -> None:
    assert ebpf_events.path_of(b"passwd\0etc\0") == b"/etc/passwd"
    assert ebpf_events.path_of(b"") == b"/"
    program = ebpf_events.program(Key(0, 9, ebpf_events.PROGRAM, 0), b"cat\0busybox\0bin\0")
    assert (program.path, program.name) == ("/bin/busybox", "cat")


def test_the_question_of_a_dns_query_is_decoded() -> None:
    data = b"\3www\4a.b\\\2\xff\0\0\0\x1c\0\1"
    assert ebpf_events.question(data) == {
        "name": "www.a\\x2eb\\\\.\\xff\0",
        "query_type": "AAAA",
    }
    assert ebpf_events.question(b"\0\0\x02\0\1") == {"name": ".", "query_type": "NS"}


@given(st.binary(max_size=300))
def test_every_question_has_a_name(data: bytes) -> None:
    assert ebpf_events.question(data)["name"]


@pytest.mark.parametrize(
    ("detail", "call", "expected"),
    [
        (1 | 1 << 12, "mount", ("EPERM", "seccomp", "")),
        (1 << 12, "mount", ("SIGSYS", "seccomp", "")),
        (1 | 2 << 12 | 22 << 16, "mount", ("EPERM", "capability", "CAP_SYS_ADMIN")),
        (30, "openat", ("EROFS", "read-only", "")),
        (22, "chown", ("EINVAL", "unmapped-id", "")),
        (22, "read", ("EINVAL", "", "")),
        (11, "clone3", ("EAGAIN", "process-limit", "")),
        (13, "openat", ("EACCES", "", "")),
        (0, "openat", ("", "", "")),
    ],
)
def test_the_layer_of_a_refusal(detail: int, call: str, expected: tuple[str, str, str]) -> None:
    found = ebpf_events.refusal(detail, call)
    assert tuple(found.get(name, "") for name in ("errno", "layer", "capability")) == expected


def test_errors_that_restart_a_call_have_the_names_of_the_kernel() -> None:
    assert ebpf_events.errno_name(1) == "EPERM"
    assert ebpf_events.errno_name(512) == "ERESTARTSYS"
    assert ebpf_events.errno_name(4000) == "4000"


def ledger(path: Path, **options: int) -> tuple[RecordWriter, Ledger]:
    writer = RecordWriter(str(path), **options)
    return writer, Ledger(writer, 0, lambda number, abi: str(number))


PROGRAM = Event(Key(0, 77, ebpf_events.PROGRAM, 0), 1, b"\0cat\0bin\0")
FILE = Event(Key(77, 5, ebpf_events.FILE_OPEN, 1), 2_000, b"passwd\0etc\0")


def test_an_entry_waits_for_the_line_of_its_program(tmp_path: Path) -> None:
    writer, entries = ledger(tmp_path / "r")
    entries.receive(FILE)
    assert writer.head.n == 0
    entries.receive(PROGRAM)
    entries.receive(PROGRAM)
    entries.receive(FILE)
    assert writer.head.n == 2
    entries.finish(iter([(FILE.key, Counts(3, 2_000, 9_000))]))
    writer.flush()
    record = read(str(tmp_path / "r"))
    assert [(e.path, e.count, e.first, e.last) for e in record.entries.values()] == [
        ("/etc/passwd", 3, 2, 9)
    ]


def test_a_key_whose_event_was_lost_has_an_entry(tmp_path: Path) -> None:
    writer, entries = ledger(tmp_path / "r")
    entries.finish(iter([(FILE.key, Counts(3, 2_000, 9_000))]))
    writer.flush()
    (lost,) = read(str(tmp_path / "r")).entries.values()
    assert lost.lost_text
    assert lost.program == -1
    assert lost.count == 3


def test_what_does_not_fit_in_the_file_is_counted(tmp_path: Path) -> None:
    writer, entries = ledger(tmp_path / "r", max_group=10)
    entries.receive(PROGRAM)
    entries.receive(FILE)
    entries.finish(iter([(FILE.key, Counts(3, 2_000, 9_000))]))
    assert writer.head.n == 0
    assert entries.omitted == {ebpf_events.FILE_OPEN: 1}
    assert entries.omitted_occurrences == {ebpf_events.FILE_OPEN: 3}


ID = "a" * 64


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        (f"0::/jaula/{ID}\n", (0, "", f"/jaula/{ID}")),
        (f"3:cpu,cpuacct:/{ID}\n2:pids:/p/{ID}\n0::/{ID}\n", (1, "pids", f"/p/{ID}")),
        (f"3:freezer:/{ID}\n2:pids:/\n0::/\n", (4, "freezer", f"/{ID}")),
        ("0::/\n", None),
        (f"0::/../{ID}\n", None),
        ("", None),
        ("garbage\n:::\n", None),
    ],
)
def test_the_cgroup_is_one_of_the_container(text: str, chosen: tuple[int, str, str] | None) -> None:
    assert recorded_cgroup.select(text, ID) == chosen


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (b"/run/web\0", "/run/web"),
        (b"/run/../tmp//x/\0", "/tmp/x"),
        (b"//x\0", "/x"),
        (b"web\0lib\0var\0", "/var/lib/web"),
        (b"../x\0lib\0var\0", "/var/x"),
        (b"x\0", "/x"),
        (b"../..\0a\0", "/"),
    ],
)
def test_a_changed_path_is_absolute(text: bytes, path: str) -> None:
    key = Key(0, 0, ebpf_events.CHANGE, 83 << 8)
    entry = ebpf_events.entry(key, text, syscall_name=lambda n, _: f"call {n}", line_of=lambda _: 0)
    assert (entry.kind, entry.path, entry.syscall) == ("change", path, "call 83")


def test_peaks_of_a_removed_cgroup_have_their_limits() -> None:
    page = mmap.PAGESIZE
    none = struct.pack("=QQQQ", 5, (1 << 63) // page - 1, 7, (4 << 20) + 1)
    assert ebpf_events.decode_peaks(none) == {"memory": (5 * page, None), "pids": (7, None)}
    limited = struct.pack("=QQQQ", 5, 9, 7, 100)
    assert ebpf_events.decode_peaks(limited) == {"memory": (5 * page, 9 * page), "pids": (7, 100)}
    assert ebpf_events.decode_peaks(bytes(32)) == {}
