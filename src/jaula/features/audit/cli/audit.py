"""``jaula audit``: a benchmark, judged by what is in effect."""

from __future__ import annotations

import os
import sys

from jaula.cli.cli_errors import CliError, EngineError, UsageError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.cli.output.progress_line import Progress
from jaula.features.verify.cli import verify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from typing import Any

    from jaula.features.audit.benchmark.assessment import Assessment, Subject
    from jaula.features.audit.benchmark.container_state import ContainerState
    from jaula.features.audit.benchmark.control import Fix, Profile
    from jaula.features.audit.benchmark.engine import EngineProcess, EngineSettings, EngineState
    from jaula.features.audit.benchmark.exceptions import Exemption
    from jaula.features.audit.benchmark.fix import Plan
    from jaula.features.audit.benchmark.host import HostState, Layout
    from jaula.features.verify.model.host_snapshot import HostSnapshot

FORMATS = ("table", "json", "sarif", "junit", "html")
SCOPES = ("host", "engine", "images", "containers")
PROFILES = ("cis", "jaula", "nsa-k8s")
POLICY = "/jaula/policy/images"


def run(options: Options) -> int:
    """Print the report; 1 if a control without an exception fails or is unknown."""
    output_format = options.choice("format", FORMATS)
    profile_name = options.choice("profile", PROFILES)
    if options.on("dry-run") and not options.on("fix"):
        raise UsageError("--dry-run needs --fix.", status=1)
    from jaula.cli import site_packages

    site_packages.enable()
    from jaula.features.audit.benchmark.catalog import IDS
    from jaula.features.audit.benchmark.catalog import PROFILES as profiles

    profile = profiles[profile_name]
    docker = _docker_socket(options)
    if options.on("list"):
        print_controls(profile)
        return 0
    if os.geteuid() != 0:
        raise CliError(
            "jaula audit reads processes and files of root, and does not audit rootless engines: "
            "run it as root"
        )
    from jaula.errors import JaulaError
    from jaula.features.audit.benchmark.reports import FORMATS as FORMS

    address = f"unix://{docker}" if docker else Client(Settings.host).address.text
    if not address.startswith("unix://"):
        raise CliError(
            f"jaula audit reads the kernel of this host, and {address} may be another one: "
            "run it on the engine's host"
        )
    try:
        exemptions = exemptions_of(options.text("exceptions"), IDS)
        audit: _Audit = (
            _DockerAudit(docker, options)
            if docker
            else _EngineAudit(Client(Settings.host), options, profile)
        )
        with Progress("audit", timer=False):
            assessment = audit.assess(exemptions)
        failures: list[str] = []
        if options.on("fix"):
            plan = audit.plan(assessment)
            _print_plan(plan, done=not options.on("dry-run"))
            if not options.on("dry-run") and plan.lines():
                from jaula.features.audit.benchmark import fix

                failures = fix.apply(plan)
                audit = _EngineAudit(Client(Settings.host), options, profile)
                assessment = audit.assess(exemptions)
        trend = "" if options.on("no-history") else _record(assessment)
    except JaulaError as error:
        raise CliError(f"jaula: {error}", status=1) from None
    print(FORMS[output_format](assessment))
    if trend and output_format == "table":
        print(f"Trend: {trend}")
    for failure in failures:
        print(f"jaula: not done: {failure}", file=sys.stderr)
    return 0 if assessment.passed and not failures else 1


def _docker_socket(options: Options) -> str:
    """Return the path of dockerd's socket with --docker, '' without.

    :raises UsageError: when the command line has another address, or flags of this engine.
    """
    from jaula.features.audit.benchmark import docker

    if not options.on("docker"):
        if options.arguments:
            raise UsageError('"jaula audit" takes a HOST with --docker only.', status=1)
        return ""
    if options.on("fix") or options.choice("profile", PROFILES) != PROFILES[0]:
        raise UsageError("--docker needs no --fix and no --profile other than cis.", status=1)
    host = options.arguments[0] if options.arguments else f"unix://{docker.DEFAULT_SOCKET}"
    if not host.startswith(("unix://", "/")):
        raise UsageError(f'"{host}" is not a unix socket of this host: must be unix:///PATH.',
                         status=1)  # fmt: skip
    return host.removeprefix("unix://")


