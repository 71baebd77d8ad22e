"""Names of a log's files: their order, and their renames."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.logs import gzip_file
from jaula.logs.reader import rotated_files
from jaula.logs.reader.rotated_files import (
    index_of,
    newest_plain,
    oldest_first,
    open_file,
    open_neighbour,
    parse_name,
    plan_renames,
)


@pytest.mark.parametrize(
    ("name", "which"),
    [
        ("log", (0, False)),
        ("log.1", (1, False)),
        ("log.2.gz", (2, True)),
        ("log.999", (999, False)),
        ("log.gz", None),
        ("log.", None),
        ("log..gz", None),
        ("log.0", None),
        ("log.01", None),
        ("log.1.gz.part", None),
        ("log.gz.part", None),
        ("log.1.gz.gz", None),
        ("log.-1", None),
        ("log.१", None),
        ("log.99999", None),
        ("logs.1", None),
        ("", None),
    ],
)
def test_a_name_is_parsed_or_is_not_a_file_of_the_log(
    name: str, which: tuple[int, bool] | None
) -> None:
    assert parse_name(name, "log") == which


@given(st.lists(st.text(alphabet=".gzlog0123part", max_size=12)))
def test_any_directory_has_an_order_that_ends_with_the_newest(names: list[str]) -> None:
    result = oldest_first(names, "log")
    numbers = [which[0] for name in result if (which := parse_name(name, "log"))]
    assert result[-1] == "log"
    assert numbers == sorted(set(numbers), reverse=True)
    assert set(result) <= {*names, "log"}


def test_the_plain_file_is_read_if_both_forms_exist() -> None:
    for names in (["log.1.gz", "log.1", "log"], ["log.1", "log.1.gz"]):
        assert oldest_first(names, "log") == ["log.1", "log"]


def test_the_newest_plain_file_is_compressed_next() -> None:
    assert newest_plain(["log", "log.3", "log.2", "log.1.gz"], "log") == 2
    assert newest_plain(["log", "log.1", "log.1.gz", "log.2.gz"], "log") == 0
    assert newest_plain(["log", "log.gz.part"], "log") == 0


FORMS = st.sampled_from(["", "plain", "packed", "both"])


@given(st.lists(FORMS, max_size=5), st.integers(1, 6))
def test_an_interrupted_rotation_leaves_the_entries_in_order(
    forms: list[str], max_file: int
) -> None:
    disk = {"log": 0}
    for place, form in enumerate(forms, 1):
        if form in ("plain", "both"):
            disk[f"log.{place}"] = place
        if form in ("packed", "both"):
            disk[f"log.{place}.gz"] = place

    def contents() -> list[int]:
        """Return the contents in order. Number 0 is the newest."""
        return [disk[name] for name in oldest_first(disk, "log") if name in disk]

    before = contents()
    for old, new in plan_renames(list(disk), "log", max_file):
        content = disk.pop(old)
        if new:
            assert new not in disk, "something would be overwritten"
            disk[new] = content
        assert contents() == before[len(before) - len(contents()) :]
    assert "log" not in disk
    assert contents() == before[len(before) - len(contents()) :]
    assert all((parse_name(name, "log") or (0,))[0] < max_file for name in disk)
    kept = [place for place in before if place + 1 < max_file]
    assert contents() == kept


def test_a_file_that_was_compressed_meanwhile_is_opened(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    for name in ("log", "log.1", "log.2"):
        (tmp_path / name).write_bytes(name.encode())
    held = open_file(f"{path}.1")
    try:
        inode = os.fstat(held).st_ino
        with (tmp_path / "log.1").open("rb") as plain, (tmp_path / "log.1.gz").open("wb") as form:
            gzip_file.compress(plain.fileno(), form.fileno())
        os.unlink(f"{path}.1")
        assert index_of(rotated_files.log_files(path), inode) == 1
        for step, text in ((1, b"log"), (-1, b"log.2")):
            descriptor = open_neighbour(path, inode, step)
            assert descriptor is not None
            assert os.read(descriptor, 99) == text
            os.close(descriptor)
        again = open_file(f"{path}.1")  # the name that was found before it was packed
        assert gzip_file.source_inode(again) == inode
        os.close(again)
        assert open_neighbour(path, inode, 2) is None
        assert open_neighbour(path, inode, -2) is None
    finally:
        os.close(held)


def test_the_successor_of_a_removed_file_is_the_oldest_one(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    (tmp_path / "gone").write_bytes(b"x")
    (tmp_path / "log.1").write_bytes(b"oldest")
    (tmp_path / "log").write_bytes(b"newest")
    inode = (tmp_path / "gone").stat().st_ino
    descriptor = open_neighbour(path, inode, 1)
    assert descriptor is not None
    assert os.read(descriptor, 99) == b"oldest"
    os.close(descriptor)
    assert open_neighbour(path, inode, -1) is None
