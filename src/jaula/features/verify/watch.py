"""``jaula verify --watch``: verify again on a timer, and when the kernel reports a change.

The kernel reports changes of a mount table (poll(2) of /proc/<pid>/mountinfo), writes to the files
of a cgroup (inotify(7)), and changes of links, addresses and routes (rtnetlink(7)) of the
container's network namespace and of the reader's. It reports no change of a process, so a timer
verifies every container again.

A budget bounds the processor time to one hundredth: a change is verified at once while the budget
lasts, and later when it is spent. Half of it is kept for the timer.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import select
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from jaula.features.verify.checks.cgroups import CgroupDirs
from jaula.features.verify.model.container import AuditedContainer
from jaula.features.verify.model.result import Result, Verdict
from jaula.kernel import inotify, mountinfo
from jaula.kernel.namespace_threads import in_unshared_thread, join_namespaces

SHARE = 0.01  # of one processor
BURST = 1.0  # seconds of processor time that the budget can save
INTERVAL = 60.0  # seconds between two verifications of all containers, at least
LISTING = 5.0  # seconds between two lists of running containers
GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400  # RTMGRP_LINK, IPV4 and IPV6 _IFADDR and _ROUTE
FD_SETSIZE = 1024  # descriptors, select(2)
HOST = ""
"""The key of the reader's own network namespace, whose links are the other ends."""

Rows = Mapping[str, Result]


class Budget:
    """Processor time that may be spent: a share of the time that passes. Pure; ``now`` is given.

    All times are in seconds.
    """

    def __init__(self, now: float, share: float = SHARE, burst: float = BURST) -> None:
        self._share, self._burst = share, burst
        self._saved, self._last = burst, now

    def spend(self, now: float, cost: float) -> None:
        """Take the cost of a verification."""
        self._save(now)
        self._saved -= cost

    def wait(self, now: float) -> float:
        """Return the time until something may be spent; 0 if it may be at once."""
        self._save(now)
        return 0.0 if self._saved > 0 else -self._saved / self._share + 1e-3

    def _save(self, now: float) -> None:
        self._saved = min(self._burst, self._saved + (now - self._last) * self._share)
        self._last = now


def next_interval(cost: float, share: float = SHARE) -> float:
    """Return the seconds between two rounds of this cost: half of the share. Pure."""
    return max(INTERVAL, 2 * cost / share)


def changes(before: Rows, after: Rows) -> list[Result]:
    """Return the rows that are not as they were: failing or unknown ones, and ended ones. Pure.

    Before the first verification ``before`` is empty, and only what does not hold is a change.
    """
    changed = []
    for name, row in after.items():
        former = before.get(name)
        bad = row.verdict in (Verdict.FAILS, Verdict.UNKNOWN)
        same = former is not None and former.verdict is row.verdict
        if (bad and not (same and former is not None and former.effective == row.effective)) or (
            not bad and former is not None and former.verdict in (Verdict.FAILS, Verdict.UNKNOWN)
        ):
            changed.append(row)
    return changed


class KernelReports:
    """Descriptors on which the kernel reports changes, by container. Use as a context manager.

    ``input_fd`` ends a wait too, if it is given; the caller reads it.
    """

    def __init__(self, input_fd: int = -1) -> None:
        self._poll = select.poll()
        self._input = input_fd
        if input_fd >= 0:
            self._poll.register(input_fd, select.POLLIN)
        self._inotify = inotify.create()
        self._poll.register(self._inotify, select.POLLIN)
        self._keys: dict[int, str] = {}  # by descriptor
        self._files: dict[int, object] = {}
        self._watches: dict[int, str] = {}  # by number of the inotify watch
        self._add_socket(HOST, _routing_socket())

    def __enter__(self) -> KernelReports:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in list(self._keys):
            self._drop(fd)
        os.close(self._inotify)

    def add(self, container: AuditedContainer) -> None:
        """Watch the mounts, cgroups and network of a container.

        :raises OSError: when it has exited.
        """
        key = container.container_id
        table = _in_high_descriptor(mountinfo.open_fd(container.path("mountinfo")))
        self._files[table.fileno()], self._keys[table.fileno()] = table, key
        self._poll.register(table.fileno(), select.POLLPRI)

        def connect() -> socket.socket:
            join_namespaces(container.pid, ("net",))
            return _routing_socket()

        self._add_socket(key, in_unshared_thread(connect))
        for directory in CgroupDirs(container).directories():
            with contextlib.suppress(FileNotFoundError):
                number = inotify.add_watch(self._inotify, directory, inotify.IN_MODIFY)
                self._watches[number] = key

    def remove(self, key: str) -> None:
        """Watch a container no longer."""
        for fd in [fd for fd, owner in self._keys.items() if owner == key]:
            self._drop(fd)

    def wait(self, seconds: float) -> set[str]:
        """Return the containers of which the kernel reports a change, or nothing after a time.

        :data:`HOST` is among them after a change of the reader's network.
        """
        changed = set()
        for fd, event in self._poll.poll(max(0.0, seconds) * 1000):
            if fd == self._input:
                continue
            if fd == self._inotify:
                numbers = inotify.changed(fd)
                changed |= {self._watches[n] for n in numbers if n in self._watches}
                continue
            changed.add(self._keys[fd])
            opened = self._files[fd]
            if isinstance(opened, socket.socket):
                _drain(opened)
            elif event & select.POLLHUP or not _read_again(fd):
                self._drop(fd)  # it has exited
        return changed

    def _add_socket(self, key: str, opened: socket.socket) -> None:
        self._files[opened.fileno()], self._keys[opened.fileno()] = opened, key
        self._poll.register(opened.fileno(), select.POLLIN)

    def _drop(self, fd: int) -> None:
        self._poll.unregister(fd)
        del self._keys[fd]
        self._files.pop(fd).close()  # type: ignore[attr-defined]


