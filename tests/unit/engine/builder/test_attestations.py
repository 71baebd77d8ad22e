"""The record of a build: its steps, and what the stages of several platforms show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jaula.errors import NotFound
from jaula.features.build.builder.build_attestations import file_subjects, steps
from jaula.features.build.builder.build_history import Attachment, BuildHistory, BuildRecord
from jaula.features.build.builder.build_result import BuildResults
from jaula.features.build.builder.image_state import ImageState
from jaula.features.build.builder.stage import target_suffix
from jaula.images.dockerfile.dockerfile_parser import parse
from jaula.images.dockerfile.stage_graph import plan
from jaula.images.registry.cancellation import Cancellation, Cancelled
from jaula.spec.image_documents import Platform

AMD64, ARM64 = Platform("amd64", "linux"), Platform("arm64", "linux")


def test_each_step_names_those_that_it_needs() -> None:
    text = (
        "FROM busybox AS one\nRUN a\nFROM one AS two\nRUN --mount=from=one,target=/x b\n"
        "FROM scratch\nCOPY --from=two /b /\nCOPY --from=busybox /c /\n"
    )
    made = steps(plan(parse(text, "Dockerfile")).stages)
    assert [(step.stage, step.inputs) for step in made] == [
        ("one", ()),
        ("one", (0,)),
        ("two", (1,)),
        ("two", (2, 1)),
        ("2", ()),
        ("2", (4, 3)),
        ("2", (5,)),
    ]
    assert [step.lines for step in made] == [(n, n) for n in range(1, 8)]


def test_the_digests_of_files_are_those_of_regular_ones_only(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_bytes(b"text")
    (tmp_path / os.fsdecode(b"\xff")).write_bytes(b"")
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        made = {s.name: s.digest for s in file_subjects(root, lambda: None)}
        cancellation = Cancellation()
        cancellation.cancel()
        with pytest.raises(Cancelled):
            file_subjects(root, cancellation.check)
    finally:
        os.close(root)
    assert made.keys() == {"d/f", "\N{REPLACEMENT CHARACTER}"}
    assert made["d/f"].startswith("sha256:982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, ""),
        ({"TARGETPLATFORM": "linux/arm64"}, "->arm64"),
        ({"TARGETARCH": "arm", "TARGETVARIANT": "v6"}, "->arm/v6"),
        ({"TARGETARCH": "amd64"}, ""),
        ({"TARGETOS": "windows"}, "->windows/amd64"),
    ],
)
def test_a_step_for_another_platform_shows_it(arguments: dict[str, str], expected: str) -> None:
    assert target_suffix(AMD64, arguments) == expected


def test_the_result_of_another_build_is_found_by_its_platform() -> None:
    results = BuildResults()
    closed: list[int] = []
    states = ImageState(platform=AMD64), ImageState(platform=ARM64)
    results.keep("me", "id", states, lambda: closed.append(1))
    assert results.find("me", "id", Platform("arm64", "linux", "v8")) is states[1]
    with pytest.raises(NotFound, match="no image for linux/s390x"):
        results.find("me", "id", Platform("s390x", "linux"))
    with pytest.raises(NotFound, match="does not exist"):
        results.find("other", "id", AMD64)
    results.keep("me", "id", states[:1], lambda: None)
    assert closed == [1]
    assert results.find("me", "id", ARM64) is states[0]


def test_the_attestations_of_old_builds_make_room_for_new_ones() -> None:
    history = BuildHistory()
    large = Attachment("", "kind", b"x" * (10 << 20))
    for number in range(3):
        attachment = Attachment("", "kind", b"%d" % number + large.data)
        record = BuildRecord(
            ref=str(number),
            frontend="",
            attributes={},
            created=0,
            completed=0,
            attachments=(attachment,),
        )
        history.add("me", record)
    assert [len(record.attachments) for record in history.list("me")] == [0, 0, 1]
    kept = history.list("me")[2].attachments[0]
    assert history.attachment("me", kept.digest) is kept
    assert history.attachment("other", kept.digest) is None
    assert history.attachment("me", large.digest) is None
