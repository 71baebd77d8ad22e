"""Pre-copy: write the memory of a running container in rounds, so that the last one is short.

CRIU's pre-dump stops the processes only to note their pages, and writes them while they run. Each
round after the first has the pages that were written since the one before (soft-dirty bits, Linux
option CONFIG_MEM_SOFT_DIRTY). The dump that follows has the rest.

If CRIU fails or crashes in a round, the dump writes all memory: that round may have cleared the
soft-dirty bits of pages that it has not written.

Each round has a directory of its own during the dump, where CRIU looks for it. The names that its
images have in a checkpoint are those of
:func:`jaula.features.checkpoint.runtime.criu_images.round_name`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable

from jaula.errors import RuntimeFailure
from jaula.features.checkpoint.runtime import criu, criu_images
from jaula.features.checkpoint.runtime.proto import rpc_pb2
from jaula.runtime.shim_protocol import MAX_ROUNDS, PreDumpRound

_SMALL = 8 << 20  # bytes of a round after which no other is worth its time
_MAX_REASON = 1000  # characters of a failure that are reported
_SHRINKS = 0.8  # share of the bytes of the round before, above which rounds do not converge


def is_enough(done: Iterable[PreDumpRound]) -> bool:
    """Return whether another round would not shorten the dump. Pure."""
    *before, last = done
    return last.bytes < _SMALL or (len(before) > 1 and last.bytes > before[-1].bytes * _SHRINKS)


class Rounds:
    """The rounds before one dump; CRIU needs their directories until :meth:`remove`.

    ``directory`` is a descriptor of the checkpoint's directory, and ``links`` of its images, where
    each round gets hard links. ``start_criu`` starts a service for each round, and ``report`` is
    called after it.
    """

    def __init__(
        self,
        directory: int,
        links: int,
        start_criu: Callable[[], criu.Criu],
        report: Callable[[PreDumpRound], None],
    ) -> None:
        self._directory = directory
        self._links = links
        self._start_criu = start_criu
        self._report = report
        self._done: list[PreDumpRound] = []
        self._failed = False

    @property
    def parent(self) -> str:
        """The directory of the last round, relative to another one beside it; '' without one.

        After a failure there is none.
        """
        return f"../{_name(len(self._done))}" if self._done and not self._failed else ""

    def run(self, options: rpc_pb2.Options, count: int) -> None:
        """Write at most ``count`` rounds, until one fails."""
        while not self._failed and len(self._done) < min(count, MAX_ROUNDS):
            if self._done and is_enough(self._done):
                return
            self._round(options)

    def _round(self, options: rpc_pb2.Options) -> None:
        number, start = len(self._done) + 1, time.monotonic_ns()
        os.mkdir(_name(number), 0o711, dir_fd=self._directory)
        written = self._open(number)
        try:
            request = rpc_pb2.Options()
            request.CopyFrom(options)
            request.images_dir_fd = written
            request.track_mem = True
            if self.parent:  # CRIU takes '' for a path
                request.parent_images = self.parent
            try:
                with self._start_criu() as service:
                    service.pre_dump(request)
            except RuntimeFailure as error:
                self._failed = True
                took = time.monotonic_ns() - start
                self._report(PreDumpRound(number, 0, took, str(error)[:_MAX_REASON]))
                return
            size = 0
            for name in filter(criu_images.is_memory, os.listdir(written)):
                size += os.stat(name, dir_fd=written).st_size
                link = criu_images.round_name(number, name)
                os.link(name, link, src_dir_fd=written, dst_dir_fd=self._links)
        finally:
            os.close(written)
        done = PreDumpRound(number, size, time.monotonic_ns() - start)
        self._done.append(done)
        self._report(done)

    def _open(self, number: int) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        return os.open(_name(number), flags, dir_fd=self._directory)

    def remove(self) -> None:
        """Remove the directories."""
        for number in range(1, len(self._done) + 2):
            try:
                written = self._open(number)
            except FileNotFoundError:
                continue
            try:
                for name in os.listdir(written):
                    os.unlink(name, dir_fd=written)
            finally:
                os.close(written)
            os.rmdir(_name(number), dir_fd=self._directory)


def _name(number: int) -> str:
    return f"round-{number}"
