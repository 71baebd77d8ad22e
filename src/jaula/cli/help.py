"""Help pages for ``--help``, generated from the same table as the parser.

They are in the language that the environment asks for. Words that a user types stay as they are.
"""

from __future__ import annotations

from jaula.cli import command_parser, command_table
from jaula.cli.environ import text as environ_text
from jaula.translation import language, po_catalog, topics

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WIDTH = 80
COMMON = ("run", "exec", "ps", "images", "info", "verify", "demo")
# The texts of this module, for the catalogue.
TEXTS = (
    "Usage:",
    "Commands:",
    "Common Commands:",
    "Management Commands:",
    "Help Topics:",
    "Options:",
    "Global Options:",
    "Examples:",
    "Exit status:",
    "Aliases:",
    "See also:",
    "Environment:",
    "Engine socket to connect to, as --host",
    "(default {value})",
    "Run 'jaula COMMAND --help' for more information on a command.",
    "Run 'jaula {group} COMMAND --help' for more information on a command.",
    "Run 'jaula help TOPIC' for a topic.",
)


def page(command: command_parser.Command, chosen: str = "") -> str:
    """Return the help page of one command: usage, description, options, examples, exit status.

    ``chosen`` is a language; that of the environment if absent.
    """
    _ = _translator(chosen)
    usage = f"{_('Usage:')}  jaula {command.path} {command.usage}".rstrip()
    parts = [usage, _(command.summary)]
    if command.description:
        parts.append("\n\n".join(_wrapped(_(text)) for text in paragraphs(command)))
    if command.path in command_table.groups():  # record, beside record show
        parts.append(f"{_('Commands:')}\n" + _summaries(_group_paths(command.path), _))
    parts += _options(command.flags, _("Options:"), _)
    if command.examples:
        lines = [_("Examples:")]
        for text, line in command.examples:
            lines += [f"  {_(text)}:", f"    $ {line}"]
        parts.append("\n".join(lines))
    if command.exit_status:
        rows = _columns([(number, _(meaning)) for number, meaning in command.exit_status])
        parts.append(f"{_('Exit status:')}\n{rows}")
    aliases = [
        words
        for words, module in command_table.commands().items()
        if module == command_table.commands().get(command.path) and words != command.path
    ]
    if aliases:
        parts.append(f"{_('Aliases:')}\n  " + ", ".join(f"jaula {words}" for words in aliases))
    if command.see_also:
        names = ", ".join(f"jaula {words}" for words in command.see_also)
        parts.append(f"{_('See also:')}\n  {names}")
    return "\n\n".join(parts) + "\n"


def overview(chosen: str = "") -> str:
    """Return the help page of ``jaula`` itself."""
    _ = _translator(chosen)
    names = [words for words in command_table.commands() if " " not in words]
    groups = [(name, _(text)) for name, text in command_table.groups().items()]
    parts = [
        f"{_('Usage:')}  jaula [OPTIONS] COMMAND",
        _(command_table.ROOT.summary),
        f"{_('Common Commands:')}\n" + _summaries([name for name in names if name in COMMON], _),
        f"{_('Management Commands:')}\n" + _columns(groups),
        f"{_('Commands:')}\n" + _summaries(sorted(name for name in names if name not in COMMON), _),
        *_options(command_table.ROOT.flags, _("Global Options:"), _),
        f"{_('Environment:')}\n"
        + _columns([("JAULA_HOST", _("Engine socket to connect to, as --host"))]),
        topic_list(chosen).rstrip(),
        _("Run 'jaula COMMAND --help' for more information on a command."),
    ]
    return "\n\n".join(parts) + "\n"


def group(name: str, chosen: str = "") -> str:
    """Return the help page of a group of commands."""
    _ = _translator(chosen)
    more = _("Run 'jaula {group} COMMAND --help' for more information on a command.")
    return "\n\n".join(
        [
            f"{_('Usage:')}  jaula {name} COMMAND",
            _(command_table.groups()[name]),
            f"{_('Commands:')}\n" + _summaries(_group_paths(name), _),
            more.format(group=name) + "\n",
        ]
    )


def topic(name: str, chosen: str = "") -> str:
    """Return the page of a topic, one of ``topics.NAMES``."""
    return topics.text(name, chosen or environment_language())


def topic_list(chosen: str = "") -> str:
    """Return the list of the topics."""
    _ = _translator(chosen)
    chosen = chosen or environment_language()
    rows = [(name, topics.title(name, chosen).partition(": ")[2]) for name in topics.NAMES]
    more = _("Run 'jaula help TOPIC' for a topic.")
    return f"{_('Help Topics:')}\n{_columns(rows)}\n\n{more}\n"


def texts() -> Iterator[tuple[str, str]]:
    """Yield each English text that help pages translate, with the words of its command or ''."""
    for text in (*TEXTS, command_table.ROOT.summary, *command_table.groups().values()):
        yield text, ""
    commands = [command_table.load(words) for words in dict.fromkeys(_main_paths())]
    for command in (command_table.ROOT, *commands):
        of_command = [
            command.summary,
            *paragraphs(command),
            *(flag.help for flag in (*command.flags, command_parser.HELP)),
            *(f"{flag.group} options:" for flag in command.flags if flag.group),
            *(text for text, _ in command.examples),
            *(meaning for _, meaning in command.exit_status),
        ]
        for text in of_command:
            if text:
                yield text, command.path


def paragraphs(command: command_parser.Command) -> list[str]:
    """Return the paragraphs of a command's description."""
    return [text for text in command.description.split("\n\n") if text]


def environment_language() -> str:
    """Return the language of the environment."""
    return language.choose(environ_text)


def _translator(chosen: str) -> Callable[[str], str]:
    try:
        return po_catalog.translator(chosen or environment_language())
    except OSError:
        return po_catalog.translator(language.ENGLISH)  # installed without the catalogue


def _main_paths() -> Iterator[str]:
    """Yield one path for each module of a command."""
    described = set()
    for words, module in command_table.commands().items():
        if module not in described:
            described.add(module)
            yield words


def _group_paths(name: str) -> list[str]:
    return sorted(words for words in command_table.commands() if words.startswith(name + " "))


def _summaries(names: list[str], _: Callable[[str], str]) -> str:
    return _columns(
        [(name.rpartition(" ")[2], _(command_table.load(name).summary)) for name in names]
    )


def _options(
    all_flags: tuple[command_parser.Flag, ...], title: str, _: Callable[[str], str]
) -> list[str]:
    if not all_flags:
        return []
    groups: dict[str, list[command_parser.Flag]] = {}
    for flag in sorted(all_flags, key=lambda flag: flag.name):
        groups.setdefault(flag.group, []).append(flag)
    wide = max(len(_head(flag)) for flag in all_flags) + 3
    return [
        (_(f"{name} options:") if name else title)
        + "\n"
        + "\n".join(_described(_head(flag), _help(flag, _), wide) for flag in groups[name])
        for name in sorted(groups)
    ]


def _head(flag: command_parser.Flag) -> str:
    short = f"-{flag.short}, " if flag.short else "    "
    kind = flag.metavar or {"size": "bytes", "seconds": "int"}.get(flag.kind, flag.kind)
    if flag.implied:
        return f"  {short}--{flag.name}[={kind}]"
    return f"  {short}--{flag.name}" + ("" if flag.kind == "bool" else f" {kind}")


def _help(flag: command_parser.Flag, _: Callable[[str], str]) -> str:
    if flag.default:
        default = flag.default if flag.kind != "string" else f'"{flag.default}"'
        return f"{_(flag.help)} {_('(default {value})').format(value=default)}"
    return _(flag.help)


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
