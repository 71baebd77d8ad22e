"""Write archives from the engine to a file or to standard output."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import CliError
from jaula.cli.client.output_streams import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


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
