"""``jaula load``."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import CliError
from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.images import platform_flag, pull_progress
from jaula.cli.main import Settings
from jaula.spec.fast_json import decode_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import BinaryIO

CHUNK = 1 << 18  # bytes of one read


def run(options: Options) -> int:
    """Send an archive to the engine and print the images in it."""
    path = options.text("input")
    if not path and sys.stdin.isatty():
        raise CliError("requested load from stdin, but stdin is empty")
    client = Client(Settings.host)
    with open(path or 0, "rb", buffering=0, closefd=bool(path)) as archive:
        send(client, archive, quiet=options.on("quiet"), platforms=platform_flag.queries(options))
    return 0


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


COMMAND = Command(
    "[OPTIONS]",
    "Load an image from a tar archive or STDIN",
    run,
    flags=(
        Flag(
            "input", "i", "string", "Read from tar archive file, instead of STDIN", completes="file"
        ),
        platform_flag.flag(
            "Load only the given platform(s). Formatted as a comma-separated list of "
            '"os[/arch[/variant]]" (e.g., "linux/amd64,linux/arm64/v8")',
            "list",
        ),
        Flag("quiet", "q", "bool", "Suppress the load output"),
    ),
    max_args=0,
    description=(
        "Reads an archive of docker save, jaula save or skopeo (docker-archive: and "
        "oci-archive:), compressed or not. All platforms of an archive are kept."
    ),
    examples=(("Load an image from another host", "ssh host jaula save web | jaula load"),),
    see_also=("save", "import", "images"),
)
