"""The contract of storage drivers. Every driver passes it."""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jaula.config import Paths
from jaula.errors import Conflict, InvalidRequest, NotFound
from jaula.storage.checkpoint_files import sparse_sink
from jaula.storage.drivers.driver_choice import DRIVERS, open_driver
from jaula.storage.drivers.storage_driver import ChangeKind, SnapshotDriver, open_root
from jaula.storage.layers.layer_store import LayerStore
from jaula.storage.trees import remove_tree, walk

Tar = Callable[..., bytes]
ID = "c0ffee"


@pytest.fixture(params=DRIVERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def paths(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Paths:
    """The btrfs driver uses its own disk."""
    top = request.getfixturevalue("on_btrfs") if kind == "btrfs" else tmp_path
    return Paths(top / "root", tmp_path / "run")


@pytest.fixture
def snapshots(kind: str, paths: Paths, layers: LayerStore) -> SnapshotDriver:
    return open_driver(kind, paths, layers)


@pytest.fixture
def image(layers: LayerStore, tar: Tar) -> tuple[str, ...]:
    """Two layers: the upper one replaces, hides and adds files."""
    base = tar(
        (".", "dir", {"mode": 0o751, "uid": 3, "gid": 4}),
        ("etc", "dir", {"mode": 0o755}),
        ("etc/passwd", "base"),
        ("etc/gone", "x"),
        ("opt", "dir"),
        ("opt/old", "x"),
        ("bin/a", "program", {"mode": 0o4755, "uid": 7, "gid": 70000}),
        ("bin/b", "hard", "bin/a"),
        ("lib", "link", "usr/lib"),
        ("was", "dir"),
        ("was/inside", "x"),
    )
    top = tar(
        ("etc/passwd", "top"),
        ("etc/.wh.gone", ""),
        ("opt", "dir"),
        ("opt/.wh..wh..opq", ""),
        ("opt/new", "y"),
        ("was", "a file now"),
    )
    return tuple(layers.extract(io.BytesIO(data)).diff_id for data in (base, top))


def read(root: int, path: str) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=root)
    with open(descriptor, encoding="utf-8") as file:
        return file.read()


def write(root: int, path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=root)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)


def listing(root: int, path: str) -> list[str]:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY, dir_fd=root)
    try:
        return sorted(os.listdir(descriptor))
    finally:
        os.close(descriptor)


def host_mounts() -> str:
    return Path("/proc/self/mountinfo").read_text()


def test_layers_are_merged(snapshots: SnapshotDriver, image: tuple[str, ...]) -> None:
    snapshots.create(ID, image)
    with open_root(snapshots.root(ID)) as root:
        assert read(root, "etc/passwd") == "top"
        assert listing(root, "etc") == ["passwd"]
        assert listing(root, "opt") == ["new"]
        assert read(root, "was") == "a file now"
        assert os.readlink("lib", dir_fd=root) == "usr/lib"
        program = os.stat("bin/a", dir_fd=root)
        assert (stat.S_IMODE(program.st_mode), program.st_uid, program.st_gid) == (0o4755, 7, 70000)
        assert os.stat("bin/b", dir_fd=root).st_ino == program.st_ino


def test_the_root_has_the_images_owner_and_mode(
    snapshots: SnapshotDriver, image: tuple[str, ...]
) -> None:
    snapshots.create(ID, image)
    for source in (snapshots.root(ID), snapshots.view(image[:1])):
        with open_root(source) as root:
            facts = os.fstat(root)
            assert (stat.S_IMODE(facts.st_mode), facts.st_uid, facts.st_gid) == (0o751, 3, 4)


def test_containers_do_not_see_each_others_writes(
    snapshots: SnapshotDriver, image: tuple[str, ...]
) -> None:
    snapshots.create("one", image)
    snapshots.create("two", image)
    with open_root(snapshots.root("one")) as root:
        write(root, "etc/passwd", "mine")
    with open_root(snapshots.root("two")) as root:
        assert read(root, "etc/passwd") == "top"
    with open_root(snapshots.view(image)) as root:
        assert read(root, "etc/passwd") == "top"
    with open_root(snapshots.root("one")) as root:
        assert read(root, "etc/passwd") == "mine"


