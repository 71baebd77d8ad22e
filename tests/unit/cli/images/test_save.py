"""A file that is written from the engine: it is complete, or nothing is left of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaula.cli.images import image_archive


def chunks(end: BaseException | None = None) -> Iterator[bytes]:
    yield b"one"
    if end is not None:
        raise end
    yield b"two"


@pytest.mark.parametrize("end", [None, KeyboardInterrupt(), OSError("no space left")])
def test_only_the_own_unfinished_file_is_removed(tmp_path: Path, end: BaseException | None) -> None:
    """A process with the same pid in another pid namespace may write beside it."""
    target, other = tmp_path / "out.tar", tmp_path / f"out.tar.{os.getpid()}.part"
    target.write_text("former")
    other.write_text("of another process")
    if end is None:
        image_archive._write(chunks(), str(target))
    else:
        with pytest.raises(type(end)):
            image_archive._write(chunks(end), str(target))
    assert target.read_text() == ("onetwo" if end is None else "former")
    assert other.read_text() == "of another process"
    assert sorted(os.listdir(tmp_path)) == [target.name, other.name]
