"""``jaula verify``: the isolation that was asked for against the isolation in effect."""

from __future__ import annotations

import os
import sys

from jaula.cli.client.client import Client, quote
from jaula.cli.command import Command, Flag, Options
from jaula.cli.errors import CliError, EngineError, UsageError
from jaula.cli.main import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jaula.audit.model.host_snapshot import HostSnapshot
    from jaula.audit.model.result import Result
    from jaula.audit.reports.report import Report

POLICY = "/jaula/policy/images"
FORMATS = ("table", "json", "sarif", "html")


def run(options: Options) -> int:
    """Print the proof of each container named; 1 where a row of one does not hold."""
    form = options.text("format", "table")
    if form not in FORMATS:
        raise UsageError(f'invalid argument "{form}" for "--format": one of {", ".join(FORMATS)}')
    chosen = bool(options.arguments) or options.on("all") or options.on("host")
    if not chosen and not options.on("list"):
        raise UsageError('"jaula verify" requires a container, --all or --host.', status=1)

    from jaula.cli import site_packages

    site_packages.enable()
    from jaula.audit.reports import FORMATS as FORMS
    from jaula.audit.reports.report import CHECK_INFOS

    if options.on("list"):
        from jaula.audit.model.check_info import describe

        print("\n\n".join(describe(about) for about in CHECK_INFOS))
        return 0
    client = Client(Settings.host)
    host = [_host(client)] if options.on("host") else []  # seen from the host's namespaces
    reports = []
    if options.arguments or options.on("all"):
        if os.geteuid() != 0:
            _visit(client)
        reports = _containers(client, options)
    reports += host
    if not reports:
        print("jaula: no container runs", file=sys.stderr)
        return 0
    print(FORMS[form](reports), end="" if form == "html" else "\n")
    return 0 if all(report.passed for report in reports) else 1


def _visit(client: Client) -> None:
    """Containers of an ordinary user's engine can be looked at from its namespaces only."""
    from jaula.rootless import enter

    client.get("/version")  # starts the engine where none runs
    run = os.path.dirname(client.address.text.removeprefix("unix://"))
    try:
        enter.join_existing(run)
    except OSError as error:
        raise CliError(f"cannot enter the engine's namespaces: {error.strerror}") from error


def _containers(client: Client, options: Options) -> list[Report]:
    from jaula.audit.image_policy import ImagePolicyReader
    from jaula.audit.model.host_snapshot import HostSnapshot as HostSnapshotHostSnapshot
    from jaula.audit.reports.report import Report

    snapshot = HostSnapshotHostSnapshot()
    snapshot.trace_processes = not options.on("no-trace")
    snapshot.networks = client.get("/networks")
    snapshot.image_rules = ImagePolicyReader(client.get(POLICY))
    names = list(options.arguments)
    if options.on("all"):
        running = client.get("/containers/json")
        names += [entry["Id"] for entry in running if entry["Id"] not in names]
    reports = []
    for name in names:
        found = client.get(f"/containers/{quote(name)}/json")
        if not found["State"]["Running"]:
            if name not in options.arguments:
                continue  # ended since it was listed
            raise CliError(f"container {name} does not run: there is nothing in effect to verify")
        rows = _rows(client, found, snapshot, probe=options.on("probe"))
        reports.append(Report(found["Name"].lstrip("/"), "container", _now(), tuple(rows)))
    return reports


def _rows(client: Client, found: Any, snapshot: HostSnapshot, *, probe: bool) -> list[Result]:
    from jaula.audit import verify
    from jaula.errors import JaulaError
    from jaula.spec import runtime

    try:
        spec = runtime.decode(client.request("GET", f"/jaula/containers/{found['Id']}/spec"))
    except EngineError as error:
        raise CliError(f"the engine does not tell the container's spec: {error.reason}") from None
    try:
        rows = verify.verify(found, spec, snapshot=snapshot)
        if probe:
            from jaula.audit.escape import twin

            rows += twin.rows(client, found, spec)
    except JaulaError as error:
        raise CliError(f"{found['Name'].lstrip('/')}: {error}") from None
    return rows


def _host(client: Client) -> Report:
    from jaula.audit import host
    from jaula.audit.reports.report import Report

    root, policy = _told(client)
    facts = host.of_engine(client.address.text, root, policy)
    return Report(facts.name, "host", _now(), tuple(host.verify(facts)))


def _told(client: Client) -> tuple[str, dict[str, Any] | None]:
    """Where the engine says that it keeps its things, and its rules about images.

    Nothing where none runs. Starts no engine.
    """
    asking = Client(client.address.text)
    try:
        return str(asking.get("/info")["DockerRootDir"]), asking.get(POLICY)
    except CliError:
        return "", None


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


COMMAND = Command(
    "[OPTIONS] [CONTAINER...]",
    "Prove from the kernel's own evidence that the isolation asked for is in effect",
    run,
    flags=(
        Flag("all", "a", "bool", "Every container that runs"),
        Flag("format", "", "string", "table, json, sarif or html", completes=FORMATS),
        Flag("host", "", "bool", "The host itself: kernel, settings, the engine's directories"),
        Flag("list", "l", "bool", "List what is checked, why, and by which evidence"),
        Flag("no-trace", "", "bool", "Do not stop a process for a moment to read its filter"),
        Flag("probe", "", "bool", "Start a twin that tries, harmlessly, what must fail"),
    ),
    description=(
        "One row for each layer: namespaces, user mapping, cgroup limits, the five capability "
        "sets, seccomp, no_new_privs, LSM, masked paths, mounts, devices, network. Each says what "
        "was requested, what the kernel says is in effect, where it says so, and the verdict: "
        "holds, relaxed (asked to be weaker than the default), FAILS or unknown. The engine is "
        "asked only for what was requested; what is in effect is read from /proc, the cgroups and "
        "the packet filter. To read the program of the system call filter, the first process of "
        "the container is stopped for less than a millisecond, as a debugger would. With --probe "
        "a copy of the container, with its volumes read-only and a writable layer of its own, runs "
        "a small program that does what must not work; it is removed afterwards."
    ),
    examples=(
        ("A container's proof", "jaula verify web"),
        ("What was relaxed", "jaula verify web | grep relaxed"),
        ("By deed, not by setting", "jaula verify --probe web"),
        ("Everything, as a page", "jaula verify --all --host --format html > report.html"),
        ("For code scanning", "jaula verify --all --format sarif > verify.sarif"),
    ),
    exit_status=(("0", "no row FAILS and none is unknown"), ("1", "a row does, or no proof")),
    see_also=("inspect", "tree", "caps", "check"),
    completes="container",
)