def print_controls(profile: Profile) -> None:
    """Print the controls of a profile: ``--list``."""
    width = max(len(control.id) for control in profile.controls) + 2
    for control in profile.controls:
        scopes = ", ".join(control.scopes)
        print(f"{control.id:{width}}level {control.level}  {control.title} ({scopes})")


def exemptions_of(path: str, ids: Collection[str]) -> tuple[Exemption, ...]:
    """Return the exceptions in a file; none without a path. ``ids`` are those of all controls.

    :raises InvalidRequest: when the file is not valid.
    """
    from jaula.features.audit.benchmark import exceptions

    if not path:
        return ()
    try:
        with open(path, "rb") as file:
            data = file.read(exceptions.LIMIT + 1)
    except OSError as error:
        raise CliError(f"exceptions {path}: {error.strerror}") from None
    return exceptions.parse(data, ids, path)


def _print_plan(plan: Plan, *, done: bool) -> None:
    """Print what --fix does, to standard error: standard output has the report."""
    lines = plan.lines()
    if not lines:
        print("jaula: no failing control has a repair that --fix can make", file=sys.stderr)
        return
    print("To be done:" if done else "Would be done:", file=sys.stderr)
    for line in lines:
        print(f"    {line}", file=sys.stderr)


def _record(assessment: Assessment) -> str:
    """Add the assessment to the history, and return the last scores.

    A history that cannot be written is a warning: the report does not depend on it.
    """
    from pathlib import Path

    from jaula.errors import JaulaError
    from jaula.features.audit.benchmark import history
    from jaula.features.audit.benchmark.reports import json

    kept = history.History(
        history.directory(os.environ, str(Path.home())), assessment.engine or assessment.host
    )
    try:
        kept.add(history.entry(json.document(assessment)))
        return history.trend(kept.read())
    except (OSError, JaulaError) as error:
        print(f"jaula: the history is not written: {error}", file=sys.stderr)
        return ""


class _Audit:
    """The evidence of one report, each part of which is read once."""

    def __init__(self, options: Options, profile: Profile) -> None:
        from jaula.features.audit.benchmark.control import Scope

        chosen = [name for name in SCOPES if options.on(name)] or list(SCOPES)
        self.scopes = tuple(Scope(name) for name in chosen)
        self._profile = profile
        self._host: HostState | None = None
        self._info: Mapping[str, Any] = {}

    def assess(self, exemptions: Sequence[Exemption]) -> Assessment:
        """Read the evidence and return the assessment."""
        import datetime

        from jaula.features.audit.benchmark import assessment

        now = datetime.datetime.now(datetime.UTC)
        subjects = self._subjects()
        outcomes = assessment.assess(
            self._profile.controls, self.scopes, subjects, exemptions, now.date()
        )
        return assessment.Assessment(
            now.strftime("%Y-%m-%dT%H:%M:%SZ"), os.uname().nodename,
            str(self._info.get("ID") or ""), self.scopes, outcomes, self._profile,
        )  # fmt: skip

    def _subjects(self) -> list[Subject]:
        raise NotImplementedError

    def plan(self, assessment: Assessment) -> Plan:
        """Return what --fix does about failing controls; exceptions are left as they are."""
        from jaula.features.audit.benchmark import fix, host
        from jaula.features.audit.benchmark.control import State

        fixes: list[Fix] = [
            each
            for outcome in assessment.outcomes
            for finding in outcome.findings
            if finding.state is State.FAIL
            for each in finding.fixes
        ]
        recorded = host.rules_of_file(self._host).values() if self._host else ()
        tmpfiles = host.tmpfiles_text(self._host) if self._host else ""
        return fix.plan(fixes, recorded, fix.RULES_DIRECTORY, tmpfiles)


class _DockerAudit(_Audit):
    """The evidence about a foreign dockerd."""

    def __init__(self, socket: str, options: Options) -> None:
        from jaula.features.audit.benchmark import docker

        super().__init__(options, docker.PROFILE)
        self._socket = socket

    def _subjects(self) -> list[Subject]:
        from jaula.features.audit.benchmark import docker

        subjects, self._info = docker.subjects(docker.DockerHost(self._socket), self.scopes)
        return subjects


