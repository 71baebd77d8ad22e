"""The layer store with layers as EROFS images."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from jaula.config import Paths
from jaula.errors import CorruptState, InvalidRequest
from jaula.kernel import mounts
from jaula.spec.rootfs import OverlayRoot
from jaula.storage.drivers.overlay import OverlayDriver
from jaula.storage.drivers.storage_driver import open_root
from jaula.storage.erofs import erofs_image
from jaula.storage.erofs import layer as erofs_layer
from jaula.storage.layers.layer_store import LayerInfo, LayerStore
from jaula.storage.trees import open_directory

Tar = Callable[..., bytes]


@pytest.fixture
def store(paths: Paths) -> Iterator[LayerStore]:
    """A store with EROFS layers, whose mounts are removed at the end."""
    store = LayerStore(paths, format="erofs")
    yield store
    for diff_id in store.ids():
        store.remove(diff_id)
    assert str(paths.root) not in Path("/proc/self/mountinfo").read_text()


@pytest.fixture
def layer(store: LayerStore, tar: Tar) -> str:
    """A layer with a file, a whiteout and an opaque directory."""
    data = tar(
        ("etc", "dir", {"mode": 0o755}),
        ("etc/passwd", "root", {"uid": 7}),
        ("etc/.wh.shadow", ""),
        ("var", "dir", {"mode": 0o755}),
        ("var/.wh..wh..opq", ""),
    )
    return store.extract(io.BytesIO(data)).diff_id


def read(path: str) -> str:
    return Path(path).read_text()


def test_a_layer_is_mounted_when_its_path_is_used(
    paths: Paths, store: LayerStore, layer: str
) -> None:
    directory = paths.layers / layer[7:]
    assert not os.listdir(directory / "fs")
    path = store.path(layer)
    assert path == str(directory / "fs")
    assert read(f"{path}/etc/passwd") == "root"
    assert os.stat(f"{path}/etc/passwd").st_uid == 7
    assert os.lstat(f"{path}/etc/shadow").st_rdev == 0
    assert os.getxattr(f"{path}/var", "trusted.overlay.opaque") == b"y"
    with pytest.raises(OSError, match="Read-only file system"):
        Path(path, "new").touch()
    assert sorted(os.listdir(directory)) == ["blob", "chunks", "fs", "layer.json", "metadata"]


@pytest.mark.needs("fincore")
def test_a_file_is_in_the_page_cache_once_if_the_kernel_reads_directly(
    paths: Paths, store: LayerStore, tar: Tar
) -> None:
    diff_id = store.extract(io.BytesIO(tar(("a", b"x" * (4 << 20))))).diff_id
    path = store.path(diff_id)
    blob = paths.layers / diff_id[7:] / "blob"
    with open(blob, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert read(f"{path}/a") == "x" * (4 << 20)
    direct = any(
        path in line and "directio" in line
        for line in Path("/proc/self/mountinfo").read_text().splitlines()
    )
    assert cached(blob) == (0 if direct else 4 << 20)


def cached(path: Path) -> int:
    """Return the bytes of a file that are in the page cache."""
    out = subprocess.run(["fincore", "-nbo", "RES", path], capture_output=True, check=True).stdout
    return int(out)


def test_another_store_mounts_the_layers_anew(paths: Paths, store: LayerStore, layer: str) -> None:
    store.path(layer)
    later = LayerStore(paths)
    assert later.is_intact(layer)
    assert read(f"{later.path(layer)}/etc/passwd") == "root"


def test_a_removed_layer_is_unmounted(paths: Paths, store: LayerStore, layer: str) -> None:
    path = store.path(layer)
    with open(f"{path}/etc/passwd") as file:
        store.remove(layer)
        assert not mounts.is_mount_point(str(paths.layers))
        assert str(paths.layers) not in Path("/proc/self/mountinfo").read_text()
        assert os.listdir(paths.layers) == []
        assert file.read() == "root"


def test_a_container_reads_and_changes_files_of_its_layers(
    paths: Paths, store: LayerStore, layer: str, tar: Tar
) -> None:
    top = store.extract(io.BytesIO(tar(("etc/group", "wheel"), ("var/log", "text")))).diff_id
    driver = OverlayDriver(paths, store)
    driver.create("c", (layer, top))
    source = driver.root("c")
    assert isinstance(source, OverlayRoot)
    assert ("xino", "on") in source.options
    with open_root(source) as root:
        passwd = f"/proc/self/fd/{root}/etc/passwd"
        before = os.stat(passwd)
        Path(passwd).write_text("changed")
        after = os.stat(passwd)
        assert (after.st_dev, after.st_ino) == (before.st_dev, before.st_ino)
        devices = {os.stat(name, dir_fd=root).st_dev for name in ("etc", "etc/group", "var/log")}
        assert devices == {before.st_dev}
    assert [change.path for change in driver.changes("c")] == ["/etc", "/etc/passwd"]
    assert read(f"{store.path(layer)}/etc/passwd") == "root"
    driver.remove("c")


def test_the_layers_of_an_image_with_directories_stay_as_they_are(
    paths: Paths, store: LayerStore, tar: Tar
) -> None:
    directory = LayerStore(paths).extract(io.BytesIO(tar(("a", "text"))))
    assert directory.erofs is None
    assert store.is_intact(directory.diff_id)
    assert not store.is_erofs(directory.diff_id)
    assert read(f"{store.path(directory.diff_id)}/a") == "text"


def test_a_directory_becomes_a_layer(paths: Paths, store: LayerStore, tmp_path: Path) -> None:
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper" / "made").write_text("by a build step")
    os.truncate(tmp_path / "upper" / "made", 1 << 20)
    diff_id = "sha256:" + "1" * 64
    store.adopt(str(tmp_path / "upper"), LayerInfo(diff_id, 1 << 20, 2048))
    assert not (tmp_path / "upper").exists()
    assert read(f"{store.path(diff_id)}/made").rstrip("\0") == "by a build step"
    assert (paths.layers / ("1" * 64) / "blob").stat().st_blocks * 512 < 1 << 20


def test_verification_finds_a_changed_byte_and_repair_replaces_the_layer(
    paths: Paths, store: LayerStore, tar: Tar
) -> None:
    data = tar(("a", "a" * 5000), ("b", "b" * 100))
    diff_id = store.extract(io.BytesIO(data)).diff_id
    store.path(diff_id)
    assert store.check(io.BytesIO(data), diff_id) == []
    blob = paths.layers / diff_id[7:] / "blob"
    with open(blob, "r+b") as file:
        file.seek(4500)
        file.write(b"X")
    problems = [(each.path, each.problem) for each in store.check(io.BytesIO(data), diff_id)]
    assert problems == [("/a", "its content differs")]
    store.check(io.BytesIO(data), diff_id, repair=True)
    assert store.check(io.BytesIO(data), diff_id) == []
    assert read(f"{store.path(diff_id)}/a") == "a" * 5000


def test_a_missing_file_of_a_layer_is_an_error_that_names_the_remedy(
    paths: Paths, store: LayerStore, tar: Tar
) -> None:
    data = tar(("a", "text"))
    diff_id = store.extract(io.BytesIO(data)).diff_id
    (paths.layers / diff_id[7:] / "blob").unlink()
    assert not store.is_intact(diff_id)
    with pytest.raises(CorruptState, match="the file blob of the layer is missing") as caught:
        store.path(diff_id)
    assert caught.value.hint == "jaula system check --repair"
    assert [d.problem for d in store.check(io.BytesIO(data), diff_id, repair=True)] == [
        "the file blob of the layer is missing"
    ]
    assert read(f"{store.path(diff_id)}/a") == "text"


def test_an_archive_with_replaced_files_and_links_equals_its_directory(
    store: LayerStore, tar: Tar
) -> None:
    data = tar(
        ("a", "first" * 1000),
        ("hard", "hard", "a"),
        ("a", "second"),
        ("late", "hard", "a"),
        ("dir", "dir", {"mode": 0o700, "uid": 5}),
        ("dir/x", b"x" * (3 << 20)),
        ("dir/empty", ""),
        ("b", "a file"),
        ("b", "dir", {"mode": 0o711}),
        ("b/c", "below"),
        ("to-dir", "link", "dir"),
        ("to-dir/through", "a link" * 999),
        ("gone", "dir"),
        ("gone/file", "lost"),
        ("gone", "a file again"),
        ("zeros", bytes(200_000)),
        (".wh.hidden", ""),
        ("fifo", "fifo"),
        ("null", "char", {"devmajor": 1, "devminor": 3, "mode": 0o666}),
        ("old", "", {"mtime": -5}),
        ("far", "", {"mtime": 2**40}),
        ("capable", "", {"pax_headers": {"SCHILY.xattr.user.x": "value"}}),
    )
    info = store.extract(io.BytesIO(data))
    assert store.check(io.BytesIO(data), info.diff_id) == []
    root = store.path(info.diff_id)
    assert read(f"{root}/hard") == "first" * 1000
    assert read(f"{root}/late") == read(f"{root}/a") == "second"
    assert read(f"{root}/dir/through") == "a link" * 999


def test_a_layer_with_too_many_files_is_refused(
    paths: Paths, store: LayerStore, tar: Tar, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(erofs_layer, "MAX_FILES", 50)
    with pytest.raises(InvalidRequest, match="more than 50 files") as caught:
        store.extract(io.BytesIO(tar(*((f"{n}", "") for n in range(60)))))
    assert caught.value.hint == "start the engine without --storage-opt"
    attributes = {f"SCHILY.xattr.trusted.{n}": "v" * 9000 for n in range(9)}
    with pytest.raises(InvalidRequest, match="a KiB of attributes counts as a file"):
        store.extract(io.BytesIO(tar(("a", "", {"pax_headers": attributes}))))
    (tmp_path / "upper").mkdir()
    for number in range(60):
        (tmp_path / "upper" / str(number)).touch()
    with pytest.raises(InvalidRequest, match="more than 50 files"):
        store.adopt(str(tmp_path / "upper"), LayerInfo("sha256:" + "3" * 64, 0, 0))
    assert os.listdir(paths.layers) == []


def test_a_damaged_archive_leaves_nothing(paths: Paths, store: LayerStore, tar: Tar) -> None:
    with pytest.raises(InvalidRequest, match="the image says"):
        store.extract(io.BytesIO(tar(("a", "text"))), "sha256:" + "0" * 64)
    assert os.listdir(paths.layers) == []


def test_a_tree_beyond_the_limits_of_erofs_is_refused(
    paths: Paths, store: LayerStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erofs_image, "MAX_FILE_SIZE", 1 << 20)  # ext4 has the same limit as EROFS
    (tmp_path / "upper").mkdir()
    with open(tmp_path / "upper" / "huge", "w") as file:
        file.truncate((1 << 20) + 1)
    info = LayerInfo("sha256:" + "2" * 64, 0, 0)
    with pytest.raises(InvalidRequest, match="does not fit in EROFS: b'huge' has"):
        store.adopt(str(tmp_path / "upper"), info)
    assert os.listdir(paths.layers) == []


def test_a_layer_of_a_killed_process_is_swept(paths: Paths, store: LayerStore, tar: Tar) -> None:
    script = (
        "import io, os, pathlib, sys; from jaula.config import Paths;"
        "from jaula.storage.erofs import layer;"
        "from jaula.storage.layers.layer_store import LayerStore;"
        "layer.finish = lambda *a, **k: os.kill(os.getpid(), 9); p = pathlib.Path(sys.argv[1]);"
        "LayerStore(Paths(p, p), format='erofs').extract(io.BytesIO(sys.stdin.buffer.read()))"
    )
    data = tar(("a", "text"))
    result = subprocess.run(
        [sys.executable, "-c", script, str(paths.root)], input=data, check=False
    )
    assert result.returncode == -9
    assert len(os.listdir(paths.layers)) == 1
    assert store.ids() == []
    store.sweep()
    assert os.listdir(paths.layers) == []
    assert store.is_intact(store.extract(io.BytesIO(data)).diff_id)


def test_a_store_with_fs_verity_does_not_use_layers_without_it(
    paths: Paths, store: LayerStore, layer: str
) -> None:
    strict = LayerStore(paths, format="verity")
    assert not strict.is_intact(layer)
    with pytest.raises(CorruptState, match="without fs-verity") as caught:
        strict.path(layer)
    assert caught.value.hint == "jaula system check --repair"


def test_a_recorded_digest_that_no_file_has_is_an_error(
    paths: Paths, store: LayerStore, layer: str
) -> None:
    document = paths.layers / layer[7:] / "layer.json"
    info = msgspec.json.decode(document.read_bytes())
    info["erofs"] = {"metadata": "sha256:" + "a" * 64, "blob": "sha256:" + "b" * 64}
    document.write_bytes(msgspec.json.encode(info))
    later = LayerStore(paths)
    assert not later.is_intact(layer)
    with pytest.raises(CorruptState, match="does not have fs-verity any more"):
        later.path(layer)


def test_inodes_are_those_on_the_disk(store: LayerStore, layer: str) -> None:
    assert store.inodes(layer) == 6
    with open_directory(store.path(layer)):
        assert store.inodes(layer) == 6
