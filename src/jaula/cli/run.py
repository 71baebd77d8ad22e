"""The commands that create a container: ``jaula run`` and ``create``."""

from __future__ import annotations

from jaula.cli.cli_errors import CliError, EngineError, NotATerminal
from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.containers import create_body, feature_flag, flags
from jaula.cli.containers.attach_loop import (
    DETACH_KEYS,
    SDNOTIFY,
    SIG_PROXY,
    detach_keys_of,
    start_attached,
)
from jaula.cli.containers.create_container import create as create_container
from jaula.cli.containers.hint import print_hint
from jaula.cli.environ import variable
from jaula.cli.main import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from jaula.cli.client.detach_key_matcher import DetachKeys
    from jaula.cli.containers.systemd_service import Service

NOT_STARTED, NOT_EXECUTABLE, NOT_FOUND = 125, 126, 127
# Parts of the engine's error message that determine the status, as in Docker's command line.
STATUS_BY_WORDS = (
    ("executable file not found", NOT_FOUND),
    ("no such file or directory", NOT_FOUND),
    ("permission denied", NOT_EXECUTABLE),
    ("is a directory", NOT_EXECUTABLE),
    ("exec format error", NOT_EXECUTABLE),
)


def run(options: Options) -> int:
    """Create, attach, start and exit with the container's status."""
    client = Client(Settings.host)
    try:
        return _run(client, options)
    except NotATerminal:
        raise
    except CliError as failure:
        failure.status = NOT_STARTED if failure.status == 1 else failure.status
        failure.message = f"jaula: {failure.message}"
        if failure.status == NOT_STARTED:  # otherwise the program is wrong, not the command line
            failure.message += "\nSee 'jaula run --help'."
        raise


def _run(client: Client, options: Options) -> int:
    body = create_body.document(options)
    tty, detach = options.on("tty"), options.on("detach")
    stdin = bool(body.get("AttachStdin"))
    if tty and stdin and not detach:
        from jaula.cli.output.user_terminal import check_terminal

        check_terminal()
    if tty:
        _console_size(body)
    keys = detach_keys_of(options, tty=tty, stdin=stdin)
    if options.is_set("sdnotify") or variable("LISTEN_FDS") is not None:
        from jaula.cli.containers import systemd_service

        if (managed := systemd_service.of(options)) is not None:
            return _run_service(client, options, body, keys, managed)
    if options.is_set("record"):
        record_process = feature_flag.module("record")
        record_process.check(client, options)
        listener = record_process.listen(options, body)
    if options.on("why"):
        status: int = feature_flag.module("why").run_explained(
            client,
            options,
            body,
            lambda container: _attached(client, options, container, body, keys, None),
        )
        return status
    container = create_container(client, options, body)
    recorder = None
    if options.is_set("record"):
        recorder = record_process.start(client, container, options, listener)
    try:
        if detach:
            _start(client, container, recorder)
            if recorder is not None:
                recorder.print_started()
            print(container)
            return 0
        status = _attached(client, options, container, body, keys, recorder)
    except CliError as failure:
        if not options.on("rm"):
            print_hint(failure.status, _why(options, container))
        raise
    except KeyboardInterrupt:
        if options.on("rm"):
            client.request("DELETE", f"/containers/{container}", (("force", True),))
        raise
    if recorder is not None:
        recorder.finish()
    print_hint(status, _why(options, container))
    return status


def _run_service(
    client: Client,
    options: Options,
    body: dict[str, object],
    keys: DetachKeys | None,
    service: Service,
) -> int:
    """Run the container as the main process of a service of systemd."""
    with service:
        service.prepare(body)
        container = create_container(client, options, body)
        try:
            service.created(client, container)

            def start() -> None:
                _start(client, container, None)
                service.started(container)

            if not options.on("detach"):
                return _attached(client, options, container, body, keys, None, start)
            service.supervise(client, container, lambda: _start(client, container, None))
        except CliError:
            if options.on("rm"):
                client.request("DELETE", f"/containers/{container}", (("force", True),))
            raise
    print(container)
    return 0


