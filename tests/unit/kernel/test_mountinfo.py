"""The mount table: unescaped characters and hostile names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaula.kernel import mountinfo

LINE = (
    r"36 35 98:0 /mnt1 /mnt\0402\012x rw,noatime master:1 shared:7 - ext3 /dev/ro\\ot rw,errors=x"
)


def test_a_mount_is_read_with_its_escapes_and_tags() -> None:
    (mount,) = mountinfo.parse(LINE)
    assert mount.target == "/mnt 2\nx"
    assert mount.propagation == ("master:1", "shared:7")
    assert mount.options == {"rw", "noatime"}
    assert (mount.fstype, mount.source) == ("ext3", r"/dev/ro\\ot")
    assert mount.super_options == ("rw", "errors=x")


def test_an_empty_source_and_options_with_blanks_are_read() -> None:
    (mount,) = mountinfo.parse("1 0 0:1 / /a rw - tmpfs  rw,name=a b,c")
    assert (mount.source, mount.super_options) == ("", ("rw", "name=a b", "c"))


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "1 2 3 4 5 - a b c",
        "36 35 98:0 / / rw -ext4 x rw",
        "a 35 98:0 / / rw - ext4 x rw",
        "36 -1 98:0 / / rw - ext4 x rw",
        "9999999999999 1 98:0 / / rw - ext4 x rw",
        "\u0663 1 98:0 / / rw - ext4 x rw",
    ],
)
def test_a_malformed_table_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="mountinfo"):
        mountinfo.parse(text)


def test_the_table_of_a_zombie_is_that_of_no_process() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    try:
        with pytest.raises(ProcessLookupError):
            mountinfo.read(f"/proc/{pid}/mountinfo")
    finally:
        os.waitpid(pid, 0)


def test_the_last_mount_at_a_place_is_the_visible_one() -> None:
    lines = "1 0 0:1 / /a rw - tmpfs one rw\n2 1 0:2 / /a ro - tmpfs two rw\n"
    top = mountinfo.top(mountinfo.parse(lines), "/a")
    assert top is not None
    assert top.source == "two"
    assert mountinfo.top(mountinfo.parse(lines), "/b") is None


@pytest.mark.parametrize("separator", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_a_name_cannot_forge_a_line(separator: str, tmp_path: Path) -> None:
    file = tmp_path / "mountinfo"
    name = f"/a{separator}9 1 0:9 / /forged rw - tmpfs t rw".replace(" ", r"\040")
    file.write_bytes(f"1 0 0:1 / {name} rw - tmpfs t rw\n".encode())
    (mount,) = mountinfo.read(str(file))
    assert mount.target == f"/a{separator}9 1 0:9 / /forged rw - tmpfs t rw"


def test_bytes_that_are_not_utf8_are_kept_or_replaced(tmp_path: Path) -> None:
    file = tmp_path / "mountinfo"
    file.write_bytes(b"1 0 0:1 / /a\xff rw - tmpfs t rw\n")
    assert mountinfo.read(str(file))[0].target == "/a\udcff"
    assert mountinfo.read(str(file), errors="replace")[0].target == "/a\ufffd"


def test_a_table_that_is_cut_off_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "mountinfo"
    file.write_text("1 0 0:1 / /a rw - tmpfs t rw\n" * 2)
    assert len(mountinfo.read(str(file), limit=29)) == 1
    with pytest.raises(ValueError, match="mountinfo"):
        mountinfo.read(str(file), limit=40)


def test_the_tables_of_this_process_and_thread_are_read() -> None:
    own = mountinfo.read()
    assert mountinfo.top(own, "/proc") is not None
    assert mountinfo.read("/proc/thread-self/mountinfo") == own


@given(st.text(max_size=40))
def test_escapes_of_the_kernel_are_unescaped(name: str) -> None:
    escaped = "".join(f"\\{ord(c):03o}" if c in " \t\n\\" else c for c in name)
    assert mountinfo.unescape(escaped) == name


@given(st.text(alphabet="0 :/-cgroup2rw,\\\n", max_size=200))
def test_any_text_is_a_table_or_an_error(text: str) -> None:
    try:
        mountinfo.parse(text)
    except ValueError:
        pass
