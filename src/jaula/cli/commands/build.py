"""``jaula build``."""

from __future__ import annotations

import sys
from time import time

from jaula.cli import site_packages
from jaula.cli.build import context as contexts
from jaula.cli.build import output as build_output
from jaula.cli.build import request
from jaula.cli.build import secrets as build_secrets
from jaula.cli.build.progress import ProgressModel
from jaula.cli.client.client import Client
from jaula.cli.command import Command, Flag, Options
from jaula.cli.errors import CliError, UsageError
from jaula.cli.main import Settings
from jaula.spec.fast_json import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from jaula.cli.build.context import Context
    from jaula.cli.build.output import Output
    from jaula.cli.build.progress import View

_PROGRESS = ("auto", "plain", "tty", "json", "rawjson", "quiet")
_WORDS = f"one of {', '.join(_PROGRESS)} is wanted"
_LIMITS = "Limits of each RUN"


def run(options: Options) -> int:
    """Build an image; what is asked for is checked before anything is sent."""
    site_packages.enable()
    written = [build_output.parse(word) for word in options.texts("output")]
    for output in written:
        output.check()
    names = options.texts("tag") + [name for output in written for name in output.names]
    progress = options.text("progress", "auto")
    if progress not in _PROGRESS:
        raise UsageError(f'invalid argument "{progress}" for "--progress" flag: {_WORDS}')
    secrets = build_secrets.parse_secrets(options.texts("secret"))
    agents = build_secrets.SshAgents(options.texts("ssh"))
    elsewhere, here = build_secrets.parse_contexts(options.texts("build-context"))
    context = contexts.resolve(options.arguments[0], options.text("file"))
    iid = options.text("iidfile")
    _forget(iid)
    client, began = Client(Settings.host), time()
    compress = options.on("compress")
    if options.on("quiet"):
        progress = "quiet"

    def sent() -> str:
        try:
            messages = request.send(client, parameters, context, compress=compress)
            return _shown(messages, progress, context)
        except CliError as error:
            error.message = context.with_original_name(error.message)
            raise

    with agents as sockets:
        parameters = request.query(options, context, names)
        if elsewhere or here:
            named = elsewhere | dict.fromkeys(here, "")
            parameters.append(("buildcontexts", encode(named)))
        if secrets or sockets or here:
            from jaula.cli.build.session import Session

            sources = {name: contexts.named_context(path).send for name, path in here.items()}
            with Session(client, secrets, sockets, sources) as session:
                parameters.append(("session", session.id))
                image = sent()
        else:
            image = sent()
    _finish(client, options, written, image, began)
    return 0


def _shown(messages: Iterator[dict[str, Any]], progress: str, context: Context) -> str:
    """Show the build; the image's id. Raises Failure with what went wrong."""
    from jaula.cli.build import progress_plain

    if progress == "auto":
        progress = "tty" if sys.stderr.isatty() else "plain"
    view: View
    if progress == "tty":
        from jaula.cli.build.progress_tty import TtyProgress

        with TtyProgress() as view:
            reading = ProgressModel(view)
            reading.run(messages)
    else:
        if progress in ("json", "rawjson"):
            messages, view = progress_plain.as_json(messages), progress_plain.NullView()
        else:
            view = progress_plain.QuietView() if progress == "quiet" else progress_plain.PlainView()
        reading = ProgressModel(view)
        reading.run(messages)
        if reading.error and isinstance(view, progress_plain.QuietView):
            view.print_lines()
    if reading.error:
        raise CliError(reading.error)
    if not reading.image:
        raise CliError("the engine ended the build without an image")
    return reading.image


def _finish(
    client: Client, options: Options, written: list[Output], image: str, began: float
) -> None:
    iid = options.text("iidfile")
    if iid:
        with open(iid, "w", encoding="ascii") as file:
            file.write(image)
    if options.text("metadata-file"):
        from jaula.spec.fast_json import pretty

        names = ",".join(options.texts("tag"))
        known = {"containerimage.config.digest": image, "image.name": names}
        with open(options.text("metadata-file"), "w", encoding="utf-8") as file:
            file.write(pretty({key: value for key, value in known.items() if value}) + "\n")
    for output in written:
        build_output.write(client, output, image, options.texts("tag"))
    if written and not any(output.keeps_image for output in written) and not options.texts("tag"):
        build_output.remove_unnamed(client, image, began)
    if options.on("quiet") and not any(output.destination == "-" for output in written):
        print(image)


def _forget(path: str) -> None:
    """An id of an earlier build must not be taken for this one's."""
    import os

    if path:
        try:
            os.unlink(path)
        except FileNotFoundError:
            return


