"""``jaula build``."""

from __future__ import annotations

from time import time

from jaula.cli import site_packages
from jaula.cli.cli_errors import CliError, UsageError
from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.features.build.cli import build_query, build_secrets, client_context
from jaula.features.build.cli import output as build_output
from jaula.features.build.cli.build_output import ProgressModel
from jaula.spec.fast_json import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from jaula.features.build.cli.build_output import View
    from jaula.features.build.cli.client_context import Context
    from jaula.features.build.cli.output import Output

_PROGRESS = ("auto", "plain", "tty", "json", "rawjson", "quiet")
_PROGRESS_ERROR = f"must be one of {', '.join(_PROGRESS)}"
_LIMITS = "RUN limit"


def run(options: Options) -> int:
    """Build an image; the command line is checked before anything is sent."""
    site_packages.enable()
    outputs = [build_output.parse(word) for word in options.texts("output")]
    for output in outputs:
        output.check()
    names = options.texts("tag") + [name for output in outputs for name in output.names]
    progress = options.text("progress", "auto")
    if progress not in _PROGRESS:
        raise UsageError(f'invalid argument "{progress}" for "--progress" flag: {_PROGRESS_ERROR}')
    secrets = build_secrets.parse_secrets(options.texts("secret"))
    agents = build_secrets.SshAgents(options.texts("ssh"))
    remote_contexts, local_contexts = build_secrets.parse_contexts(options.texts("build-context"))
    context = client_context.resolve(options.arguments[0], options.text("file"))
    iid = options.text("iidfile")
    _remove_stale(iid)
    client, began = Client(Settings.host), time()
    compress = options.on("compress")
    if options.on("quiet"):
        progress = "quiet"

    def build() -> str:
        try:
            messages = build_query.send(client, parameters, context, compress=compress)
            return _show(messages, progress, context)
        except CliError as error:
            error.message = context.with_original_name(error.message)
            raise

    with agents as sockets:
        parameters = build_query.query(options, context, names)
        if remote_contexts or local_contexts:
            all_contexts = remote_contexts | dict.fromkeys(local_contexts, "")
            parameters.append(("buildcontexts", encode(all_contexts)))
        if secrets or sockets or local_contexts:
            from jaula.features.build.cli.session_services import Session

            sources = {
                name: client_context.named_context(path).send
                for name, path in local_contexts.items()
            }
            with Session(client, secrets, sockets, sources) as session:
                parameters.append(("session", session.id))
                image = build()
        else:
            image = build()
    _finish(client, options, outputs, image, began)
    return 0


def _show(messages: Iterator[dict[str, Any]], progress: str, context: Context) -> str:
    """Show the progress of the build and return the image id.

    :raises CliError: when the build failed, with the engine's error.
    """
    from jaula.cli.output.ansi import redraws
    from jaula.features.build.cli import progress_plain

    if progress == "auto":
        progress = "tty" if redraws(2) else "plain"
    view: View
    if progress == "tty":
        from jaula.features.build.cli.progress_tty import TtyProgress

        with TtyProgress() as view:
            model = ProgressModel(view)
            model.run(messages)
    else:
        if progress in ("json", "rawjson"):
            messages, view = progress_plain.as_json(messages), progress_plain.NullView()
        else:
            view = progress_plain.QuietView() if progress == "quiet" else progress_plain.PlainView()
        model = ProgressModel(view)
        model.run(messages)
        if model.error and isinstance(view, progress_plain.QuietView):
            view.print_lines()
    if model.error:
        raise CliError(model.error)
    if not model.image:
        raise CliError("the engine ended the build without an image")
    return model.image


def _finish(
    client: Client, options: Options, outputs: list[Output], image: str, began: float
) -> None:
    iid = options.text("iidfile")
    if iid:
        with open(iid, "w", encoding="ascii") as file:
            file.write(image)
    if options.text("metadata-file"):
        from jaula.spec.fast_json import pretty

        names = ",".join(options.texts("tag"))
        metadata = {"containerimage.config.digest": image, "image.name": names}
        with open(options.text("metadata-file"), "w", encoding="utf-8") as file:
            file.write(pretty({key: value for key, value in metadata.items() if value}) + "\n")
    for output in outputs:
        build_output.write(client, output, image, options.texts("tag"))
    if outputs and not any(output.keeps_image for output in outputs) and not options.texts("tag"):
        build_output.remove_unnamed(client, image, began)
    if options.on("quiet") and not any(output.destination == "-" for output in outputs):
        print(image)


