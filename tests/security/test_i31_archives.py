"""I31: the engine neither decompresses nor parses the archive of a stranger."""

from __future__ import annotations

import ast
import gzip
import io
import os
import tarfile
from collections.abc import Callable
from io import BufferedReader
from pathlib import Path
from typing import cast

import pytest

from jaula.errors import InvalidRequest
from jaula.features.build.files import context_directory
from jaula.features.checkpoint.checkpoint_archive import ArchiveReader
from jaula.storage import checkpoint_files, compression
from jaula.storage.trees import open_directory

SOURCE = Path(__file__).parents[2] / "src/jaula"
_NAMES = {"TarReader", "RawTarReader", "decompress_stream"}
_PERMITTED = {
    # the readers themselves, and what runs in the sandboxed processes
    "storage/tar/raw_reader.py",
    "storage/tar/tar_parser.py",
    "storage/decompress_worker.py",
    "features/lazy/blob.py",
    "features/lazy/lazy_server.py",
    "images/registry/toc.py",
    # archives that this engine has written
    "storage/layers/layer_store.py",
    # a layer that was unpacked before, for a table of contents
    "images/registry/compress.py",
    "images/chunked/entries.py",
    "images/chunked/estargz.py",
    "images/chunked/zstd_chunked.py",
}
_CLIENT = {
    "cli",
    "features/build/cli",
    "features/demo",
    "features/harden",
    "features/migrate_from",
}
"""Packages that run as the user who calls them, or in a sandboxed process."""


def _uses(path: Path) -> bool:
    return any(
        alias.name in _NAMES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    )


def test_no_other_module_of_the_engine_has_a_reader_of_archives() -> None:
    found = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if _CLIENT.isdisjoint(map(str, path.relative_to(SOURCE).parents)) and _uses(path)
    }
    assert found == _PERMITTED


def _context(stream: io.BytesIO, directory: int) -> None:
    context_directory.receive(stream, directory)


def _files(stream: io.BytesIO, directory: int) -> None:
    checkpoint_files.extract(cast(BufferedReader, stream), directory, layer=False)


def _shm(stream: io.BytesIO, directory: int) -> None:
    made = checkpoint_files.extract_shm(cast(BufferedReader, stream), directory)
    assert made == {"file": os.stat("file", dir_fd=directory).st_ino}


@pytest.fixture
def _no_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this process neither decompress nor parse."""
    from jaula.storage.tar import tar_reader

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("this process reads the archive")

    monkeypatch.setattr(tar_reader.TarReader, "next", refused)
    monkeypatch.setattr(compression, "DecompressedStream", refused)


def _archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as out:
        entry = tarfile.TarInfo("file")
        entry.size = 3 << 20
        out.addfile(entry, io.BytesIO(b"x" * entry.size))
    return buffer.getvalue()


@pytest.mark.usefixtures("_no_parser")
@pytest.mark.parametrize(
    ("extract", "compressed"),
    [(_context, False), (_context, True), (_files, False), (_shm, False)],
    ids=["context", "compressed context", "files", "shm"],
)
def test_what_is_extracted_is_read_by_other_processes(
    extract: Callable[[io.BytesIO, int], None], compressed: bool, tmp_path: Path
) -> None:
    data = _archive()
    if compressed:
        data = gzip.compress(data)
    with open_directory(os.fspath(tmp_path)) as directory:
        extract(io.BytesIO(data), directory)
    assert (tmp_path / "file").read_bytes() == b"x" * (3 << 20)


@pytest.mark.usefixtures("_no_parser")
def test_the_archive_of_a_checkpoint_is_read_by_another_process() -> None:
    reader = ArchiveReader(io.BytesIO(_archive()))
    try:
        with pytest.raises(InvalidRequest, match=r"it has .file. in the place of"):
            reader.head()
    finally:
        reader.close()
