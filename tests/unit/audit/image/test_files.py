"""Layers are read within bounds; what a higher layer hides counts for secrets only."""

from __future__ import annotations

import base64
import os
import socket
import time
from pathlib import Path

import pytest

from jaula.features.audit.image import files
from jaula.features.audit.image.files import LayerReader

KEY = b"-----BEGIN PRIVATE KEY-----\n" + base64.b64encode(bytes(range(48))) + b"\n"


def put(path: Path, data: bytes = b"x" * 30, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(mode)


def test_kinds_of_files(tmp_path: Path) -> None:
    put(tmp_path / "bin/su", mode=0o4755)
    put(tmp_path / "bin/wall", mode=0o2755)
    put(tmp_path / "bin/not", mode=0o4644)
    put(tmp_path / "etc/open", mode=0o666)
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv").chmod(0o777)
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    put(tmp_path / "root/.ssh/id", KEY)
    put(tmp_path / "usr/share/doc/x/example.pem", KEY)
    put(tmp_path / "var/lib/apt/lists/x", b"y" * 5000)
    read = files.read([str(tmp_path)], LayerReader())
    assert read.set_id == ("bin/su", "bin/wall")
    assert read.writable == ("etc/open", "srv/")
    assert read.secrets == (("root/.ssh/id", "a private key", False),)
    assert (read.caches, read.cached) == (("var/lib/apt/lists/x",), 5000)


def test_a_removed_secret_is_still_in_the_image(tmp_path: Path) -> None:
    low, high = tmp_path / "low", tmp_path / "high"
    put(low / "root/key", KEY)
    put(low / "bin/su", mode=0o4755)
    put(low / "root/kept", KEY)
    (high / "root").mkdir(parents=True)
    (high / "bin").mkdir()
    os.mknod(high / "root/key", 0o20000, 0) if os.geteuid() == 0 else put(high / "root/key")
    put(high / "bin/su")
    read = files.read([str(low), str(high)], LayerReader())
    assert read.secrets == (
        ("root/kept", "a private key", False),
        ("root/key", "a private key", True),
    )
    assert read.set_id == ()


def test_links_pipes_and_sockets_are_not_opened(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    put(outside / "key", KEY)
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "link").symlink_to(outside / "key")
    (tree / "directory").symlink_to(outside)
    (tree / "loop").symlink_to("loop")
    os.mkfifo(tree / "pipe", 0o666)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tree / "socket"))
        read = files.read([str(tree)], LayerReader())
    assert read.secrets == () and read.writable == ()


def test_a_huge_file_is_read_to_a_bound(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.write(b"text\n" * 2000)
        file.truncate(1 << 40)
    with (tmp_path / "late").open("wb") as file:
        file.write(b"text\n" * (files.MAX_READ // 4) + KEY)
    before = time.monotonic()
    read = files.read([str(tmp_path)], LayerReader())
    assert read.secrets == () and time.monotonic() - before < 5


def test_a_layer_beyond_the_bounds_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        put(tmp_path / str(number))
    monkeypatch.setattr(files, "MAX_FILES", 10)
    with pytest.raises(ValueError, match="more than 10 files"):
        files.read([str(tmp_path)], LayerReader())
    monkeypatch.setattr(files, "MAX_FILES", 100)
    monkeypatch.setattr(files, "MAX_SEARCHED", 100)
    with pytest.raises(ValueError, match="more than 100 bytes"):
        files.read([str(tmp_path)], LayerReader())


@pytest.mark.parametrize("directories", [10, pytest.param(100, marks=pytest.mark.slow)])
def test_a_thousand_files_take_a_fifth_of_a_second(tmp_path: Path, directories: int) -> None:
    for number in range(directories):
        directory = tmp_path / str(number)
        directory.mkdir()
        for name in range(1000):
            os.close(os.open(directory / str(name), os.O_CREAT | os.O_WRONLY, 0o666))
    os.chmod(tmp_path / "5/5", 0o666)
    before = time.process_time()
    read = files.read([str(tmp_path)], LayerReader())
    assert read.files == directories * 1001 and len(read.writable) >= 1
    assert time.process_time() - before < directories / 5  # seconds


def test_names_that_are_not_text_are_paths(tmp_path: Path) -> None:
    os.close(os.open(os.fsencode(tmp_path) + b"/\xff\n", os.O_CREAT | os.O_WRONLY, 0o600))
    os.chmod(os.fsencode(tmp_path) + b"/\xff\n", 0o666)
    assert files.read([str(tmp_path)], LayerReader()).writable == ("\udcff\n",)


def test_layers_are_read_once(tmp_path: Path) -> None:
    put(tmp_path / "a/x", KEY)
    reader = LayerReader()
    first = reader.read(str(tmp_path / "a"))
    (tmp_path / "a/x").unlink()
    assert reader.read(str(tmp_path / "a")) is first
