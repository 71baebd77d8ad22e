"""Recordings of sessions are files of asciicast version 2, of bounded size."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from jaula.spec.asciicast import CastWriter


def parse(path: Path) -> tuple[dict[str, Any], list[tuple[float, str, str]]]:
    """Return header and events as https://docs.asciinema.org/manual/asciicast/v2/ has them."""
    data = path.read_bytes()
    assert data.endswith(b"\n")
    head, *lines = [json.loads(line) for line in data.decode("utf-8").split("\n")[:-1]]
    assert head["version"] == 2
    assert head["width"] > 0
    assert head["height"] > 0
    before = 0.0
    for moment, code, text in lines:
        assert moment >= before
        before = moment
        assert code in "oirm"
        assert isinstance(text, str)
        text.encode("utf-8")  # no surrogate
    return head, [tuple(line) for line in lines]


def writer(directory: Path, **limits: int) -> CastWriter:
    def open_part(number: int) -> int:
        return os.open(directory / f"{number}.cast", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)

    return CastWriter(open_part, "a title", 100, 30, **limits)


def test_output_input_and_sizes_are_events(tmp_path: Path) -> None:
    cast = writer(tmp_path)
    cast.output(b"$ ")
    cast.input(b"id\r")
    cast.resize(120, 40)
    cast.close()
    head, events = parse(tmp_path / "1.cast")
    assert (head["width"], head["height"], head["title"]) == (100, 30, "a title")
    assert [event[1:] for event in events] == [("o", "$ "), ("i", "id\r"), ("r", "120x40")]


def test_a_character_in_two_reads_is_one_character(tmp_path: Path) -> None:
    cast = writer(tmp_path)
    for byte in "grün €".encode():
        cast.output(bytes([byte]))
    cast.close()
    assert "".join(text for _, _, text in parse(tmp_path / "1.cast")[1]) == "grün €"


@example(chunks=["a\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029b".encode()])
@given(chunks=st.lists(st.binary(max_size=200), max_size=20))
def test_any_bytes_make_a_valid_file(tmp_path_factory: Any, chunks: list[bytes]) -> None:
    directory = tmp_path_factory.mktemp("cast")
    cast = writer(directory)
    for chunk in chunks:
        cast.output(chunk)
    cast.close()
    parse(directory / "1.cast")


def test_a_session_has_files_of_bounded_size_and_number(tmp_path: Path) -> None:
    cast = writer(tmp_path, part_size=4096, max_parts=3)
    for _ in range(1000):
        cast.output(b"x" * 100)
    cast.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["1.cast", "2.cast", "3.cast"]
    assert all(file.stat().st_size < 4096 + 200 for file in files)
    for file in files:
        parse(file)
    assert parse(files[-1])[1][-1][1] == "m"
    assert cast.dropped > 50_000


def test_a_full_disk_ends_the_recording_only() -> None:
    cast = CastWriter(lambda number: os.open("/dev/null", os.O_WRONLY), "t")
    full = os.open("/dev/full", os.O_WRONLY)
    cast._fd, null = full, cast._fd
    os.close(null)
    cast.output(b"lost")
    cast.output(b"also lost")
    assert cast.dropped == len(b"lostalso lost")
