"""Rotate the files of a log, and compress the rotated ones (json-file's ``compress``).

Only the writer renames. A helper process compresses at low priority. It has two descriptors and
knows no name: it reads the rotated file, whatever its name is by then, and writes
``NAME.gz.part``. When it has exited, :meth:`Rotation.poll` renames that file and removes the plain
one. So a rotation never waits, and two compressions never run at once.

Facts about crashes: a writer that is killed at any instruction leaves a whole plain file, a whole
compressed one, or both (:mod:`jaula.logs.reader.rotated_files`). It leaves at most one part file,
which the next writer removes. The helper is killed with its writer (PR_SET_PDEATHSIG), so no file
appears later in a directory that is being removed. A file that stayed plain is compressed after a
later rotation.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

from jaula.kernel import process_calls
from jaula.logs import gzip_file
from jaula.logs.helper import HelperProcess
from jaula.logs.log_opt import Limits
from jaula.logs.reader import rotated_files

MODE = 0o640
_POLL_INTERVAL = 0.1  # seconds between polls of the helper
_TIMEOUT = 1.0  # seconds that the helper has when the log is flushed
_NICE = 10


class Rotation:
    """The rotated files of a log."""

    def __init__(self, path: str, limits: Limits, on_error: Callable[[str], None]) -> None:
        """``on_error`` is called with the reason if a file stays plain."""
        self._path = path
        self._limits = limits
        self._on_error = on_error
        self.helper: HelperProcess | None = None
        self._number = 0  # of the file that is being compressed
        if limits.compress:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._part)

    @property
    def _part(self) -> str:
        return self._path + rotated_files.PART

    def rotate(self) -> None:
        """Rename every file to the next number, so that ``path`` is free. Remove the oldest."""
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
                    os.unlink(name)  # not truncated: a reader keeps its content
        self._number += 1

    def compress(self) -> None:
        """Start to compress the newest plain file, unless a compression is running."""
        if not self._limits.compress or self.helper is not None:
            return
        base = os.path.basename(self._path)
        number = rotated_files.newest_plain(rotated_files.list_directory(self._path), base)
        if not number:
            return
        try:
            self.helper = _start_compression(f"{self._path}.{number}", self._part)
            self._number = number
        except OSError as error:
            self._on_error(f"cannot compress {self._path}.{number}: {error.strerror}")

    def poll(self) -> float | None:
        """Complete a finished compression. Return the seconds until the next call, or None."""
        if self.helper is None:
            return None
        if self._collect():
            self.compress()
        return None if self.helper is None else _POLL_INTERVAL

    def finish(self) -> None:
        """Wait up to a second for a running compression, then kill it."""
        if self.helper is None:
            return
        if not self.helper.exited(_TIMEOUT):
            self.helper.kill()
            self.helper.exited(_TIMEOUT)
        self._complete()

    def _collect(self) -> bool:
        """Return whether a compression has succeeded since the last call."""
        return self.helper is not None and self.helper.exited() and self._complete()

    def _complete(self) -> bool:
        assert self.helper is not None
        done, plain = self.helper.succeeded, f"{self._path}.{self._number}"
        self.helper.close()
        self.helper = None
        try:
            if not done:
                self._on_error(f"{plain} was not compressed")
            if not done or self._number >= self._limits.max_file:
                os.unlink(self._part)
                return done
            os.replace(self._part, plain + gzip_file.SUFFIX)
            os.unlink(plain)
        except OSError as error:
            self._on_error(f"cannot compress {plain}: {error.strerror}")
            return False
        return True


def _start_compression(plain: str, part: str) -> HelperProcess:
    """Start a helper that compresses ``plain`` into ``part``.

    :raises OSError: when a file cannot be opened or the process cannot be created.
    """
    own = os.O_CLOEXEC | os.O_NOFOLLOW
    source = os.open(plain, os.O_RDONLY | own)
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        target = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | own, MODE)
        writer = os.getpid()

        def work() -> None:
            process_calls.prctl(process_calls.PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == writer:  # it may have exited before prctl
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
