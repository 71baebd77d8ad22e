"""Logs on a full disk: one line says how many lines are missing."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jaula.logs import open_writer
from jaula.logs.log_driver import LogWriter
from jaula.logs.pod_log import PodLog
from jaula.logs.reader.read import read

LINE = b"a line of some length\n"
LINES = 1000
REPORT = re.compile(rb"jaula: (\d+) lines are missing here: No space left on device *\n")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return the mount point of a file system of eight pages and 16 inodes."""
    options = f"size={8 * os.sysconf('SC_PAGESIZE')},nr_inodes=16"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(tmp_path)], check=True)
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def kept(log: Path | PodLog) -> bytes:
    return b"".join(entry.data for entry in read(log if isinstance(log, PodLog) else str(log)))


def make(driver: str, mode: str, path: Path) -> tuple[LogWriter, Path | PodLog]:
    """Return a writer, and what its log is read from."""
    if driver == "cri":
        log = PodLog(str(path.parent), path.name)
        return open_writer("cri", {"directory": log.directory, "path": log.path}, ""), log
    return open_writer(driver, {"mode": mode, "max-file": "2"}, str(path)), path


DRIVERS = pytest.mark.parametrize(
    ("driver", "mode"),
    [
        *(
            (driver, mode)
            for driver in ("json-file", "local")
            for mode in ("blocking", "non-blocking")
        ),
        ("cri", "blocking"),
    ],
)


@DRIVERS
def test_lines_that_do_not_fit_are_counted_before_the_next_line(
    disk: Path, driver: str, mode: str
) -> None:
    filler, path = disk / "filler", disk / "log"
    filler.write_bytes(b"x" * 4 * os.sysconf("SC_PAGESIZE"))
    writer, log = make(driver, mode, path)
    for _ in range(LINES):
        writer.write("stdout", LINE)
        writer.flush()
    filler.unlink()
    writer.write("stdout", LINE)
    writer.close()
    before, missing, after = REPORT.split(kept(log))
    assert after == LINE
    assert before == LINE * (LINES - int(missing))
    assert int(missing) > 0


@DRIVERS
def test_if_the_disk_stays_full_the_last_lines_are_replaced(
    disk: Path, driver: str, mode: str
) -> None:
    path = disk / "log"
    writer, log = make(driver, mode, path)
    for _ in range(LINES):
        writer.write("stdout", LINE)
        writer.flush()
    writer.close()
    before, missing, after = REPORT.split(kept(log))
    assert after.strip(b" \n") == b""
    assert before == LINE * (LINES - int(missing))
    again, _ = make(driver, "blocking", path)
    again.close()
    assert kept(log).rstrip(b" \n").endswith(b"No space left on device")


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
