"""The logs of the containers of a pod: merged by time, or as they arrive.

Without ``--follow`` the lines of all containers are in the order of their times. With it, each
container has a connection and a thread, and a line is printed when it arrives.
"""

from __future__ import annotations

from jaula.cli.cli_errors import CliError
from jaula.cli.client.output_streams import STDERR, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jaula.cli.client.api_client import Client, Query

_MAX_LINE = 1 << 20  # bytes of a line that is not complete; more is printed as it is
_MAX_QUEUE = 1024  # lines that are read and not printed


class Source:
    """The log of one container: its id, the prefix of its lines, and whether it has a terminal."""

    def __init__(self, id: str, prefix: str, *, tty: bool) -> None:
        self.id = id
        self.prefix = prefix.encode("utf-8", "surrogateescape")
        self.tty = tty


def lines(chunks: Iterable[bytes], *, tty: bool) -> Iterator[tuple[int, bytes]]:
    """Yield the stream and the line, with its line end, of a log as the API sends it."""
    from jaula.spec.stdcopy import StdcopyReader

    frames = StdcopyReader()
    rest: dict[int, bytes] = {}
    for chunk in chunks:
        for stream, payload in [(1, chunk)] if tty else frames.feed(chunk):
            *complete, last = (rest.pop(stream, b"") + payload).split(b"\n")
            for line in complete:
                yield stream, line + b"\n"
            if len(last) > _MAX_LINE:
                yield stream, last
            elif last:
                rest[stream] = last
    for stream, line in rest.items():
        yield stream, line + b"\n"


def merged(
    logs: Iterable[tuple[Source, Iterable[tuple[int, bytes]]]], *, timestamps: bool
) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of logs in the order of the times that they begin with.

    ``timestamps`` keeps the times.
    """
    from heapq import merge

    def timed(
        source: Source, log: Iterable[tuple[int, bytes]]
    ) -> Iterator[tuple[bytes, int, bytes]]:
        for stream, line in log:
            time, _, text = line.partition(b" ")
            yield time, stream, source.prefix + (line if timestamps else text)

    streams = [timed(source, log) for source, log in logs]
    for _, stream, line in merge(*streams, key=lambda row: row[0]):
        yield stream, line


def show(client: Client, sources: list[Source], query: Query) -> None:
    """Print the logs in the order of time."""
    timestamps = any(name == "timestamps" and value for name, value in query)
    query = (*((n, v) for n, v in query if n != "timestamps"), ("timestamps", True))
    logs = [(source, lines(_open(client, source, query), tty=source.tty)) for source in sources]
    for stream, line in merged(logs, timestamps=timestamps):
        write_all(2 if stream == STDERR else 1, line)


def follow(client: Client, sources: list[Source], query: Query) -> None:
    """Print the lines of all containers as they arrive, until the logs end.

    :raises CliError: when a connection breaks.
    """
    from queue import Queue
    from threading import Thread

    queue: Queue[tuple[int, bytes] | Exception | None] = Queue(_MAX_QUEUE)

    def read(source: Source, chunks: Iterable[bytes]) -> None:
        try:
            for stream, line in lines(chunks, tty=source.tty):
                queue.put((stream, source.prefix + line))
        except (CliError, OSError) as error:  # raised by the main thread
            queue.put(error)
        finally:
            queue.put(None)

    for source in sources:
        arguments = (source, _open(client, source, query))
        Thread(target=read, args=arguments, daemon=True).start()
    running = len(sources)
    while running:
        item = queue.get()
        if item is None:
            running -= 1
        elif isinstance(item, Exception):
            raise item
        else:
            write_all(2 if item[0] == STDERR else 1, item[1])


def _open(client: Client, source: Source, query: Query) -> Iterator[bytes]:
    return client.open("GET", f"/containers/{source.id}/logs", query).chunks()
