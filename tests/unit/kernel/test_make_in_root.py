"""Creation of directories and files below a hostile root."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jaula.kernel.openat2 import make_directory_in_root, make_file_in_root


@pytest.fixture
def root(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    tree = tmp_path / "root"
    tree.mkdir()
    descriptor = os.open(tree, os.O_PATH | os.O_DIRECTORY)
    yield tree, descriptor
    os.close(descriptor)
    assert [result.name for result in tmp_path.iterdir()] == ["root"], "something outside was made"


def place(descriptor: int) -> Path:
    try:
        return Path(f"/proc/self/fd/{descriptor}").readlink()
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("link", "made"),
    [
        ("../run/systemd/resolve/stub-resolv.conf", "run/systemd/resolve/stub-resolv.conf"),
        ("/run/resolv.conf", "run/resolv.conf"),
        ("../../../../outside", "outside"),
        ("other", "etc/other"),
    ],
)
def test_a_dangling_link_is_followed_inside_the_root(
    root: tuple[Path, int], link: str, made: str
) -> None:
    tree, descriptor = root
    (tree / "etc").mkdir()
    (tree / "etc/resolv.conf").symlink_to(link)
    assert place(make_file_in_root(descriptor, "/etc/resolv.conf")) == tree / made
    assert (tree / made).is_file()
    (tree / "etc/folder").symlink_to(f"{link}.d")
    assert (
        place(make_directory_in_root(descriptor, "/etc/folder/below")) == tree / f"{made}.d/below"
    )


def test_a_chain_of_links_is_followed_to_its_end(root: tuple[Path, int]) -> None:
    tree, descriptor = root
    (tree / "a").symlink_to("/b")
    (tree / "b").symlink_to("c/d")
    (tree / "c").symlink_to("../../e")
    assert place(make_file_in_root(descriptor, "a")) == tree / "e/d"


@pytest.mark.parametrize("links", [{"a": "a"}, {"a": "b", "b": "/a"}, {"a": "b/x", "b": "a/y"}])
def test_a_loop_of_links_is_an_error(root: tuple[Path, int], links: dict[str, str]) -> None:
    tree, descriptor = root
    for name, target in links.items():
        (tree / name).symlink_to(target)
    for make in (make_file_in_root, make_directory_in_root):
        with pytest.raises(OSError, match="symbolic links"):
            make(descriptor, "a")


@pytest.mark.parametrize(
    ("path", "checked"),
    [
        ("plain/new/file", []),
        ("link/new/file", ["there", "there/new"]),
        ("link/../plain/new/file", ["plain", "plain/new"]),
        ("dangling/file", ["plain", "plain/absent"]),
    ],
)
def test_a_directory_behind_a_link_is_checked_before_a_component_is_created(
    root: tuple[Path, int], path: str, checked: list[str]
) -> None:
    tree, descriptor = root
    (tree / "there").mkdir()
    (tree / "plain").mkdir()
    (tree / "link").symlink_to("/there")
    (tree / "dangling").symlink_to("plain/absent")
    seen: list[str] = []

    def check(directory: int) -> None:
        seen.append(str(Path(f"/proc/self/fd/{directory}").readlink().relative_to(tree)))

    os.close(make_file_in_root(descriptor, path, check=check))
    assert seen == checked


@pytest.mark.parametrize("make", [make_file_in_root, make_directory_in_root])
def test_nothing_is_created_when_the_check_refuses(
    root: tuple[Path, int], make: Callable[..., int]
) -> None:
    tree, descriptor = root
    (tree / "there").mkdir()
    (tree / "link").symlink_to("there")

    def check(_: int) -> None:
        raise PermissionError

    with pytest.raises(PermissionError):
        make(descriptor, "link/new", check=check)
    assert list((tree / "there").iterdir()) == []
