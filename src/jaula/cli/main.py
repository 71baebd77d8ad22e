"""Entry point of the client: from an argument list to an exit status."""

from __future__ import annotations

import sys
from posix import _exit

from jaula import feature
from jaula.cli import command_parser, command_table
from jaula.cli.cli_errors import CliError, EngineError, ExitStatus, UsageError
from jaula.cli.client.engine_address import ConnectionOptions
from jaula.cli.output.visible_stream import VisibleOutput
from jaula.spec.visible_text import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

INTERRUPTED = 130
BROKEN_PIPE = 141


class Settings:
    """Values of the global options; the commands read them as class attributes."""

    host = ""
    debug = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return the exit status.

    All errors of the client are reported here. With ``--debug``, an OSError is raised instead.
    """
    with VisibleOutput():
        return _reported(list(sys.argv[1:] if arguments is None else arguments))


def _reported(arguments: list[str]) -> int:
    try:
        return _dispatch(arguments)
    except ExitStatus as error:
        return error.status
    except CliError as error:
        _print_error(error.message)
        if isinstance(error, EngineError):
            from jaula.cli import suggestion

            suggestion.print_object_hint(error, Settings.host)
        return error.status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return BROKEN_PIPE
    except OSError as error:
        if Settings.debug:
            raise
        path = f": {error.filename}" if error.filename else ""
        _print_error(f"jaula: {error.strerror or error}{path}")
        return 1


def run_and_exit() -> None:
    """Run the command line of this process and exit, without the interpreter's finalization."""
    sys.excepthook = _unexpected
    status = main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (BrokenPipeError, ValueError):
        status = status or BROKEN_PIPE
    except KeyboardInterrupt:
        status = INTERRUPTED
    _exit(status)


def _unexpected(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Report an internal error of the client.

    Prints one line with its location, or with ``--debug`` the traceback.
    """
    if Settings.debug:
        sys.__excepthook__(kind, error, trace)
        return
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    location = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
    _print_error(f"jaula: internal error{location}: {kind.__name__}: {error} (--debug shows more)")


def _dispatch(words: list[str]) -> int:
    command_table.ROOT.path = ""
    options = command_parser.parse(command_table.ROOT, words)
    Settings.debug = options.on("debug")
    if options.on("no-color"):
        from jaula.cli.output.ansi import ColorOptions

        ColorOptions.disabled = True
    hosts = options.texts("host")
    Settings.host = ConnectionOptions.host = hosts[-1] if hosts else ""
    ConnectionOptions.context = options.text("context")
    ConnectionOptions.tls = options.on("tls")
    ConnectionOptions.tlsverify = options.on("tlsverify") if options.is_set("tlsverify") else None
    ConnectionOptions.tlscacert = options.text("tlscacert")
    ConnectionOptions.tlscert = options.text("tlscert")
    ConnectionOptions.tlskey = options.text("tlskey")
    if options.on("version"):
        from jaula import __version__

        print(f"jaula version {__version__}")
        return 0
    rest = options.arguments
    if options.on("help") or not rest:
        from jaula.cli import help

        print(help.overview())
        return 0
    name, rest = rest[0], rest[1:]
    if name in command_table.CORE_COMMANDS:  # no feature is read for it
        return _run(name, rest)
    if name in command_table.CORE_GROUPS and " ".join((name, *rest[:1])) in (
        command_table.CORE_COMMANDS
    ):
        return _run(f"{name} {rest[0]}", rest[1:])
    if name in command_table.groups() and (
        name not in command_table.commands()
        or f"{name} {' '.join(rest[:1])}" in command_table.commands()
    ):  # record and audit are both: `record web`, `record show FILE`
        return _group(name, rest)
    if name not in command_table.commands():
        _check_installed(name)
        raise CliError(
            f"jaula: '{name}' is not a jaula command.{_suggestion(name)}\nSee 'jaula --help'"
        )
    return _run(name, rest)


def _check_installed(word: str) -> None:
    """Check that a word is not a command of a feature that is not installed.

    :raises CliError: when it is.
    """
    if missing := feature.missing_for(word):
        raise CliError(
            f"jaula: '{word}' belongs to the feature {missing}, which is not installed\n"
            f"Install all of jaula: the directory of the feature is jaula/features/{missing}"
        )


def _group(group: str, words: list[str]) -> int:
    if not words or words[0] in ("--help", "-h", "help"):
        from jaula.cli import help

        print(help.group(group))
        return 0
    path = f"{group} {words[0]}"
    if path not in command_table.commands() and path not in command_table.aliases():
        if words[0].startswith("-"):
            raise UsageError(f"unknown flag: {words[0]}\nSee 'jaula {group} --help'.")
        from jaula.cli import help

        raise CliError(
            f"jaula: '{path}' is not a jaula command.{_suggestion(path)}\n\n" + help.group(group)
        )
    return _run(path, words[1:])


def _run(path: str, words: list[str]) -> int:
    command = command_table.load(path)
    try:
        options = command_parser.parse(command, words)
    except UsageError as error:
        error.args = (f"{error.message}\nSee 'jaula {path} --help'.",)
        error.message = error.args[0]
        raise
    if options.on("help"):
        from jaula.cli import help

        print(help.page(command))
        return 0
    try:
        command_parser.check_arguments(options)
    except UsageError as error:
        error.message += (
            f"\nSee 'jaula {path} --help'.\n\nUsage:  jaula {path} {command.usage}\n\n"
            f"{command.summary}"
        )
        raise
    return command.run(options)


def _print_error(message: str) -> None:
    try:
        sys.stderr.write(visible(message) + "\n")
    except BrokenPipeError:
        pass


def _suggestion(word: str) -> str:
    from jaula.cli import suggestion

    words = [*command_table.commands(), *command_table.groups()]
    group, space, _ = word.partition(" ")
    close = suggestion.close(
        word, [name for name in words if name.partition(" ")[0] == group] if space else words
    )
    return f" Did you mean {' or '.join(close)}?" if close else ""
