"""Logs on a full disk: one line says how many lines are missing."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaula.logs import open_writer
from jaula.logs.reader.read import read

LINE = b"a line of some length\n"
LINES = 400
REPORT = re.compile(rb"jaula: (\d+) lines are missing here: No space left on device\n")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return the mount point of a file system of eight pages and 16 inodes."""
    options = f"size={8 * os.sysconf('SC_PAGESIZE')},nr_inodes=16"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(tmp_path)], check=True)
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def kept(path: Path) -> bytes:
    return b"".join(entry.data for entry in read(str(path)))


@pytest.mark.parametrize("driver", ["json-file", "local"])
@pytest.mark.parametrize("mode", ["blocking", "non-blocking"])
def test_lines_that_do_not_fit_are_counted_before_the_next_line(
    disk: Path, driver: str, mode: str
) -> None:
    filler, path = disk / "filler", disk / "log"
    filler.write_bytes(b"x" * 4 * os.sysconf("SC_PAGESIZE"))
    writer = open_writer(driver, {"mode": mode, "max-file": "2"}, str(path))
    for _ in range(LINES):
        writer.write("stdout", LINE)
        writer.flush()
    filler.unlink()
    writer.write("stdout", LINE)
    writer.close()
    before, missing, after = REPORT.split(kept(path))
    assert after == LINE
    assert before == LINE * (LINES - int(missing))
    assert int(missing) > 0


@pytest.mark.parametrize("driver", ["json-file", "local"])
@pytest.mark.parametrize("mode", ["blocking", "non-blocking"])
def test_if_the_disk_stays_full_the_last_lines_are_replaced(
    disk: Path, driver: str, mode: str
) -> None:
    path = disk / "log"
    writer = open_writer(driver, {"mode": mode, "max-file": "2"}, str(path))
    for _ in range(LINES):
        writer.write("stdout", LINE)
        writer.flush()
    writer.close()
    before, missing, after = REPORT.split(kept(path))
    assert after == b""
    assert before == LINE * (LINES - int(missing))
    again = open_writer(driver, {"max-file": "2"}, str(path))
    again.close()
    assert kept(path).endswith(b"No space left on device\n")


def test_a_rotation_without_inodes_keeps_the_rotated_files(disk: Path) -> None:
    path = disk / "log"
    writer = open_writer("json-file", {"max-size": "1k", "max-file": "3"}, str(path))
    for number in range(25):
        writer.write("stdout", b"line %d\n" % number)
    names = sorted(os.listdir(disk))
    assert names == ["log", "log.1", "log.2"]
    filler = 0
    while os.statvfs(disk).f_ffree:
        (disk / f"filler{filler}").touch()
        filler += 1
    (disk / "log.2").unlink()
    (disk / "last filler").touch()  # a rotation frees no inode now
    whole = kept(path)
    for number in range(25, 60):
        writer.write("stdout", b"line %d\n" % number)
    assert kept(path).startswith(whole)
    for name in range(filler):
        (disk / f"filler{name}").unlink()
    writer.write("stdout", b"the end\n")
    writer.close()
    last = kept(path).splitlines()[-2:]
    assert last[0].endswith(b"are missing here: No space left on device")
    assert last[1] == b"the end"
