"""Commands of containers: ``jaula stop``, ``logs``, ``rm`` and others; not ``run`` and ``ps``."""

from __future__ import annotations

import sys

from jaula.cli.cli_errors import CliError, EngineError, UsageError
from jaula.cli.client.api_client import Client, checked, quote
from jaula.cli.client.hijack import check_hijacked
from jaula.cli.client.output_streams import copy
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.containers import cidfile, create_body
from jaula.cli.containers.attach_loop import (
    DETACH_KEYS,
    SDNOTIFY,
    SIG_PROXY,
    attach_container,
    detach_keys_of,
    send_attach,
    send_wait,
    start_attached,
    wait_status,
)
from jaula.cli.containers.flags import FLAGS, UPDATE_NAMES
from jaula.cli.for_each import each, each_container, each_container_at_once
from jaula.cli.images import image_archive, prune_prompt, pull_progress
from jaula.cli.main import Settings
from jaula.cli.output import inspect_output, list_output
from jaula.cli.output.progress_line import Progress
from jaula.cli.output.text_table import aligned
from jaula.cli.output.times import timestamp


def attach(options: Options) -> int:
    """Attach to a running container until it ends or the user detaches."""
    client = Client(Settings.host)
    name = options.arguments[0]
    document = client.get(f"/containers/{quote(name)}/json")
    state = document["State"]
    if not state["Running"]:
        raise CliError("You cannot attach to a stopped container, start it first")
    if state["Paused"]:
        raise CliError("You cannot attach to a paused container, unpause it first")
    if state["Restarting"]:
        raise CliError("You cannot attach to a restarting container, wait until it is running")
    tty = bool(document["Config"]["Tty"])
    stdin = bool(document["Config"]["OpenStdin"]) and not options.on("no-stdin")
    if tty and stdin:
        from jaula.cli.output.user_terminal import check_terminal

        check_terminal()
    keys = detach_keys_of(options, tty=tty, stdin=stdin)
    container = str(document["Id"])
    waiting = send_wait(client, container, "")
    waiting.response_head()
    connection = check_hijacked(send_attach(client, container, options, stdin=stdin))
    if attach_container(
        client, container, options, connection, waiting, tty=tty, stdin=stdin, keys=keys
    ):
        sys.stderr.write("read escape sequence\n")
        return 0
    return wait_status(client, waiting, container)


ATTACH = Command(
    "[OPTIONS] CONTAINER",
    "Attach local standard input, output, and error streams to a running container",
    attach,
    flags=(
        DETACH_KEYS,
        Flag("no-stdin", "", "bool", "Do not attach STDIN"),
        SIG_PROXY,
    ),
    min_args=1,
    max_args=1,
    description=(
        "Connects the terminal to the streams of a container. Several clients may be attached "
        "at once. The detach keys, control-P control-Q by default, leave the container "
        "running."
    ),
    examples=(("Attach again after detaching", "jaula attach work"),),
    exit_status=(("N", "the container's own exit status"), ("0", "detached")),
    see_also=("run", "exec", "logs"),
    completes="container",
)


def commit(options: Options) -> int:
    """Create an image from a container and print its id."""
    container, *names = options.arguments
    repository, tag = pull_progress.split_reference(names[0]) if names else ("", "")
    query = [
        ("container", container),
        ("repo", repository),
        ("tag", tag),
        ("author", options.text("author")),
        ("comment", options.text("message")),
        ("pause", "1" if options.on("pause", True) else "0"),
        *(("changes", change) for change in options.texts("change")),
    ]
    client = Client(Settings.host)
    with Progress("commit"):
        answer = client.document("POST", "/commit", query, {})
    print(answer["Id"])
    return 0


COMMIT = Command(
    "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]",
    "Create a new image from a container's changes",
    commit,
    flags=(
        Flag("author", "a", "string", "Author (e.g., John Hannibal Smith <hannibal@a-team.com>)"),
        Flag(
            "change",
            "c",
            "list",
            'Apply Dockerfile instruction to the created image (CMD ["sh"], ENV A=b)',
        ),
        Flag("message", "m", "string", "Commit message"),
        Flag("pause", "p", "bool", "Pause container during commit", default="true"),
    ),
    min_args=1,
    max_args=2,
    description=(
        "The image has the layers of the container's image and one more with the changes of "
        "the container, without its volumes. The container is paused during the commit, so "
        "that the files are consistent."
    ),
    examples=(
        ("Commit a container", "jaula commit -m 'with tools' box box:tools"),
        ("Change the command of the image", "jaula commit -c 'CMD [\"nginx\"]' box box:web"),
    ),
    see_also=("diff", "export", "import"),
    completes="container",
)


