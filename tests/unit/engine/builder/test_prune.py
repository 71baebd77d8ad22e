"""How much of the build cache a prune keeps."""

from __future__ import annotations

import pytest

from jaula.features.build.build_options import PruneOptions
from jaula.features.build.builder.prune_cache import bytes_to_keep


@pytest.mark.parametrize(
    ("options", "used", "free", "kept"),
    [
        ({}, 100, 0, 0),
        ({"reserved": 30}, 100, 500, 30),
        ({"maximum": 60}, 100, 500, 60),
        ({"maximum": 60, "reserved": 80}, 100, 500, 80),
        ({"free": 500}, 100, 500, 100),  # enough is free
        ({"free": 540}, 100, 500, 60),
        ({"free": 540, "maximum": 50}, 100, 500, 50),
        ({"free": 580, "maximum": 50}, 100, 500, 20),
        ({"free": 900}, 100, 500, 1),
        ({"free": 900, "reserved": 30}, 100, 500, 30),
    ],
)
def test_the_options_decide_what_is_kept(
    options: dict[str, int], used: int, free: int, kept: int
) -> None:
    assert bytes_to_keep(PruneOptions(**options), used, free) == kept