class _EngineAudit(_Audit):
    """The evidence about this engine."""

    def __init__(self, client: Client, options: Options, profile: Profile) -> None:
        super().__init__(options, profile)
        self._client = client

    def _subjects(self) -> list[Subject]:
        from jaula.features.audit.benchmark import engine, engine_files, host
        from jaula.features.audit.benchmark.assessment import Subject
        from jaula.features.audit.benchmark.control import Kind, Scope
        from jaula.features.verify import host as audit_host

        host_only = self.scopes == (Scope.HOST,)
        client = Client(self._client.address.text) if host_only else self._client
        try:
            self._info = client.get("/info")
        except CliError:
            if not host_only:
                raise
        root = str(self._info.get("DockerRootDir") or "")
        report = audit_host.of_engine(self._client.address.text, root)
        process = engine.find_process(str(report.socket)) if self._info else None
        settings = _settings(process)
        layout = _layout(str(report.root), str(report.run), str(report.socket), process, settings,
                         self._info)  # fmt: skip
        subjects = []
        if Scope.HOST in self.scopes:
            try:
                rows = audit_host.verify(report) if self._profile.name == "jaula" else ()
                self._host = host.read(report, layout, tuple(rows))
                subjects.append(Subject(Kind.HOST, report.name, self._host))
            except OSError as error:
                subjects.append(Subject(Kind.HOST, report.name, None, _reason(error)))
        if host_only:
            return subjects
        containers, images = self._containers(root), []
        if Scope.IMAGES in self.scopes:
            images = self._images(root)
        subjects += [*images, *containers]
        states = tuple(s.evidence for s in containers if not s.error)
        state = self._engine(process, settings, states, root)
        subjects.append(Subject(Kind.ENGINE, "engine", state))
        try:
            files = engine_files.read(layout, settings, os.geteuid(), os.getegid())
            subjects.append(Subject(Kind.ENGINE_FILES, "engine", files))
        except OSError as error:
            subjects.append(Subject(Kind.ENGINE_FILES, "engine", None, _reason(error)))
        return subjects

    def _containers(self, root: str) -> list[Subject]:
        """Read the running containers and those of pods, without the pods' sandboxes."""
        import msgspec

        from jaula.errors import JaulaError
        from jaula.features.audit.benchmark import container_state
        from jaula.features.audit.benchmark.assessment import Subject
        from jaula.features.audit.benchmark.control import Kind, Scope
        from jaula.features.verify.model.host_snapshot import HostSnapshot

        self._snapshot = snapshot = HostSnapshot()
        self._listed = self._client.get("/images/json") or []
        names = {
            name: image["Id"]
            for image in self._listed
            for tag in image.get("RepoTags") or ()
            for name in (tag, tag.removesuffix(":latest"))
        }
        rows = {}
        if self._profile.name == "jaula" and Scope.CONTAINERS in self.scopes:
            rows = verify.rows_of_containers(self._client)
        subjects = []
        translations = container_state.read_translations()
        for entry in self._client.get("/containers/json", (("pods", True),)) or ():
            name = entry["Names"][0].lstrip("/")
            try:
                document = self._client.get(f"/containers/{entry['Id']}/json")
                pod = document.get("Pod") or {}
                if pod.get("Sandbox") == entry["Id"] or (not pod and self._profile.pods_only):
                    continue
                execs = [self._exec(id) for id in document.get("ExecIDs") or ()]
                state = container_state.read(document, snapshot, execs, names, root, translations)
                state = msgspec.structs.replace(state, rows=tuple(rows.get(state.id, ())))
                subjects.append(Subject(Kind.CONTAINER, state.name, state))
            except (OSError, ValueError, KeyError, JaulaError) as error:
                if self._is_running(entry["Id"]):
                    subjects.append(Subject(Kind.CONTAINER, name, None, _reason(error)))
            except EngineError:
                continue  # it was removed since it was listed
        return subjects

    def _is_running(self, id: str) -> bool:
        try:
            return bool(self._client.get(f"/containers/{id}/json")["State"]["Running"])
        except EngineError:
            return False

    def _exec(self, id: str) -> dict[str, Any]:
        """Return the document of an exec session; an empty one if it has ended."""
        try:
            document: dict[str, Any] = self._client.get(f"/exec/{id}/json")
        except EngineError:
            return {}
        return document

    def _images(self, root: str) -> list[Subject]:
        from jaula.features.audit.benchmark import images
        from jaula.features.audit.benchmark.assessment import Subject
        from jaula.features.audit.benchmark.control import Kind

        scan = images.LayerScan(f"{root}/layers")
        subjects = []
        for entry in self._listed:
            id = quote(entry["Id"])
            try:
                document = self._client.get(f"/images/{id}/json")
                history = self._client.get(f"/images/{id}/history")
            except EngineError as error:
                if error.code == 404:
                    continue  # it was removed since it was listed
                tags = entry.get("RepoTags") or [entry["Id"][:19]]
                subjects.append(Subject(Kind.IMAGE, tags[0], None, error.reason))
                continue
            state = images.read(document, history, scan)
            subjects.append(Subject(Kind.IMAGE, state.name, state))
        return subjects

    def _engine(
        self,
        process: EngineProcess | None,
        settings: EngineSettings | None,
        containers: tuple[ContainerState, ...],
        root: str,
    ) -> EngineState:
        from jaula.errors import JaulaError
        from jaula.features.audit.benchmark import engine, images
        from jaula.features.trust.checks.policy_files import ImagePolicyReader

        policy = self._client.get(POLICY)
        reader = ImagePolicyReader(policy)
        try:
            general = str(reader.rules.general.verdict)
        except JaulaError:
            general = ""
        every = self._client.get("/containers/json", (("all", True), ("pods", True))) or []
        return engine.EngineState(
            info=self._info,
            version=self._client.get("/version"),
            settings=settings,
            process=process,
            bridge=engine.read_bridge(self._client.get("/networks")),
            tables=_tables(self._snapshot),
            aufs_mounts=sum(mount.fstype == "aufs" for mount in self._snapshot.mounts),
            policy_exists=settings is not None and os.path.exists(settings.policy),
            image_policy=general,
            image_policy_path=reader.path,
            containers=containers,
            images=len(self._listed),
            unused_images=images.count_unused(
                (image["Id"] for image in self._listed), (c["ImageID"] for c in every)
            ),
            stopped_containers=sum(c["State"] != "running" for c in every if not c.get("Pod")),
            audit_log=_audit_log(root) if self._profile.name == "jaula" else None,
        )