KINDS = "CAD"


def diff(options: Options) -> int:
    """Print the changes in the container's file system."""
    name = options.arguments[0]
    changes = Client(Settings.host).get(f"/containers/{quote(name)}/changes") or []
    output_format = options.text("format", "{{.Type}} {{.Path}}")
    columns: dict[str, list_output.Column] = {
        "Type": ("CHANGE TYPE", lambda change: KINDS[change["Kind"]]),
        "Path": ("PATH", lambda change: change["Path"]),
    }
    list_output.show(changes, columns, "{{.Type}}\t{{.Path}}", output_format)
    return 0


DIFF = Command(
    "CONTAINER",
    "Inspect changes to files or directories on a container's filesystem",
    diff,
    flags=(
        Flag(
            "format",
            "",
            "string",
            "Format output using a custom template (table, json, or a Go template)",
        ),
    ),
    min_args=1,
    max_args=1,
    description=(
        "A is added, C changed, D deleted, relative to the image. The changes are in the "
        "container's writable layer and are removed with it."
    ),
    examples=(("List the changes of a container", "jaula diff web"),),
    see_also=("ps", "export"),
    completes="container",
)


def export(options: Options) -> int:
    """Write the container's file system as a tar archive."""
    name = options.arguments[0]
    response = Client(Settings.host).open("GET", f"/containers/{quote(name)}/export")
    image_archive.write(response.chunks(), options.text("output"), "save", "export")
    return 0


EXPORT = Command(
    "[OPTIONS] CONTAINER",
    "Export a container's filesystem as a tar archive",
    export,
    flags=(Flag("output", "o", "string", "Write to a file, instead of STDOUT", completes="file"),),
    min_args=1,
    max_args=1,
    description=(
        "The archive contains the image's files with the container's changes, without volumes."
    ),
    examples=(("List the files of a container", "jaula export web | tar t"),),
    see_also=("import", "save", "diff"),
    completes="container",
)


def inspect(options: Options) -> int:
    """Print the documents of the containers."""
    client = Client(Settings.host)
    size = (("size", options.on("size")),)
    return inspect_output.show(
        options.arguments,
        options.text("format"),
        lambda name: client.get(f"/containers/{quote(name)}/json", size),
    )


INSPECT = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Display detailed information on one or more containers",
    inspect,
    flags=(inspect_output.FORMAT, Flag("size", "s", "bool", "Display total file sizes")),
    min_args=1,
    description="Prints Docker's document of each container as JSON, or the output of a template.",
    examples=(("Inspect a container", "jaula container inspect web"),),
    see_also=("inspect", "ps"),
    completes="container",
)


def kill(options: Options) -> int:
    """Send a signal to every container."""
    return each_container(options.arguments, "kill", (("signal", options.text("signal")),))


KILL = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Kill one or more running containers",
    kill,
    flags=(Flag("signal", "s", "string", "Signal to send to the container", default="KILL"),),
    min_args=1,
    description="Sends a signal, SIGKILL by default, to the init process of the container.",
    examples=(("Make a server reload its configuration", "jaula kill -s HUP web"),),
    see_also=("stop",),
    completes="container",
)


def logs(options: Options) -> int:
    """Print the container's log, its standard error to standard error."""
    client = Client(Settings.host)
    name = quote(options.arguments[0])
    container = client.get(f"/containers/{name}/json")
    query = (
        ("stdout", True),
        ("stderr", True),
        ("since", timestamp(options.text("since"))),
        ("until", timestamp(options.text("until"))),
        ("timestamps", options.on("timestamps")),
        ("follow", options.on("follow")),
        ("tail", options.text("tail", "all")),
        ("details", options.on("details")),
    )
    response = client.open("GET", f"/containers/{container['Id']}/logs", query)
    copy(response.chunks(), framed=not container["Config"]["Tty"])
    return 0


