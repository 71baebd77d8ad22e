"""Archives of images and containers: send one to the engine, and write one from it to a file."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import CliError
from jaula.cli.client.output_streams import write_all
from jaula.cli.images import pull_progress
from jaula.spec.fast_json import decode_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

    from jaula.cli.client.api_client import Client

CHUNK = 1 << 18  # bytes of one read


def send(
    client: Client,
    archive: BinaryIO,
    *,
    quiet: bool = False,
    platforms: Sequence[tuple[str, str]] = (),
) -> None:
    """POST an archive to the engine. ``platforms`` are parameters of the request.

    :raises CliError: when the engine refuses it.
    """
    from jaula.cli.output.progress_line import Progress, file_size

    query = (("quiet", "1" if quiet or not sys.stdout.isatty() else "0"), *platforms)
    total = file_size(archive.fileno())
    with Progress("load", total=total, quiet=quiet) as progress:
        response = client.upload("/images/load", query, progress.counted(chunks(archive)))
    pull_progress.show_progress(decode_lines(response.chunks()), sys.stdout)


def chunks(archive: BinaryIO) -> Iterator[bytes]:
    """Yield the archive in chunks."""
    while chunk := archive.read(CHUNK):
        yield chunk


def write(chunks: Iterator[bytes], path: str, verb: str, title: str = "") -> None:
    """Write ``chunks`` to ``path``, or to standard output if it is empty or ``-``.

    The file appears only when it is complete. ``title`` names the progress; ``verb`` if absent.

    :raises CliError: when standard output is a terminal.
    """
    from jaula.cli.output.progress_line import Progress

    if (not path or path == "-") and sys.stdout.isatty():
        raise CliError(f"cowardly refusing to {verb} to a terminal. Use the -o flag or redirect")
    with Progress(title or verb) as progress:
        _write(progress.counted(chunks), path)


def _write(chunks: Iterator[bytes], path: str) -> None:
    import os

    if not path or path == "-":
        for chunk in chunks:
            write_all(1, chunk)
        return
    if os.path.exists(path) and not os.path.isfile(path):
        with open(path, "wb") as target:  # a device or a fifo has no temporary name
            for chunk in chunks:
                target.write(chunk)
        return
    temporary = f"{path}.{os.urandom(4).hex()}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC  # it is no other program's
    descriptor = os.open(temporary, flags, 0o666)
    try:
        with open(descriptor, "wb") as target:
            for chunk in chunks:
                target.write(chunk)
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
