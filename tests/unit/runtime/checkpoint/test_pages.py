"""Files with memory: CRIU would wait for ever for pages that are not there."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.errors import InvalidRequest
from jaula.features.checkpoint.runtime import criu_images, pages
from jaula.features.checkpoint.runtime.proto import images_pb2

PAGE = os.sysconf("SC_PAGE_SIZE")
HEAD = images_pb2.PagemapHead(pages_id=7)


def entry(count: int, **fields: int) -> images_pb2.PagemapEntry:
    return images_pb2.PagemapEntry(vaddr=0x1000, compat_nr_pages=count, **fields)  # type: ignore[arg-type]


def check(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        pages.check(fd)
    finally:
        os.close(fd)


def write(
    directory: Path, entries: Sequence[images_pb2.PagemapEntry], size: int, *, prefix: str = "",
    kind: str = "pagemap",
) -> None:  # fmt: skip
    name = f"{kind}-1.img"
    (directory / f"{prefix}{name}").write_bytes(criu_images.encode(name, [HEAD, *entries]))
    (directory / f"{prefix}pages-7.img").write_bytes(b"")
    os.truncate(directory / f"{prefix}pages-7.img", size)


@pytest.mark.parametrize("kind", ["pagemap", "pagemap-shmem"])
@pytest.mark.parametrize("prefix", ["", "before-1."])
def test_a_file_with_all_pages_is_taken_and_a_shorter_one_is_refused(
    kind: str, prefix: str, tmp_path: Path
) -> None:
    entries = [entry(2, flags=4), entry(5, flags=1), entry(6, in_parent=1), entry(1, nr_pages=3)]
    write(tmp_path, entries, 5 * PAGE, prefix=prefix, kind=kind)
    check(tmp_path)
    os.truncate(tmp_path / f"{prefix}pages-7.img", 5 * PAGE - 1)
    problem = f"{prefix}pages-7.img has {5 * PAGE - 1} bytes, and {prefix}{kind}-1.img needs"
    with pytest.raises(InvalidRequest, match=re.escape(problem)):
        check(tmp_path)


def test_pages_that_no_flag_describes_are_read_by_criu_and_count(tmp_path: Path) -> None:
    write(tmp_path, [entry(1, flags=0)], 0)
    with pytest.raises(InvalidRequest, match="needs"):
        check(tmp_path)


def test_a_missing_file_is_refused_if_pages_are_read_from_it(tmp_path: Path) -> None:
    write(tmp_path, [entry(3, flags=1)], 0)
    (tmp_path / "pages-7.img").unlink()
    check(tmp_path)
    write(tmp_path, [entry(3)], 0)
    (tmp_path / "pages-7.img").unlink()
    with pytest.raises(InvalidRequest, match=r"pages-7\.img: No such file"):
        check(tmp_path)


def test_a_truncated_map_is_refused(tmp_path: Path) -> None:
    write(tmp_path, [entry(1, flags=4)], PAGE)
    data = (tmp_path / "pagemap-1.img").read_bytes()
    complete = len(criu_images.encode("pagemap-1.img", [HEAD]))  # the map of no page
    for size in set(range(len(data))) - {complete}:
        (tmp_path / "pagemap-1.img").write_bytes(data[:size])
        with pytest.raises(InvalidRequest):
            check(tmp_path)


@given(st.binary(max_size=100))
def test_any_bytes_as_a_map_are_read_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes
) -> None:
    directory = tmp_path_factory.mktemp("images")
    data = criu_images.encode("pagemap-1.img", [HEAD]) + tail
    (directory / "pagemap-1.img").write_bytes(data)
    try:
        check(directory)
    except InvalidRequest:
        return
    assert not tail or len(tail) >= 4