LOGS = Command(
    "[OPTIONS] CONTAINER",
    "Fetch the logs of a container",
    logs,
    flags=(
        Flag("details", "", "bool", "Show extra details provided to logs"),
        Flag("follow", "f", "bool", "Follow log output"),
        Flag(
            "since",
            "",
            "string",
            "Show logs since timestamp (e.g. 2013-01-02T13:23:37Z) or relative (e.g. 42m for "
            "42 minutes)",
        ),
        Flag(
            "tail", "n", "string", "Number of lines to show from the end of the logs", default="all"
        ),
        Flag("timestamps", "t", "bool", "Show timestamps"),
        Flag(
            "until",
            "",
            "string",
            "Show logs before a timestamp (e.g. 2013-01-02T13:23:37Z) or relative (e.g. 42m "
            "for 42 minutes)",
        ),
    ),
    min_args=1,
    max_args=1,
    description="Prints the entries in the container's log. Log drivers may rotate the log.",
    examples=(("Print the last lines and follow", "jaula logs -f --tail 20 web"),),
    see_also=("attach", "events"),
    completes="container",
)


def pause(options: Options) -> int:
    """Pause the containers."""
    return each_container(options.arguments, "pause")


PAUSE = Command(
    "CONTAINER [CONTAINER...]",
    "Pause all processes within one or more containers",
    pause,
    min_args=1,
    description=("Freezes every process of the container through its cgroup."),
    examples=(("Pause a container", "jaula pause web"),),
    see_also=("unpause",),
    completes="container",
)


def port(options: Options) -> int:
    """Print the published ports of a container."""
    name, *requested = options.arguments
    document = Client(Settings.host).get(f"/containers/{quote(name)}/json")
    ports = document["NetworkSettings"].get("Ports") or {}
    if requested:
        port = requested[0] if "/" in requested[0] else requested[0] + "/tcp"
        bindings = ports.get(port)
        if not bindings:
            raise CliError(f"Error: No public port '{requested[0]}' published for {name}")
        for binding in bindings:
            print(_address(binding))
        return 0
    for port in sorted(ports, key=lambda port: (int(port.partition("/")[0]), port)):
        for binding in ports[port] or ():
            print(f"{port} -> {_address(binding)}")
    return 0


def _address(binding: dict[str, str]) -> str:
    host = binding["HostIp"]
    return f"[{host}]:{binding['HostPort']}" if ":" in host else f"{host}:{binding['HostPort']}"


PORT = Command(
    "CONTAINER [PRIVATE_PORT[/PROTO]]",
    "List port mappings or a specific mapping for the container",
    port,
    min_args=1,
    max_args=2,
    description="Prints one line for each published port of the container, or of the given port.",
    examples=(("Print the address of port 80", "jaula port web 80"),),
    see_also=("run", "ps"),
    completes="container",
)


def prune(options: Options) -> int:
    """Prompt, remove the containers and print the result."""
    return prune_prompt.prune(options, "containers", "This will remove all stopped containers.")


PRUNE = Command(
    "[OPTIONS]",
    "Remove all stopped containers",
    prune,
    flags=(
        prune_prompt.FILTER,
        prune_prompt.FORCE,
    ),
    max_args=0,
    description="Removes the containers with their writable layers; volumes are kept.",
    examples=(("Do not prompt", "jaula container prune -f"),),
    see_also=("system prune", "system df"),
)


def rename(options: Options) -> int:
    """Rename the container."""
    name, new = options.arguments
    query = (("name", new),)
    Client(Settings.host).request("POST", f"/containers/{quote(name)}/rename", query)
    return 0


RENAME = Command(
    "CONTAINER NEW_NAME",
    "Rename a container",
    rename,
    min_args=2,
    max_args=2,
    description="Works on running and stopped containers; nothing else changes.",
    examples=(("Rename a container", "jaula rename web web-old"),),
    see_also=("ps", "inspect"),
    completes="container",
)


STOP_FLAGS = (
    Flag("signal", "s", "string", "Signal to send to the container"),
    Flag("time", "t", "int", "Seconds to wait before killing the container (-1 waits for ever)"),
    Flag("timeout", "", "int", "Alias of --time"),
)