def test_changes_are_listed_as_in_docker(snapshots: SnapshotDriver, image: tuple[str, ...]) -> None:
    snapshots.create(ID, image)
    assert snapshots.changes(ID) == []
    with open_root(snapshots.root(ID)) as root:
        write(root, "etc/passwd", "mine!")
        os.mkdir("srv", dir_fd=root)
        write(root, "srv/new", "")
        os.unlink("opt/new", dir_fd=root)
        write(root, "tmp", "")
        os.unlink("tmp", dir_fd=root)
        os.chmod("was", 0o600, dir_fd=root)
    result = {change.path: change.kind for change in snapshots.changes(ID)}
    assert result == {
        "/etc": ChangeKind.MODIFIED,
        "/etc/passwd": ChangeKind.MODIFIED,
        "/opt": ChangeKind.MODIFIED,
        "/opt/new": ChangeKind.DELETED,
        "/srv": ChangeKind.ADDED,
        "/srv/new": ChangeKind.ADDED,
        "/was": ChangeKind.MODIFIED,
    }
    assert list(result) == sorted(result)


def test_mount_points_of_a_start_are_no_changes(
    snapshots: SnapshotDriver, image: tuple[str, ...]
) -> None:
    snapshots.create(ID, image)
    with open_root(snapshots.root(ID)) as root:
        write(root, "etc/hosts", "")
        os.mkdir("proc", dir_fd=root)
        os.mkdir("sbin", dir_fd=root)
        write(root, "sbin/docker-init", "")
    assert snapshots.changes(ID) == []
    with open_root(snapshots.root(ID)) as root:
        os.chmod("etc", 0o700, dir_fd=root)
        os.chown("sbin", 3, 3, dir_fd=root)
        write(root, "sbin/own", "")
    assert {change.path: change.kind for change in snapshots.changes(ID)} == {
        "/etc": ChangeKind.MODIFIED,
        "/sbin": ChangeKind.ADDED,
        "/sbin/own": ChangeKind.ADDED,
    }


def test_a_replaced_directory_lists_its_deleted_entries(
    snapshots: SnapshotDriver, image: tuple[str, ...]
) -> None:
    snapshots.create(ID, image)
    with open_root(snapshots.root(ID)) as root:
        remove_tree(root, b"etc")
        os.mkdir("etc", dir_fd=root)
        write(root, "etc/other", "")
    result = {change.path: change.kind for change in snapshots.changes(ID)}
    assert result["/etc/other"] == ChangeKind.ADDED
    assert result["/etc/passwd"] == ChangeKind.DELETED


def test_usage_grows_with_the_written_data(
    snapshots: SnapshotDriver, image: tuple[str, ...]
) -> None:
    snapshots.create(ID, image)
    before = snapshots.usage(ID)
    with open_root(snapshots.root(ID)) as root:
        write(root, "big", "x" * 10_000)
    assert snapshots.usage(ID) == (before.size + 10_000, before.inodes + 1)


def test_usage_of_a_snapshot_that_is_removed_meanwhile_is_an_error_or_a_number(
    snapshots: SnapshotDriver, image: tuple[str, ...]
) -> None:
    for _ in range(10):
        snapshots.create(ID, image)
        with open_root(snapshots.root(ID)) as root:
            for number in range(20):
                write(root, f"file{number}", "x")
        removal = threading.Thread(target=snapshots.remove, args=(ID,))
        removal.start()
        with pytest.raises(NotFound):  # noqa: PT012 - each call may be the one that fails
            while True:
                assert snapshots.usage(ID).size >= 0
        removal.join()


def test_a_removed_snapshot_leaves_nothing(
    snapshots: SnapshotDriver, image: tuple[str, ...], paths: Paths
) -> None:
    snapshots.create(ID, image)
    with open_root(snapshots.root(ID)) as root:
        write(root, "new", "x")
    snapshots.remove(ID)
    snapshots.remove(ID)
    assert not snapshots.exists(ID)
    assert not paths.container(ID).exists()
    with pytest.raises(NotFound):
        snapshots.root(ID)