def _remove_stale(path: str) -> None:
    """Remove the id file of an earlier build, so that it is not taken for this build's."""
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
        Flag("add-host", "", "list", "Add a custom host-to-IP mapping (host:ip)"),
        Flag(
            "allow",
            "",
            "list",
            "Allow extra privileged entitlement (network.host, security.insecure)",
            completes=("network.host", "security.insecure"),
        ),
        Flag("build-arg", "", "list", "Set build-time variables (NAME[=VALUE])"),
        Flag("build-context", "", "list", "Additional build contexts (NAME=DIRECTORY or URL)"),
        Flag("cache-from", "", "list", "Images to consider as cache sources"),
        Flag(
            "cgroup-parent",
            "",
            "string",
            'Set the parent cgroup for the "RUN" instructions during build',
            group=_LIMITS,
        ),
        Flag("compress", "", "bool", "Compress the build context using gzip"),
        Flag(
            "cpu-period",
            "",
            "int",
            "Limit the CPU CFS (Completely Fair Scheduler) period (microseconds)",
            group=_LIMITS,
        ),
        Flag(
            "cpu-quota",
            "",
            "int",
            "Limit the CPU CFS (Completely Fair Scheduler) quota (microseconds)",
            group=_LIMITS,
        ),
        Flag("cpu-shares", "c", "int", "CPU shares (relative weight)", group=_LIMITS),
        Flag(
            "cpuset-cpus",
            "",
            "string",
            "CPUs in which to allow execution (0-3, 0,1)",
            group=_LIMITS,
        ),
        Flag(
            "cpuset-mems",
            "",
            "string",
            "MEMs in which to allow execution (0-3, 0,1)",
            group=_LIMITS,
        ),
        Flag("disable-content-trust", "", "bool", "Accepted for compatibility"),
        Flag(
            "file",
            "f",
            "string",
            "Name of the Dockerfile (default: PATH/Dockerfile; - for standard input)",
            completes="file",
        ),
        Flag("force-rm", "", "bool", "Always remove intermediate containers (always in effect)"),
        Flag("iidfile", "", "string", "Write the image ID to the file", completes="file"),
        Flag(
            "isolation", "", "string", "Container isolation technology (accepted for compatibility)"
        ),
        Flag("label", "", "list", "Set metadata for an image (KEY=VALUE)"),
        Flag("load", "", "bool", "Load the result into the engine (always in effect)"),
        Flag("memory", "m", "size", "Memory limit", group=_LIMITS),
        Flag(
            "memory-swap",
            "",
            "size",
            "Swap limit equal to memory plus swap: -1 to enable unlimited swap",
            group=_LIMITS,
        ),
        Flag(
            "metadata-file",
            "",
            "string",
            "Write build result metadata to the file (JSON)",
            completes="file",
        ),
        Flag(
            "network",
            "",
            "string",
            "Set the networking mode for the RUN instructions during build (default, none, host)",
            completes=("default", "none", "host"),
        ),
        Flag("no-cache", "", "bool", "Do not use cache when building the image"),
        Flag("output", "o", "list", "Output destination (type=local|tar|oci|docker,dest=PATH)"),
        Flag(
            "platform", "", "string", "Set platform if server is multi-platform capable (os/arch)"
        ),
        Flag(
            "progress",
            "",
            "string",
            "Set type of progress output (auto, plain, tty, json)",
            completes=_PROGRESS,
            default="auto",
        ),
        Flag("pull", "", "bool", "Always attempt to pull a newer version of the image"),
        Flag("quiet", "q", "bool", "Suppress the build output and print image ID on success"),
        Flag(
            "rm",
            "",
            "bool",
            "Remove intermediate containers after a successful build (always in effect)",
            default="true",
        ),
        Flag("secret", "", "list", "Secret to expose to the build (id=NAME,src=FILE)"),
        Flag("security-opt", "", "list", "Security options"),
        Flag("shm-size", "", "size", "Size of /dev/shm", group=_LIMITS),
        Flag("squash", "", "bool", "Squash newly built layers into a single new layer"),
        Flag(
            "ssh",
            "",
            "list",
            "SSH agent socket or keys to expose to the build (default[=SOCKET|KEY,...])",
        ),
        Flag("tag", "t", "list", "Name and optionally a tag in the name:tag format"),
        Flag("target", "", "string", "Set the target build stage to build"),
        Flag("ulimit", "", "list", "Ulimit options (name=soft[:hard])", group=_LIMITS),
    ),
    min_args=1,
    max_args=1,
    description=(
        "The context is a directory, whose files are sent to the engine except those that "
        ".dockerignore excludes; or a URL that the engine fetches (a git repository, a tar, a "
        "Dockerfile); or a Dockerfile or tar on standard input. Independent stages are built "
        "in parallel, and unused stages are skipped. Progress is written to standard error."
    ),
    examples=(
        ("Build the current directory", "jaula build -t app ."),
        ("Build a Dockerfile without a context", "jaula build - < Dockerfile"),
        (
            "Use a secret that is not stored in any layer",
            "jaula build --secret id=token,src=token.txt .",
        ),
        ("Export the files of a stage without an image", "jaula build -o out --target bin ."),
    ),
    exit_status=(
        ("1", "The build failed, or an argument is invalid"),
        ("125", "A flag is invalid"),
        ("130", "Interrupted"),
    ),
    see_also=("run", "images", "builder prune", "history"),
    completes="file",
)
