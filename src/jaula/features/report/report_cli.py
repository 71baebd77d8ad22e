"""``jaula report``: one container on one page, for an auditor."""

from __future__ import annotations

import os
import sys

from jaula.cli.cli_errors import CliError, EngineError
from jaula.cli.client.api_client import Client, quote
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.spec.visible_text import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jaula.features.audit.benchmark.assessment import Outcome
    from jaula.features.report.container_report import NamedRecord
    from jaula.features.verify.model.host_snapshot import HostSnapshot
    from jaula.features.verify.reports.report import Report
    from jaula.spec.confinement_profile import Profile
    from jaula.spec.runtime_spec import Spec

MAX_PROFILE = 1 << 20  # bytes


def run(options: Options) -> int:
    """Write the page; 1 if something is not as requested or a record is not intact."""
    output = options.text("output")
    if output == "-":
        output = ""
    if not output and sys.stdout.isatty():
        raise CliError("refusing to write a page to the terminal: use -o FILE or redirect")
    if os.geteuid() != 0:
        raise CliError("a report reads processes of root: run the command with sudo")
    from jaula.cli import site_packages

    site_packages.enable()
    from jaula.features.report import page
    from jaula.features.report.container_report import ContainerReport, Standing

    client = Client(Settings.host)
    inspect = client.get(f"/containers/{quote(options.arguments[0])}/json")
    missing: dict[str, str] = {}
    records = tuple(map(_record, options.texts("record")))
    profile, profile_name = _profile(options.text("profile"), inspect)
    spec: Spec | None = None
    proof: Report | None = None
    outcomes: tuple[Outcome, ...] = ()
    if inspect["State"]["Running"]:
        from jaula.features.verify.engine_facts import snapshot_of

        snapshot = snapshot_of(client)
        spec = _spec(client, inspect["Id"])
        proof = _proof(client, inspect, spec, snapshot, missing, probe=options.on("probe"))
        outcomes = _audit(client, inspect, snapshot, missing)
    else:
        why = "the container does not run, so nothing is in effect"
        missing |= {"proof": why, "audit": why}
    host = os.uname()
    report = ContainerReport(
        time=_now(),
        host=host.nodename,
        kernel=host.release,
        inspect=inspect,
        digests=_digests(client, inspect["Image"]),
        records=records,
        profile=profile,
        profile_name=profile_name,
        spec=spec,
        proof=proof,
        outcomes=outcomes,
        missing=missing,
    )
    text, standing, sentence = page.render(report)
    _write(text, output)
    if output:
        print(f"{output}: {page.TITLES[standing]}. {sentence}")
    return 1 if standing in (Standing.FAILS, Standing.UNKNOWN) else 0


def _write(text: str, output: str) -> None:
    """Write the page to a file by rename, or to standard output."""
    data = visible(text).encode("utf-8", "replace")
    if not output:
        sys.stdout.buffer.write(data)
        return
    partial = f"{output}.{os.getpid()}.part"
    try:
        fd = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            with open(fd, "wb") as file:
                file.write(data)
            os.rename(partial, output)
        except BaseException:
            os.unlink(partial)
            raise
    except OSError as error:
        raise CliError(f"cannot write {output}: {error.strerror}") from None


def _record(path: str) -> NamedRecord:
    from jaula.features.record.cli.record_output import open_record
    from jaula.features.report.container_report import NamedRecord

    return NamedRecord(os.path.basename(path), open_record(path))


def _profile(argument: str, inspect: dict[str, Any]) -> tuple[Profile | None, str]:
    """Return the profile of a file or of the package, and its name.

    Without an argument it is the one that the container was created with, None if it has none.

    :raises CliError: when it cannot be read, or is not a profile.
    """
    from jaula.errors import JaulaError
    from jaula.spec import confinement_profile

    own = str((inspect.get("HostConfig") or {}).get("Profile") or "")
    try:
        if argument and (os.path.exists(argument) or "/" in argument or ".toml" in argument):
            with open(argument, "rb") as file:
                return confinement_profile.load(
                    file.read(MAX_PROFILE + 1), argument
                ), os.path.basename(argument)
        text = confinement_profile.packaged(argument) if argument else own
        if not argument and not confinement_profile.is_document(own):
            return None, ""
        loaded = confinement_profile.load(text.encode(), argument or "of the container")
    except OSError as error:
        raise CliError(f"profile {argument}: {error.strerror}") from None
    except JaulaError as error:
        raise CliError(f"jaula: {error}") from None
    return loaded, argument or loaded.name


def _spec(client: Client, id: str) -> Spec:
    from jaula.spec import runtime_spec

    try:
        return runtime_spec.decode(client.request("GET", f"/jaula/containers/{id}/spec"))
    except EngineError as error:
        raise CliError(f"the engine does not return the container's spec: {error.reason}") from None


