"""Turning the files of a log over, and packing those behind (json-file's ``compress``).

Renames are the writer's alone. Packing is a process of its own, at low priority, that knows two
descriptors and no name: it reads the file that was rotated, wherever that is by then, and writes
``NAME.gz.part``. When it has ended, :meth:`Rotation.tend` gives that its name and removes the plain
file. So a rotation waits for nobody, and two cannot meet.

Facts about crashes: killed at any instruction, the writer leaves a plain file, a packed one, or
both, whole (:mod:`jaula.logs.reader.rotated_files`), and at most one part, which the next writer removes. The
process that packs is killed with its writer (PR_SET_PDEATHSIG), so nothing appears later in a
directory that is being removed. What stayed plain is packed after a later rotation.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

from jaula.kernel import process
from jaula.logs import gzip_file
from jaula.logs.helper import HelperProcess
from jaula.logs.options import Limits
from jaula.logs.reader import rotated_files

MODE = 0o640
_LOOK = 0.1  # seconds between looks at a process that packs
_PATIENCE = 1.0  # seconds that it has when the log is flushed
_NICE = 10


class Rotation:
    """The files behind the one that is written."""

    def __init__(self, path: str, limits: Limits, complain: Callable[[str], None]) -> None:
        """``complain`` hears why a file stays plain."""
        self._path = path
        self._limits = limits
        self._complain = complain
        self._worker: HelperProcess | None = None
        self._number = 0  # of the file that is being packed
        if limits.compress:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._part)

    @property
    def _part(self) -> str:
        return self._path + rotated_files.PART

    def turn(self) -> None:
        """Move every file one number up, so that ``path`` is free; the oldest goes."""
        self._collect()
        directory, base = os.path.split(self._path)
        for old, new in rotated_files.plan_renames(
            rotated_files.list_directory(self._path), base, self._limits.max_file
        ):
            name = os.path.join(directory, old)
            with contextlib.suppress(FileNotFoundError):
                if new:
                    os.replace(name, os.path.join(directory, new))
                else:
                    os.unlink(name)  # not truncated: who reads it keeps what it had
        self._number += 1

    def pack(self) -> None:
        """Begin with the newest file that is plain, unless one is being packed."""
        if not self._limits.compress or self._worker is not None:
            return
        base = os.path.basename(self._path)
        number = rotated_files.newest_plain(rotated_files.list_directory(self._path), base)
        if not number:
            return
        try:
            self._worker = _packing(f"{self._path}.{number}", self._part)
            self._number = number
        except OSError as error:
            self._complain(f"cannot compress {self._path}.{number}: {error.strerror}")

    def poll(self) -> float | None:
        """Go on with what is being packed: seconds until that is to be done again, if at all."""
        if self._worker is None:
            return None
        if self._collect():
            self.pack()
        return None if self._worker is None else _LOOK

    def settle(self) -> None:
        """End what is being packed, after a time in which most are done."""
        if self._worker is None:
            return
        if not self._worker.ended(_PATIENCE):
            self._worker.kill()
            self._worker.ended(_PATIENCE)
        self._finish()

    def _collect(self) -> bool:
        """Whether a file has been packed since the last look."""
        return self._worker is not None and self._worker.ended() and self._finish()

    def _finish(self) -> bool:
        assert self._worker is not None
        done, plain = self._worker.succeeded, f"{self._path}.{self._number}"
        self._worker.close()
        self._worker = None
        try:
            if not done:
                self._complain(f"{plain} was not compressed")
            if not done or self._number >= self._limits.max_file:
                os.unlink(self._part)
                return done
            os.replace(self._part, plain + gzip_file.SUFFIX)
            os.unlink(plain)
        except OSError as error:
            self._complain(f"cannot compress {plain}: {error.strerror}")
            return False
        return True


def _packing(plain: str, part: str) -> HelperProcess:
    """A process that packs ``plain`` into ``part``. Raises ``OSError``."""
    own = os.O_CLOEXEC | os.O_NOFOLLOW
    source = os.open(plain, os.O_RDONLY | own)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        target = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | own, MODE)
        writer = os.getpid()

        def work() -> None:
            process.prctl(process.PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == writer:  # it may have ended before that
                os.nice(_NICE)
                gzip_file.compress(source, target)

        try:
            return HelperProcess(work, (source, target))
        except OSError:
            os.unlink(part)
            raise
        finally:
            os.close(target)
    finally:
        os.close(source)
