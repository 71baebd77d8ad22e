"""Names of volumes and paths of entries."""

from __future__ import annotations

import pytest

from jaula.errors import InvalidRequest
from jaula.storage.layers.extract import clean_path
from jaula.storage.volume_directories import check_name, is_name


@pytest.mark.parametrize("name", ["ab", "a.b-c_d", "0x", "a" * 255])
def test_a_volume_may_be_called(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "a", ".a", "-a", "a/b", "..", "a b", "ä1", "a\n", "a" * 256])
def test_a_volume_may_not_be_called(name: str) -> None:
    with pytest.raises(InvalidRequest, match="volume name"):
        check_name(name)


def test_a_path_is_not_a_volume_name() -> None:
    assert is_name("data")
    assert not any(is_name(text) for text in ("/data", "./data", "~/data", "a/b", ""))


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (b"a/b", b"a/b"),
        (b"./a/./b/", b"a/b"),
        (b"/etc/passwd", b"etc/passwd"),
        (b"//a//b", b"a/b"),
        (b".", b""),
        (b"./", b""),
        (b"/", b""),
        (b"", b""),
        (b"a/.", b"a"),
        (b"..a/b..", b"..a/b.."),
        (b"a./b", b"a./b"),
    ],
)
def test_an_entry_is_placed_below_the_root(name: bytes, path: bytes) -> None:
    assert clean_path(name) == path


@pytest.mark.parametrize(
    "name", [b"..", b"../a", b"a/..", b"a/../b", b"/..", b"./../x", b"a/b/../"]
)
def test_an_entry_that_leaves_the_root_is_refused(name: bytes) -> None:
    with pytest.raises(InvalidRequest, match="leaves"):
        clean_path(name)
