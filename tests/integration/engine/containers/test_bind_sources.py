"""Sources of bind mounts that were replaced: what a checkpoint and a rollback say before."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from harness import containers
from harness.engine import PrivateEngine
from jaula.errors import InvalidRequest
from jaula.features.checkpoint import checkpoint_binds
from jaula.features.checkpoint.checkpoint_binds import check_sizes, check_unchanged, find_source
from jaula.features.checkpoint.runtime import criu_images
from jaula.features.checkpoint.runtime.proto import images_pb2
from jaula.state.container_records import MountRecord


def keep(source: Path) -> None:
    """Change nothing."""


def write(source: Path) -> None:
    """Change the file in place."""
    source.write_text("other")


def replace(source: Path) -> None:
    """Replace the file as editors do."""
    new = source.with_name("new")
    new.write_text(source.read_text() if source.is_file() else "")
    new.rename(source)


def move(source: Path) -> None:
    """Move the source away."""
    source.rename(source.with_name("moved"))


def make_again(source: Path) -> None:
    """Make another directory with the name."""
    move(source)
    source.mkdir()


@pytest.mark.parametrize(
    ("kind", "change", "refused"),
    [
        ("file", keep, False),
        ("file", write, False),
        ("file", replace, True),
        ("file", move, True),
        ("directory", keep, False),
        ("directory", make_again, True),
        ("directory", move, True),
    ],
)
def test_a_replaced_source_of_a_bind_mount_is_found(
    engine: PrivateEngine,
    busybox: str,
    tmp_path: Path,
    kind: str,
    change: Callable[[Path], None],
    refused: bool,
) -> None:
    source = tmp_path / "source"
    if kind == "file":
        source.write_text("first")
    else:
        source.mkdir()
    name = f"bind{secrets.token_hex(5)}"
    bind = f"{source}:/srv/bound"
    done = engine.cli("jaula", "run", "-d", "--name", name, "-v", bind, busybox, "sleep", "600")
    assert done.returncode == 0, done.stderr
    try:
        pid = containers.pid(engine, name)
        change(source)
        mounts = (MountRecord("bind", "/srv/bound", str(source)),)
        if refused:
            with pytest.raises(InvalidRequest, match="was replaced or removed"):
                check_unchanged(mounts, pid)
        else:
            check_unchanged(mounts, pid)
        state = containers.inspect(engine, name)["State"]["Status"]
        assert state == "running"
    finally:
        engine.cli("jaula", "rm", "-f", name)


@pytest.mark.parametrize("words", [("snapshot",), ("checkpoint", "create", "--leave-running")])
def test_a_snapshot_with_a_replaced_source_is_refused(
    engine: PrivateEngine, busybox: str, tmp_path: Path, words: tuple[str, ...]
) -> None:
    source = tmp_path / "source"
    source.write_text("first")
    name = f"bind{secrets.token_hex(5)}"
    bind = f"{source}:/srv/bound"
    done = engine.cli("jaula", "run", "-d", "--name", name, "-v", bind, busybox, "sleep", "600")
    assert done.returncode == 0, done.stderr
    try:
        replace(source)
        done = engine.cli("jaula", *words, name, "one")
        assert done.returncode != 0
        assert f"the source {source} of the mount at /srv/bound was replaced" in done.stderr
        assert containers.inspect(engine, name)["State"]["Status"] == "running"
    finally:
        engine.cli("jaula", "rm", "-f", name)


def mount_with_file(path: Path) -> None:
    """Mount a file system that the engine's mount namespace lacks, unless mounts propagate."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(path)], check=True)
    (path / "file").write_text("first")


def test_sources_are_those_of_the_host(engine: PrivateEngine, busybox: str, tmp_path: Path) -> None:
    """Also on a mount that is younger than the engine, and with one of its name above it."""
    source = tmp_path / "source"
    source.mkdir()
    name = f"bind{secrets.token_hex(5)}"
    words = ("jaula", "checkpoint", "create", "--leave-running", name, "one")
    program = ("tail", "-f", "/dev/null")  # CRIU ends the sleep of a program
    mount_with_file(source)
    try:
        binds = ("-v", f"{source}:/srv/bound", "-v", f"{source}/file:/srv/file")
        done = engine.cli("jaula", "run", "-d", "--name", name, *binds, busybox, *program)
        assert done.returncode == 0, done.stderr
        assert "was replaced" not in engine.cli(*words).stderr
        mount_with_file(source)
        refused = engine.cli(*words).stderr
        assert f"the source {source} of the mount at /srv/bound was replaced" in refused
    finally:
        engine.cli("jaula", "rm", "-f", name)
        subprocess.run(["umount", "-lR", str(source)], check=False)


