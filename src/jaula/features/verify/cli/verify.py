"""``jaula verify``: compare the requested isolation with the isolation in effect."""

from __future__ import annotations

import os
import sys

from jaula.cli.cli_errors import CliError, EngineError, UsageError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.containers import listed_pods
from jaula.cli.main import Settings
from jaula.cli.output.progress_line import Progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from jaula.features.verify.model.container import AuditedContainer
    from jaula.features.verify.model.host_snapshot import HostSnapshot
    from jaula.features.verify.model.result import Result
    from jaula.features.verify.reports.report import Report
    from jaula.spec.confinement_profile import Profile
    from jaula.spec.runtime_spec import Spec

FORMATS = ("table", "json", "sarif", "html")


def run(options: Options) -> int:
    """Print the report of each container; 1 if a check fails."""
    output_format = options.choice("format", FORMATS)
    named = bool(options.arguments) or bool(options.texts("pod"))
    selected = named or options.on("all") or options.on("host")
    if options.on("watch") and (
        any(options.on(name) for name in ("contents", "host", "probe"))
        or output_format not in ("table", "json")
    ):
        raise UsageError(
            "--watch needs no --contents, --host, --probe or --format sarif or html.", status=1
        )
    profile = options.text("profile")
    if profile and (not options.on("probe") or len(options.arguments) != 1):
        raise UsageError("--profile needs --probe and one container.", status=1)
    if not selected and not options.on("list"):
        raise UsageError('"jaula verify" requires a container, --pod, --all or --host.', status=1)

    from jaula.cli import site_packages

    site_packages.enable()
    if options.on("watch"):
        return _watch(options, output_format)
    from jaula.features.verify.reports import FORMATS as FORMS
    from jaula.features.verify.reports.report import CHECK_INFOS

    if options.on("list"):
        from jaula.features.verify.model.check_info import describe

        print("\n\n".join(describe(about) for about in CHECK_INFOS))
        return 0
    client = Client(Settings.host)
    # Before _enter_namespaces: the host's own namespaces.
    host = [_host(client)] if options.on("host") else []
    reports = []
    if named or options.on("all"):
        if os.geteuid() != 0:
            _enter_namespaces(client)
        with Progress("verify", timer=False):
            reports = _containers(client, options)
    reports += host
    if not reports:
        print("jaula: no container is running", file=sys.stderr)
        return 0
    print(FORMS[output_format](reports), end="" if output_format == "html" else "\n")
    return 0 if all(report.passed for report in reports) else 1


def _enter_namespaces(client: Client) -> None:
    """Enter the namespaces of a rootless engine: its containers are not visible outside."""
    from jaula.rootless import enter

    client.get("/version")  # starts the engine if none answers
    run = os.path.dirname(client.address.text.removeprefix("unix://"))
    try:
        enter.join_existing(run)
    except OSError as error:
        raise CliError(f"cannot enter the engine's namespaces: {error.strerror}") from error


def _snapshot(client: Client, options: Options) -> HostSnapshot:
    from jaula.features.verify.engine_facts import snapshot_of

    snapshot = snapshot_of(client)
    snapshot.trace_processes = not options.on("no-trace")
    snapshot.contents = options.on("contents")
    return snapshot


