"""``jaula migrate-from``."""

from __future__ import annotations

import os
import sys
import time
from contextlib import closing

from jaula.cli import environ
from jaula.cli.cli_errors import CliError, EngineError, UsageError
from jaula.cli.client.api_client import Client
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.output import text_table
from jaula.cli.output.ansi import redraws
from jaula.cli.output.visible_stream import write_control
from jaula.spec import fast_json
from jaula.spec.units import bytes_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from jaula.errors import JaulaError
    from jaula.features.migrate_from.execute import Outcome
    from jaula.features.migrate_from.inventory import Inventory, Source
    from jaula.features.migrate_from.migrate_plan import Item, Plan
    from jaula.features.migrate_from.migrate_plan import Options as PlanOptions

    Query = Iterable[tuple[str, object]]

ENGINES = ("docker", "podman")
_SOCKET = "unix:///var/run/docker.sock"
_ERASE_LINE = "\r\x1b[K"
_INTERVAL = 0.2  # seconds between two lines of progress on a terminal


def run(options: Options) -> int:
    """Print the plan; carry it out after a question, or with ``--yes``."""
    from jaula.cli import site_packages
    from jaula.errors import JaulaError

    site_packages.enable()
    try:
        return _run(options)
    except JaulaError as error:
        raise CliError(str(error)) from None


def _run(options: Options) -> int:
    from jaula.features.migrate_from import execute, migrate_plan, target_state

    engine = options.arguments[0]
    if engine not in ENGINES:
        raise UsageError(f"unknown engine {engine!r}: must be docker or podman", status=1)
    wishes = _plan_options(options, engine)
    as_json = options.on("json")
    if as_json and not options.on("dry-run") and not options.on("yes"):
        raise UsageError("--json asks no question: add --dry-run or --yes", status=1)
    api = _Api()
    with closing(_source(options, engine, api)) as source, execute.only_once(api.identity):
        inventory = source.inventory()
        decided = migrate_plan.make_plan(
            inventory, target_state.read_target(api, source, inventory), wishes
        )
        if as_json and options.on("dry-run"):
            print(fast_json.encode(_plan_document(decided)))
        elif not as_json:
            _print_plan(decided, quiet=options.on("quiet"))
        refused = decided.selected(migrate_plan.Action.REFUSE)
        taken = decided.selected(migrate_plan.Action.TAKE)
        if options.on("dry-run"):
            return 1 if refused or not decided.has_space else 0
        if not decided.has_space:
            raise CliError(
                f"{bytes_size(decided.space)} are needed and {bytes_size(decided.free)} are free:"
                " free some, or select less with --only or --filter"
            )
        if taken and not options.on("yes") and not _is_confirmed(len(taken), len(decided.items)):
            print("Nothing was changed.", file=sys.stderr)
            return 1
        outcomes = _execute(api, source, inventory, decided, wishes, options)
    failed = [outcome for outcome in outcomes if outcome.error]
    if as_json:
        document = _plan_document(decided)
        document["Outcomes"] = [_outcome_document(outcome) for outcome in outcomes]
        print(fast_json.encode(document))
    elif taken:
        done = len(outcomes) - len(failed)
        print(f"{done} taken over, {len(failed)} failed, {len(refused)} refused.")
    return 1 if failed or refused else 0


def _execute(
    api: _Api,
    source: Source,
    inventory: Inventory,
    decided: Plan,
    wishes: PlanOptions,
    options: Options,
) -> Sequence[Outcome]:
    from jaula.features.migrate_from.execute import Executor
    from jaula.features.migrate_from.migrate_plan import Action

    quiet = options.on("quiet") or options.on("json")
    progress = _Progress(len(decided.selected(Action.TAKE)), quiet=quiet)
    executor = Executor(api, source, inventory, decided, wishes, progress)
    executor.run()
    if options.on("start"):
        _start(api, inventory, executor.outcomes)
    return executor.outcomes