def open_files(directory: Path, *files: tuple[str, int, int]) -> Path:
    """Write the image of open files: path, size and flags of each."""
    entries = [
        images_pb2.File(
            type=1,
            id=number,
            reg=images_pb2.RegularFile(id=number, flags=flags, name=os.fsencode(path), size=size),
        )
        for number, (path, size, flags) in enumerate(files, 1)
    ]
    (directory / criu_images.FILES).write_bytes(criu_images.encode(criu_images.FILES, entries))
    return directory


@pytest.mark.parametrize(
    ("path", "size", "flags", "refused"),
    [
        ("/file", 5, os.O_RDONLY, False),
        ("/file", 6, os.O_RDONLY, True),
        ("/file", 4, os.O_RDWR, True),
        ("/file", 4, os.O_WRONLY | os.O_APPEND, False),
        ("/gone", 4, os.O_RDONLY, True),
        ("/dir/inside", 5, os.O_RDONLY, False),
        ("/dir/inside", 7, os.O_RDONLY, True),
        ("/dir/gone", 7, os.O_RDONLY, False),
        ("/elsewhere", 7, os.O_RDONLY, False),
        ("/dir/link", 1, os.O_RDONLY, True),
    ],
)
def test_a_rollback_is_refused_before_if_an_open_file_has_another_size(
    tmp_path: Path, path: str, size: int, flags: int, refused: bool
) -> None:
    (tmp_path / "dir").mkdir()
    for name in ("file", "dir/inside"):
        (tmp_path / name).write_text("first")
    (tmp_path / "dir/link").symlink_to("/etc/passwd")
    mounts = [
        MountRecord("bind", f"/{name}", str(tmp_path / name)) for name in ("file", "gone", "dir")
    ]
    directory = open_files(tmp_path, (path, size, flags))
    if refused:
        with pytest.raises(InvalidRequest, match=f"{tmp_path}{path} was open with {size} bytes"):
            check_sizes(mounts, directory)
    else:
        check_sizes(mounts, directory)


def test_the_sources_of_one_check_are_opened_in_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container may have hundreds of bind mounts, and each of them hundreds of open files."""
    paths = [tmp_path / str(number) for number in range(100)]
    for path in paths:
        path.write_text("first")
    mounts = [MountRecord("bind", str(path), str(path)) for path in paths]
    mounts.append(MountRecord("bind", str(tmp_path), str(tmp_path)))
    expected = [(str(path), 5, os.O_RDONLY) for path in paths]
    directory = open_files(tmp_path, *expected, (str(tmp_path / "gone"), 5, os.O_RDONLY))
    threads: list[object] = []
    in_thread = checkpoint_binds.in_unshared_thread

    def counted(work: Callable[[], None]) -> None:
        threads.append(work)
        in_thread(work)

    monkeypatch.setattr(checkpoint_binds, "in_unshared_thread", counted)
    descriptors = len(os.listdir("/proc/self/fd"))
    host_mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        check_unchanged(mounts, os.getpid(), host_mounts)
        assert len(threads) == 1
        check_sizes(mounts, directory, host_mounts)
        assert len(threads) == 2
        paths[70].write_text("longer")
        with pytest.raises(InvalidRequest, match=f"{paths[70]} was open with 5 bytes"):
            check_sizes(mounts, directory, host_mounts)
        paths[30].unlink()
        with pytest.raises(InvalidRequest, match=f"the source {paths[30]} of the mount"):
            check_unchanged(mounts, os.getpid(), host_mounts)
    finally:
        os.close(host_mounts)
    assert len(os.listdir("/proc/self/fd")) == descriptors


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/a/x", ("/host/a", "/x")),
        ("/a", ("/host/a", "")),
        ("/a/b/x", ("/host/b", "/x")),
        ("/ab", None),
        ("/", None),
        ("/a/../x", None),
        ("a/x", None),
    ],
)
def test_the_innermost_mount_has_a_path(path: str, expected: tuple[str, str] | None) -> None:
    assert find_source(path, {"/a": "/host/a", "/a/b": "/host/b"}) == expected
