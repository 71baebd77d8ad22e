"""``jaula completion``."""

from __future__ import annotations

import sys

from jaula.cli.command_parser import Command, Options

SHELLS = ("bash", "zsh", "fish")


def run(options: Options) -> int:
    """Print the completion script for one shell."""
    from jaula.cli import completion_script
    from jaula.cli.cli_errors import UsageError

    shell = options.arguments[0]
    if shell not in SHELLS:
        raise UsageError(
            f'no completion for "{shell}": must be one of {", ".join(SHELLS)}', status=1
        )
    sys.stdout.write(completion_script.script(shell))
    return 0


COMMAND = Command(
    "bash|zsh|fish",
    "Print the completion script for a shell",
    run,
    min_args=1,
    max_args=1,
    description="The script contains every command and flag, and queries the engine for names.",
    examples=(
        ("bash", "jaula completion bash > /usr/share/bash-completion/completions/jaula"),
        ("zsh", 'jaula completion zsh > "${fpath[1]}/_jaula"'),
        ("fish", "jaula completion fish > ~/.config/fish/completions/jaula.fish"),
    ),
    see_also=("help",),
    completes=SHELLS,
)
