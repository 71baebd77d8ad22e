"""Processors of tasks: written at a dump, and applied as far as a task may use them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jaula.errors import InvalidRequest
from jaula.features.checkpoint.runtime import affinity


def opened(directory: Path) -> int:
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor")
def test_the_masks_of_bound_tasks_only_are_kept(tmp_path: Path) -> None:
    before, own = os.sched_getaffinity(0), os.getpid()
    affinity.write(opened(tmp_path), (own,))
    every = affinity.read(opened(tmp_path))
    try:
        os.sched_setaffinity(0, {min(before)})
        (tmp_path / "affinity.json").unlink()
        affinity.write(opened(tmp_path), (own,))
        bound = affinity.read(opened(tmp_path))
        os.sched_setaffinity(0, before)
        affinity.apply((own,), bound)
        assert os.sched_getaffinity(0) == {min(before)}
    finally:
        os.sched_setaffinity(0, before)
    assert {inner for inner in bound if bound[inner] != every.get(inner)}


def test_processors_that_do_not_exist_are_left_out() -> None:
    before, own = os.sched_getaffinity(0), os.getpid()
    inner = int(
        Path("/proc/self/status").read_text().partition("NSpid:")[2].split("\n")[0].split()[-1]
    )
    affinity.apply((own,), {inner: (5000, 5001)})
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("data", [b"", b"[]", b'{"x": [1]}', b'{"1": "2"}', b'{"1": [1.5]}'])
def test_a_malformed_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "affinity.json").write_bytes(data)
    with pytest.raises(InvalidRequest, match=r"affinity\.json"):
        affinity.read(opened(tmp_path))


def test_images_of_another_program_have_no_masks(tmp_path: Path) -> None:
    assert affinity.read(opened(tmp_path)) == {}
