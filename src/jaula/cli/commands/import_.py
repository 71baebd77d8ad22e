"""``jaula import``."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import CliError
from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.commands.load import chunks
from jaula.cli.images import platform_flag, pull_progress
from jaula.cli.main import Settings
from jaula.cli.output.progress_line import Progress, file_size
from jaula.spec.fast_json import decode_lines


def run(options: Options) -> int:
    """Create an image of one layer from a tar of a root file system."""
    source, *names = options.arguments
    if "://" in source:
        raise CliError(f"cannot import from {source}: must be a file or - (download it first)")
    repository, tag = pull_progress.split_reference(names[0]) if names else ("", "")
    query = [
        ("fromSrc", "-"),
        ("repo", repository),
        ("tag", tag),
        ("message", options.text("message")),
        ("platform", platform_flag.requested(options)),
        *(("changes", change) for change in options.texts("change")),
    ]
    client = Client(Settings.host)
    is_file = source != "-"
    with open(source if is_file else 0, "rb", buffering=0, closefd=is_file) as archive:
        total = file_size(archive.fileno())
        with Progress("import", total=total) as progress:
            response = client.upload("/images/create", query, progress.counted(chunks(archive)))
    pull_progress.show_progress(decode_lines(response.chunks()), sys.stdout)
    return 0


COMMAND = Command(
    "[OPTIONS] file|- [REPOSITORY[:TAG]]",
    "Import the contents from a tarball to create a filesystem image",
    run,
    flags=(
        Flag(
            "change",
            "c",
            "list",
            'Apply Dockerfile instruction to the created image (CMD ["sh"], ENV A=b)',
        ),
        Flag("message", "m", "string", "Set commit message for imported image"),
        Flag(
            "platform", "", "string", "Set platform if server is multi-platform capable (os/arch)"
        ),
    ),
    min_args=1,
    max_args=2,
    description=(
        "The tar contains a root file system, as written by export or tar, compressed or not."
    ),
    examples=(("Flatten a container to an image", "jaula export web | jaula import - web:flat"),),
    see_also=("export", "load"),
    completes="file",
)