def _reason(error: Exception) -> str:
    return f"it cannot be read: {error}"


def _audit_log(root: str) -> tuple[str, ...] | None:
    """Return the errors in the chain of the engine's audit log; None if it cannot be read."""
    from pathlib import Path

    from jaula.state import audit_log

    try:
        return tuple(error.text for error in audit_log.verify(Path(root, "audit")).errors)
    except OSError:
        return None


def _tables(snapshot: HostSnapshot) -> frozenset[str] | None:
    """Return the names of the tables of family ip; None if nft fails."""
    try:
        objects = snapshot.packet_filter
    except OSError:
        return None
    tables = (entry["table"] for entry in objects if "table" in entry)
    return frozenset(str(table["name"]) for table in tables if table["family"] == "ip")


def _settings(process: EngineProcess | None) -> EngineSettings | None:
    """Return the settings of the engine's command line and file; None if they cannot be read."""
    from jaula.cli import command_parser, daemon
    from jaula.errors import JaulaError
    from jaula.features.audit.benchmark.engine import EngineSettings
    from jaula.rootless import xdg_paths

    if process is None or "daemon" not in process.arguments:
        return None
    words = process.arguments[process.arguments.index("daemon") + 1 :]
    try:
        options = command_parser.parse(daemon.COMMAND, words)
        config = daemon.read_config(options)
    except (CliError, JaulaError):
        return None
    return EngineSettings(
        default_profile=config.default_profile,
        nofile=config.nofile,
        pids_limit=config.pids_limit,
        cgroup_parent=config.cgroup_parent,
        tls_authority=config.tls.authority if config.tls else "",
        tls_certificate=config.tls.certificate if config.tls else "",
        tls_key=config.tls.key if config.tls else "",
        certificates=config.registry.certificates,
        config_file=options.text("config-file") or xdg_paths.config_file(),
        policy=config.policy or "/etc/jaula/policy.toml",
        cri=config.cri,
    )


