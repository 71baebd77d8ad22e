"""A program for containers that makes objects which no checkpoint can hold, one at a time.

    python3 refused_objects.py DIRECTORY

It makes the object whose name the file ``command`` of the directory has, in a child, and writes the
name into ``state``. It ends the child when the command changes, and prints a line ten times a
second.
"""

from __future__ import annotations

import ctypes
import os
import pathlib
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
OBJECTS: dict[str, Callable[[str], Any]] = {}
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000
NR_BPF, NR_PERF, NR_IO_URING, NR_USERFAULTFD, NR_LANDLOCK, NR_SECCOMP, NR_FANOTIFY, NR_UNSHARE = (
    321, 298, 425, 323, 444, 317, 300, 272,
)  # fmt: skip


def makes(function: Callable[[str], Any]) -> Callable[[str], Any]:
    OBJECTS[function.__name__] = function
    return function


def call(*arguments: Any) -> int:
    """Make a system call; raise OSError if it fails."""
    result: int = libc.syscall(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


@makes
def io_uring(_: str) -> Any:
    return call(NR_IO_URING, 8, ctypes.create_string_buffer(120))


@makes
def message_queue(_: str) -> Any:
    number = ctypes.CDLL("librt.so.1", use_errno=True).mq_open(b"/queue", 0o102, 0o600, None)
    if number == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return number


@makes
def inotify_of_the_root(_: str) -> Any:
    fd = libc.inotify_init1(0)
    assert libc.inotify_add_watch(fd, b"/etc", 0x100) >= 0
    return fd


@makes
def fanotify(_: str) -> Any:
    return call(NR_FANOTIFY, 0x200, 0)  # FAN_REPORT_FID


@makes
def userfaultfd(_: str) -> Any:
    return call(NR_USERFAULTFD, 1)  # UFFD_USER_MODE_ONLY


@makes
def user_namespace(_: str) -> Any:
    call(NR_UNSHARE, CLONE_NEWUSER)


@makes
def mount_namespace(_: str) -> Any:
    call(NR_UNSHARE, CLONE_NEWNS)


@makes
def network_namespace(_: str) -> Any:
    call(NR_UNSHARE, CLONE_NEWNET)


@makes
def namespace_descriptor(_: str) -> Any:
    return os.open("/proc/self/ns/uts", os.O_RDONLY)


@makes
def landlock_ruleset(_: str) -> Any:
    return call(NR_LANDLOCK, struct.pack("Q", 4), 8, 0)


@makes
def seccomp_listener(_: str) -> Any:
    code = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0x7FFF0000))
    head = struct.pack("@HxxxxxxP", 1, ctypes.addressof(code))
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    return call(NR_SECCOMP, 1, 8, head)  # SECCOMP_FILTER_FLAG_NEW_LISTENER


@makes
def semaphore(_: str) -> Any:
    return os.eventfd(3, os.EFD_SEMAPHORE)


@makes
def bpf_map(_: str) -> Any:
    attributes = struct.pack("IIII", 2, 4, 4, 1) + bytes(112)  # an array of one value
    return call(NR_BPF, 0, attributes, len(attributes))


@makes
def perf_event(_: str) -> Any:
    attributes = struct.pack("IIQ", 1, 128, 0) + bytes(112)  # PERF_COUNT_SW_CPU_CLOCK
    return call(NR_PERF, attributes, 0, -1, -1, 8)


@makes
def traced_process(_: str) -> Any:
    ready = os.pipe()
    pid = os.fork()
    if pid == 0:
        libc.ptrace(0, 0, 0, 0)  # PTRACE_TRACEME
        os.write(ready[1], b"x")
        signal.pause()
    os.read(ready[0], 1)
    return pid


@makes
def peer_outside(directory: str) -> Any:
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(f"{directory}/socket")
    return sock


@makes
def large_deleted_file(_: str) -> Any:
    with open("/root/large", "w+b") as file:
        os.unlink("/root/large")
        file.write(bytes(65 << 20))
        return os.dup(file.fileno())


def make(name: str, directory: str) -> int:
    """Make an object in a child, and return its pid."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        try:
            kept = OBJECTS[name](directory)
        except (OSError, AssertionError) as error:
            os.write(writing, f"{error!r}".encode())
            os._exit(1)
        os.write(writing, f"+ {kept}".encode()[:1])
        while True:
            signal.pause()
    answer = os.read(reading, 4096)
    os.close(reading)
    os.close(writing)
    pathlib.Path(f"{directory}/state.new").write_text(name if answer == b"+" else answer.decode())
    os.rename(f"{directory}/state.new", f"{directory}/state")
    return pid


def main() -> None:
    """Follow the commands for ever."""
    directory, current, pid, number = sys.argv[1], "", 0, 0
    while True:
        command = pathlib.Path(f"{directory}/command").read_text()
        if command != current:
            if pid:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
            pid, current = (make(command, directory) if command else 0), command
        number += 1
        print(f"round {number}", flush=True)
        select.select([], [], [], 0.1)
        time.sleep(0)


if __name__ == "__main__":
    main()
