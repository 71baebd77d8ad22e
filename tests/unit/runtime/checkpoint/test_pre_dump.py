"""Rounds of a pre-copy: when another one is worth it, and the names of their files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.features.checkpoint.runtime import criu_images
from jaula.features.checkpoint.runtime.criu_restore import _ImageLinks
from jaula.features.checkpoint.runtime.pre_dump import is_enough
from jaula.runtime.shim_protocol import MAX_ROUNDS, PreDumpRound

MB = 1 << 20


@pytest.mark.parametrize(
    ("sizes", "enough"),
    [
        ((400,), False),
        ((4,), True),
        ((400, 300), False),  # the first round has all memory
        ((400, 100, 50), False),
        ((400, 100, 90), True),
        ((400, 100, 50, 3), True),
    ],
)
def test_rounds_end_when_they_are_small_or_do_not_shrink(
    sizes: tuple[int, ...], enough: bool
) -> None:
    done = [PreDumpRound(number, size * MB, 1) for number, size in enumerate(sizes, 1)]
    assert is_enough(done) == enough


def test_the_images_of_rounds_are_in_nested_directories_of_a_restore() -> None:
    names = ["before-1.pages-1.img", "before-2.pages-1.img", "pages-1.img"]
    assert criu_images.round_count(names) == 2
    assert [criu_images.restore_path(name, 2) for name in names] == [
        "parent/parent/pages-1.img",
        "parent/pages-1.img",
        "pages-1.img",
    ]


@pytest.mark.parametrize(
    "names",
    [
        ["before-2.pages-1.img"],
        ["before-1.pages-1.img", "before-3.pages-1.img"],
        [f"before-{number}.pages-1.img" for number in range(1, MAX_ROUNDS + 2)],
        ["before-1.core-1.img"],
        ["before-1.before-1.pages-1.img"],
        ["before-0.pages-1.img"],
        ["before-01.pages-1.img"],
        ["before-1.netns-9.img"],
        ["parent"],
    ],
)
def test_a_gap_too_many_rounds_and_other_files_are_refused(
    tmp_path: Path, names: list[str]
) -> None:
    for name in names:
        (tmp_path / name).touch()
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(criu_images.InvalidImages, match=r"rounds|unknown file"):
            criu_images.names(fd)
    finally:
        os.close(fd)


def test_a_link_in_place_of_a_round_is_refused(tmp_path: Path) -> None:
    (tmp_path / "before-1.pages-1.img").symlink_to("/etc/passwd")
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(criu_images.InvalidImages, match="not a plain file"):
            criu_images.names(fd)
    finally:
        os.close(fd)


@given(st.text(max_size=60), st.integers(min_value=0, max_value=MAX_ROUNDS))
def test_a_path_of_a_restore_stays_below_its_directory(name: str, count: int) -> None:
    number, own = criu_images.split_round(name)
    path = criu_images.restore_path(name, count)
    assert path == own or (number and path.endswith(f"/{own}") and "/" not in own)


def test_every_user_may_open_the_directories_of_rounds_in_a_restore(tmp_path: Path) -> None:
    """The restored tasks open them by name, with the ids of the container."""
    stored = tmp_path / "images"
    stored.mkdir()
    for name in ("inventory.img", "before-1.pages-1.img", "before-2.pages-1.img"):
        (stored / name).write_text(name)
    links = _ImageLinks(str(stored))
    (made,) = tmp_path.glob("restore-*")
    for parent, name in (("parent", "before-2"), ("parent/parent", "before-1")):
        assert stat.S_IMODE((made / parent).stat().st_mode) == 0o755
        assert (made / parent / "pages-1.img").read_text() == f"{name}.pages-1.img"
    links.remove()
    assert not made.exists()