def _start(api: _Api, inventory: Inventory, outcomes: Sequence[Outcome]) -> None:
    """Start the new containers whose originals run, and those that have a restart policy."""
    from jaula.errors import JaulaError

    containers = {each.id: each for each in inventory.containers}
    for outcome in outcomes:
        original = containers.get(outcome.item.key)
        if outcome.item.kind != "container" or outcome.error or original is None:
            continue
        policy = original.request.host_config.restart_policy.name
        if original.is_running or policy in ("always", "unless-stopped"):
            try:
                api.document("POST", f"/containers/{outcome.item.becomes}/start")
            except JaulaError as error:
                print(f"{outcome.item.becomes} does not start: {error}", file=sys.stderr)


def _plan_options(options: Options, engine: str) -> PlanOptions:
    from jaula.features.migrate_from.inventory import KINDS
    from jaula.features.migrate_from.migrate_plan import OnConflict
    from jaula.features.migrate_from.migrate_plan import Options as PlanOptions

    plurals = {f"{kind}s": kind for kind in KINDS}
    words = [word for value in options.texts("only") for word in value.split(",") if word]
    for word in words:
        if word not in plurals:
            raise UsageError(f"--only {word}: must be of {', '.join(plurals)}", status=1)
    pairs = []
    for text in options.texts("filter"):
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"bad format of filter (expected name=value): {text!r}", status=1)
        pairs.append((key, value))
    rule = options.text("on-conflict") or "refuse"
    if rule not in list(OnConflict):
        raise UsageError("--on-conflict must be refuse, rename or use", status=1)
    return PlanOptions(
        kinds=tuple(plurals[word] for word in words) or KINDS,
        filters=tuple(pairs),
        on_conflict=OnConflict(rule),
        suffix=options.text("suffix") or f"-{engine}",
        allow_running=options.on("allow-running"),
        with_changes=not options.on("no-changes"),
        new_subnets=options.on("new-subnets"),
        pull_digests=options.on("pull-digests"),
    )


def _source(options: Options, engine: str, api: _Api) -> Source:
    host, root = options.text("host"), options.text("root")
    if engine == "podman":
        from jaula.features.migrate_from import podman

        root = root or podman.find_root(host)
    is_rootless = os.geteuid() != 0
    if is_rootless and api.is_local:
        _enter_namespaces(api.socket)
    if engine == "podman":
        return podman.Podman(root)
    if root and not host:
        from jaula.features.migrate_from.docker_root import DockerRoot

        return DockerRoot(root)
    from jaula.features.migrate_from.docker_source import Docker
    from jaula.features.migrate_from.source_api import SourceApi

    socket = f"unix://{environ.text('XDG_RUNTIME_DIR')}/docker.sock" if is_rootless else _SOCKET
    return Docker(SourceApi(host or socket), root, from_disk=not options.on("api-only"))


def _enter_namespaces(socket: str) -> None:
    """Join the user namespace of this user's engine, which has the ids of the user's engines."""
    from jaula.rootless import enter

    try:
        enter.join_existing(os.path.dirname(socket))
    except OSError as error:
        raise CliError(f"cannot enter the engine's namespaces: {error.strerror}") from None


class _Api:
    """The engine that takes over; its errors are those of :mod:`jaula.errors`."""

    def __init__(self) -> None:
        self._client = Client(Settings.host)
        self.socket = self._client.address.text.removeprefix("unix://")
        self.is_local = self._client.address.text.startswith("unix://")
        self.identity = str(self.document("GET", "/info")["ID"])

    def document(self, method: str, path: str, query: Query = (), body: object = None) -> Any:
        try:
            return self._client.document(method, path, query, body)
        except EngineError as error:
            raise _converted(error) from None

    def pull(self, name: str) -> None:
        from jaula.cli.images.pull_progress import pull
        from jaula.errors import Unavailable

        try:
            pull(self._client, name, quiet=True, output=2)
        except EngineError as error:
            raise _converted(error) from None
        except CliError as error:
            raise Unavailable(str(error)) from None

    def upload(
        self, path: str, query: Query, chunks: Iterable[bytes | memoryview]
    ) -> Sequence[Any]:
        try:
            response = self._client.upload(path, query, map(bytes, chunks))
            return list(fast_json.decode_lines(response.chunks()))
        except EngineError as error:
            raise _converted(error) from None


