"""``jaula doctor``: problems of this host for an engine, and the commands that fix them.

With ``--against`` the engine compares its host with the one of another engine, for migrations.
"""

from __future__ import annotations

from jaula.cli.command_parser import Command, Flag, Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from jaula.features.doctor.doctor_checks import Finding


def run(options: Options) -> int:
    """Print the findings or the comparison; 1 if one prevents an engine, or a move from here."""
    from jaula.cli import site_packages
    from jaula.cli.cli_errors import UsageError

    output_format = options.text("format", "text")
    if output_format not in ("text", "json"):
        raise UsageError(f"unknown format {output_format!r}: must be text or json")
    if target := options.text("against"):
        return _compare(target, output_format)
    site_packages.enable()
    from jaula.features.doctor import doctor_checks, host_state
    from jaula.features.doctor.kernel import check_config

    findings = [
        *doctor_checks.examine(host_state.read()),
        *doctor_checks.kernel_features(check_config.check()),
    ]
    if output_format == "json":
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(findings)).decode())
    else:
        print("\n".join(line(finding) for finding in findings))
    return 1 if doctor_checks.has_blocker(findings) else 0


def line(finding: Finding) -> str:
    """Format one finding."""
    text = f"{finding.state:<8} {finding.subject}: {finding.detail}"
    return f"{text}; fix it with: {finding.fix}" if finding.fix else text


def _compare(target: str, output_format: str) -> int:
    from jaula.cli.client.api_client import Client
    from jaula.cli.main import Settings
    from jaula.spec import fast_json

    document = Client(Settings.host).get("/jaula/migrations/hosts", (("to", target),))
    if output_format == "json":
        print(fast_json.encode(document))
    else:
        print(comparison(document, target))
    return 0 if all(row["Passed"] for row in document["ToThere"]) else 1


def comparison(document: dict[str, Any], target: str) -> str:
    """Return the table of both hosts, and one sentence for each direction. Pure."""
    from jaula.cli.output.text_table import aligned

    hosts = (document["Here"], document["There"])
    features = [set(host["CPUFeatures"]) for host in hosts]
    lines = [f"\tTHIS HOST\t{target}"]
    for name, values in (
        ("architecture", [host["Architecture"] for host in hosts]),
        ("page size", [f"{host['PageSize']} bytes" for host in hosts]),
        ("processor", [f"{len(each)} features" for each in features]),
        ("kernel", [host["KernelVersion"] for host in hosts]),
        ("CRIU", [host["CRIUVersion"] or "not installed" for host in hosts]),
        ("Landlock", [f"ABI {host['LandlockABI']}" for host in hosts]),
        ("cgroups", [f"v{host['CgroupVersion']}" for host in hosts]),
        ("protocol", [f"version {host['Protocol']}" for host in hosts]),
    ):
        lines.append("\t".join((name, *values)))
    text = aligned(lines)
    here, there = features
    for where, only in (("this host", sorted(here - there)), (target, sorted(there - here))):
        if only:
            text += f"\nFeatures of processors that only {where} has: {' '.join(only)}\n"
    return "\n".join(
        (
            text,
            _sentence("this host", target, document["ToThere"]),
            _sentence(target, "this host", document["ToHere"]),
        )
    )


def _sentence(source: str, target: str, rows: Iterable[dict[str, Any]]) -> str:
    """Return whether containers can move from a source to a target, with all that prevents it."""
    failed = [row for row in rows if not row["Passed"]]
    if not failed:
        return f"Containers can move from {source} to {target}."
    reasons = "; ".join(f"{row['Check']}: {row['Detail']} ({row['Hint']})" for row in failed)
    return f"Containers cannot move from {source} to {target}: {reasons}."


COMMAND = Command(
    "[OPTIONS]",
    "Find what prevents or limits an engine on this host",
    run,
    flags=(
        Flag(
            "against",
            "",
            "string",
            "Compare this host with that of another engine, for migrations: tcp://HOST[:PORT]",
        ),
        Flag("format", "", "string", "text or json", default="text", completes=("text", "json")),
    ),
    max_args=0,
    description=(
        "Checks the host for the user who runs the command: root's engine and a rootless engine "
        "have different requirements. Each line begins with ok, costs (containers run without "
        "the named feature) or hinders (no engine, or no container), and ends with the command "
        "that fixes it. Nothing is changed, and no engine is needed. --against asks the engine "
        "to compare its host with that of another one, by the connection that a migration uses. "
        "It prints a table of both, and for each direction whether containers can move, or what "
        "prevents that."
    ),
    examples=(
        ("Find why an engine does not start", "jaula doctor"),
        ("Print JSON", "jaula doctor --format json"),
        ("Compare two hosts", "jaula doctor --against tcp://b:2376"),
    ),
    exit_status=(
        ("0", "no finding hinders; with --against: containers can move from here to there"),
        ("1", "a finding hinders; with --against: they cannot"),
    ),
    see_also=("check", "info", "daemon", "container migrate"),
)