def _start(client: Client, container: str, recorder: feature_flag.Recorder | None) -> None:
    try:
        client.request("POST", f"/containers/{container}/start")
    except EngineError as error:
        if recorder is not None:
            recorder.discard()
        raise _start_failure(error) from None


def _attached(
    client: Client,
    options: Options,
    container: str,
    body: dict[str, object],
    keys: DetachKeys | None,
    recorder: feature_flag.Recorder | None,
    start: Callable[[], None] | None = None,
) -> int:
    return start_attached(
        client,
        container,
        options,
        start or (lambda: _start(client, container, recorder)),
        tty=options.on("tty"),
        stdin=bool(body.get("AttachStdin")),
        stdout=bool(body.get("AttachStdout")),
        stderr=bool(body.get("AttachStderr")),
        keys=keys,
        removed=options.on("rm") and not options.on("why"),
    )


def _why(options: Options, container: str) -> str:
    """Return the command that explains the container's failure."""
    if options.on("rm"):
        return f"jaula run --why --rm {options.arguments[0]} ..."
    return f"jaula why {options.text('name') or container[:12]}"


def _console_size(body: dict[str, object]) -> None:
    from jaula.cli.output.user_terminal import console_size

    host, size = body["HostConfig"], console_size()
    if size and isinstance(host, dict):
        host["ConsoleSize"] = size


def _start_failure(error: EngineError) -> CliError:
    status = next(
        (number for words, number in STATUS_BY_WORDS if words in error.reason), NOT_STARTED
    )
    return CliError(error.message, status=status)


RUN = Command(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create and run a new container from an image",
    run,
    flags=(
        *flags.FLAGS,
        Flag("detach", "d", "bool", "Run container in background and print container ID"),
        DETACH_KEYS,
        SIG_PROXY,
        SDNOTIFY,
        Flag("why", "", "bool", "Explain at the end which layers refused operations"),
    ),
    min_args=1,
    interspersed=False,
    description=(
        "Creates a container from IMAGE and starts COMMAND, or the command of the image, as PID "
        "1 in namespaces of its own: user, PID, mount, network, IPC, UTS and cgroup. Root in "
        "the container is an unprivileged id on the host that no other container uses.\n\nFlags "
        "end at IMAGE; everything after it belongs to the program in the container. Without -d "
        "the client stays attached, with standard input (-i) and a terminal (-t), and exits "
        "with the container's status. Signals are forwarded to the container."
    ),
    examples=(
        ("Run a shell and remove the container afterwards", "jaula run -it --rm debian bash"),
        (
            "Run a service with a memory limit",
            "jaula run -d --name web -m 64mb -p 8080:80 busybox httpd -f",
        ),
        (
            "Mount a directory of the host read-only",
            "jaula run --rm -v /etc:/host-etc:ro busybox ls /host-etc",
        ),
    ),
    exit_status=(
        ("N", "the container's own exit status"),
        ("125", "the engine refused, or the command line is invalid"),
        ("126", "the program cannot be executed"),
        ("127", "the program was not found"),
        ("128+N", "the program was terminated by signal N"),
    ),
    see_also=("create", "exec", "attach", "why", "verify"),
    completes="image",
)


def create(options: Options) -> int:
    """Create the container and print its id; with ``--record``, start its recorder."""
    client = Client(Settings.host)
    body = create_body.document(options)
    if not options.is_set("record"):
        print(create_container(client, options, body))
        return 0
    record_process = feature_flag.module("record")
    record_process.check(client, options)
    listener = record_process.listen(options, body)
    container = create_container(client, options, body)
    record_process.start(client, container, options, listener).print_started()
    print(container)
    return 0


CREATE = Command(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create a new container",
    create,
    flags=flags.FLAGS,
    min_args=1,
    interspersed=False,
    description=(
        "Creates a container from IMAGE without starting it and prints its ID. The flags are "
        "those of run."
    ),
    examples=(("Create a container", "jaula create --name job busybox sleep 60"),),
    see_also=("run", "start", "rm"),
    completes="image",
)
