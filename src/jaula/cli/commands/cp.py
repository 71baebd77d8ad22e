"""``jaula cp``."""

from __future__ import annotations

import sys

from jaula.cli import site_packages, units
from jaula.cli.client.client import Client
from jaula.cli.client.stdcopy import write_all
from jaula.cli.command import Command, Flag, Options
from jaula.cli.containers import cp
from jaula.cli.errors import CliError, UsageError
from jaula.cli.main import Settings
from jaula.errors import JaulaError


def run(options: Options) -> int:
    """Copy between a container and this machine."""
    site_packages.enable()
    source, destination = options.arguments
    container, path = cp.split_argument(source)
    into, target = cp.split_argument(destination)
    if (source == "-" and destination == "-") or not (container or into):
        raise UsageError("must specify at least one container source")
    if container and into:
        raise CliError("copying between containers is not supported")
    client = Client(Settings.host)
    archive, follow = options.on("archive"), options.on("follow-link")
    try:
        if into and source == "-":
            size = cp.send_archive(client, into, target, archive=archive)
        elif into:
            size = cp.upload(client, into, source, target, archive=archive, follow=follow)
        elif destination == "-":
            for piece in cp.fetch(client, container, path, follow=follow).chunks():
                write_all(1, piece)
            return 0
        else:
            size = cp.download(client, container, path, destination, archive=archive, follow=follow)
    except JaulaError as error:
        raise CliError(str(error)) from None
    if not options.on("quiet") and sys.stderr.isatty():
        what = f"Successfully copied {units.human_size(size)} to {destination}"
        print(what, file=sys.stderr)
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
        "Works on running and stopped containers, volumes and bind mounts included. With - as the "
        "source a tar archive is read from standard input and unpacked in the destination, a "
        "directory; with - as the destination a tar archive is written to standard output. A "
        "source that ends in /. stands for what is in the directory. Without -a a file that comes "
        "out belongs to whoever copies, and loses its set-user-ID bit."
    ),
    examples=(
        ("A file out of a container", "jaula cp web:/etc/nginx/nginx.conf ."),
        ("What is in a directory into one", "jaula cp site/. web:/usr/share/nginx/html"),
        ("A look at logs", "jaula cp web:/var/log - | tar t"),
    ),
    see_also=("diff", "export", "exec"),
    completes="container",
)
