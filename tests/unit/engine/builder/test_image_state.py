"""The dates of an image, and the changes of a step that belong to its layer."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest
from jaula.features.build.builder.image_state import (
    ImageState,
    SourceDateEpoch,
    image_document,
    without_mount_points,
)
from jaula.spec.image_documents import History
from jaula.storage.drivers.storage_driver import ChangeKind

ADDED, MODIFIED, DELETED = ChangeKind.ADDED, ChangeKind.MODIFIED, ChangeKind.DELETED


@pytest.mark.parametrize(
    ("found", "points", "left"),
    [
        ({b"a": ADDED}, ["/a"], {}),
        ({b"a": ADDED, b"a/b": ADDED, b"a/b/c": ADDED}, ["/a/b/c"], {}),
        ({b"a": ADDED, b"a/b": ADDED, b"a/x": ADDED}, ["/a/b"], {b"a": ADDED, b"a/x": ADDED}),
        ({b"a": ADDED, b"a/made": ADDED}, ["/a"], {b"a": ADDED, b"a/made": ADDED}),
        ({b"a": MODIFIED, b"a/b": ADDED}, ["/a/b"], {b"a": MODIFIED}),
        ({b"a": DELETED}, ["/a"], {b"a": DELETED}),
        ({b"ab": ADDED}, ["/a"], {b"ab": ADDED}),
        ({}, ["/a"], {}),
    ],
)
def test_an_empty_mount_point_is_left_out_of_the_layer(
    found: dict[bytes, ChangeKind], points: list[str], left: dict[bytes, ChangeKind]
) -> None:
    assert without_mount_points(found, points) == left


def test_a_step_without_a_date_has_that_of_the_next_one() -> None:
    base = ImageState(history=(History(created_by="base"),), base_history=1)
    state = base.step("ARG a", base.created).step("ARG b", "").step("RUN x", "2026").step("END", "")
    history = image_document(state, {}, "now").history
    assert [step.created for step in history] == ["", "2026", "2026", "2026", "now"]
    assert history[0] is state.history[0]


def test_a_fixed_epoch_replaces_every_date() -> None:
    clock = SourceDateEpoch({"SOURCE_DATE_EPOCH": "1700000000"})
    assert clock.now() == clock.date_of("2020-01-01T00:00:00Z") == "2023-11-14T22:13:20Z"
    assert clock.newest == 1_700_000_000 * 10**9
    free = SourceDateEpoch({"SOURCE_DATE_EPOCH": None})
    assert free.newest is None
    assert free.date_of("2020-01-01T00:00:00Z") == "2020-01-01T00:00:00Z"


@pytest.mark.parametrize("text", ["now", "-1", "1.5", "1" * 12, "\u0661"])
def test_an_invalid_epoch_is_rejected(text: str) -> None:
    with pytest.raises(InvalidRequest):
        SourceDateEpoch({"SOURCE_DATE_EPOCH": text})