def test_other_files_next_to_a_snapshot_stay(
    snapshots: SnapshotDriver, image: tuple[str, ...], paths: Paths
) -> None:
    snapshots.create(ID, image)
    (paths.container(ID) / "config.json").touch()
    snapshots.remove(ID)
    assert [p.name for p in paths.container(ID).iterdir()] == ["config.json"]


def test_a_failure_leaves_nothing(
    snapshots: SnapshotDriver, image: tuple[str, ...], paths: Paths
) -> None:
    with pytest.raises(NotFound):
        snapshots.create(ID, (*image, "sha256:" + "0" * 64))
    with pytest.raises(InvalidRequest):
        snapshots.create(ID, ())
    assert not snapshots.exists(ID)
    snapshots.create(ID, image)
    with open_root(snapshots.root(ID)) as root:
        write(root, "mine", "x")
    with pytest.raises(Conflict):
        snapshots.create(ID, image)
    with open_root(snapshots.root(ID)) as root:
        assert read(root, "mine") == "x"


def test_snapshots_survive_the_engine(
    snapshots: SnapshotDriver, image: tuple[str, ...], paths: Paths
) -> None:
    snapshots.create(ID, image)
    again = open_driver(snapshots.name, paths, LayerStore(paths))
    assert again.exists(ID)
    assert again.root(ID) == snapshots.root(ID)


def test_nothing_is_mounted_on_the_host(
    snapshots: SnapshotDriver, image: tuple[str, ...], paths: Paths
) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    snapshots.create(ID, image)
    with open_root(snapshots.root(ID)) as root:
        write(root, "x", "y")
        assert str(paths.root) not in host_mounts()
    snapshots.changes(ID)
    snapshots.usage(ID)
    snapshots.remove(ID)
    assert str(paths.root) not in host_mounts()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_tree_deeper_than_path_max_is_removed(
    snapshots: SnapshotDriver, image: tuple[str, ...]
) -> None:
    snapshots.create(ID, image)
    with open_root(snapshots.root(ID)) as root:
        current = os.dup(root)
        for _ in range(2500):
            os.mkdir("deep", dir_fd=current)
            following = os.open("deep", os.O_RDONLY | os.O_DIRECTORY, dir_fd=current)
            os.close(current)
            current = following
        write(current, "f", "x")
        os.close(current)
    snapshots.remove(ID)
    assert not snapshots.exists(ID)


def test_status_names_the_backing_file_system(snapshots: SnapshotDriver) -> None:
    assert snapshots.status()[0][0] == "Backing Filesystem"


def archived(snapshots: SnapshotDriver, directory: Path) -> Path:
    path = directory / "layer.tar"
    with path.open("xb") as file, sparse_sink(file) as sink:
        snapshots.write_layer(ID, dict, sink, exact=True)
    return path


def content(snapshots: SnapshotDriver) -> dict[str, object]:
    """Return type, owner, mode and content of all files."""
    with open_root(snapshots.root(ID)) as root:
        return {
            (path + b"/" + name).decode(): (
                status.st_mode,
                status.st_uid,
                stat.S_ISREG(status.st_mode) and (status.st_size, status.st_mtime_ns),
            )
            for path, _, entries in walk(root)
            for name, status in entries
        }


