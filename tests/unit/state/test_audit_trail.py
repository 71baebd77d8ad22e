"""The audit trail: refused requests apart, repetitions as one line, a share for each caller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jaula.errors import TooManyRequests
from jaula.state import audit_log
from jaula.state.audit_log import AuditEntry
from jaula.state.audit_trail import REPEAT_WINDOW, WINDOW, AuditTrail, Share


class Clock:
    """A clock that the test sets, in seconds."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lines(directory: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line) for path in audit_log.files(directory) for line in audit_log.lines(path)
    ]


def entry(action: str = "container start", status: int = 200, object: str = "x") -> AuditEntry:
    return AuditEntry(uid=5, action=action, status=status, object=object)


def test_refused_requests_have_files_of_their_own(tmp_path: Path, clock: Clock) -> None:
    trail = AuditTrail(tmp_path, clock=clock)
    for status in (200, 403, 404, 500, 304, 499, 429):
        trail.append(entry(status=status), "5")
    trail.close()
    assert [line["status"] for line in lines(tmp_path)] == [200, 500, 499]
    assert [line["status"] for line in lines(tmp_path / "refused")] == [403, 404, 304, 429]
    for directory in (tmp_path, tmp_path / "refused"):
        assert audit_log.verify(directory).errors == []


def test_repeated_refusals_are_one_line_with_their_count(tmp_path: Path, clock: Clock) -> None:
    trail = AuditTrail(tmp_path, clock=clock)
    counted: list[float] = []
    trail.on_counted = lambda: counted.append(clock.now)
    for number in range(1000):
        trail.append(entry(status=403, object=f"c{number}"), "5")
    trail.append(entry(status=403, object="of another"), "6")
    trail.append(entry("exec create", status=403), "5")
    assert counted == [100.0]
    assert [line["object"] for line in lines(tmp_path / "refused")] == ["c0", "of another", "x"]
    assert trail.flush()  # the minute is not over
    clock.now += WINDOW
    assert not trail.flush()
    last = lines(tmp_path / "refused")[-1]
    assert (last["object"], last["count"], last["status"]) == ("c999", 999, 403)
    trail.append(entry(status=403, object="later"), "5")  # a new minute: at once
    assert lines(tmp_path / "refused")[-1]["object"] == "later"
    trail.close()
    assert len(lines(tmp_path / "refused")) == 5


def test_a_count_is_written_when_the_next_one_comes_late_or_the_engine_ends(
    tmp_path: Path, clock: Clock
) -> None:
    trail = AuditTrail(tmp_path, clock=clock)
    for _ in range(3):
        trail.append(entry(status=404), "5")
    clock.now += 2 * WINDOW
    for _ in range(2):
        trail.append(entry(status=404), "5")
    trail.close()
    assert [line.get("count", 0) for line in lines(tmp_path / "refused")] == [0, 2, 0, 1]


def test_a_caller_has_a_share_and_root_has_none(tmp_path: Path, clock: Clock) -> None:
    trail = AuditTrail(tmp_path, clock=clock, done_share=Share(2000, 10))
    for _ in range(20):
        trail.append(entry(), "5")
    written = len(lines(tmp_path))
    assert 5 < written < 20
    with pytest.raises(TooManyRequests, match="share of the audit log"):
        trail.check("5")
    trail.check("6")
    trail.check("")
    for _ in range(30):
        trail.append(entry("engine reload"))
    for _ in range(7):
        trail.append(entry("container remove"), "5")  # still possible, and counted
    clock.now += WINDOW
    trail.flush()
    last = lines(tmp_path)[-1]
    assert (last["action"], last["count"]) == ("container remove", 7)
    assert lines(tmp_path)[-2]["count"] == 20 - written
    clock.now += 1000
    trail.check("5")
    trail.close()
    assert len(lines(tmp_path)) == written + 32


