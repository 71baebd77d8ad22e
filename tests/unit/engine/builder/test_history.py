"""The history of builds: what is dropped for a new record, and whose."""

from __future__ import annotations

from jaula.features.build.builder import build_history
from jaula.features.build.builder.build_history import Attachment, BuildHistory, BuildRecord


def record(ref: str, size: int = 0) -> BuildRecord:
    attachments = (Attachment("", "spdx", b"x" * size),) if size else ()
    return BuildRecord(
        ref=ref, frontend="", attributes={}, created=1, completed=2, attachments=attachments
    )


def refs(builds: BuildHistory, owner: str) -> list[str]:
    return [each.ref for each in builds.list(owner)]


def test_many_builds_of_one_caller_leave_those_of_another() -> None:
    builds = BuildHistory()
    builds.add("5", record("first"))
    for number in range(build_history._MAX_RECORDS * 2):
        builds.add("6", record(str(number)))
    assert refs(builds, "5") == ["first"]
    kept = refs(builds, "6")
    assert (len(kept), kept[-1]) == (
        build_history._MAX_RECORDS - 1,
        str(build_history._MAX_RECORDS * 2 - 1),
    )


def test_large_attestations_of_one_caller_leave_those_of_another() -> None:
    builds = BuildHistory()
    builds.add("5", record("first", 100))
    for number in range(5):
        builds.add("6", record(str(number), build_history._MAX_BYTES // 3))
    assert [each.bytes for each in builds.list("5")] == [100]
    assert [bool(each.bytes) for each in builds.list("6")] == [False, False, False, True, True]
    builds.add("6", record("huge", build_history._MAX_BYTES + 1))
    assert [each.bytes for each in builds.list("6")] == [0] * 6
    assert [each.bytes for each in builds.list("5")] == [100]
