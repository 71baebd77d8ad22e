"""Report which process changes owner or mode of a file: fanotify(7), FAN_ATTRIB.

The kernel reports the process id only. So :class:`AttributeWatch` has a process of its own, which
executes this file, reads /proc at once and prints a line for each change.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
import subprocess
import sys
import time
from pathlib import Path

_FAN_CLOEXEC = 0x01
_FAN_REPORT_FID = 0x200
_FAN_MARK_ADD = 0x01
_FAN_ATTRIB = 0x04
_AT_FDCWD = -100
_EVENT = struct.Struct("=IBBHQii")  # struct fanotify_event_metadata
_REPORT_TIMEOUT = 10.0  # seconds


class AttributeWatch:
    """A watch of one file; ``report`` is the file with the lines. A context manager."""

    def __init__(self, path: str, report: Path) -> None:
        self.path = path
        self.report = report

    def __enter__(self) -> AttributeWatch:
        watch = open_watch(self.path)  # changes from now on are in its queue
        try:
            with self.report.open("wb") as output:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", __file__, self.path, str(watch)],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    pass_fds=(watch,),
                    start_new_session=True,
                )
        finally:
            os.close(watch)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=20)

    def changes_until(self, pid: int) -> str:
        """Return all lines, once there is one of a change by the process ``pid``."""
        deadline = time.monotonic() + _REPORT_TIMEOUT
        while f" by {pid} " not in (text := self.report.read_text()):
            if time.monotonic() > deadline:
                return f"{text}(the watch has not reported process {pid})"
            time.sleep(0.01)
        return text


def open_watch(path: str) -> int:
    """Return a descriptor of which changes of a file's attributes can be read.

    :raises OSError: when the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.fanotify_init(_FAN_CLOEXEC | _FAN_REPORT_FID, os.O_RDONLY)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "fanotify_init")
    mask = ctypes.c_uint64(_FAN_ATTRIB)
    if libc.fanotify_mark(fd, _FAN_MARK_ADD, mask, _AT_FDCWD, os.fsencode(path)) < 0:
        error = ctypes.get_errno()
        os.close(fd)
        raise OSError(error, "fanotify_mark", path)
    return fd


def pids(data: bytes) -> list[int]:
    """Return the process ids of the events that were read from a watch."""
    result, offset = [], 0
    while offset < len(data):
        length, _, _, _, _, _, pid = _EVENT.unpack_from(data, offset)
        result.append(pid)
        offset += length
    return result


def describe(pid: int) -> str:
    """Return a process and its ancestors: ``pid name [command line] < parent ...``."""
    chain = []
    while pid > 1 and len(chain) < 8:
        try:
            with open(f"/proc/{pid}/status") as file:
                status = dict(line.split(":\t", 1) for line in file if ":\t" in line)
            with open(f"/proc/{pid}/cmdline", "rb") as command:
                words = command.read(400).replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            chain.append(f"{pid} (exited)")
            break
        chain.append(f"{pid} {status['Name'].strip()} [{words}]")
        pid = int(status["PPid"])
    return " < ".join(chain)


def main(path: str, watch: int) -> None:
    """Report the changes until the standard input ends."""
    with contextlib.suppress(PermissionError):  # a short-lived process must not exit before
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    poll.register(0, select.POLLIN)
    while 0 not in (ready := dict(poll.poll())):
        if watch in ready:
            changed_by = [describe(pid) for pid in pids(os.read(watch, 1 << 16))]
            st = os.stat(path)
            state = f"{st.st_uid}:{st.st_gid} {st.st_mode & 0o7777:o}"
            for process in changed_by:
                print(f"{path} is {state} after a change by {process}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
