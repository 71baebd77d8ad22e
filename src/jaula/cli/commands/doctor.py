"""``jaula doctor``: problems of this host for an engine, and the commands that fix them."""

from __future__ import annotations

from jaula.cli.command import Command, Flag, Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.doctor.checks import Finding


def run(options: Options) -> int:
    """Print the findings; 1 if one prevents an engine."""
    from jaula.cli import site_packages
    from jaula.cli.errors import UsageError

    output_format = options.text("format", "text")
    if output_format not in ("text", "json"):
        raise UsageError(f"unknown format {output_format!r}: must be text or json")
    site_packages.enable()
    from jaula.audit.kernel import check_config
    from jaula.doctor import checks, host

    findings = [*checks.examine(host.read()), *checks.kernel_features(check_config.check())]
    if output_format == "json":
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(findings)).decode())
    else:
        print("\n".join(line(finding) for finding in findings))
    return 1 if checks.has_blocker(findings) else 0


def line(finding: Finding) -> str:
    """Format one finding."""
    text = f"{finding.state:<8} {finding.subject}: {finding.detail}"
    return f"{text}; fix it with: {finding.fix}" if finding.fix else text


COMMAND = Command(
    "[OPTIONS]",
    "Find what prevents or limits an engine on this host",
    run,
    flags=(
        Flag("format", "", "string", "text or json", default="text", completes=("text", "json")),
    ),
    max_args=0,
    description=(
        "Checks the host for the user who runs the command: root's engine and a rootless engine "
        "have different requirements. Each line begins with ok, costs (containers run without "
        "the named feature) or hinders (no engine, or no container), and ends with the command "
        "that fixes it. Nothing is changed, and no engine is needed."
    ),
    examples=(
        ("Find why an engine does not start", "jaula doctor"),
        ("Print JSON", "jaula doctor --format json"),
    ),
    exit_status=(("0", "no finding hinders"), ("1", "a finding hinders")),
    see_also=("check", "info", "daemon"),
)
