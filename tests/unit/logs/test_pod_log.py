"""The file of a pod's log: hostile paths, and files that are not a log."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from jaula.errors import InvalidRequest
from jaula.logs.pod_log import PodLog


@pytest.mark.parametrize(
    "path",
    ["", "/", ".", "..", "../x", "a/../b", "a/..", "/etc/shadow", "a//b", "a/", "./a", "a\0b"],
)
def test_a_path_that_is_not_below_the_directory_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequest, match="not below the directory"):
        PodLog("/var/log/pods/x", path).check()


@pytest.mark.parametrize("directory", ["", "var/log", "./x", "/a\0b"])
def test_a_directory_that_is_not_absolute_is_refused(directory: str) -> None:
    with pytest.raises(InvalidRequest, match="not an absolute path"):
        PodLog(directory, "0.log").check()


@pytest.mark.parametrize("path", ["0.log", "web/0.log", "...", "a..b/c", "é/0.log"])
def test_other_paths_are_accepted(tmp_path: Path, path: str) -> None:
    log = PodLog(f"{tmp_path}/", path)
    log.check()
    os.close(log.open_to_append())
    assert (tmp_path / path).is_file()


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def assert_refused(log: PodLog, error: str) -> None:
    before = descriptors()
    for call in (log.open_to_append, log.open_to_read):
        with pytest.raises(OSError, match=error) as raised:
            call()
        assert raised.value.filename == log.name
    assert descriptors() == before


def test_a_link_in_any_place_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "b").mkdir(parents=True)
    (outside / "b/0.log").write_text("secret")
    pod = tmp_path / "pod"
    for place in ("a", "a/b", "a/b/0.log"):
        (pod / place).parent.mkdir(parents=True, exist_ok=True)
        target = outside / os.path.relpath(place, "a")
        for text in (str(target), os.path.relpath(target, (pod / place).parent)):
            (pod / place).symlink_to(text)
            assert_refused(PodLog(str(pod), "a/b/0.log"), "symbolic links|Not a directory")
            (pod / place).unlink()
        if place != "a/b/0.log":
            (pod / place).mkdir()
    assert (outside / "b/0.log").read_text() == "secret"
    assert os.listdir(outside) == ["b"]


def test_a_dangling_link_creates_nothing(tmp_path: Path) -> None:
    (tmp_path / "0.log").symlink_to(tmp_path / "new")
    assert_refused(PodLog(str(tmp_path), "0.log"), "symbolic links")
    assert not (tmp_path / "new").exists()


def test_the_directory_itself_is_not_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for directory in (tmp_path / "link", f"{tmp_path}/link/"):
        assert_refused(PodLog(str(directory), "0.log"), "Not a directory|symbolic links")
    assert os.listdir(tmp_path / "real") == []


def test_an_absent_directory_of_the_pod_is_not_created(tmp_path: Path) -> None:
    log = PodLog(str(tmp_path / "absent"), "web/0.log")
    with pytest.raises(FileNotFoundError, match=r"0\.log"):
        log.open_to_append()
    assert log.open_to_read() is None
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (os.mkfifo, "not a regular file"),
        (os.mkdir, "Is a directory|not a regular file"),
        (lambda path: os.link(f"{os.path.dirname(path)}/other", path), "a hard link"),
    ],
    ids=["fifo", "directory", "hard link"],
)
def test_a_file_that_is_not_a_log_is_refused_at_once(
    tmp_path: Path, make: Callable[[str], None], error: str
) -> None:
    (tmp_path / "other").write_text("secret")
    make(str(tmp_path / "0.log"))
    assert_refused(PodLog(str(tmp_path), "0.log"), error)
    assert (tmp_path / "other").read_text() == "secret"


def test_a_file_in_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "web").write_text("")
    assert_refused(PodLog(str(tmp_path), "web/0.log"), "Not a directory")


def test_an_existing_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_text("")
    path.chmod(0o600)
    os.close(PodLog(str(tmp_path), "0.log").open_to_append())
    assert path.stat().st_mode & 0o7777 == 0o600