def _proof(
    client: Client,
    inspect: dict[str, Any],
    spec: Spec,
    snapshot: HostSnapshot,
    missing: dict[str, str],
    *,
    probe: bool,
) -> Report:
    """Return the rows of ``verify``, with those of escape attempts if ``probe`` is set.

    ``missing`` gets the reason if the attempts are not possible.
    """
    from jaula.errors import JaulaError
    from jaula.features.verify import verify
    from jaula.features.verify.reports.report import Report

    name = inspect["Name"].lstrip("/")
    try:
        rows = verify.verify(
            inspect, spec, snapshot=snapshot, execs=_execs(client, inspect), others=[]
        )
    except JaulaError as error:
        raise CliError(f"{name}: {error}") from None
    if probe:
        from jaula.features.verify.escape import twin

        try:
            rows += twin.rows(client, inspect, spec)
        except (JaulaError, EngineError) as error:
            missing["probes"] = f"no escape was attempted: {error}"
    return Report(name, "container", _now(), tuple(rows))


def _execs(client: Client, inspect: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the documents of the exec sessions; an empty one for each that has ended."""
    documents: list[dict[str, Any]] = []
    for id in inspect.get("ExecIDs") or ():
        try:
            documents.append(client.get(f"/exec/{id}/json"))
        except EngineError:
            documents.append({})
    return documents


def _audit(
    client: Client, inspect: dict[str, Any], snapshot: HostSnapshot, missing: dict[str, str]
) -> tuple[Outcome, ...]:
    """Return the controls of containers, judged for this one; say in ``missing`` why not."""
    import datetime

    from jaula.errors import JaulaError
    from jaula.features.audit.benchmark import assessment, container_state
    from jaula.features.audit.benchmark.catalog import CIS
    from jaula.features.audit.benchmark.control import Kind, Scope

    if inspect.get("Pod"):
        missing["audit"] = "containers of pods are not audited"
        return ()
    names = {
        name: image["Id"]
        for image in client.get("/images/json") or ()
        for tag in image.get("RepoTags") or ()
        for name in (tag, tag.removesuffix(":latest"))
    }
    root = str(client.get("/info").get("DockerRootDir") or "")
    try:
        state = container_state.read(inspect, snapshot, _execs(client, inspect), names, root)
    except (OSError, ValueError, KeyError, JaulaError) as error:
        missing["audit"] = f"its evidence cannot be read: {error}"
        return ()
    subject = assessment.Subject(Kind.CONTAINER, inspect["Name"].lstrip("/"), state)
    outcomes = assessment.assess(
        CIS.controls, (Scope.CONTAINERS,), [subject], (), datetime.datetime.now(datetime.UTC).date()
    )
    return tuple(outcome for outcome in outcomes if outcome.findings)


def _digests(client: Client, image: str) -> tuple[str, ...]:
    """Return the digests of the image at registries, and its id; the id alone if it is removed."""
    try:
        document = client.get(f"/images/{quote(image)}/json")
    except EngineError:
        return (image,)
    return (*(document.get("RepoDigests") or ()), image)


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


COMMAND = Command(
    "[OPTIONS] CONTAINER",
    "Write a report of a container for an auditor, as one HTML page",
    run,
    flags=(
        Flag("output", "o", "string", "File of the page (default standard output)",
             metavar="FILE", completes="file"),
        Flag("probe", "", "bool", "Attempt to escape from a copy of the container, for the proof"),
        Flag("profile", "", "string",
             "Profile of what it may do (default: the one that it was created with)",
             metavar="FILE", completes="file"),
        Flag("record", "", "list", "Record of the container: what it did (repeatable)",
             metavar="FILE", completes="file"),
    ),
    min_args=1,
    max_args=1,
    description=(
        "Puts on one page what a container did (records of jaula record), what it may do (a "
        "profile, or the spec that it runs with), the proof that this is in effect (the rows of "
        "jaula verify, with --probe also escape attempts), and the controls of the CIS Docker "
        "Benchmark for containers. A part that is missing is named as missing. The page is one "
        "file without scripts, loads nothing, and can be printed. Needs root, on the engine's "
        "host."
    ),
    examples=(
        ("Write a report of a running container", "sudo jaula report -o web.html web"),
        (
            "With what it did and may do",
            "sudo jaula report --record web.record --profile web.toml --probe -o web.html web",
        ),
    ),
    exit_status=(
        ("0", "the proof holds, and the records are intact"),
        ("1", "a row fails or is unknown, a record is not intact, or the container does not run"),
    ),
    see_also=("verify", "audit", "record"),
    completes="container",
)  # fmt: skip
