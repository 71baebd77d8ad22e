"""Output of containers on the client's standard output and error."""

from __future__ import annotations

from posix import write

from jaula.spec.stdcopy import StdcopyReader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

STDERR = 2


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``, also to a descriptor that another process made non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[write(descriptor, view) :]
        except BlockingIOError:
            from select import POLLOUT, poll

            waiting = poll()
            waiting.register(descriptor, POLLOUT)
            waiting.poll()


def copy(chunks: Iterator[bytes], *, framed: bool) -> None:
    """Copy a stream to standard output.

    Of a framed stream, the stderr part goes to standard error.
    """
    frames = StdcopyReader()
    for chunk in chunks:
        if not framed:
            write_all(1, chunk)
            continue
        for stream, payload in frames.feed(chunk):
            write_all(2 if stream == STDERR else 1, payload)
