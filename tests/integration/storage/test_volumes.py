"""Volumes: create, populate once from an image, remove."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaula.config import Paths
from jaula.errors import ClientGone, CorruptState, InvalidRequest, NotFound
from jaula.storage.volume_directories import VolumeStore


@pytest.fixture
def volumes(paths: Paths) -> VolumeStore:
    return VolumeStore(paths)


@pytest.fixture
def image(tmp_path: Path) -> Iterator[int]:
    top = tmp_path / "image"
    (top / "data/sub").mkdir(parents=True)
    (top / "data").chmod(0o1770)
    os.chown(top / "data", 33, 34)
    (top / "data/file").write_text("x")
    (top / "data/file").chmod(0o4755)
    os.link(top / "data/file", top / "data/sub/same")
    os.setxattr(top / "data/file", "user.note", b"n")
    (top / "link").symlink_to("/data")
    (top / "out").symlink_to(f"{tmp_path}/canary/etc")
    (top / "file").touch()
    descriptor = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def test_a_new_volume_is_an_empty_directory_of_roots(volumes: VolumeStore, paths: Paths) -> None:
    volume = volumes.create("data", {"k": "v"}).volume
    facts = Path(volume.path).stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_uid) == (0o755, 0)
    assert volume.path == f"{paths.volumes}/data/_data" == volumes.path("data")
    assert volumes.get("data") == volume == VolumeStore(paths).get("data")
    assert volume.labels == {"k": "v"}
    assert volumes.list() == [volume]


def test_volumes_are_closed_to_other_users(volumes: VolumeStore, paths: Paths) -> None:
    volumes.create("data")
    assert stat.S_IMODE(paths.volumes.stat().st_mode) == 0o700


def test_an_existing_volume_is_returned(volumes: VolumeStore) -> None:
    first = volumes.create("data", {"k": "v"}).volume
    (Path(first.path) / "f").touch()
    assert volumes.create("data", {"other": "x"}) == (first, False)
    assert volumes.usage("data") == 0


@pytest.mark.parametrize("later", ["", "second"])
def test_a_transaction_removes_only_the_volume_that_it_has_created(
    volumes: VolumeStore, later: str
) -> None:
    volumes.create("data", transaction="first")
    volumes.remove("data")
    volume = volumes.create("data", transaction=later).volume
    (Path(volume.path) / "f").touch()
    with pytest.raises(NotFound, match="not the one that was created"):
        volumes.remove("data", transaction="first")
    assert (Path(volume.path) / "f").exists()
    volumes.remove("data", transaction=later)
    assert not volumes.exists("data")


def test_an_adopted_volume_is_of_no_transaction(volumes: VolumeStore, paths: Paths) -> None:
    before = volumes.create("data", {"k": "v"}, {}, "5", "first").volume
    volumes.adopt("data")
    with pytest.raises(NotFound):
        volumes.remove("data", transaction="first")
    found = VolumeStore(paths).get("data")
    assert found.transaction == ""
    assert (found.labels, found.owner, found.created_at) == ({"k": "v"}, "5", before.created_at)
    assert sorted(each.name for each in (paths.volumes / "data").iterdir()) == [
        "_data",
        "volume.json",
    ]


def test_a_volume_without_a_name_gets_a_generated_one(volumes: VolumeStore) -> None:
    assert len(volumes.create().volume.name) == 64


def test_a_removed_volume_does_not_exist(volumes: VolumeStore, paths: Paths) -> None:
    volumes.create("data")
    volumes.remove("data")
    assert list(paths.volumes.iterdir()) == []
    for action in (volumes.get, volumes.remove):
        with pytest.raises(NotFound, match="no such volume"):
            action("data")
    with pytest.raises(NotFound):
        volumes.get("../layers")


def test_options_are_stored_and_their_mount_is_not_counted(volumes: VolumeStore) -> None:
    options = {"type": "none", "device": "/usr", "o": "bind"}
    volumes.create("data", options=options)
    assert volumes.get("data").options == options
    assert volumes.usage("data") == -1


def test_a_volume_is_filled_from_the_image(volumes: VolumeStore, image: int) -> None:
    top = Path(volumes.create("data").volume.path)
    assert volumes.populate("data", image, "/data")
    facts = top.stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid) == (0o1770, 33, 34)
    assert stat.S_IMODE((top / "file").stat().st_mode) == 0o4755
    assert (top / "file").stat().st_ino == (top / "sub/same").stat().st_ino
    assert os.getxattr(top / "file", "user.note") == b"n"


class _Killed(BaseException):
    """Ends a call as SIGKILL ends a process: nothing of the call handles it."""


@pytest.mark.parametrize("step", range(1, 12))
@pytest.mark.parametrize("subpath", ["", "of/this"])
def test_a_killed_fill_leaves_an_empty_or_a_full_volume(
    volumes: VolumeStore,
    paths: Paths,
    image: int,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    subpath: str,
) -> None:
    """Each call that changes a name or a file is one place to be killed at."""
    top = Path(volumes.create("data").volume.path, subpath)
    top.mkdir(parents=True, exist_ok=True)
    calls = 0

    def until_killed(name: str) -> None:
        real = getattr(os, name)

        def call(*arguments: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls == step:
                raise _Killed
            return real(*arguments, **options)

        monkeypatch.setattr(os, name, call)

    for name in ("rename", "mkdir", "link", "fchown", "rmdir"):
        until_killed(name)
    with contextlib.suppress(_Killed):
        volumes.populate("data", image, "/data", subpath)
    assert calls >= step
    monkeypatch.undo()

    again = VolumeStore(paths)
    again.sweep()
    assert sorted(p.name for p in (paths.volumes / "data").iterdir()) == ["_data", "volume.json"]
    names = sorted(p.name for p in top.iterdir())
    assert names in ([], ["file", "sub"])
    assert again.accepts_copy("data", subpath) == (not names)
    assert again.populate("data", image, "/data", subpath) == (not names)
    facts = top.stat()
    assert (stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid) == (0o1770, 33, 34)
    assert (top / "file").stat().st_ino == (top / "sub/same").stat().st_ino


def test_a_file_of_a_container_stays_when_a_killed_fill_is_finished(
    volumes: VolumeStore, paths: Paths
) -> None:
    top = Path(volumes.create("data").volume.path)
    (top.parent / "_image/sub").mkdir(parents=True)
    (top.parent / "_image/file").write_text("of the image")
    (top / "file").write_text("of a container")
    assert volumes.accepts_copy("data")
    volumes.sweep()
    assert sorted(p.name for p in top.iterdir()) == ["file", "sub"]
    assert (top / "file").read_text() == "of a container"


@pytest.mark.parametrize("subpath", ["absent", "link", "link/etc", "file", "../other/_data"])
def test_only_a_directory_of_the_volume_is_filled(
    volumes: VolumeStore, image: int, subpath: str
) -> None:
    top = Path(volumes.create("data").volume.path)
    other = Path(volumes.create("other").volume.path)
    (top / "link").symlink_to(other)
    (top / "file").touch()
    assert not volumes.accepts_copy("data", subpath)
    with pytest.raises(OSError, match=r"No such|Not a dir|symbolic|cross-device"):
        volumes.populate("data", image, "/data", subpath)
    assert list(other.iterdir()) == []
    assert sorted(p.name for p in top.parent.iterdir()) == ["_data", "volume.json"]


def test_a_volume_is_filled_through_a_link_of_the_image(volumes: VolumeStore, image: int) -> None:
    volumes.create("data")
    assert volumes.populate("data", image, "/link")


def test_a_link_out_of_the_image_is_not_followed(
    volumes: VolumeStore, image: int, canary: Path
) -> None:
    top = Path(volumes.create("data").volume.path)
    assert not volumes.populate("data", image, "/out")
    assert not volumes.populate("data", image, "/../../canary/etc")
    assert list(top.iterdir()) == []


def test_a_volume_with_files_is_not_populated(volumes: VolumeStore, image: int) -> None:
    top = Path(volumes.create("data").volume.path)
    (top / "mine").touch()
    assert not volumes.populate("data", image, "/data")
    assert [p.name for p in top.iterdir()] == ["mine"]


def test_a_path_that_is_not_a_directory_of_the_image_is_not_copied(
    volumes: VolumeStore, image: int
) -> None:
    volumes.create("data")
    assert not volumes.populate("data", image, "/nothing")
    for path in ("/file", "/file/below"):
        with pytest.raises(InvalidRequest, match="over existing file"):
            volumes.populate("data", image, path)


@pytest.mark.parametrize("document", [b"{", b'{"\xff": 1}', b'"\xff"'])
def test_a_damaged_document_is_reported(
    volumes: VolumeStore, paths: Paths, document: bytes
) -> None:
    volumes.create("data")
    (paths.volumes / "data/volume.json").write_bytes(document)
    with pytest.raises(CorruptState, match="damaged"):
        volumes.get("data")


def test_a_volume_whose_owner_is_not_known_any_more_is_of_root(
    volumes: VolumeStore, paths: Paths
) -> None:
    volumes.create("data", owner="1000")
    (paths.volumes / "data/volume.json").write_text("{")
    volumes.describe("data")
    assert volumes.get("data").owner == "0"


def test_leftovers_of_a_crash_are_removed(volumes: VolumeStore, paths: Paths) -> None:
    volumes.create("data")
    (paths.volumes / ".new-1/_data").mkdir(parents=True)
    (paths.volumes / ".gone-1/_data").mkdir(parents=True)
    assert len(volumes.sweep()) == 2
    assert [v.name for v in volumes.list()] == ["data"]


def test_a_copy_that_is_ended_leaves_an_empty_volume(volumes: VolumeStore, image: int) -> None:
    data = Path(volumes.create("data").volume.path)
    calls = []

    def check() -> None:
        calls.append(None)
        if len(calls) == 3:
            raise ClientGone

    with pytest.raises(ClientGone):
        volumes.populate("data", image, "/data", check=check)
    assert os.listdir(data) == []
    assert volumes.populate("data", image, "/data")


def test_a_long_copy_delays_no_copy_into_another_volume(volumes: VolumeStore, image: int) -> None:
    begun, end = threading.Event(), threading.Event()

    def check() -> None:
        begun.set()
        assert end.wait(30)

    for name in ("long", "other"):
        volumes.create(name)
    slow = threading.Thread(target=volumes.populate, args=("long", image, "/data", "", check))
    other = threading.Thread(target=volumes.populate, args=("other", image, "/data"))
    slow.start()
    try:
        assert begun.wait(30)
        other.start()
        other.join(30)
        assert not other.is_alive()
    finally:
        end.set()
        slow.join(30)


def test_the_volumes_of_an_owner_are_counted(volumes: VolumeStore) -> None:
    volumes.create("first", owner="1")
    assert volumes.owned("1") == 1
    volumes.create("second", owner="1")
    volumes.create("third", owner="2")
    volumes.create("first", owner="2")  # exists
    assert (volumes.owned("1"), volumes.owned("2")) == (2, 1)
    volumes.remove("first")
    assert (volumes.owned("1"), volumes.owned("2")) == (1, 1)


def test_the_documents_of_the_volumes_of_an_owner_are_measured(
    volumes: VolumeStore, paths: Paths
) -> None:
    def files(*names: str) -> int:
        return sum((paths.volumes / name / "volume.json").stat().st_size for name in names)

    volumes.create("first", {"a": "x" * 1000}, owner="1")
    assert volumes.document_bytes("1") == files("first") > 1000
    volumes.create("second", options={"o": "y" * 2000}, owner="1", transaction="t" * 50)
    volumes.create("third", owner="2")
    assert volumes.document_bytes("1") == files("first", "second") > 3000
    volumes.adopt("second")
    assert volumes.document_bytes("1") == files("first", "second")
    volumes.remove("first")
    assert volumes.document_bytes("1") == files("second")
    assert VolumeStore(paths).document_bytes("1") == files("second")
