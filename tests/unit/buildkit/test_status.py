"""From the messages of a build to BuildKit's progress."""

from __future__ import annotations

from typing import Any

import msgspec

from jaula.features.build.buildkit.proto.control_pb2 import StatusResponse
from jaula.features.build.buildkit.vertex_status import BuildStatus, StoredProgress


def taken(status: BuildStatus, *messages: dict[str, Any]) -> StatusResponse:
    whole = StatusResponse()
    for number, message in enumerate(messages):
        if (response := status.take(message, number + 1)) is not None:
            whole.MergeFrom(response)
    return whole


def step(stage: int, number: int, state: str, **more: Any) -> dict[str, Any]:
    return {"jaula": {"stage": stage, "step": number, "state": state, "ms": 1} | more}


def started(stage: int, number: int, text: str, place: int, **more: Any) -> dict[str, Any]:
    word = text.split()[0]
    return step(
        stage, number, "started", text=text, word=word, position=(place, 3 if place else 0), **more
    )


def test_steps_are_vertexes_with_their_logs() -> None:
    status = BuildStatus("ref")
    about = {"stage": 0, "step": 2}
    response = taken(
        status,
        {"dockerfile": "Dockerfile", "text": "FROM a\n", "stages": 2},
        started(0, 1, "FROM a AS b", 1, name="b"),
        {"stream": "Step 1/3 : FROM a\n", "jaula": {"stage": 0, "step": 1}},
        step(0, 1, "done"),
        started(0, 2, "RUN x", 2, name="b"),
        {"stream": " ---> Running in a container\n", "jaula": about},
        {"stream": "hello\n", "jaula": about},
        {"stream": " ---> 0123456789ab\n", "jaula": about},
        step(0, 2, "cached"),
    )
    names = [vertex.name for vertex in response.vertexes]
    assert names == ["[b 1/3] FROM a", "[b 1/3] FROM a", "[b 2/3] RUN x", "[b 2/3] RUN x"]
    assert response.vertexes[-1].cached and response.vertexes[-1].HasField("completed")
    assert [log.msg for log in response.logs] == [b"hello\n"]
    assert response.logs[0].vertex == response.vertexes[-1].digest
    assert (status.steps, status.cached) == (2, 1)


def test_a_step_that_changes_no_file_shows_only_when_it_fails() -> None:
    status = BuildStatus("ref")
    assert not taken(status, started(0, 2, "ENV A=b", 0), step(0, 2, "done")).ByteSize()
    response = taken(
        status,
        started(0, 3, "USER x", 0),
        step(0, 3, "failed", error="no such user", location={"first": 3, "last": 4}),
    )
    assert response.vertexes[-1].error == "no such user"
    detail = msgspec.json.decode(status.source_detail())
    assert detail["ranges"] == [{"start": {"line": 3}, "end": {"line": 4}}]


def test_a_failed_program_is_reported_in_buildkits_words() -> None:
    response = taken(
        BuildStatus("ref"),
        started(0, 2, "RUN false", 2),
        step(0, 2, "failed", error="text", command="/bin/sh -c false", code=1),
    )
    expected = 'process "/bin/sh -c false" did not complete successfully: exit code: 1'
    assert response.vertexes[-1].error == expected


def test_transfers_complete_with_their_vertex() -> None:
    status = BuildStatus("ref")
    response = taken(
        status,
        {"internal": "load build context", "state": "started"},
        {"internal": "load build context", "status": "transferring context:", "current": 5},
        {"internal": "load build context", "state": "done", "error": ""},
    )
    assert response.vertexes[0].name == "[internal] load build context"
    assert not response.statuses[0].HasField("completed")
    assert response.statuses[1].current == 5 and response.statuses[1].HasField("completed")


def test_warnings_have_their_place() -> None:
    remark = {"rule": "StageNameCasing", "message": "m", "location": {"first": 2, "last": 3}}
    response = taken(
        BuildStatus("ref"),
        {"internal": "load build definition from D", "state": "started"},
        {"dockerfile": "D", "text": "FROM x\n", "stages": 1},
        {"remark": remark},
    )
    warning = response.warnings[0]
    assert warning.short == b"StageNameCasing: m (line 2)"
    assert warning.vertex == response.vertexes[0].digest
    assert warning.info.filename == "D" and warning.ranges[0].start.line == 2
    assert warning.url.endswith("/stage-name-casing/")


def test_what_has_not_ended_is_cancelled_at_the_end() -> None:
    status = BuildStatus("ref")
    taken(status, started(0, 1, "RUN x", 1), {"internal": "exporting to image", "state": "started"})
    closed = status.close(9)
    assert [vertex.error for vertex in closed.vertexes] == ["context canceled", "context canceled"]


def test_digests_differ_between_builds() -> None:
    digests = {
        taken(BuildStatus(ref), started(0, 1, "RUN x", 1)).vertexes[0].digest for ref in "ab"
    }
    assert len(digests) == 2


def test_the_progress_of_a_record_has_a_limit_for_output_only() -> None:
    stored = StoredProgress(limit=4096)
    for number in range(100):
        response = StatusResponse()
        response.vertexes.add(digest=f"sha256:{number}", name=f"step {number}")
        response.logs.add(vertex=f"sha256:{number}", msg=b"x" * 100)
        stored.add(response)
    merged = StatusResponse.FromString(stored.data)
    assert len(merged.vertexes) == 100 > len(merged.logs) > 10
    assert b"log limit 4KiB reached" in merged.logs[-1].msg
    assert len(stored.data) <= 2 * 4096
    for _ in range(1000):
        response.vertexes[0].name = "y" * 1000
        stored.add(response)
    assert len(stored.data) <= 2 * 4096


def test_a_base_image_is_shown_by_its_full_name() -> None:
    status = BuildStatus("ref")
    started = {"state": "started", "stage": 0, "step": 1, "position": [1, 2], "word": "FROM"}
    about = started | {"text": "FROM $A AS b", "name": "b", "image": "docker.io/library/a:latest"}
    response = status.take({"jaula": about}, 1)
    assert response is not None
    assert response.vertexes[0].name == "[b 1/2] FROM docker.io/library/a:latest"


def test_steps_and_images_of_several_platforms_name_theirs() -> None:
    status = BuildStatus("ref")
    title = "load metadata for docker.io/library/a:latest"
    images = [
        {"internal": title, "state": "started", "platform": platform}
        for platform in ("linux/amd64", "linux/arm64")
    ]
    response = taken(
        status,
        *images,
        {"dockerfile": "Dockerfile", "text": "", "stages": 2},
        started(1, 1, "FROM a", 1, index=1, platform="linux/amd64"),
        started(3, 3, "RUN x", 2, index=1, platform="linux/amd64->arm64"),
        started(2, 2, "RUN y", 2, name="b", index=0, platform="linux/arm64"),
    )
    assert [vertex.name for vertex in response.vertexes] == [
        f"[linux/amd64 internal] {title}",
        f"[linux/arm64 internal] {title}",
        "[linux/amd64 stage-1 1/3] FROM a",
        "[linux/amd64->arm64 stage-1 2/3] RUN x",
        "[linux/arm64 b 2/3] RUN y",
    ]
    assert len({vertex.digest for vertex in response.vertexes}) == 5
