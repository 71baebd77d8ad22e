"""Executed files of a container, compared with the files of its image.

The kernel passes a descriptor of each file that it opened to execute (fanotify's FAN_OPEN_EXEC), so
it is the file itself that is hashed, and no path is resolved. Files that processes have mapped with
the right to execute (libraries) are opened by ``/proc/PID/map_files``, once a second.

Facts about writes: the kernel refuses to open a file for writing while a process executes it. A
file whose last change is older than the moment when the queue of events was last empty was not
changed since it was executed.
"""

from __future__ import annotations

import os
import select
import stat
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from jaula.features.record.container_drift import Baseline, Drift
from jaula.features.record.fanotify_events import FanotifyGroup, path_of
from jaula.features.record.image_files import Digests, ImageFiles
from jaula.features.record.record_document import text_of
from jaula.kernel import fanotify
from jaula.kernel.fanotify import Event

_MAX_PROCESSES = 512  # of one sample
_MAX_MAPPINGS = 16384  # of one sample
_MAX_MAPS = 4 << 20  # bytes of /proc/PID/maps
_MAX_SEEN = 16384  # mapped files
_GRANULARITY = 20_000_000  # nanoseconds, of the times of a file before Linux 6.13
_OF_KERNEL = frozenset({b"[vdso]", b"[vsyscall]", b"[uprobes]", b"[sigpage]", b"[vectors]"})
_STACK_AND_HEAP = frozenset({b"[stack]", b"[heap]"})
_SET_ID = stat.S_ISUID | stat.S_ISGID


class Identity(NamedTuple):
    """A state of a file."""

    device: int
    inode: int
    size: int
    mtime: int
    ctime: int


