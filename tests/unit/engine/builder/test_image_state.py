"""Which differences of a step belong into its layer."""

from __future__ import annotations

import pytest

from jaula.engine.builder.image_state import without_mount_points
from jaula.storage.drivers.driver import ChangeKind

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
def test_a_mount_point_that_is_empty_is_left_out(
    found: dict[bytes, ChangeKind], points: list[str], left: dict[bytes, ChangeKind]
) -> None:
    assert without_mount_points(found, points) == left
