"""Whether the images of a migration are in memory."""

from __future__ import annotations

import pytest

from jaula.engine.migration.host import choose_image_memory

MIB = 1 << 20


@pytest.mark.parametrize(
    ("size", "copies", "available", "expected"),
    [
        (1024 * MIB, 1, 8192 * MIB, (8192 - 256) * MIB),
        (1024 * MIB, 2, 8192 * MIB, (8192 - 256 - 1024) * MIB),
        (1024 * MIB, 1, (256 + 1024 + 128 + 64) * MIB, (1024 + 128 + 64) * MIB),
        (1024 * MIB, 1, (256 + 1024 + 128 + 63) * MIB, 0),
        (1024 * MIB, 2, (256 + 1024 + 128 + 64) * MIB, 0),
        (0, 2, 256 * MIB, 0),
        (0, 2, 320 * MIB, 64 * MIB),
        (1024 * MIB, 1, 0, 0),
    ],
)
def test_images_are_in_memory_if_it_has_room_for_all(
    size: int, copies: int, available: int, expected: int
) -> None:
    assert choose_image_memory(size, copies, available) == expected
