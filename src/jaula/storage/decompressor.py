"""Decompress a stranger's stream in a sandboxed process, between two pipes.

The decompressors are libraries in C. The process gets compressed bytes and returns others; what it
returns is believed by its digest only, which the engine computes.
"""

from __future__ import annotations

import fcntl
import io
import os
import select
from contextlib import ExitStack, suppress
from time import monotonic
from types import TracebackType
from typing import Self

from jaula.sandbox.sandbox_limits import Limits
from jaula.sandbox.sandbox_worker import Worker
from jaula.sandbox.start_sandbox import Task
from jaula.storage.compression import (
    Compression,
    PrefixedStream,
    Source,
    detect_compression,
    read_head,
)

TASK = Task("jaula-unzip", "the compressed stream", "jaula.storage.decompress_worker:decompress")
LIMITS = Limits(memory=512 << 20, processor=0, patience=120.0, result=0)
"""The time is what the engine may wait for it, and a second more for each MiB that was moved."""

_PIPE = 1 << 20  # bytes in each pipe, if the user may have so many
_CHUNK = 1 << 18  # bytes


class Decompressor:
    """The process that decompresses one stream. It starts if the stream is compressed."""

    def __init__(self, subject: str = TASK.subject) -> None:
        """``subject`` names the stream in errors."""
        self._subject = subject
        self._worker: Worker | None = None
        self._stream: DecompressedPipe | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._worker is not None:
            self._worker.close()
        if self._stream is not None:
            self._stream.close()

    def stream(self, source: Source) -> tuple[io.RawIOBase, Compression]:
        """Return ``source`` as a stream of decompressed bytes, and its compression.

        The first bytes decide. If they are those of no format, there is no process.
        """
        head = read_head(source)
        kind = detect_compression(head)
        prefixed = PrefixedStream(head, source)
        if kind is Compression.NONE:
            return prefixed, kind
        self._worker = Worker(TASK._replace(subject=self._subject), LIMITS)
        self._stream = DecompressedPipe(self._worker, prefixed)
        return self._stream, kind


class DecompressedPipe(io.RawIOBase):
    """The decompressed bytes of a stream. One thread feeds the process and reads its output."""

    def __init__(self, worker: Worker, source: io.RawIOBase) -> None:
        self._worker = worker
        self._source = source
        self._input = memoryview(b"")  # what the process has not got yet
        self._buffer = memoryview(bytearray(_CHUNK))
        self._waited = 0.0  # seconds
        self._moved = 0  # bytes
        self._ended = False
        with ExitStack() as theirs:
            compressed, self._write = os.pipe()
            theirs.callback(os.close, compressed)
            self._read, plain = os.pipe()
            theirs.callback(os.close, plain)
            try:
                os.set_blocking(self._write, False)
                for pipe in (compressed, plain):
                    with suppress(PermissionError):  # pipe-user-pages-soft, pipe(7)
                        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE)
                worker.begin(b"", [compressed, plain])
            except BaseException:
                self.close()
                raise
        self._poll = select.poll()
        self._poll.register(self._read, select.POLLIN)
        self._poll.register(self._write, select.POLLOUT)

    def close(self) -> None:
        """Close the pipes. Idempotent."""
        self._close_input()
        if self._read >= 0:
            os.close(self._read)
            self._read = -1
        super().close()

    def _close_input(self) -> None:
        if self._write >= 0:
            os.close(self._write)
            self._write = -1

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Return some decompressed bytes, none at the end.

        :raises InvalidRequest: when the stream is damaged, or the process takes too long.
        :raises WorkerEnded: when the process dies.
        """
        while not self._ended:
            ready = self._wait()
            if self._read in ready:
                count = os.readv(self._read, [buffer])
                self._moved += count
                if count:
                    return count
                self._ended = True
                if not self._worker.receive()[1]:  # which raises the error of the process
                    raise self._worker.invalid("a question")
            elif self._write in ready:
                self._feed()
        return 0

    def _wait(self) -> dict[int, int]:
        allowed = LIMITS.patience + (self._moved >> 20)
        begin = monotonic()
        ready = dict(self._poll.poll(max(0.0, allowed - self._waited) * 1000))
        self._waited += monotonic() - begin
        if not ready:
            raise self._worker.beyond(f"{allowed:g} seconds")
        return ready

    def _feed(self) -> None:
        """Give the process input for which its pipe has space. The source may wait for it."""
        if not self._input:
            self._input = self._buffer[: self._source.readinto(self._buffer) or 0]
            if not self._input:
                self._stop_feeding()
                return
        try:
            sent = os.write(self._write, self._input)
        except BlockingIOError:
            return
        except BrokenPipeError:  # it needs no more: what follows is padding
            self._stop_feeding()
            return
        self._input = self._input[sent:]
        self._moved += sent

    def _stop_feeding(self) -> None:
        self._poll.unregister(self._write)
        self._close_input()
