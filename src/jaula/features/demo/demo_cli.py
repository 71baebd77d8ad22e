"""``jaula demo``: a guided tour."""

from __future__ import annotations

from jaula.cli import help
from jaula.cli.cli_errors import UsageError
from jaula.cli.command_parser import Command, Flag, Options
from jaula.cli.main import Settings
from jaula.translation import language


def run(options: Options) -> int:
    """Run the tour; 1 if a step fails."""
    from jaula.features.demo import tour

    chosen = help.environment_language()
    if options.is_set("lang"):
        chosen = language.known(options.text("lang"))
        if not chosen:
            raise UsageError(
                f'invalid argument "{options.text("lang")}" for "--lang": '
                f"must be one of {', '.join(language.LANGUAGES)}"
            )
    only = [int(number) for word in options.texts("step") for number in word.split(",")]
    return tour.run(
        Settings.host,
        quick=options.on("quick"),
        method=options.on("method"),
        only=only,
        language=chosen,
    )


COMMAND = Command(
    "[OPTIONS]",
    "Run a guided tour with real containers",
    run,
    flags=(
        Flag(
            "lang",
            "",
            "string",
            "Language of the tour (en or es; default: the environment's)",
            completes=language.LANGUAGES,
        ),
        Flag(
            "method", "", "bool", "Configure, record, harden, prove and audit one service instead"
        ),
        Flag("quick", "q", "bool", "Use the busybox image only, which is built in seconds"),
        Flag("step", "s", "list", "Run only these steps (1 to 9)"),
    ),
    max_args=0,
    description=(
        "Nine steps: the host, a shell in a container, namespaces, users, cgroups, "
        "capabilities, copy on write, archives, and the proof of isolation. Each step prints "
        "what it does, the command to type, and the kernel's evidence. Missing images are built "
        "from the host's package mirror. The containers of the tour are removed at its end.\n\n"
        "With --method, eight steps lead a guestbook (a Python program and PostgreSQL) from its "
        "defaults to a profile of what it needs, and to the proof that all else is refused."
    ),
    examples=(
        ("Run the short tour", "jaula demo --quick"),
        ("In Spanish", "jaula demo --quick --lang es"),
        ("Harden a service step by step", "sudo jaula demo --method"),
    ),
    exit_status=(("0", "every check passed"), ("1", "a check failed")),
    see_also=("check", "verify", "image bootstrap"),
)
