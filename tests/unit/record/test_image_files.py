"""A path is looked up in the layers as overlayfs does it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from jaula.errors import Unsupported
from jaula.features.record.image_files import Digests, ImageFiles


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    """Return two layers, the upper one first."""
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    for layer in (upper, lower):
        (layer / "bin").mkdir(parents=True)
    (lower / "bin/a").write_bytes(b"lower")
    (lower / "bin/b").write_bytes(b"lower")
    (upper / "bin/b").write_bytes(b"upper")
    return [upper, lower]


def content(layers: list[Path], path: bytes) -> bytes | None:
    files = ImageFiles([str(layer) for layer in layers])
    try:
        fd = files.find(path)
        if fd is None:
            return None
        with open(fd, "rb") as file:
            return file.read()
    finally:
        files.close()


def test_the_topmost_layer_has_the_file(layers: list[Path]) -> None:
    assert content(layers, b"/bin/a") == b"lower"
    assert content(layers, b"/bin/b") == b"upper"
    assert content(layers, b"/bin/c") is None


def test_a_whiteout_hides_a_file_and_a_directory(layers: list[Path]) -> None:
    os.mknod(layers[0] / "bin/a", stat.S_IFCHR, 0)
    assert content(layers, b"/bin/a") is None
    (layers[1] / "lib").mkdir()
    (layers[1] / "lib/x").write_bytes(b"x")
    assert content(layers, b"/lib/x") == b"x"
    os.mknod(layers[0] / "lib", stat.S_IFCHR, 0)
    assert content(layers, b"/lib/x") is None


def test_an_opaque_directory_hides_the_lower_one(layers: list[Path]) -> None:
    os.setxattr(layers[0] / "bin", "user.overlay.opaque", b"y")
    assert content(layers, b"/bin/a") is None
    assert content(layers, b"/bin/b") == b"upper"


def test_no_symbolic_link_is_followed(layers: list[Path], tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (layers[0] / "link").symlink_to(tmp_path)
    (layers[0] / "bin/a").symlink_to(tmp_path / "secret")
    assert content(layers, b"/link/secret") is None
    assert content(layers, b"/bin/a") is None


@pytest.mark.parametrize("path", [b"", b"/", b"/bin", b"/bin/../bin/a", b"/bin/./a", b"/bin/a/x"])
def test_what_is_not_a_resolved_path_of_a_file_is_absent(layers: list[Path], path: bytes) -> None:
    assert content(layers, path) is None


def test_a_named_pipe_is_not_opened(layers: list[Path]) -> None:
    os.mkfifo(layers[0] / "bin/a")
    assert content(layers, b"/bin/a") is None


def test_a_layer_that_is_not_a_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(Unsupported, match="cannot be read"):
        ImageFiles([str(tmp_path / "link")])


def test_a_digest_is_cached_only_while_the_file_is_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    os.utime(path, (1, 1))
    digests = Digests()
    with path.open("rb") as file:
        first = digests.of(file.fileno())
        path.write_bytes(b"two")
        os.utime(path, (1, 1))
        assert digests.of(file.fileno()) != first
