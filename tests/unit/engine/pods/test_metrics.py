"""Open descriptors, limits, devices and file systems of the host, as samples."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
from pathlib import Path

from jaula.engine.pods.metrics import (
    OpenFiles,
    device_name,
    files_limit,
    open_files,
    read_file_system,
)


def test_descriptors_and_sockets_of_processes_are_counted() -> None:
    child = subprocess.Popen(["sleep", "100"], stdin=subprocess.DEVNULL)
    ours, theirs = open_files([os.getpid()]), open_files([child.pid])
    try:
        assert ours is not None and theirs is not None
        with socket.socket(), open(os.devnull) as _:
            more = open_files([os.getpid(), child.pid])
        assert more == OpenFiles(
            ours.descriptors + theirs.descriptors + 2, ours.sockets + theirs.sockets + 1
        )
        assert open_files([os.getpid(), child.pid], limit=3) is None
    finally:
        child.kill()
        child.wait()
    assert open_files([child.pid]) == OpenFiles(0, 0)


def test_the_limit_of_a_process_that_has_exited_is_not_known() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert files_limit(os.getpid()) == soft
    child = subprocess.Popen(["true"])
    child.wait()
    assert files_limit(child.pid) is files_limit(0) is None


def test_a_device_has_its_path_or_its_numbers(tmp_path: Path) -> None:
    assert device_name(4095, 1) == "4095:1"
    for link in Path("/sys/dev/block").iterdir():
        major, minor = map(int, link.name.split(":"))
        assert device_name(major, minor).startswith("/dev/")


def test_a_file_system_has_its_size_and_inodes(tmp_path: Path) -> None:
    found, status = read_file_system(str(tmp_path)), os.statvfs(tmp_path)
    assert found.size == status.f_blocks * status.f_frsize
    assert (found.inodes, found.device != "") == (status.f_files, True)