def test_the_files_of_a_snapshot_are_replaced_by_former_ones(
    snapshots: SnapshotDriver, image: tuple[str, ...], tmp_path: Path
) -> None:
    snapshots.create(ID, image)
    with open_root(snapshots.root(ID)) as root:
        os.unlink("etc/passwd", dir_fd=root)
        os.mkdir("srv", 0o710, dir_fd=root)
        os.close(os.open("srv/file", os.O_CREAT | os.O_WRONLY, 0o640, dir_fd=root))
        os.chmod(".", 0o700, dir_fd=root)
    before = content(snapshots)
    layer = archived(snapshots, tmp_path)
    with open_root(snapshots.root(ID)) as root:
        os.close(os.open("etc/passwd", os.O_CREAT | os.O_WRONLY, dir_fd=root))
        os.close(os.open("srv/later", os.O_CREAT | os.O_WRONLY, dir_fd=root))
        os.unlink("srv/file", dir_fd=root)
    changed = content(snapshots)
    with layer.open("rb") as file:
        snapshots.stage(ID, file)
    assert content(snapshots) == changed
    snapshots.replace(ID)
    snapshots.replace(ID)
    assert content(snapshots) == before
    with open_root(snapshots.root(ID)) as root:
        assert os.fstat(root).st_mode & 0o777 == 0o700
        os.close(os.open("srv/later", os.O_CREAT | os.O_EXCL | os.O_WRONLY, dir_fd=root))
    snapshots.remove(ID)
    assert not snapshots.exists(ID)


def test_staged_files_can_be_discarded(
    snapshots: SnapshotDriver, image: tuple[str, ...], paths: Paths, tmp_path: Path
) -> None:
    snapshots.create(ID, image)
    entries = sorted(os.listdir(paths.container(ID)))
    layer = archived(snapshots, tmp_path)
    for data in (layer.read_bytes(), layer.read_bytes()[:700]):
        layer.write_bytes(data)
        with layer.open("rb") as file, contextlib.suppress(InvalidRequest):
            snapshots.stage(ID, file)
        snapshots.discard(ID)
        snapshots.replace(ID)
        assert sorted(os.listdir(paths.container(ID))) == entries


def test_an_interrupted_replacement_is_completed(
    snapshots: SnapshotDriver,
    image: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    snapshots.create(ID, image)
    layer = archived(snapshots, tmp_path)
    before = content(snapshots)
    with open_root(snapshots.root(ID)) as root:
        os.close(os.open("later", os.O_CREAT | os.O_WRONLY, dir_fd=root))
    for failing in (1, 2, 3):
        with layer.open("rb") as file:
            snapshots.stage(ID, file)
        monkeypatch.setattr(os, "rename", interrupted(failing))
        with contextlib.suppress(KeyboardInterrupt):
            snapshots.replace(ID)
        monkeypatch.undo()
        snapshots.replace(ID)
        assert content(snapshots) == before


@pytest.mark.parametrize("failing", range(1, 8))
def test_replaced_files_are_put_back(
    snapshots: SnapshotDriver,
    image: tuple[str, ...],
    paths: Paths,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: int,
) -> None:
    """Also if one of all renames is interrupted, in which case the call is repeated."""
    snapshots.create(ID, image)
    entries = sorted(os.listdir(paths.container(ID)))
    layer = archived(snapshots, tmp_path)
    staged = content(snapshots)
    with open_root(snapshots.root(ID)) as root:
        os.close(os.open("later", os.O_CREAT | os.O_WRONLY, dir_fd=root))
    present = content(snapshots)
    with layer.open("rb") as file:
        snapshots.stage(ID, file)
    monkeypatch.setattr(os, "rename", interrupted(failing))

    def call(step: Callable[[], None]) -> None:
        try:
            step()
        except KeyboardInterrupt:
            step()

    snapshots.put_back(ID)
    assert content(snapshots) == present
    call(functools.partial(snapshots.replace, ID, keep=True))
    assert content(snapshots) == staged
    call(functools.partial(snapshots.put_back, ID))
    assert content(snapshots) == present
    call(functools.partial(snapshots.replace, ID, keep=True))
    assert content(snapshots) == staged
    snapshots.discard(ID)
    snapshots.put_back(ID)
    assert content(snapshots) == staged
    assert sorted(os.listdir(paths.container(ID))) == entries


def interrupted(failing: int) -> Callable[..., None]:
    """Return rename(2), of which one call is interrupted."""
    calls, rename = itertools.count(1), os.rename

    def call(*args: Any, **kwargs: Any) -> None:
        if next(calls) == failing:
            raise KeyboardInterrupt
        rename(*args, **kwargs)

    return call