def _in_high_descriptor(fd: int) -> io.FileIO:
    """Return a file with a descriptor of 1024 or more, and close ``fd``; low if none is free.

    libnftables waits with select(2), which has room for lower ones only. A watch holds two for each
    container.
    """
    try:
        high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FD_SETSIZE)
    except OSError:
        return io.FileIO(fd)  # the limit of the process is lower
    os.close(fd)
    return io.FileIO(high)


def _routing_socket() -> socket.socket:
    """Return a socket that reports changes of the thread's network namespace."""
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    opened.setblocking(False)
    opened.bind((0, GROUPS))
    try:
        high = fcntl.fcntl(opened.fileno(), fcntl.F_DUPFD_CLOEXEC, FD_SETSIZE)
    except OSError:
        return opened
    opened.close()
    return socket.socket(fileno=high)


def _drain(opened: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError, OSError):  # ENOBUFS: more than the buffer holds
        while opened.recv(1 << 16):
            pass


def _read_again(fd: int) -> bool:
    """Read a mount table, which resets its report; return whether its process still exists."""
    try:
        os.lseek(fd, 0, os.SEEK_SET)
        return bool(os.read(fd, 1))
    except OSError:
        return False


class Watch:
    """Verifies containers until it is stopped.

    ``running`` lists the ids of the containers, ``open_container`` returns one to watch,
    ``verify`` returns its rows, and ``report`` gets each row that has changed. An ``OSError`` or
    ``LookupError`` of the second and third means that the container has exited.
    """

    def __init__(
        self,
        running: Callable[[], Iterable[str]],
        open_container: Callable[[str], AuditedContainer],
        verify: Callable[[Sequence[str]], Mapping[str, Sequence[Result]]],
        report: Callable[[str, Result], None],
    ) -> None:
        self._running = running
        self._open = open_container
        self._verify = verify
        self._report = report
        self._rows: dict[str, Rows] = {}
        self._budget = Budget(time.monotonic())

    def run(self, keep_on: Callable[[], bool] = lambda: True) -> None:
        """Verify all containers, then those that change, while ``keep_on`` returns true."""
        with KernelReports() as reports:
            due: set[str] = set()
            round_at = list_at = time.monotonic()
            while keep_on():
                now = time.monotonic()
                if now >= list_at:
                    begun = time.process_time()
                    due |= self._list(reports)
                    self._budget.spend(now, time.process_time() - begun)
                    list_at = now + LISTING
                if now >= round_at:
                    due |= set(self._rows)
                delay = self._budget.wait(now)
                if due and not delay:
                    whole = due >= set(self._rows)
                    cost = self._check(due)
                    due = set()
                    if whole:
                        round_at = time.monotonic() + next_interval(cost)
                    continue
                until = min(list_at, now + delay) if due else min(list_at, round_at)
                changed = reports.wait(until - now)
                due |= set(self._rows) if HOST in changed else changed & set(self._rows)

    def _list(self, reports: KernelReports) -> set[str]:
        """Watch new containers and forget old ones; return the new ones."""
        running = set(self._running())
        for key in set(self._rows) - running:
            reports.remove(key)
            del self._rows[key]
        new = set()
        for key in running - set(self._rows):
            with contextlib.suppress(OSError, LookupError):
                container = self._open(key)
                try:
                    reports.add(container)
                finally:
                    container.close()
                self._rows[key] = {}
                new.add(key)
        return new

    def _check(self, due: set[str]) -> float:
        """Verify containers and report changed rows; return the processor time in seconds."""
        begun = time.process_time()
        for key, rows in self._verify(sorted(due)).items():
            after = {row.id: row for row in rows}
            for row in changes(self._rows.get(key, {}), after):
                self._report(key, row)
            self._rows[key] = after
        cost = time.process_time() - begun
        self._budget.spend(time.monotonic(), cost)
        return cost