def test_lines_of_the_engine_are_written_beyond_the_share_and_charged(
    tmp_path: Path, clock: Clock
) -> None:
    trail = AuditTrail(tmp_path, clock=clock, done_share=Share(1000, 10))
    for _ in range(20):
        trail.append_own(entry("container spec"), "5")
    assert [line["action"] for line in lines(tmp_path)] == ["container spec"] * 20
    with pytest.raises(TooManyRequests, match="share of the audit log"):
        trail.check("5")
    trail.check("6")
    trail.close()
    assert audit_log.verify(tmp_path).errors == []


def test_refusals_beyond_the_share_are_one_line_a_minute(tmp_path: Path, clock: Clock) -> None:
    trail = AuditTrail(tmp_path, clock=clock, refused_share=Share(1000, 0))
    for number in range(500):
        trail.append(entry(f"action {number}", status=403), "5")
    before = len(lines(tmp_path / "refused"))
    assert before < 10
    clock.now += WINDOW
    trail.flush()
    last = lines(tmp_path / "refused")[-1]
    assert (last["action"], last["count"], last["status"]) == (
        "several requests",
        500 - before,
        403,
    )
    trail.close()


def probe(**fields: Any) -> AuditEntry:
    known = {"uid": 0, "action": "exec", "status": 200, "object": "x", "argv": ("true",)}
    return AuditEntry(**(known | fields))


def test_a_probe_is_two_lines_an_hour(tmp_path: Path, clock: Clock) -> None:
    trail = AuditTrail(tmp_path, clock=clock)
    for second in range(7200):
        trail.append(probe(pid=second), repeated=True)
        clock.now += 1
    trail.close()
    written = lines(tmp_path)
    assert [line.get("count", 1) for line in written] == [1, 3599, 1, 3599]
    assert [line["pid"] for line in written if "pid" in line] == [3599, 3600, 7199]
    assert audit_log.verify(tmp_path).errors == []


@pytest.mark.parametrize(
    "other",
    [
        {"argv": ("true", "more")},
        {"object": "y"},
        {"uid": 5},
        {"login_uid": 1000},
        {"container": "z"},
        {"status": 504},
        {"pod": "default/web"},
        {"argv": ("\udc80",)},
    ],
)
def test_another_request_is_not_counted_as_the_repeated_one(
    tmp_path: Path, clock: Clock, other: dict[str, Any]
) -> None:
    trail = AuditTrail(tmp_path, clock=clock)
    for _ in range(3):
        trail.append(probe(), repeated=True)
        trail.append(probe(**other), repeated=True)
    assert len(lines(tmp_path)) == 2
    trail.close()
    assert sorted(line.get("count", 1) for line in lines(tmp_path)) == [1, 1, 2, 2]


def test_a_request_with_long_arguments_is_a_line_each_time(tmp_path: Path, clock: Clock) -> None:
    trail = AuditTrail(tmp_path, clock=clock)
    for _ in range(3):
        trail.append(probe(argv=("x" * 5000,)), repeated=True)
    assert len(lines(tmp_path)) == 3
    trail.close()


def test_counts_are_written_by_a_flush_after_the_hour(tmp_path: Path, clock: Clock) -> None:
    trail = AuditTrail(tmp_path, clock=clock)
    for _ in range(5):
        trail.append(probe(), repeated=True)
    clock.now += WINDOW
    assert trail.flush()
    assert len(lines(tmp_path)) == 1
    clock.now += REPEAT_WINDOW
    assert not trail.flush()
    assert [line.get("count", 1) for line in lines(tmp_path)] == [1, 4]
    trail.close()


def test_refused_probes_are_counted_by_the_minute(tmp_path: Path, clock: Clock) -> None:
    trail = AuditTrail(tmp_path, clock=clock)
    for _ in range(120):
        trail.append(probe(status=409), repeated=True)
        clock.now += 1
    trail.close()
    assert [line.get("count", 1) for line in lines(tmp_path / "refused")] == [1, 59, 1, 59]
