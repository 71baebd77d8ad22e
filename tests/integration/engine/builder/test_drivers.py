"""Builds on every storage driver give the same files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import load_image
from harness import builds, leaks, loop_mount
from harness.engine import PrivateEngine


@pytest.fixture(params=["btrfs", "vfs"])
def engine(
    request: pytest.FixtureRequest, worker_index: int, tmp_path: Path
) -> Iterator[PrivateEngine]:
    with loop_mount.mounted(tmp_path, "mkfs.btrfs", "-q") as top:
        private = PrivateEngine(
            (worker_index + 57) % 250 + 1,
            root=Path(os.path.realpath(top)) / f"jlt{os.getpid()}",
            extra_flags=("--storage-driver", str(request.param)),
        )
        private.root.mkdir()
        with leaks.nothing_left(private):
            load_image(private, "busybox")
            yield private


def test_steps_mounts_and_the_cache(engine: PrivateEngine) -> None:
    text = (
        "FROM busybox AS first\nWORKDIR /w\n"
        "RUN echo a > a && ln a b && chown 3:4 a && rm /etc/group\n"
        "FROM scratch AS files\nCOPY file /file\n"
        "FROM busybox\nCOPY --from=first /w /w\nCOPY --link --from=files /file /linked\n"
        "RUN --mount=from=first,source=/w,target=/m,rw --mount=type=cache,target=/c"
        " cat /m/a && touch /m/new /c/kept && stat -c %u:%g /m/b\n"
        "RUN --mount=type=cache,target=/c ls /c\n"
    )
    files = {"Dockerfile": text, "file": "content"}
    built = builds.done(engine, files)
    assert "a\n3:4\n" in built.text and "kept\n" in built.text
    again = builds.done(engine, files)
    assert again.image == built.image and "Running in" not in again.text
    found = builds.files_of(engine, built.image)
    assert (found["/w/a"], found["/linked"]) == (b"a\n", b"content")
    assert "/m/new" not in found
    assert builds.nothing_left(engine)


def test_one_epoch_gives_one_digest(engine: PrivateEngine) -> None:
    text = "FROM busybox\nCOPY f /d/f\nRUN mkdir /m && touch /m/a && echo >> /etc/passwd\n"
    arguments = {"SOURCE_DATE_EPOCH": "1700000000"}
    made = {
        builds.done(engine, {"Dockerfile": text, "f": "x"}, nocache=1, buildargs=arguments).image
        for _ in range(2)
    }
    assert len(made) == 1
