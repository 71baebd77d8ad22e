"""``jaula cp``."""

from __future__ import annotations

import sys

from jaula.cli import site_packages
from jaula.cli.client.client import Client
from jaula.cli.client.stdcopy import write_all
from jaula.cli.command import Command, Flag, Options
from jaula.cli.containers import cp
from jaula.cli.errors import CliError, UsageError
from jaula.cli.main import Settings
from jaula.errors import JaulaError
from jaula.spec import units


def run(options: Options) -> int:
    """Copy between a container and the local filesystem."""
    site_packages.enable()
    source, destination = options.arguments
    container, path = cp.split_argument(source)
    to_container, target = cp.split_argument(destination)
    if (source == "-" and destination == "-") or not (container or to_container):
        raise UsageError("must specify at least one container source")
    if container and to_container:
        raise CliError("copying between containers is not supported")
    client = Client(Settings.host)
    archive, follow = options.on("archive"), options.on("follow-link")
    try:
        if to_container and source == "-":
            size = cp.send_archive(client, to_container, target, archive=archive)
        elif to_container:
            size = cp.upload(client, to_container, source, target, archive=archive, follow=follow)
        elif destination == "-":
            for chunk in cp.fetch(client, container, path, follow=follow).chunks():
                write_all(1, chunk)
            return 0
        else:
            size = cp.download(client, container, path, destination, archive=archive, follow=follow)
    except JaulaError as error:
        raise CliError(str(error)) from None
    if not options.on("quiet") and sys.stderr.isatty():
        message = f"Successfully copied {units.human_size(size)} to {destination}"
        print(message, file=sys.stderr)
    return 0


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