class Documents:
    """The engine's documents of running containers, each requested once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._listed: list[dict[str, Any]] | None = None
        self._inspected: dict[str, dict[str, Any]] = {}
        self._specs: dict[str, Spec] = {}

    @property
    def listed(self) -> list[dict[str, Any]]:
        """The running containers, those of pods included."""
        if self._listed is None:
            self._listed = self._client.get("/containers/json", (("pods", True),)) or []
        return self._listed

    def inspect(self, ref: str) -> dict[str, Any]:
        """Return the document of a container."""
        if ref not in self._inspected:
            document = self._client.get(f"/containers/{quote(ref)}/json")
            self._inspected[ref] = self._inspected[document["Id"]] = document
        return self._inspected[ref]

    def spec(self, id: str) -> Spec:
        """Return the spec that the runtime received.

        :raises CliError: when the engine does not return it.
        """
        from jaula.spec import runtime_spec

        if id not in self._specs:
            try:
                text = self._client.request("GET", f"/jaula/containers/{id}/spec")
            except EngineError as error:
                raise CliError(
                    f"the engine does not return the container's spec: {error.reason}"
                ) from None
            self._specs[id] = runtime_spec.decode(text)
        return self._specs[id]

    def others(self, document: Mapping[str, Any], snapshot: HostSnapshot) -> list[AuditedContainer]:
        """Return the other running containers of the pod of a container; nothing without a pod."""
        from jaula.features.verify.model.container import AuditedContainer

        pod = document.get("Pod")
        others = []
        for entry in self.listed if pod else ():
            same = (entry.get("Pod") or {}).get("Sandbox") == (pod or {}).get("Sandbox")
            if not same or entry["Id"] == document["Id"]:
                continue
            try:
                other = self.inspect(entry["Id"])
                if other["State"]["Pid"]:
                    spec = self.spec(entry["Id"])
                    others.append(AuditedContainer(other, spec, snapshot=snapshot))
            except EngineError:
                continue  # it was removed since it was listed
        return others


def _containers(client: Client, options: Options) -> list[Report]:
    from jaula.features.verify.reports.report import Report

    snapshot, documents = _snapshot(client, options), Documents(client)
    selected = list(_selected(documents, options))
    if options.on("all"):
        selected += [e["Id"] for e in documents.listed if e["Id"] not in selected]
    reports = []
    for name in selected:
        try:
            document = documents.inspect(name)
        except EngineError:
            if name in options.arguments:
                raise
            continue  # removed since it was listed
        if not document["State"]["Pid"]:  # Running is true while a container waits for a restart
            if name not in options.arguments:
                continue  # exited since it was listed
            raise CliError(f"container {name} is not running: nothing is in effect to verify")
        if path := options.text("profile"):
            rows = _profile_rows(client, document, path, documents.spec(document["Id"]))
        else:
            rows = container_rows(client, document, snapshot, documents, probe=options.on("probe"))
        pod = document.get("Pod") or {}
        name = document["Name"].lstrip("/")
        reports.append(
            Report(
                name, "container", _now(), tuple(rows), pod=listed_pods.title(pod) if pod else ""
            )
        )
    return reports


def _selected(documents: Documents, options: Options) -> dict[str, None]:
    """Return the containers that the arguments name, once each.

    The sandbox of a pod stands for its containers.

    :raises CliError: when there is no such pod.
    """
    refs: dict[str, None] = {}
    for name in options.arguments:
        document = documents.inspect(name)
        refs[name] = None
        if (document.get("Pod") or {}).get("Sandbox") == document["Id"]:
            members = listed_pods.select(documents.listed, document["Id"])
            refs |= dict.fromkeys(e["Id"] for e in members if e["Id"] != document["Id"])
    for ref in options.texts("pod"):
        members = listed_pods.select(documents.listed, ref)
        if not members:
            raise CliError(
                f"no running pod {ref}: list them with jaula ps --pods, or name the sandbox by id"
            )
        refs |= dict.fromkeys(entry["Id"] for entry in members)
    return refs


def container_rows(
    client: Client,
    document: Any,
    snapshot: HostSnapshot,
    documents: Documents,
    *,
    probe: bool,
) -> list[Result]:
    """Return the rows of a container, with those of escape attempts if ``probe`` is set.

    :raises CliError: when it does not run, or the engine does not return its spec.
    """
    from jaula.errors import JaulaError
    from jaula.features.verify import verify

    spec = documents.spec(document["Id"])
    execs = [_exec(client, exec_id) for exec_id in document.get("ExecIDs") or ()]
    others = documents.others(document, snapshot)
    try:
        rows = verify.verify(document, spec, snapshot=snapshot, execs=execs, others=others)
        if probe:
            from jaula.features.verify.escape import twin

            rows += twin.rows(client, document, spec)
    except JaulaError as error:
        raise CliError(f"{document['Name'].lstrip('/')}: {error}") from None
    return rows


def _profile_rows(client: Client, document: Any, path: str, spec: Spec) -> list[Result]:
    """Return the rows that prove the profile of a file for a container."""
    from jaula import feature
    from jaula.cli.containers.profiles import open_profile
    from jaula.errors import JaulaError

    feature.require("harden", "verify --profile")
    from jaula.features.harden import hardened_request, profile_toml
    from jaula.features.verify.escape import profile as escape
    from jaula.features.verify.escape import twin
    from jaula.spec import confinement_profile

    profile = open_profile(path)
    own: Profile | None = None
    image: Any = None

    def copies(calls: Sequence[str], destinations: Sequence[str]) -> dict[str, Any]:
        copy = dict(document)
        if own is not None:
            probe = escape.of_probe(own, twin.INSIDE, calls, destinations)
            config = hardened_request.of_container(
                document, image, profile_toml.dumps(probe), probe
            )
            copy |= {"HostConfig": config.pop("HostConfig"), "Config": config}
        host = copy["HostConfig"]
        if host.get("Egress") is not None:
            copy["HostConfig"] = {**host, "Egress": [*host["Egress"], *destinations]}
        return copy

    try:
        if confinement_profile.is_document(text := document["HostConfig"].get("Profile") or ""):
            own = confinement_profile.load(text.encode(), "of the container")
            image = client.get(f"/images/{quote(document['Image'], ':')}/json")
        return twin.profile_rows(client, profile, document, spec, copies)
    except (JaulaError, OSError) as error:
        raise CliError(f"{document['Name'].lstrip('/')}: {error}") from None


def rows_of_containers(client: Client) -> dict[str, list[Result]]:
    """Return the rows of every running container by its id, for ``jaula audit``.

    A container that exits meanwhile is left out.
    """
    from jaula.features.verify.engine_facts import snapshot_of

    snapshot, documents = snapshot_of(client), Documents(client)
    result = {}
    for entry in documents.listed:
        try:
            document = documents.inspect(entry["Id"])
            result[entry["Id"]] = container_rows(client, document, snapshot, documents, probe=False)
        except CliError:
            continue  # it has exited
    return result


def _exec(client: Client, exec_id: str) -> dict[str, Any]:
    """Return the document of an exec session; an empty one if it has ended."""
    try:
        document: dict[str, Any] = client.get(f"/exec/{exec_id}/json")
    except EngineError:
        return {}
    return document


def _watch(options: Options, output_format: str) -> int:
    """Verify containers until the command is interrupted; print rows that change."""
    from jaula.errors import JaulaError
    from jaula.features.verify.model.container import AuditedContainer
    from jaula.features.verify.watch import Watch

    client = Client(Settings.host)
    if os.geteuid() != 0:
        _enter_namespaces(client)
    names: dict[str, str] = {}  # by id
    snapshots = [_snapshot(client, options)]

    def running() -> list[str]:
        try:
            entries = Documents(client).listed
            listed = {e["Id"]: e for e in entries if options.on("all") or _is_named(e, options)}
            for ref in options.texts("pod"):
                listed |= {entry["Id"]: entry for entry in listed_pods.select(entries, ref)}
        except CliError as error:
            print(f"jaula: {error}", file=sys.stderr)  # until the engine answers again
            return list(names)
        names.clear()
        names.update({key: entry["Names"][0].lstrip("/") for key, entry in listed.items()})
        return list(listed)

    def open_container(key: str) -> AuditedContainer:
        try:
            documents = Documents(client)
            return AuditedContainer(documents.inspect(key), documents.spec(key))
        except (CliError, JaulaError) as error:
            raise LookupError(str(error)) from None

    def verify(keys: Sequence[str]) -> dict[str, list[Result]]:
        snapshots[0] = snapshots[0].renewed()
        documents = Documents(client)
        result = {}
        for key in keys:
            try:
                document = documents.inspect(key)
                result[key] = container_rows(client, document, snapshots[0], documents, probe=False)
            except CliError:
                continue  # it has exited, or the engine does not answer
        return result

    def report(key: str, row: Result) -> None:
        print(_changed_row(names.get(key, key[:12]), row, output_format), flush=True)
        body = {"Row": row.id, "Verdict": str(row.verdict), "Requested": row.requested,
                "Effective": row.effective}  # fmt: skip
        try:
            client.request("POST", f"/jaula/containers/{key}/isolation-changed", body=body)
        except CliError as error:
            print(f"jaula: no event was emitted: {error}", file=sys.stderr)

    Watch(running, open_container, verify, report).run()
    return 0


def _is_named(entry: Mapping[str, Any], options: Options) -> bool:
    """Return whether the arguments name a listed container, or the sandbox of its pod."""
    pod = (entry.get("Pod") or {}).get("Sandbox", "")
    ids = [id for id in (entry["Id"], pod) if id]
    own = {*ids, *(id[:12] for id in ids), *(name.lstrip("/") for name in entry["Names"])}
    return bool(own & set(options.arguments))


def _changed_row(name: str, row: Result, output_format: str) -> str:
    """Return a line for a row that has changed."""
    from jaula.features.verify.model.result import plain

    if output_format == "json":
        import json

        return json.dumps({"time": _now(), "container": name, "row": row.id,
                           "verdict": str(row.verdict), "requested": row.requested,
                           "effective": row.effective, "evidence": row.evidence})  # fmt: skip
    return plain(f"{_now()} {name} {row.id}: {row.verdict}: {row.effective}")


def _host(client: Client) -> Report:
    from jaula.features.verify import host
    from jaula.features.verify.reports.report import Report

    root, policy = _engine_info(client)
    report = host.of_engine(client.address.text, root, policy)
    return Report(report.name, "host", _now(), tuple(host.verify(report)))


def _engine_info(client: Client) -> tuple[str, Mapping[str, Any] | None]:
    """Return the engine's data directory and its image policy.

    Returns empty values if no engine is running, and does not start one.
    """
    from jaula.features.verify.engine_facts import image_policy

    explicit_client = Client(client.address.text)
    try:
        return str(explicit_client.get("/info")["DockerRootDir"]), image_policy(explicit_client)
    except CliError:
        return "", None


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


COMMAND = Command(
    "[OPTIONS] [CONTAINER...]",
    "Verify from the kernel's own evidence that the requested isolation is in effect",
    run,
    flags=(
        Flag("all", "a", "bool", "Verify every running container"),
        Flag("contents", "", "bool", "Compare the files of the image's layers with their blobs"),
        Flag(
            "format",
            "",
            "string",
            "Format of the report (table, json, sarif or html)",
            completes=FORMATS,
        ),
        Flag("host", "", "bool", "Verify the host: kernel, sysctls, the engine's directories"),
        Flag("list", "l", "bool", "List the checks with reason and evidence"),
        Flag("no-trace", "", "bool", "Do not stop a process briefly to read its seccomp filter"),
        Flag("pod", "", "list", "Verify the containers of a pod (NAME, NAMESPACE/NAME, UID or id)"),
        Flag(
            "probe", "", "bool", "Start a copy of the container that attempts forbidden operations"
        ),
        Flag(
            "profile",
            "",
            "string",
            "With --probe, prove that what a profile lacks is refused and what it lists works",
            metavar="FILE",
            completes="file",
        ),
        Flag("watch", "", "bool", "Stay, verify after each change, and print rows that change"),
    ),
    description=(
        "Prints one row for each check: namespaces, user mapping, cgroup limits, the five "
        "capability sets, seccomp, no_new_privs, LSM, masked paths, mounts, devices, network. "
        "Each row has the requested value, the value in effect with its source, and the "
        "verdict: holds, relaxed (requested to be weaker than the default), FAILS or unknown. "
        "Only the requested values come from the engine; the values in effect are read from "
        "/proc, the cgroups and the packet filter. To read the seccomp filter, the init process "
        "of the container is stopped for less than a millisecond, as a debugger does. A pod is "
        "verified as its sandbox and its containers: by --pod, or by the id of the sandbox. With "
        "--contents, each layer is unpacked to a temporary directory and compared, as by image "
        "verify, once for all containers. With --probe, a copy of the container, with read-only "
        "volumes and a writable layer of its own, runs a small program that attempts forbidden "
        "operations. The copy is removed afterwards. With --watch, the command stays. It "
        "verifies again on a timer and when the kernel reports a change of mounts, cgroups or "
        "network, uses at most one hundredth of a processor, prints each row that starts or "
        "ceases to fail, and emits it as the event isolation-changed of the container."
    ),
    examples=(
        ("Verify a container", "jaula verify web"),
        ("Verify a pod", "jaula verify --pod kube-system/coredns-0"),
        ("List relaxed checks", "jaula verify web | grep relaxed"),
        ("Compare the files of all images", "jaula verify --contents --all"),
        ("Attempt forbidden operations", "jaula verify --probe web"),
        ("Prove a profile", "jaula verify --probe --profile web.toml web"),
        ("Write an HTML report", "jaula verify --all --host --format html > report.html"),
        ("Report changes until interrupted", "jaula verify --watch --all"),
        ("Write SARIF for code scanning", "jaula verify --all --format sarif > verify.sarif"),
    ),
    exit_status=(("0", "no row FAILS or is unknown"), ("1", "a row FAILS or is unknown")),
    see_also=("inspect", "image verify", "tree", "caps", "check"),
    completes="container",
)