def _converted(error: EngineError) -> JaulaError:
    from jaula import errors

    kinds = {
        400: errors.InvalidRequest,
        403: errors.NotAuthorized,
        404: errors.NotFound,
        409: errors.Conflict,
    }
    return kinds.get(error.code, errors.Unavailable)(error.reason)


# -- output ---------------------------------------------------------------------------------------


def _print_plan(decided: Plan, *, quiet: bool) -> None:
    from jaula.features.migrate_from.migrate_plan import Action

    print(f"{' '.join(filter(None, (decided.engine, decided.version)))}, {decided.root}")
    if not decided.items:
        print("nothing is selected, or the source has no objects")
        return
    lines = ["KIND\tNAME\tACTION\tSIZE\tREMARK"]
    for item in decided.items:
        if quiet and item.action in (Action.PRESENT, Action.LEAVE):
            continue
        remarks = _remarks(item)
        size = bytes_size(item.size) if item.size else ""
        head = remarks[0] if remarks else ""
        lines.append(f"{item.kind}\t{_shown(item.name)}\t{item.action}\t{size}\t{head}")
        lines += [f"\t\t\t\t{remark}" for remark in remarks[1:]]
    print(text_table.aligned(lines), end="")
    counts = [
        f"{len(decided.selected(action))} {text}"
        for action, text in (
            (Action.TAKE, "to take over"),
            (Action.PRESENT, "present"),
            (Action.USE, "replaced by existing ones"),
            (Action.REFUSE, "refused"),
            (Action.LEAVE, "left behind"),
        )
        if decided.selected(action)
    ]
    free = "" if decided.free < 0 else f" of {bytes_size(decided.free)} free"
    print(f"{', '.join(counts)};", end=" ")
    print(f"disk {bytes_size(decided.space)}{free}, about {_duration(decided.seconds)}")


def _remarks(item: Item) -> list[str]:
    names = item.becomes.split(", ") if item.action in ("take", "use") else []
    renamed = [f"becomes {_shown(names[0], 60)}"] if names and names[0] != item.name else []
    renamed += [f"also {', '.join(names[1:])}"] if names[1:] else []
    reason = [item.reason] if item.reason else []
    return [_printable(text) for text in (*reason, *renamed, *item.notes)]


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _shown(name: str, width: int = 40) -> str:
    name = _printable(name)
    return name if len(name) <= width else f"{name[: width - 1]}…"


