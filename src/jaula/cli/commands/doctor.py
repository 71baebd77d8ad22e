"""``jaula doctor``: what on this host hinders an engine, and the command that mends it."""

from __future__ import annotations

from jaula.cli.command import Command, Flag, Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.doctor.checks import Finding


def run(options: Options) -> int:
    """Print the findings; 1 where something hinders."""
    from jaula.cli import site_packages
    from jaula.cli.errors import UsageError

    form = options.text("format", "text")
    if form not in ("text", "json"):
        raise UsageError(f"unknown format {form!r}: text or json")
    site_packages.enable()
    from jaula.audit.kernel import check_config
    from jaula.doctor import checks, host

    found = [*checks.examine(host.read()), *checks.kernel_features(check_config.check())]
    if form == "json":
        import msgspec

        print(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        print("\n".join(line(finding) for finding in found))
    return 1 if checks.has_blocker(found) else 0


def line(finding: Finding) -> str:
    """One finding as a person reads it."""
    text = f"{finding.state:<8} {finding.subject}: {finding.detail}"
    return f"{text}; mend it with: {finding.fix}" if finding.fix else text


COMMAND = Command(
    "[OPTIONS]",
    "Find what hinders an engine on this host, and say what mends it",
    run,
    flags=(
        Flag("format", "", "string", "text or json", default="text", completes=("text", "json")),
    ),
    max_args=0,
    description=(
        "Looks as the user that asks: root's engine needs other things than an ordinary user's. "
        "Each line begins with ok, costs (containers run, and lack what is said) or hinders, and "
        "ends with the command that mends it. Nothing is changed, and no engine is needed."
    ),
    examples=(
        ("Why does my engine not start?", "jaula doctor"),
        ("For a program", "jaula doctor --format json"),
    ),
    exit_status=(("0", "nothing hinders"), ("1", "something does")),
    see_also=("check", "info", "daemon"),
)