COMMAND = Command(
    "[OPTIONS] PATH | URL | -",
    "Build an image from a Dockerfile",
    run,
    flags=(
        Flag("add-host", "", "list", "Add a line to /etc/hosts of each RUN (host:ip)"),
        Flag(
            "allow",
            "",
            "list",
            "Allow RUN --network=host or --security=insecure",
            completes=("network.host", "security.insecure"),
        ),
        Flag("build-arg", "", "list", "Set the value of an ARG (NAME[=VALUE])"),
        Flag("build-context", "", "list", "A further context (NAME=DIRECTORY or address)"),
        Flag("cache-from", "", "list", "Images whose layers may be used instead of building"),
        Flag("cgroup-parent", "", "string", "Cgroup below which steps run", group=_LIMITS),
        Flag("compress", "", "bool", "Compress the context on its way"),
        Flag("cpu-period", "", "int", "Period of the CPU quota (microseconds)", group=_LIMITS),
        Flag("cpu-quota", "", "int", "CPU time in each period (microseconds)", group=_LIMITS),
        Flag("cpu-shares", "c", "int", "CPU weight", group=_LIMITS),
        Flag("cpuset-cpus", "", "string", "CPUs to run on (0-3, 0,1)", group=_LIMITS),
        Flag("cpuset-mems", "", "string", "Memory nodes to use (0-3, 0,1)", group=_LIMITS),
        Flag("disable-content-trust", "", "bool", "Accepted for compatibility"),
        Flag(
            "file",
            "f",
            "string",
            "The Dockerfile (PATH/Dockerfile), - for standard input",
            completes="file",
        ),
        Flag("force-rm", "", "bool", "Accepted for compatibility: no container is ever left"),
        Flag("iidfile", "", "string", "Write the image's id to this file", completes="file"),
        Flag("isolation", "", "string", "Accepted for compatibility"),
        Flag("label", "", "list", "Set a label of the image (KEY=VALUE)"),
        Flag("load", "", "bool", "Accepted for compatibility: the engine has the image"),
        Flag("memory", "m", "size", "Memory limit", group=_LIMITS),
        Flag(
            "memory-swap",
            "",
            "size",
            "Memory and swap together; -1 for unlimited swap",
            group=_LIMITS,
        ),
        Flag(
            "metadata-file",
            "",
            "string",
            "Write what was built to this file, as JSON",
            completes="file",
        ),
        Flag(
            "network",
            "",
            "string",
            "Network of RUN (default, none, host)",
            completes=("default", "none", "host"),
        ),
        Flag("no-cache", "", "bool", "Take nothing from the cache"),
        Flag("output", "o", "list", "Where the result goes (type=local|tar|oci|docker,dest=PATH)"),
        Flag("platform", "", "string", "Platform to build for (os/arch)"),
        Flag(
            "progress",
            "",
            "string",
            "How to show the build (auto, plain, tty, json)",
            completes=_PROGRESS,
            default="auto",
        ),
        Flag("pull", "", "bool", "Ask the registry for newer base images"),
        Flag("quiet", "q", "bool", "Print the image's id and nothing else"),
        Flag(
            "rm",
            "",
            "bool",
            "Accepted for compatibility: no container is ever left",
            default="true",
        ),
        Flag("secret", "", "list", "Secret for RUN --mount=type=secret (id=NAME,src=FILE)"),
        Flag("security-opt", "", "list", "Security options of each RUN"),
        Flag("shm-size", "", "size", "Size of /dev/shm", group=_LIMITS),
        Flag("squash", "", "bool", "One layer for all that the build adds"),
        Flag("ssh", "", "list", "ssh agent for RUN --mount=type=ssh (default[=SOCKET|KEY,...])"),
        Flag("tag", "t", "list", "Name of the image (name[:tag])"),
        Flag("target", "", "string", "Stage to build"),
        Flag("ulimit", "", "list", "Resource limit (name=soft[:hard])", group=_LIMITS),
    ),
    min_args=1,
    max_args=1,
    description=(
        "The context is a directory, whose files are sent to the engine but for what .dockerignore "
        "names; or an address that the engine fetches: a git repository, a tar, a Dockerfile; or a "
        "Dockerfile or tar on standard input. Stages that do not need each other are built at the "
        "same time, those that are not needed not at all. Progress is written to standard error."
    ),
    examples=(
        ("The directory here", "jaula build -t app ."),
        ("A Dockerfile alone", "jaula build - < Dockerfile"),
        ("With a secret that no layer gets", "jaula build --secret id=token,src=token.txt ."),
        ("The files of the result, without an image", "jaula build -o out --target bin ."),
    ),
    exit_status=(
        ("1", "The build failed, or what was asked for is wrong"),
        ("125", "A flag cannot be understood"),
        ("130", "Interrupted"),
    ),
    see_also=("run", "images", "builder prune", "history"),
    completes="file",
)