class ExecutedFiles:
    """Yields the deviations of executed files from an image and, if there is one, a baseline."""

    def __init__(
        self,
        pid: int,
        image: ImageFiles,
        baseline: Baseline | None,
        processes: Callable[[], list[int]],
        compilers: Collection[str] = (),
    ) -> None:
        """Mark the mounts of the container. ``processes`` returns the ids of its processes.

        ``compilers`` are the paths of programs that may have executable memory without a file.

        :raises JaulaError: when that is not possible.
        """
        self._pid = pid
        self._group = FanotifyGroup(pid, fanotify.FAN_OPEN_EXEC, executable=True)
        self._image = image
        self._baseline = baseline
        self._processes = processes
        self._compilers = compilers
        self._digests = Digests()
        self._seen: set[Identity] = set()
        self._empty = time.time_ns()
        self.incomplete = 0  # samples that reached a limit

    def fileno(self) -> int:
        """Return the descriptor that is readable when a file was executed."""
        return self._group.fileno()

    def mounts_fileno(self) -> int:
        """Return the descriptor that has POLLPRI when the mounts have changed."""
        return self._group.mounts_fileno()

    @property
    def overflows(self) -> int:
        """Return how often executions were lost."""
        return self._group.overflows

    @property
    def drained(self) -> bool:
        """Return whether the last call of :meth:`executed` has emptied the queue."""
        return self._group.drained

    @property
    def unmarked(self) -> set[str]:
        """Return the mount points whose executions are not reported."""
        return self._group.unmarked

    def executed(self) -> Iterator[Drift]:
        """Yield the deviations of the files that were executed since the last call.

        :raises JaulaError: when events cannot be read.
        """
        if self._group.mounts_changed():
            self._group.mark()
        now = time.time_ns()
        for event in self._group.read():
            try:
                if event.fd >= 0:
                    yield from self._executed(event)
            finally:
                event.close()
        if self._group.drained:
            self._empty = now

    def _executed(self, event: Event) -> Iterator[Drift]:
        before = os.fstat(event.fd)
        drift = self._compare("file", event.fd, lambda path: self._executor(event, path))
        if drift is None and not self._is_settled(event, before):
            raw = path_of(event.fd)
            expected = self._image.find(raw)
            if expected is not None:  # else it is a file that only the record has
                os.close(expected)
                detail = "changed while it was executed: this may be another content"
                drift = Drift("file", text_of(raw), self._executor(event, text_of(raw)), detail)
        if drift is not None:
            yield drift

    def _is_settled(self, event: Event, before: os.stat_result) -> bool:
        """Return whether the file that was compared is as it was when it was executed."""
        after = os.fstat(event.fd)
        if identity(before) != identity(after):
            return False
        return after.st_ctime_ns < self._empty - _GRANULARITY or _runs(event, after)

    def mapped(self) -> Iterator[Drift]:
        """Yield the deviations of what processes have mapped to execute: files, and memory."""
        left = _MAX_MAPPINGS
        processes = self._processes()
        if len(processes) > _MAX_PROCESSES:
            self.incomplete += 1
        for pid in processes[:_MAX_PROCESSES]:
            try:
                if _is_runtime(pid, processes):
                    continue
                program = os.readlink(f"/proc/{pid}/exe".encode())
                maps = _read(f"/proc/{pid}/maps", _MAX_MAPS)
            except OSError:
                continue  # it has exited, or is a kernel thread
            if len(maps) == _MAX_MAPS:
                self.incomplete += 1
            mappings = list(executable_mappings(maps))
            yield from self._memory(maps, text_of(program))
            for name in dict.fromkeys(mappings):
                left -= 1
                if left < 0:
                    self.incomplete += 1
                    return
                yield from self._mapped(f"/proc/{pid}/map_files/{name}", program)

    def _memory(self, maps: bytes, program: str) -> Iterator[Drift]:
        if program in self._compilers:
            return
        for subject in dict.fromkeys(executable_memory(maps)):
            yield Drift("memory", subject, program, "code that is in no file of the image")

    def _mapped(self, link: str, program: bytes) -> Iterator[Drift]:
        try:
            state = identity(os.stat(link))
            if state in self._seen:
                return
            fd = os.open(link, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError:
            return  # unmapped by now
        try:
            is_program = path_of(fd) == program.removesuffix(b" (deleted)")
            kind = "file" if is_program else "library"
            drift = self._compare(kind, fd, lambda path: "" if is_program else text_of(program))
            if drift is not None:
                yield drift
            if len(self._seen) >= _MAX_SEEN:
                self._seen.clear()
            self._seen.add(state)
        finally:
            os.close(fd)

    def _compare(self, kind: str, fd: int, program: Callable[[str], str]) -> Drift | None:
        """Compare an open file with that of the image. ``program`` returns who uses a path."""
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return None
        raw = path_of(fd)
        path = text_of(raw)
        expected = self._image.find(raw)
        if expected is None:
            if self._baseline is not None and path in (
                self._baseline.files if kind == "library" else self._baseline.programs
            ):
                return None
            both = "" if self._baseline is None else "not in the record, "
            digest = self._digests.of(fd) or ""
            kind = "program" if kind == "file" else kind
            return Drift(kind, path, program(path), f"{both}not in the image", digest)
        try:
            other = os.fstat(expected)
            if status.st_mode & _SET_ID & ~other.st_mode:
                detail = "set-user-ID or set-group-ID, unlike the image's file"
                return Drift(kind, path, program(path), detail, self._digests.of(fd) or "")
            if status.st_size != other.st_size:
                detail = f"{status.st_size} bytes, the image's file has {other.st_size}"
                return Drift(kind, path, program(path), detail, self._digests.of(fd) or "")
            content = self._digests.of(fd)
            if content is None:
                return Drift(kind, path, program(path), "too large, or written to: not compared")
            if content != self._image.digest(expected):
                return Drift(kind, path, program(path), "not the content of the image", content)
            return None
        finally:
            os.close(expected)

    def _executor(self, event: Event, path: str) -> str:
        """Return who executed ``path``: the parent's program, if the process runs it by now.

        Return '' if it has exited, or if the parent is not in the container. Then the process was
        cloned by the runtime, and has executed another program before ``path``.
        """
        if event.pidfd < 0:
            return ""
        try:
            program = text_of(os.readlink(f"/proc/{event.pid}/exe".encode()))
            if program.removesuffix(" (deleted)") == path:
                parent = _parent(event.pid)
                if parent not in self._processes():
                    return ""
                program = text_of(os.readlink(f"/proc/{parent}/exe".encode()))
        except OSError:
            return ""
        return "" if _has_exited(event.pidfd) else program

    def digest_of(self, path: str) -> str:
        """Return the digest of a program that a process runs, '' if there is none."""
        for pid in self._processes()[:_MAX_PROCESSES]:
            try:
                fd = os.open(f"/proc/{pid}/exe", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                if text_of(path_of(fd)) == path:
                    return self._digests.of(fd) or ""
            finally:
                os.close(fd)
        return ""

    def runs(self, path: str) -> bool:
        """Return whether a process in the container's mount namespace runs a program."""
        for pid in self._processes()[:_MAX_PROCESSES]:
            try:
                if os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink(f"/proc/{self._pid}/ns/mnt"):
                    continue
                if text_of(os.readlink(f"/proc/{pid}/exe".encode())) == path:
                    return True
            except OSError:
                continue
        return False

    def close(self) -> None:
        """Remove the marks."""
        self._group.close()


def identity(status: os.stat_result) -> Identity:
    """Return the state of a file. Pure."""
    return Identity(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    )


def executable_mappings(maps: bytes) -> Iterator[str]:
    """Yield the address ranges of files in a text of /proc/PID/maps that can be executed. Pure."""
    for line in maps.split(b"\n"):
        fields = line.split(None, 5)
        if len(fields) == 6 and b"x" in fields[1] and fields[4] != b"0":
            try:
                start, end = (int(each, 16) for each in fields[0].split(b"-"))
            except ValueError:
                continue
            yield f"{start:x}-{end:x}"


def executable_memory(maps: bytes) -> Iterator[str]:
    """Yield what memory without a file, or that can be written, can be executed. Pure.

    Fact about /proc/PID/maps: only the kernel's own mappings have a name in brackets that a process
    cannot give; ``prctl(PR_SET_VMA_ANON_NAME)`` gives names that begin with ``[anon:``.
    """
    for line in maps.split(b"\n"):
        fields = line.split(None, 5)
        if len(fields) < 5 or b"x" not in fields[1]:
            continue
        name = fields[5] if len(fields) > 5 else b""
        if fields[4] == b"0":
            if name in _OF_KERNEL:
                continue
            yield name.decode() if name in _STACK_AND_HEAP else "anonymous"
        elif b"w" in fields[1]:
            yield f"writable {text_of(name)}"


def _read(path: str, limit: int) -> bytes:
    with open(path, "rb") as file:
        return file.read(limit)


def _is_runtime(pid: int, processes: Sequence[int]) -> bool:
    """Return whether a process is a step of the runtime that has not executed its program yet.

    It is a fork of a process outside of the container: its executable is that of its parent. Its
    program is compared when it is executed.
    """
    parent = _parent(pid)
    if parent in processes:
        return False
    return os.path.samefile(f"/proc/{pid}/exe", f"/proc/{parent}/exe")


def _parent(pid: int) -> int:
    text = _read(f"/proc/{pid}/stat", 4096)
    return int(text.rpartition(b")")[2].split()[1])


def _has_exited(pidfd: int) -> bool:
    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    return bool(poller.poll(0))


def _runs(event: Event, status: os.stat_result) -> bool:
    """Return whether the process of an event executes the file, so that it cannot be changed."""
    if event.pidfd < 0:
        return False
    try:
        program = os.stat(f"/proc/{event.pid}/exe")
    except OSError:
        return False
    same = (program.st_dev, program.st_ino) == (status.st_dev, status.st_ino)
    return same and not _has_exited(event.pidfd)
