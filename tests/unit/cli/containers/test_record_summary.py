"""The summary of a record: bounded, complete in its counts, and without control characters."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from jaula.features.record.cli import summary
from jaula.features.record.record_document import Entry, Program
from jaula.features.record.record_reader import Record
from jaula.state.audit_log import Head

NAMES = st.text(st.sampled_from("ab/\t\n\x1b."), max_size=12)
ENTRIES = st.lists(
    st.builds(
        Entry,
        kind=st.sampled_from([
            "syscall", "exec", "file", "file-refused", "change", "connect", "listen", "accept",
            "dns", "device", "mount", "signal", "io-uring", "capability-refused", "resource",
        ]),
        program=st.just(1), count=st.integers(1, 5), path=NAMES, address=NAMES, family=NAMES,
        mode=st.sampled_from(["read", "write,create", ""]), errno=st.sampled_from(["", "EPERM"]),
        layer=st.sampled_from(["", "seccomp"]), device=NAMES, name=NAMES, lost_text=st.booleans(),
        port=st.integers(0, 9), receiver=st.just("outside"), value=st.integers(0, 1 << 63 - 1),
    ),
    max_size=60,
)  # fmt: skip


def record(entries: list[Entry]) -> Record:
    programs = {1: Program(path="/bin/a\x1bb\t", name="x\n")}
    return Record(None, programs, dict(enumerate(entries, 2)), None, Head(), [])


def rows(entries: list[Entry], title: str) -> list[list[str]]:
    """Return the cells of the rows below a title."""
    lines = list(summary.lines(record(entries)))
    start = next(n for n, line in enumerate(lines) if line.split("\t")[0] == title)
    end = next((n for n in range(start, len(lines)) if not lines[n]), len(lines))
    return [line.strip().split("\t") for line in lines[start + 1 : end]]


def file(path: str, mode: str = "read", count: int = 1) -> Entry:
    return Entry(kind="file", program=1, path=path, mode=mode, count=count)


@given(ENTRIES)
def test_every_record_has_a_summary_of_few_printable_lines(entries: list[Entry]) -> None:
    lines = list(summary.lines(record(entries)))
    assert len(lines) < 120
    for line in lines:
        assert all(cell.isprintable() for cell in line.split("\t"))
        assert line.count("\t") <= 2


@given(st.sets(st.text("ab/", min_size=1, max_size=20)), st.integers(2, 12))
def test_directories_have_each_path_once_and_are_few(paths: set[str], limit: int) -> None:
    groups = summary.group(paths, limit)
    assert sorted(path for _, members in groups for path in members) == sorted(paths)
    assert len(groups) <= limit
    for name, members in groups:
        assert all(path.startswith(name) for path in members) or name == "(without a path)"


def test_directories_are_as_deep_as_their_number_allows() -> None:
    paths = [f"/data/base/{n}" for n in range(50)] + ["/data/log/a", "/etc/passwd"]
    found = {name: len(members) for name, members in summary.group(paths, 10)}
    assert found == {"/data/base/": 50, "/data/log/": 1, "/etc/": 1}


def test_a_file_that_is_also_written_is_not_only_read() -> None:
    entries = [file("/data/x"), file("/data/x", "write,create", 4), file("/etc/y", "read", 2)]
    entries.append(Entry(kind="change", program=1, path="/data/x", syscall="unlink"))
    assert rows(entries, "Files written, created or removed") == [["/data/x", "1", "5"]]
    assert rows(entries, "Files only read") == [["/etc/y", "1", "2"]]


def test_the_kernels_address_stands_for_that_of_the_process() -> None:
    address = {"kind": "connect", "program": 1, "family": "inet", "address": "10.0.0.1"}
    entries = [
        Entry(**address, port=80, source="process", errno="EINPROGRESS"),
        Entry(**address, port=80, source="kernel", protocol="tcp"),
        Entry(**address, port=81, source="process", errno="ECONNREFUSED"),
        Entry(kind="accept", program=1, family="inet6", address="::1", port=8, protocol="tcp"),
    ]
    assert rows(entries, "Network") == [
        ["connected to", "tcp 10.0.0.1:80"],
        ["failed to connect to", "inet 10.0.0.1:81 ECONNREFUSED"],
        ["accepted, tcp port 8", "::1"],
    ]


def test_refusals_are_by_layer_and_a_refused_open_is_told_by_its_file() -> None:
    refused = {"program": 1, "errno": "EACCES", "layer": "capability", "capability": "CAP_X"}
    entries = [
        Entry(kind="syscall", syscall="openat", **refused),
        Entry(kind="file-refused", path="/etc/shadow", **refused),
        Entry(kind="syscall", program=1, syscall="clone3", errno="ENOSYS", layer="seccomp"),
        Entry(kind="syscall", program=1, syscall="read", errno="EAGAIN"),
        Entry(kind="file-refused", program=1, path="/absent", errno="ENOENT"),
    ]
    assert rows(entries, "Refused") == [
        ["by capability, files", "/etc/shadow EACCES CAP_X"],
        ["by seccomp", "clone3 ENOSYS (1)"],
        ["files that do not exist", "1"],
    ]


def test_what_is_left_out_is_counted() -> None:
    names = [
        Entry(kind="dns", program=1, name=f"host-{n}", query_type="A", protocol="udp")
        for n in range(10)
    ]
    (row,) = rows(names, "Network")
    assert row[1].endswith("host-5 A, and 4 more")
    listeners = [
        Entry(kind="accept", program=1, family="unix", address=f"/run/{n}") for n in range(50)
    ]
    found = rows(listeners, "Network")
    assert len(found) == summary.ROWS + 1
    assert found[-1] == ["and 40 more listeners with accepted connections"]