def _duration(seconds: int) -> str:
    if seconds < 120:
        return f"{max(seconds, 1)} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _is_confirmed(taken: int, total: int) -> bool:
    if not os.isatty(0):
        raise CliError("standard input is not a terminal: add --yes, or --dry-run")
    sys.stdout.flush()
    sys.stderr.write(f"Take over {taken} of {total}? [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


class _Progress:
    """One line for each object: on a terminal with the bytes sent so far, else when it is done.

    ``total`` is the number of objects.
    """

    def __init__(self, total: int, *, quiet: bool) -> None:
        self._total = total
        self._done = 0
        self._quiet = quiet
        self._live = redraws(2)
        self._label = ""
        self._sent = 0
        self._began = self._shown = 0.0

    def begin(self, item: Item, count: int = 1) -> None:
        self._label = f"[{self._done + 1}/{self._total}] {item.kind} {_shown(item.name)}"
        if count > 1:
            self._label += f" and {count - 1} more"
        self._sent = 0
        self._began = time.monotonic()
        self._draw()

    def advance(self, count: int) -> None:
        self._sent += count
        if time.monotonic() - self._shown > _INTERVAL:
            self._draw()

    def end(self, outcome: Outcome) -> None:
        self._done += 1
        if self._quiet and not outcome.error:
            return
        item = outcome.item
        text = f"{item.kind} {_shown(item.name)}: "
        if outcome.error:
            text += f"failed: {_printable(outcome.error)}"
        else:
            text += "taken over"
            if self._sent:
                text += f", {bytes_size(self._sent)} in {time.monotonic() - self._began:.1f} s"
        self._sent = 0
        if self._live:
            write_control(sys.stderr, _ERASE_LINE)
        sys.stderr.write(f"{text}\n")
        for warning in outcome.warnings:
            sys.stderr.write(f"  warning: {_printable(warning)}\n")
        sys.stderr.flush()

    def _draw(self) -> None:
        self._shown = time.monotonic()
        if self._live and not self._quiet:
            write_control(sys.stderr, _ERASE_LINE)
            sys.stderr.write(f"{self._label}: {bytes_size(self._sent)}")
            sys.stderr.flush()


def _plan_document(decided: Plan) -> dict[str, Any]:
    return {
        "Engine": decided.engine,
        "Version": decided.version,
        "Root": decided.root,
        "Space": decided.space,
        "Free": decided.free,
        "Seconds": decided.seconds,
        "Items": [
            {
                "Kind": item.kind,
                "ID": item.key,
                "Name": item.name,
                "Action": str(item.action),
                "Becomes": item.becomes,
                "Reason": item.reason,
                "Notes": list(item.notes),
                "Size": item.size,
            }
            for item in decided.items
        ],
    }


def _outcome_document(outcome: Outcome) -> dict[str, Any]:
    return {
        "Kind": outcome.item.kind,
        "Name": outcome.item.name,
        "Becomes": outcome.item.becomes,
        "Error": outcome.error,
        "Warnings": list(outcome.warnings),
    }


COMMAND = Command(
    "[OPTIONS] docker|podman",
    "Take over images, volumes, networks and containers of another engine",
    run,
    flags=(
        Flag(
            "allow-running",
            "",
            "bool",
            "Copy the files of running containers too, which may be inconsistent",
        ),
        Flag("api-only", "", "bool", "Read images by the source's API, not from its disk"),
        Flag("dry-run", "", "bool", "Print the plan and change nothing"),
        Flag("filter", "f", "list", 'Select by "name=", "label=" or "project="'),
        Flag("host", "", "string", "The source's socket (default: that of root's or the user's)"),
        Flag("json", "", "bool", "Print the plan and the results as JSON"),
        Flag("new-subnets", "", "bool", "Give networks whose addresses are in use other subnets"),
        Flag("no-changes", "", "bool", "Leave the files that containers have changed behind"),
        Flag(
            "on-conflict",
            "",
            "string",
            'A name that is in use: "refuse" the object, "rename" it, or "use" the existing one',
            default="refuse",
            completes=("refuse", "rename", "use"),
        ),
        Flag(
            "only",
            "",
            "list",
            "Take over only images, volumes, networks, secrets, containers (comma separated)",
            completes=("images", "volumes", "networks", "secrets", "containers"),
        ),
        Flag(
            "pull-digests", "", "bool", "Pull names with a digest, whose manifest the source lacks"
        ),
        Flag("quiet", "q", "bool", "Print what is to do and errors only"),
        Flag("root", "", "string", "The source's data directory", completes="file"),
        Flag("start", "", "bool", "Start the containers that run in the source or restart always"),
        Flag("suffix", "", "string", "The suffix of renamed objects (default: -docker or -podman)"),
        Flag("yes", "y", "bool", "Ask no question"),
    ),
    min_args=1,
    max_args=1,
    description=(
        "Prints what becomes of each object of docker or podman on this host, and takes them over "
        "after a question. The source is only read: its files by a read-only mount. Containers are "
        "created with their configuration, networks and files, and are not started. A run that was "
        "interrupted is continued by the next one."
    ),
    examples=(
        ("See what would become of everything", "jaula migrate-from docker --dry-run"),
        ("Take over one compose project", "jaula migrate-from docker --filter project=shop"),
        ("Take over images and volumes only", "jaula migrate-from podman --only images,volumes"),
    ),
    see_also=("load", "volume create", "container migrate"),
)
