"""Build contexts: hostile tars, the Dockerfile, the ignore file."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from harness.build_context import listed, make
from harness.images import Entry, archive, directory, fifo, file, link
from jaula.errors import InvalidRequest, NotFound
from jaula.features.build.files.context_directory import dockerfile, receive, remove_ignored
from jaula.storage.tar.tar_reader import Limits


@pytest.fixture
def top(tmp_path: Path) -> Path:
    place = tmp_path / "context"
    place.mkdir()
    return place


def received(top: Path, data: bytes, **options: Limits) -> dict[str, str]:
    descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        receive(io.BytesIO(data), descriptor, **options)
    finally:
        os.close(descriptor)
    return listed(top)


def test_a_tar_compressed_or_not_becomes_roots(top: Path) -> None:
    entries = [directory("d", 0o700), file("d/a", b"x", 0o4755), link("l", "/etc/passwd")]
    for info, _ in entries:
        info.uid = info.gid = 1000
    result = received(top, gzip.compress(archive(entries)))
    assert result == {"d/": "700 0:0", "d/a": "4755 0:0 x", "l": "-> /etc/passwd"}


def test_whiteouts_mean_nothing_in_a_context(top: Path) -> None:
    entries = [file(".wh.a"), file("a"), file("d/.wh..wh..opq")]
    assert {"a", ".wh.a", "d/.wh..wh..opq"} <= set(received(top, archive(entries)))


@pytest.mark.parametrize(
    "entries",
    [
        [file("../out")],
        [file("a/../../out")],
        [link("l", "/"), file("l/../../../out")],
    ],
)
def test_no_file_is_unpacked_outside_the_context(top: Path, entries: list[Entry]) -> None:
    with pytest.raises(InvalidRequest):
        received(top, archive(entries))
    assert [place.name for place in top.parent.iterdir()] == ["context"]


def test_a_link_in_a_path_is_followed_inside_the_context(top: Path) -> None:
    (top.parent / "victim").mkdir()
    received(top, archive([link("l", "../victim"), file("victim/x"), file("l/out", b"y")]))
    assert list((top.parent / "victim").iterdir()) == []


def test_a_hard_link_cannot_reach_outside(top: Path) -> None:
    (top.parent / "secret").write_text("s")
    info = tarfile.TarInfo("stolen")
    info.type, info.linkname = tarfile.LNKTYPE, "../secret"
    with pytest.raises(InvalidRequest):
        received(top, archive([(info, b"")]))


def test_a_device_node_is_refused_and_a_fifo_is_not(top: Path) -> None:
    info = tarfile.TarInfo("null")
    info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, 1, 3
    with pytest.raises(InvalidRequest, match="device node"):
        received(top, archive([(info, b"")]))
    assert "f" in received(top, archive([fifo("f")]))


def test_a_context_has_ceilings(top: Path) -> None:
    with pytest.raises(InvalidRequest, match="more than 2 entries"):
        received(top, archive([file(c) for c in "abc"]), limits=Limits(entries=2))
    with pytest.raises(InvalidRequest, match="larger than"):
        received(top, archive([file("a", bytes(20_000))]), limits=Limits(bytes=10_000))


@pytest.mark.parametrize("data", [b"no tar at all" * 100, archive([file("a", bytes(9000))])[:3000]])
def test_an_invalid_tar_is_one_clear_error(top: Path, data: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"tar archive|truncated|not a number"):
        received(top, data)


# -- the Dockerfile --------------------------------------------------------------------------------


def read(top: Path, name: str = "") -> tuple[str, str]:
    descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        result = dockerfile(descriptor, name)
    finally:
        os.close(descriptor)
    return result.name, result.text


def test_the_default_names_are_found(top: Path) -> None:
    make(top, {"dockerfile": "FROM b"})
    assert read(top) == ("dockerfile", "FROM b")
    make(top, {"Dockerfile": "\ufeffFROM a"})
    assert read(top) == ("Dockerfile", "FROM a")
    make(top, {"sub/D": "FROM c"})
    assert read(top, "./sub/D") == ("sub/D", "FROM c")


def test_a_dockerfile_is_searched_only_inside_the_context(top: Path) -> None:
    make(top.parent, {"Dockerfile": "outside"})
    make(top, {"Dockerfile": "-> ../Dockerfile", "D": "-> /etc/hostname"})
    for name in ("../Dockerfile", "", "D"):
        with pytest.raises((NotFound, InvalidRequest)):
            read(top, name)


def test_an_invalid_dockerfile_is_refused(top: Path) -> None:
    make(top, {"d/": None})
    os.mkfifo(top / "f")
    (top / "b").write_bytes(b"FROM \xff")
    (top / "z").write_bytes(b"FROM a\0")
    (top / "big").write_bytes(b"#" * (5 << 20))
    for name in ("d", "f", "b", "z", "big"):
        with pytest.raises(InvalidRequest):
            read(top, name)
    with pytest.raises(NotFound, match="Cannot locate specified Dockerfile: nope"):
        read(top, "nope")


# -- ignored files ---------------------------------------------------------------------------------


def left(top: Path, name: str, *, everything: bool) -> set[str]:
    descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    try:
        remove_ignored(descriptor, name, everything=everything)
    finally:
        os.close(descriptor)
    return set(listed(top))


def test_only_files_that_the_client_sent_for_the_engine_are_removed(top: Path) -> None:
    make(top, {"Dockerfile": "", ".dockerignore": "Dockerfile\n.docker*\na\n", "a": ""})
    assert left(top, "Dockerfile", everything=False) == {"a"}


def test_all_ignored_files_of_a_repository_are_removed(top: Path) -> None:
    make(top, {"Dockerfile": "", ".dockerignore": "*\n!keep\n!d/e/keep\n", "a": "", "keep": ""})
    make(top, {"d/e/keep": "", "d/e/no": "", "d/f/no": "", "l": "-> /etc"})
    assert left(top, "Dockerfile", everything=True) == {"keep", "d/", "d/e/", "d/e/keep"}


def test_the_ignore_file_of_the_dockerfile_takes_precedence(top: Path) -> None:
    make(top, {"D": "", "D.dockerignore": "a", ".dockerignore": "b", "a": "", "b": ""})
    assert left(top, "D", everything=True) == {"D", "D.dockerignore", ".dockerignore", "b"}