def stop_query(options: Options) -> tuple[tuple[str, str], ...]:
    """Return the query of stop and restart; empty values select the container's own settings."""
    seconds = next(
        (str(options.number(name)) for name in ("time", "timeout") if options.is_set(name)), ""
    )
    return (("signal", options.text("signal")), ("t", seconds))


def restart(options: Options) -> int:
    """Restart the containers."""
    return each_container(options.arguments, "restart", stop_query(options))


RESTART = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Restart one or more containers",
    restart,
    flags=STOP_FLAGS,
    min_args=1,
    description="Stops the container as stop does and starts it again.",
    examples=(("Restart a container", "jaula restart web"),),
    see_also=("stop", "start"),
    completes="container",
)


def rm(options: Options) -> int:
    """Remove the containers."""
    client = Client(Settings.host)
    query = (
        ("force", options.on("force")),
        ("link", options.on("link")),
        ("v", options.on("volumes")),
    )
    files = cidfile.files(options)
    status = each(
        cidfile.containers(options, files),
        lambda name: client.request("DELETE", f"/containers/{quote(name.strip('/'), '/')}", query),
        ignored=cidfile.MISSING if options.on("ignore") else 0,
    )
    if not status:
        for file in files:
            file.remove()
    return status


RM = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Remove one or more containers",
    rm,
    flags=(
        Flag("force", "f", "bool", "Force the removal of a running container (uses SIGKILL)"),
        Flag(
            "link",
            "l",
            "bool",
            "Remove the specified link (CONTAINER/ALIAS); no container is removed",
        ),
        Flag("volumes", "v", "bool", "Remove anonymous volumes associated with the container"),
        *cidfile.FLAGS,
    ),
    description=(
        "Removes the containers with their writable layers; named volumes are kept. A file of "
        "--cidfile is removed with its container."
    ),
    examples=(("Remove a running container", "jaula rm -f web"),),
    see_also=("stop", "container prune"),
    completes="container",
)


def start(options: Options) -> int:
    """Start the containers; with ``-a`` or ``-i`` start one and attach to it."""
    client = Client(Settings.host)
    names = options.arguments
    if options.text("checkpoint") and len(names) > 1:
        raise CliError("you cannot start multiple containers from a checkpoint at once")
    if options.on("attach") or options.on("interactive"):
        if len(names) > 1:
            raise CliError("you cannot start and attach multiple containers at once")
        return _attached(client, names[0], options)
    failed = []
    for name in names:
        try:
            client.request("POST", f"/containers/{quote(name)}/start", _checkpoint(options))
            print(name)
        except EngineError as error:
            sys.stdout.flush()
            sys.stderr.write(error.message + "\n")
            failed.append(name)
    if failed:
        raise CliError("Error: failed to start containers: " + ", ".join(failed))
    return 0


def _checkpoint(options: Options) -> tuple[tuple[str, str], ...]:
    """Return the query that starts a container from a checkpoint."""
    names = ("checkpoint", "checkpoint-dir")
    return tuple((name, options.text(name)) for name in names if options.text(name))


def _attached(client: Client, name: str, options: Options) -> int:
    document = client.get(f"/containers/{quote(name)}/json")
    container, config = str(document["Id"]), document["Config"]
    tty = bool(config["Tty"])
    stdin = options.on("interactive") and bool(config["OpenStdin"])

    def start() -> None:
        client.request("POST", f"/containers/{container}/start", _checkpoint(options))

    if options.is_set("sdnotify"):
        from jaula.cli.containers import systemd_service

        if (managed := systemd_service.of_start(options)) is not None:
            managed.created(client, container)
            plain_start = start

            def start() -> None:
                plain_start()
                managed.started(container)

    return start_attached(
        client,
        container,
        options,
        start,
        tty=tty,
        stdin=stdin,
        keys=detach_keys_of(options, tty=tty, stdin=stdin),
        removed=bool(document["HostConfig"].get("AutoRemove")),
    )


START = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Start one or more stopped containers",
    start,
    flags=(
        Flag("attach", "a", "bool", "Attach STDOUT/STDERR and forward signals"),
        Flag("checkpoint", "", "string", "Restore from this checkpoint"),
        Flag("checkpoint-dir", "", "string", "Use a custom checkpoint storage directory"),
        DETACH_KEYS,
        Flag("interactive", "i", "bool", "Attach container's STDIN"),
        SDNOTIFY,
        SIG_PROXY,
    ),
    min_args=1,
    description=(
        "Starts created or exited containers. With -a the client stays attached to one "
        "container and exits with its status."
    ),
    examples=(
        ("Restart a shell and attach to it", "jaula start -ai work"),
        ("Continue from a checkpoint", "jaula start --checkpoint before-reboot web"),
    ),
    exit_status=(
        ("N", "with -a, the container's exit status"),
        ("1", "a container was not started"),
    ),
    see_also=("checkpoint create", "create", "run", "stop"),
    completes="container",
)


def stop(options: Options) -> int:
    """Stop the containers."""
    ignored = cidfile.MISSING if options.on("ignore") else 0
    names = cidfile.containers(options, cidfile.files(options))
    return each_container_at_once(names, "stop", stop_query(options), ignored=ignored)


STOP = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Stop one or more running containers",
    stop,
    flags=(*STOP_FLAGS, *cidfile.FLAGS),
    description=(
        "Sends the container's stop signal (default: SIGTERM), and SIGKILL if the container is "
        "still running after ten seconds or the given time."
    ),
    examples=(("Stop immediately", "jaula stop -t 0 web"),),
    see_also=("kill", "start", "restart"),
    completes="container",
)


def top(options: Options) -> int:
    """Print the container's processes as ps(1) on the host shows them."""
    name, *words = options.arguments
    query = (("ps_args", " ".join(words)),)
    processes = Client(Settings.host).get(f"/containers/{quote(name)}/top", query)
    rows = ["\t".join(row) for row in [processes["Titles"], *(processes["Processes"] or ())]]
    sys.stdout.write(aligned(rows, min_width=20))
    return 0


TOP = Command(
    "CONTAINER [ps OPTIONS]",
    "Display the running processes of a container",
    top,
    min_args=1,
    interspersed=False,
    description="PIDs and users are those of the host.",
    examples=(("Select columns", "jaula top web -o pid,user,args"),),
    see_also=("stats", "exec", "tree"),
    completes="container",
)


def unpause(options: Options) -> int:
    """Unpause the containers."""
    return each_container(options.arguments, "unpause")


UNPAUSE = Command(
    "CONTAINER [CONTAINER...]",
    "Unpause all processes within one or more containers",
    unpause,
    min_args=1,
    description="Resumes the processes of a paused container.",
    examples=(("Resume a container", "jaula unpause web"),),
    see_also=("pause",),
    completes="container",
)


def update(options: Options) -> int:
    """Update the limits of the containers."""
    body = create_body.update(options)
    if not body:
        raise UsageError("you must provide one or more flags when using this command", status=1)
    client = Client(Settings.host)

    def update(name: str) -> None:
        answer = client.document("POST", f"/containers/{quote(name)}/update", (), body)
        for warning in (answer or {}).get("Warnings") or ():
            sys.stderr.write(f"WARNING: {warning}\n")

    return each(options.arguments, update)


UPDATE = Command(
    "[OPTIONS] CONTAINER [CONTAINER...]",
    "Update configuration of one or more containers",
    update,
    flags=tuple(flag for flag in FLAGS if flag.name in UPDATE_NAMES),
    min_args=1,
    description="The limits of a running container change at once.",
    examples=(("Limit a container to half a CPU", "jaula update --cpus 0.5 web"),),
    see_also=("run", "stats"),
    completes="container",
)


def wait(options: Options) -> int:
    """Wait for each container in turn; 1 if one does not exist."""
    client = Client(Settings.host)
    result = 0
    for name in options.arguments:
        try:
            waiting = send_wait(client, quote(name), "")
            checked(waiting.response_head())
            print(wait_status(client, waiting, quote(name)), flush=True)
        except EngineError as error:
            sys.stderr.write(error.message + "\n")
            result = 1
    return result


WAIT = Command(
    "CONTAINER [CONTAINER...]",
    "Block until one or more containers stop, then print their exit codes",
    wait,
    min_args=1,
    description="Returns at once for a container that is not running.",
    examples=(("Wait for a job", "jaula wait job"),),
    see_also=("run", "stop"),
    completes="container",
)
