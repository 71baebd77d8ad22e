"""The audit log: its lines, its hash chain, and recovery from a kill."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jaula.errors import Unavailable
from jaula.state import audit_log as state_audit_log
from jaula.state.audit_log import (
    ZERO_HASH,
    AuditEntry,
    AuditLog,
    Head,
    encode_entry,
    line_hash,
    parse_link,
)


def write(directory: Path, count: int, **options: Any) -> None:
    journal = AuditLog(directory, **options)
    for number in range(count):
        journal.append(AuditEntry(uid=0, action="container start", object=f"c{number}", status=200))
    journal.close()


def verify(directory: Path) -> list[str]:
    return [error.text for error in state_audit_log.verify(directory).errors]


def documents(directory: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in state_audit_log.files(directory)
        for line in state_audit_log.lines(path)
    ]


def test_lines_are_numbered_and_chained(tmp_path: Path) -> None:
    write(tmp_path, 3)
    write(tmp_path, 2)
    lines = [
        line for path in state_audit_log.files(tmp_path) for line in state_audit_log.lines(path)
    ]
    links = [parse_link(line) for line in lines]
    assert [found.n for found in links if found] == [1, 2, 3, 4, 5]
    assert [found.prev for found in links if found] == [
        ZERO_HASH,
        *(line_hash(x) for x in lines[:-1]),
    ]
    assert verify(tmp_path) == []


def test_only_the_owner_can_read_the_log(tmp_path: Path) -> None:
    write(tmp_path / "audit", 1)
    assert (tmp_path / "audit").stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in (tmp_path / "audit").iterdir()} == {0o600}


def test_an_empty_log_is_valid(tmp_path: Path) -> None:
    AuditLog(tmp_path).close()
    assert verify(tmp_path) == []


def appended(lines: list[bytes]) -> bytes:
    """Return a forged line that follows the last one by its hash."""
    last = parse_link(lines[-1][:-1])
    assert last is not None
    entry = AuditEntry(action="forged", status=200)
    return encode_entry(last.n + 1, 0, line_hash(lines[-1][:-1]), entry) + b"\n"


def edit(directory: Path, change: Any) -> None:
    path = state_audit_log.files(directory)[0]
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(change(lines)))


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda ls: ls[:-1], ["line 6 is missing at the end"]),
        (lambda ls: ls[:2], ["lines 3 to 6 are missing at the end"]),
        (lambda ls: [], ["lines 1 to 6 are missing at the end"]),
        (lambda ls: ls[1:], ["line 1 is missing"]),
        (lambda ls: ls[:2] + ls[3:], ["line 3 is missing"]),
        (
            lambda ls: [*ls[:2], ls[2].replace(b'"c2"', b'"cX"'), *ls[3:]],
            ["line 3 is not the one that line 4 follows"],
        ),
        (
            lambda ls: [*ls[:5], ls[5].replace(b'"c5"', b'"cX"')],
            ["line 6 is not the one that the head names"],
        ),
        (lambda ls: [*ls, appended(ls)], ["line 7 comes after the last line that the head names"]),
        (
            lambda ls: [*ls, appended(ls), appended([*ls, appended(ls)])],
            ["lines 7 to 8 come after the last line that the head names"],
        ),
        (lambda ls: [*ls[:3], ls[2], *ls[3:]], ["line 3 comes after line 3"]),
        (lambda ls: [*ls[:3], b"garbage\n", *ls[4:]], ["a line after 3 is damaged"]),
    ],
)
def test_truncation_change_and_gap_are_detected(
    tmp_path: Path, change: Any, found: list[str]
) -> None:
    write(tmp_path, 6)
    edit(tmp_path, change)
    reported = verify(tmp_path)
    assert reported[: len(found)] == found


def test_truncation_is_still_detected_after_the_next_start(tmp_path: Path) -> None:
    write(tmp_path, 6)
    edit(tmp_path, lambda ls: ls[:3])
    write(tmp_path, 2)
    assert verify(tmp_path) == ["lines 4 to 6 are missing"]
    assert [d["action"] for d in documents(tmp_path)].count("log repair") == 1


def test_a_missing_head_is_detected(tmp_path: Path) -> None:
    write(tmp_path, 2)
    (tmp_path / "head").unlink()
    assert verify(tmp_path) == ["the head, which names the last line, is missing or damaged"]


def test_a_removed_log_is_detected(tmp_path: Path) -> None:
    write(tmp_path, 4)
    state_audit_log.files(tmp_path)[0].unlink()
    write(tmp_path, 1)
    assert "lines 1 to 4 are missing" in verify(tmp_path)


def test_rotation_keeps_the_chain_and_logs_the_removal(tmp_path: Path) -> None:
    write(tmp_path, 200, max_file=2000, kept_files=3)
    names = state_audit_log.files(tmp_path)
    assert 2 <= len(names) <= 3
    assert verify(tmp_path) == []
    assert any(d["action"] == "log drop" for d in documents(tmp_path))
    names[0].unlink()
    assert verify(tmp_path) != [] or len(names) == 1


def test_a_partial_line_is_cut_off_and_logged(tmp_path: Path) -> None:
    write(tmp_path, 3)
    path = state_audit_log.files(tmp_path)[0]
    with path.open("ab") as file:
        file.write(b'{"n":4,"time":"20')
    write(tmp_path, 1)
    assert verify(tmp_path) == []
    found = documents(tmp_path)
    assert [d["n"] for d in found] == [1, 2, 3, 4, 5]
    assert found[3]["action"] == "log repair"
    assert "17 bytes" in found[3]["error"]


def test_the_first_line_after_a_repair_triggers_a_sync(tmp_path: Path) -> None:
    write(tmp_path, 1)
    with state_audit_log.files(tmp_path)[0].open("ab") as file:
        file.write(b"half")
    journal = AuditLog(tmp_path)
    reported: list[int] = []
    journal.on_dirty = lambda: reported.append(journal.last.n)
    for _ in range(3):
        journal.append(AuditEntry(action="x"))
    assert len(reported) == 1
    journal.syncer()()
    journal.append(AuditEntry(action="x"))
    assert len(reported) == 2
    journal.close()


def test_a_head_that_is_behind_is_updated_and_logged(tmp_path: Path) -> None:
    write(tmp_path, 2)
    head = (tmp_path / "head").read_bytes()
    write(tmp_path, 1)
    (tmp_path / "head").write_bytes(head)
    write(tmp_path, 1)
    assert verify(tmp_path) == []
    assert [d["error"] for d in documents(tmp_path) if d["action"] == "log repair"] == [
        "the head named line 2, the log ended with line 3"
    ]


def test_a_line_that_does_not_follow_the_head_is_logged(tmp_path: Path) -> None:
    write(tmp_path, 2)
    with state_audit_log.files(tmp_path)[0].open("ab") as file:
        file.write(b'{"n":3,"prev":"' + b"0" * 64 + b'","action":"forged"}\n')
    write(tmp_path, 1)
    assert verify(tmp_path)
    assert "log repair" in [d["action"] for d in documents(tmp_path)]


def test_a_kill_at_any_moment_leaves_a_valid_log(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from jaula.state.audit_log import AuditEntry\n"
        "from jaula.state.audit_log import AuditLog\n"
        "journal = AuditLog(Path(sys.argv[1]), max_file=4000, kept_files=500)\n"
        "while True: journal.append(AuditEntry(uid=1, action='start', argv=('x' * 300,)))"
    )
    for attempt in range(8):
        with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) as writer:
            before = len(state_audit_log.files(tmp_path))
            while len(state_audit_log.files(tmp_path)) < before + 2:
                assert writer.poll() is None
                time.sleep(0.001)
            time.sleep(random.Random(attempt).uniform(0, 0.01))
            writer.kill()
    write(tmp_path, 1, max_file=4000, kept_files=500)
    assert verify(tmp_path) == []
    numbers = [d["n"] for d in documents(tmp_path)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 100


@pytest.mark.parametrize("cut", [1, 40, 100])
def test_a_full_disk_stops_new_requests_and_loses_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    journal = AuditLog(tmp_path)
    journal.append(AuditEntry(action="first"))
    write_all = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write_all(fd, data[:cut]))
    journal.append(AuditEntry(action="second"))
    with pytest.raises(Unavailable, match="cannot be written"):
        journal.check()
    monkeypatch.setattr(os, "write", write_all)
    journal.check()
    journal.close()
    assert [d["action"] for d in documents(tmp_path)] == ["first", "second"]
    assert verify(tmp_path) == []


def test_a_rewritten_log_is_found_by_a_copy_of_its_head(tmp_path: Path) -> None:
    write(tmp_path / "one", 4)
    head = state_audit_log.read_head(tmp_path / "one")
    assert head is not None
    write(tmp_path / "one", 2)
    assert state_audit_log.verify(tmp_path / "one", [head, Head()]).errors == []
    write(tmp_path / "two", 6)  # as root would: whole, and another
    found = state_audit_log.verify(tmp_path / "two", [head, Head(9, head.hash)]).errors
    assert [error.text for error in found] == [
        "line 4 is not the one of the given head",
        "line 9 is not the one of the given head",
    ]


NASTY = "a\nb\x00\u2028\udcff"


@pytest.mark.parametrize("text", [NASTY * 5000, "\x00" * 9999, "\u2028" * 9999, "x" * 100_000])
def test_texts_of_clients_are_cut_to_a_few_hundred_bytes(tmp_path: Path, text: str) -> None:
    journal = AuditLog(tmp_path)
    for entry in (
        AuditEntry(action="x", object=text, name=text, image=text, error=text, certificate=text),
        AuditEntry(action="x", argv=(text,) * 500, asks=(text,) * 500),
    ):
        journal.append(entry)
    journal.close()
    raw = state_audit_log.files(tmp_path)[0].read_bytes()
    assert raw.count(b"\n") == 2
    assert max(map(len, raw.splitlines())) < 3000
    first, second = documents(tmp_path)
    whole = text.encode("utf-8", "backslashreplace")
    for field in ("object", "name", "image", "error", "certificate"):
        assert first[field].endswith(f"... ({len(whole)} bytes, sha256 {line_hash(whole)})")
    for field in ("argv", "asks"):
        assert second[f"{field}_cut"] == (
            f"500 words, sha256 {line_hash((whole + bytes(1)) * 500)}"
        )


def test_short_texts_are_logged_unchanged(tmp_path: Path) -> None:
    journal = AuditLog(tmp_path)
    words = ("sh", "-c", "echo 'ä' \n", "", *["word"] * 50)
    journal.append(AuditEntry(action="x", object="x" * 256, argv=words, asks=("a", "b")))
    journal.close()
    (found,) = documents(tmp_path)
    assert found["object"] == "x" * 256
    assert found["argv"] == list(words)
    assert found["asks"] == ["a", "b"]
    assert "argv_cut" not in found


def test_a_head_has_a_constant_size_and_can_be_decoded() -> None:
    for head in (Head(), Head(7, "a" * 64), Head(10**18, line_hash(b""))):
        assert len(head.encode()) == 86
        assert Head.decode(head.encode()) == head
    for broken in (b"", b"x" * 86, b"1 2\n", Head(1, "A" * 64).encode()):
        assert Head.decode(broken) is None


def test_a_line_costs_less_than_a_third_of_a_millisecond(tmp_path: Path) -> None:
    journal = AuditLog(tmp_path)
    entry = AuditEntry(
        uid=0, pid=1, command="jaula", action="exec create", argv=("sh", "-c", "true")
    )
    spent = []
    for _ in range(2000):
        start = time.perf_counter()
        journal.append(entry)
        spent.append(time.perf_counter() - start)
    journal.close()
    assert sorted(spent)[1000] < 0.0003
