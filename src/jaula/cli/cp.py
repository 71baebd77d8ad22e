"""``jaula cp``."""

from __future__ import annotations

import sys

from jaula.cli import site_packages
from jaula.cli.cli_errors import CliError, UsageError
from jaula.cli.client.api_client import Client
from jaula.cli.client.output_streams import write_all
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.containers import copy_target
from jaula.cli.main import Settings
from jaula.cli.output.progress_line import Progress
from jaula.errors import JaulaError
from jaula.spec import units


def run(options: Options) -> int:
    """Copy between a container and the local filesystem."""
    site_packages.enable()
    source, destination = options.arguments
    container, path = copy_target.split_argument(source)
    to_container, _ = copy_target.split_argument(destination)
    if (source == "-" and destination == "-") or not (container or to_container):
        raise UsageError("must specify at least one container source")
    if container and to_container:
        raise CliError("copying between containers is not supported")
    client = Client(Settings.host)
    quiet = options.on("quiet")
    try:
        with Progress("copy", quiet=quiet) as progress:
            if to_container:
                size = _upload(client, options, progress)
            elif destination == "-":
                for chunk in copy_target.fetch(
                    client, container, path, follow=options.on("follow-link")
                ).chunks():
                    progress.add(len(chunk))
                    write_all(1, chunk)
                return 0
            else:
                size = copy_target.download(
                    client,
                    container,
                    path,
                    destination,
                    archive=options.on("archive"),
                    follow=options.on("follow-link"),
                    progress=progress,
                )
    except JaulaError as error:
        raise CliError(str(error)) from None
    if not quiet and sys.stderr.isatty():
        message = f"Successfully copied {units.human_size(size)} to {destination}"
        print(message, file=sys.stderr)
    return 0


def _upload(client: Client, options: Options, progress: Progress) -> int:
    """Copy into a container and return the number of bytes sent."""
    source, destination = options.arguments
    container, target = copy_target.split_argument(destination)
    archive = options.on("archive")
    if source == "-":
        return copy_target.send_archive(
            client, container, target, archive=archive, progress=progress
        )
    follow = options.on("follow-link")
    return copy_target.upload(
        client, container, source, target, archive=archive, follow=follow, progress=progress
    )


COMMAND = Command(
    "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|- | SRC_PATH|- CONTAINER:DEST_PATH",
    "Copy files/folders between a container and the local filesystem",
    run,
    flags=(
        Flag("archive", "a", "bool", "Archive mode (copy all uid/gid information)"),
        Flag("follow-link", "L", "bool", "Always follow symbol link in SRC_PATH"),
        Flag("quiet", "q", "bool", "Suppress progress output during copy"),
    ),
    min_args=2,
    max_args=2,
    description=(
        "Works on running and stopped containers, including volumes and bind mounts. With - as "
        "the source, a tar archive is read from standard input and unpacked in the destination "
        "directory. With - as the destination, a tar archive is written to standard output. A "
        "source that ends in /. stands for the contents of the directory. Without -a, a file "
        "copied from a container belongs to the user and loses its set-user-ID bit."
    ),
    examples=(
        ("Copy a file from a container", "jaula cp web:/etc/nginx/nginx.conf ."),
        (
            "Copy the contents of a directory into a container",
            "jaula cp site/. web:/usr/share/nginx/html",
        ),
        ("List the files of a directory", "jaula cp web:/var/log - | tar t"),
    ),
    see_also=("diff", "export", "exec"),
    completes="container",
)
