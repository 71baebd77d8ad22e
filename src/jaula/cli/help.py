"""Help pages for ``--help``, generated from the same table as the parser."""

from __future__ import annotations

from jaula.cli import command as cli_command
from jaula.cli import command_table

WIDTH = 80
COMMON = ("run", "exec", "ps", "images", "info", "verify", "demo")


def page(command: cli_command.Command) -> str:
    """Return the help page of one command: usage, description, options, examples, exit status."""
    parts = [f"Usage:  jaula {command.path} {command.usage}".rstrip(), command.summary]
    if command.description:
        parts.append("\n\n".join(_wrapped(text) for text in command.description.split("\n\n")))
    if command.path in command_table.GROUPS:  # record, beside record show
        parts.append("Commands:\n" + _summaries(_group_paths(command.path)))
    parts += _options(command.flags)
    if command.examples:
        lines = ["Examples:"]
        for text, line in command.examples:
            lines += [f"  {text}:", f"    $ {line}"]
        parts.append("\n".join(lines))
    if command.exit_status:
        rows = _columns([(number, meaning) for number, meaning in command.exit_status])
        parts.append("Exit status:\n" + rows)
    aliases = [
        words
        for words, module in command_table.COMMANDS.items()
        if module == command_table.COMMANDS.get(command.path) and words != command.path
    ]
    if aliases:
        parts.append("Aliases:\n  " + ", ".join(f"jaula {words}" for words in aliases))
    if command.see_also:
        parts.append("See also:\n  " + ", ".join(f"jaula {words}" for words in command.see_also))
    return "\n\n".join(parts) + "\n"


def overview() -> str:
    """Return the help page of ``jaula`` itself."""
    names = [words for words in command_table.COMMANDS if " " not in words]
    parts = [
        "Usage:  jaula [OPTIONS] COMMAND",
        command_table.ROOT.summary,
        "Common Commands:\n" + _summaries([name for name in names if name in COMMON]),
        "Management Commands:\n" + _columns(list(command_table.GROUPS.items())),
        "Commands:\n" + _summaries(sorted(name for name in names if name not in COMMON)),
        *_options(command_table.ROOT.flags, title="Global Options"),
        "Environment:\n" + _columns([("JAULA_HOST", "Engine socket to connect to, as --host")]),
        "Run 'jaula COMMAND --help' for more information on a command.",
    ]
    return "\n\n".join(parts) + "\n"


def group(name: str) -> str:
    """Return the help page of a group of commands."""
    names = _group_paths(name)
    return "\n\n".join(
        [
            f"Usage:  jaula {name} COMMAND",
            command_table.GROUPS[name],
            "Commands:\n" + _summaries(names),
            f"Run 'jaula {name} COMMAND --help' for more information on a command.\n",
        ]
    )


def _group_paths(name: str) -> list[str]:
    return sorted(words for words in command_table.COMMANDS if words.startswith(name + " "))


def _summaries(names: list[str]) -> str:
    return _columns([(name.rpartition(" ")[2], command_table.load(name).summary) for name in names])


def _options(all_flags: tuple[cli_command.Flag, ...], title: str = "Options") -> list[str]:
    if not all_flags:
        return []
    groups: dict[str, list[cli_command.Flag]] = {}
    for flag in sorted(all_flags, key=lambda flag: flag.name):
        groups.setdefault(flag.group, []).append(flag)
    wide = max(len(_head(flag)) for flag in all_flags) + 3
    return [
        (f"{name} options" if name else title)
        + ":\n"
        + "\n".join(_described(_head(flag), _help(flag), wide) for flag in groups[name])
        for name in sorted(groups)
    ]


def _head(flag: cli_command.Flag) -> str:
    short = f"-{flag.short}, " if flag.short else "    "
    kind = flag.metavar or {"size": "bytes", "seconds": "int"}.get(flag.kind, flag.kind)
    if flag.implied:
        return f"  {short}--{flag.name}[={kind}]"
    return f"  {short}--{flag.name}" + ("" if flag.kind == "bool" else f" {kind}")


def _help(flag: cli_command.Flag) -> str:
    if flag.default:
        default = flag.default if flag.kind != "string" else f'"{flag.default}"'
        return f"{flag.help} (default {default})"
    return flag.help


def _columns(rows: list[tuple[str, str]]) -> str:
    wide = max(len(name) for name, _ in rows) + 4
    return "\n".join(_described("  " + name, text, wide) for name, text in rows)


def _described(head: str, text: str, wide: int) -> str:
    lines = _lines(text, max(WIDTH - wide, 30))
    rest = "".join("\n" + " " * wide + line for line in lines[1:])
    return (head.ljust(wide) + lines[0] + rest).rstrip()


def _wrapped(text: str) -> str:
    return "\n".join(_lines(text, WIDTH))


def _lines(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