def _layout(
    root: str,
    run: str,
    socket: str,
    process: EngineProcess | None,
    settings: EngineSettings | None,
    info: Mapping[str, Any],
) -> Layout:
    import shutil

    import jaula
    from jaula.features.audit.benchmark import engine_files
    from jaula.features.audit.benchmark.host import Layout

    runtimes = info.get("Runtimes") or {}
    others = (shutil.which(str(r.get("path"))) for n, r in runtimes.items() if n != "jaula")
    config_file = settings.config_file if settings else "/etc/jaula/daemon.json"
    return Layout(
        root=root,
        run=run,
        socket=socket,
        cri_socket=f"{run}/cri.sock" if settings and settings.cri else "",
        config_file="" if config_file == os.devnull else config_file,
        policy=settings.policy if settings else "/etc/jaula/policy.toml",
        service_unit=engine_files.unit_path("jaula.service"),
        socket_unit=engine_files.unit_path("jaula.socket"),
        package=os.path.dirname(os.path.realpath(str(jaula.__file__))),
        interpreter=os.path.realpath(f"/proc/{process.pid}/exe") if process else "",
        command=shutil.which("jaula") or "",
        own_runtime=shutil.which("jaula-runtime") or "",
        other_runtime=next((path for path in others if path), ""),
    )


COMMAND = Command(
    "[OPTIONS] [HOST]",
    "Audit host, engine, images and containers by the CIS Docker Benchmark",
    run,
    flags=(
        Flag("containers", "", "bool", "Audit running containers (section 5)"),
        Flag("docker", "", "bool", "Audit dockerd at HOST (default: unix:///run/docker.sock)"),
        Flag("dry-run", "", "bool", "With --fix: print what would be done"),
        Flag("engine", "", "bool", "Audit the engine and its files (sections 2 and 3)"),
        Flag("exceptions", "", "string", "File of controls that may fail (TOML)", completes="file"),
        Flag("fix", "", "bool", "Repair owners, modes and audit rules; print it first"),
        Flag(
            "format",
            "",
            "string",
            "Format of the report (table, json, sarif, junit or html)",
            completes=FORMATS,
        ),
        Flag("host", "", "bool", "Audit the host (section 1)"),
        Flag("images", "", "bool", "Audit images and the image policy (section 4)"),
        Flag("list", "l", "bool", "List the controls"),
        Flag("no-history", "", "bool", "Do not keep the report for the trend"),
        Flag(
            "profile",
            "",
            "string",
            "Benchmark (cis, jaula or nsa-k8s)",
            default="cis",
            completes=PROFILES,
        ),
    ),
    max_args=1,
    completes=("diff",),
    description=(
        "Judges the 108 controls of sections 1 to 6 by what is in effect: the kernel's state of "
        "processes, mounts and cgroups, files, sockets, the packet filter. Without --host, "
        "--engine, --images and --containers the report has all four. A control passes, fails, "
        "is excepted, needs a person (manual), is unknown if its evidence cannot be read, or is "
        "not applicable. The score counts the applicable controls that pass.\n\n"
        "Containers of pods, and rootless engines, are not audited. Section 7 is about swarm "
        "mode, which the engine does not have."
    ),
    examples=(
        ("Audit everything", "jaula audit"),
        ("Report for a CI server", "jaula audit --images --format junit > audit.xml"),
        ("Show what can be repaired", "jaula audit --fix --dry-run"),
        ("Accept failures with a reason", "jaula audit --exceptions exceptions.toml"),
    ),
    exit_status=(
        ("0", "no control fails without an exception"),
        ("1", "a control fails or is unknown, or a repair was not done"),
    ),
    see_also=("audit diff", "verify", "system audit-log"),
)
