"""Open descriptors, limits, devices and file systems of the host, as samples."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
from pathlib import Path

from jaula.features.metrics.pod_samples import (
    OpenFiles,
    device_name,
    files_limit,
    open_files,
    read_file_system,
)


def test_descriptors_and_sockets_of_processes_are_counted() -> None:
    words, pipe = ["sh", "-c", "echo; read line"], subprocess.PIPE
    child = subprocess.Popen(words, stdin=pipe, stdout=pipe)
    with socket.socket() as sock, open(os.devnull) as null:
        passed = (sock.fileno(), null.fileno())
        other = subprocess.Popen(words, stdin=pipe, stdout=pipe, pass_fds=passed)
    try:
        for each in (child, other):
            assert each.stdout is not None
            each.stdout.readline()  # its libraries are loaded
        few = open_files([child.pid])
        assert few is not None
        more = open_files([child.pid, other.pid])
        assert more == OpenFiles(2 * few.descriptors + 2, 2 * few.sockets + 1)
        assert open_files([child.pid, other.pid], limit=3) is None
    finally:
        for each in (child, other):
            each.kill()
            each.communicate()
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
