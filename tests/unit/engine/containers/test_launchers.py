"""Launchers of a toolbox: what a program needs, and hostile programs of an image."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import pytest

from jaula.engine.containers import launchers
from jaula.engine.containers.launcher_elf import MACHINES, launcher
from jaula.engine.containers.launchers import Program
from jaula.spec.rootfs import DirectoryRoot, OverlayRoot

MACHINE = MACHINES["x86_64"]


@pytest.mark.parametrize(
    ("program", "expected"),
    [
        (Program("/bin/tool"), ("/x/bin/tool", (None,))),
        (
            Program("/bin/tool", "/lib/ld.so"),
            ("/x/lib/ld.so", ("/lib/ld.so", "--library-path", "L", "--argv0", None, "/x/bin/tool")),
        ),
        (
            Program("/bin/tool", "", ("/bin/sh", "-e"), "/bin/busybox"),
            ("/x/bin/busybox", ("/bin/sh", "-e", "/x/bin/tool")),
        ),
        (
            Program("/bin/tool", "/lib/ld.so", ("/bin/sh",), "/bin/dash"),
            (
                "/x/lib/ld.so",
                (
                    "/lib/ld.so",
                    "--library-path",
                    "L",
                    "--argv0",
                    "/bin/sh",
                    "/x/bin/dash",
                    "/x/bin/tool",
                ),
            ),
        ),
    ],
)
def test_a_program_is_executed_as_its_kind_needs(
    program: Program, expected: tuple[str, tuple[str | None, ...]]
) -> None:
    assert launchers.for_program(MACHINE, program, "/x", "L") == launcher(MACHINE, *expected)


def elf(kind: int = 2, machine: int = 62, headers: bytes = b"", size: int = 56) -> bytes:
    count = len(headers) // 56
    return (
        struct.pack("<6s10xHHIQQQIHHHHHH", b"\x7fELF\x02\x01", kind, machine, 1, 0, 64, 0, 0, 64,
                    size, count, 64, 0, 0)
        + headers
    )  # fmt: skip


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x7fELF",
        b"\x7fELF\x01\x01" + bytes(100),  # 32 bits
        elf(kind=1),
        elf(machine=183),
        elf(headers=struct.pack("<IIQQQQQQ", 3, 0, 1 << 60, 0, 0, 1 << 60, 0, 0)),
        elf(headers=struct.pack("<IIQQQQQQ", 3, 0, 64, 0, 0, 4000, 0, 0)),
        elf(headers=bytes(56), size=0),
        b"\x7fELF\x02\x01" + b"\xff" * 200,
    ],
)
def test_what_is_no_program_of_this_machine_has_no_launcher(head: bytes) -> None:
    assert launchers.loader_of(MACHINE, head) is None


def test_the_loader_of_a_program_is_read() -> None:
    machine = launchers.this_machine()
    assert machine is not None
    assert launchers.loader_of(machine, Path(shutil.which("env") or "").read_bytes()[:4096])
    assert launchers.loader_of(MACHINE, elf()) == ""


@pytest.fixture
def image(tmp_path: Path) -> Path:
    root = tmp_path / "image"
    (root / "bin").mkdir(parents=True)
    (root / "bin/static").write_bytes(elf())
    (root / "bin/static").chmod(0o755)
    (root / "bin/data").write_bytes(elf())
    (root / "bin/relative").symlink_to("static")
    return root


def names(root: Path, *directories: str) -> dict[str, bool]:
    fd = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        found = launchers.programs(MACHINE, fd, directories)
        return {name: needed for name, _, needed in found}
    finally:
        os.close(fd)


def test_static_programs_with_relative_links_need_no_launcher(image: Path) -> None:
    assert names(image, "/bin", "/nowhere") == {"static": False, "relative": False}


def test_absolute_links_and_links_outside_stay_in_the_image(image: Path) -> None:
    (image / "bin/absolute").symlink_to("/bin/static")
    (image / "bin/outside").symlink_to("../../../../../usr/bin/env")
    (image / "bin/loop").symlink_to("loop")
    (image / "bin/pipe").symlink_to("/bin/fifo")
    os.mkfifo(image / "bin/fifo", 0o755)
    assert names(image, "/bin") == {"absolute": True, "relative": False, "static": False}


def test_scripts_of_scripts_and_of_nothing_are_left_out(image: Path) -> None:
    for name, line in (
        ("good", "#!/bin/static -x y"),
        ("nothing", "#!"),
        ("absent", "#!/bin/none"),
        ("itself", "#!/bin/itself"),
        ("second", "#!/bin/good"),
    ):
        (image / "bin" / name).write_text(f"{line}\n")
        (image / "bin" / name).chmod(0o755)
    assert names(image, "/bin") == {"good": True, "relative": False, "static": False}


def test_the_directory_is_complete_or_absent(image: Path, tmp_path: Path) -> None:
    fd = os.open(image, os.O_PATH | os.O_DIRECTORY)
    try:
        directory = tmp_path / "made"
        assert not launchers.make(MACHINE, directory, fd, ("/bin",), "/x")
        assert list(directory.iterdir()) == []
        (image / "bin/absolute").symlink_to("/bin/static")
        assert launchers.make(MACHINE, tmp_path / "other", fd, ("/bin",), "/x")
        listed = sorted(p.name for p in (tmp_path / "other" / launchers.DIRECTORY).iterdir())
        assert listed == ["absolute", "relative", "static"]
    finally:
        os.close(fd)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["image", "made", "other"]


def test_a_machine_without_launchers_has_an_empty_directory(image: Path, tmp_path: Path) -> None:
    (image / "bin/absolute").symlink_to("/bin/static")
    fd = os.open(image, os.O_PATH | os.O_DIRECTORY)
    try:
        assert not launchers.make(None, tmp_path / "made", fd, ("/bin",), "/x")
    finally:
        os.close(fd)
    assert list((tmp_path / "made").iterdir()) == []


def test_the_libraries_of_a_machine_are_searched() -> None:
    assert "/lib/aarch64-linux-gnu" in launchers.library_directories(MACHINES["aarch64"])
    assert "/lib64/lp64d" in launchers.library_directories(MACHINES["riscv64"])
    assert "/lib64/lp64d" not in launchers.library_directories(MACHINE)


def test_launchers_are_a_layer_above_an_overlay_or_a_directory() -> None:
    overlay = OverlayRoot(("/top", "/base"), id_mapped=False, user_xattr=True)
    assert launchers.add_layer(overlay, "/made", user_xattr=True) == OverlayRoot(
        ("/made", "/top", "/base"), id_mapped=False, user_xattr=True
    )
    for rootless in (False, True):
        directory = DirectoryRoot("/tree", id_mapped=not rootless)
        assert launchers.add_layer(directory, "/made", user_xattr=rootless) == OverlayRoot(
            ("/made", "/tree"), id_mapped=not rootless, user_xattr=rootless
        )
