"""Launchers of a toolbox: executables of some bytes, and hostile programs of an image."""

from __future__ import annotations

import os
import platform
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from jaula.engine.containers import launchers
from jaula.engine.containers.launchers import Program

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="launchers are of x86-64")


def run(tmp_path: Path, content: bytes, *words: str) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "launcher"
    file.write_bytes(content)
    file.chmod(0o755)
    return subprocess.run(
        [file, *words], capture_output=True, text=True, check=False, env={"OF_THE_CALLER": "1"}
    )


def test_a_launcher_executes_a_program_with_words_and_its_own(tmp_path: Path) -> None:
    content = launchers.launcher("/usr/bin/printf", ("printf", "<%s>"))
    assert run(tmp_path, content, "one", "", "three").stdout == "<one><><three>"
    assert run(tmp_path, content).stdout == "<>"
    assert len(content) < 500


def test_a_launcher_passes_the_environment_and_its_name_on(tmp_path: Path) -> None:
    content = launchers.launcher("/usr/bin/env", ("env",))
    assert run(tmp_path, content).stdout == "OF_THE_CALLER=1\n"
    content = launchers.launcher("/bin/sh", ("sh", "-c", "echo $0 $1", None))
    assert run(tmp_path, content, "word").stdout == f"{tmp_path}/launcher word\n"


def test_many_arguments_arrive(tmp_path: Path) -> None:
    content = launchers.launcher("/bin/sh", ("sh", "-c", "echo $#", "sh"))
    assert run(tmp_path, content, *map(str, range(5000))).stdout == "5000\n"


def test_a_launcher_without_its_program_has_the_status_126(tmp_path: Path) -> None:
    assert run(tmp_path, launchers.launcher("/no/such/program", (None,))).returncode == 126


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
    assert launchers.for_program(program, "/x", "L") == launchers.launcher(*expected)


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
    assert launchers.loader_of(head) is None


def test_the_loader_of_a_program_is_read() -> None:
    assert launchers.loader_of(Path(shutil.which("env") or "").read_bytes()[:4096])
    assert launchers.loader_of(elf()) == ""


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
        found = launchers.programs(fd, directories)
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
        assert not launchers.make(directory, fd, ("/bin",), "/x")
        assert list(directory.iterdir()) == []
        (image / "bin/absolute").symlink_to("/bin/static")
        assert launchers.make(tmp_path / "other", fd, ("/bin",), "/x")
        listed = sorted(p.name for p in (tmp_path / "other" / launchers.DIRECTORY).iterdir())
        assert listed == ["absolute", "relative", "static"]
    finally:
        os.close(fd)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["image", "made", "other"]
