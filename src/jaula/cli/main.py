"""From an argument list to an exit status."""

from __future__ import annotations

import sys
from posix import _exit

from jaula.cli import command as cli_command
from jaula.cli import command_table
from jaula.cli.client.endpoint import ConnectionOptions
from jaula.cli.errors import CliError, ExitStatus, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

INTERRUPTED = 130
BROKEN_PIPE = 141


class Settings:
    """What the options before the command say; read by the commands through the module."""

    host = ""
    debug = False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; the exit status. Nothing but SystemExit of a caller gets out."""
    try:
        return _dispatch(list(sys.argv[1:] if arguments is None else arguments))
    except ExitStatus as leave:
        return leave.status
    except UsageError as error:
        return _say_usage(error)
    except CliError as error:
        _say(error.message)
        return error.status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        return BROKEN_PIPE
    except OSError as error:
        if Settings.debug:
            raise
        place = f": {error.filename}" if error.filename else ""
        _say(f"jaula: {error.strerror or error}{place}")
        return 1


def run_and_exit() -> None:
    """Run the process's own command line and end the process without the interpreter's farewell."""
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
    """A fault of the client itself: one line that says where, the whole trace with --debug."""
    if Settings.debug:
        sys.__excepthook__(kind, error, trace)
        return
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""
    _say(f"jaula: internal error{place}: {kind.__name__}: {error} (--debug shows more)")


def _dispatch(words: list[str]) -> int:
    command_table.ROOT.path = ""
    options = cli_command.parse(command_table.ROOT, words)
    Settings.debug = options.on("debug")
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
        from jaula.cli import help as cli_help

        print(cli_help.overview())
        return 0
    name, rest = rest[0], rest[1:]
    if name in command_table.GROUPS:
        return _group(name, rest)
    if name not in command_table.COMMANDS:
        raise CliError(f"jaula: '{name}' is not a jaula command.{_near(name)}\nSee 'jaula --help'")
    return _run(name, rest)


def _group(group: str, words: list[str]) -> int:
    from jaula.cli import help as cli_help

    if not words or words[0] in ("--help", "-h", "help"):
        print(cli_help.group(group))
        return 0
    path = f"{group} {words[0]}"
    if path not in command_table.COMMANDS and path not in command_table.ALIASES:
        if words[0].startswith("-"):
            raise UsageError(f"unknown flag: {words[0]}\nSee 'jaula {group} --help'.")
        raise CliError(
            f"jaula: '{path}' is not a jaula command.{_near(path)}\n\n" + cli_help.group(group)
        )
    return _run(path, words[1:])


def _run(path: str, words: list[str]) -> int:
    command = command_table.load(path)
    try:
        options = cli_command.parse(command, words)
    except UsageError as error:
        error.args = (f"{error.message}\nSee 'jaula {path} --help'.",)
        error.message = error.args[0]
        raise
    if options.on("help"):
        from jaula.cli import help as cli_help

        print(cli_help.page(command))
        return 0
    try:
        cli_command.check_arguments(options)
    except UsageError as error:
        error.message += (
            f"\nSee 'jaula {path} --help'.\n\nUsage:  jaula {path} {command.usage}\n\n"
            f"{command.summary}"
        )
        raise
    return command.run(options)


def _say_usage(error: UsageError) -> int:
    _say(error.message)
    return error.status


def _say(message: str) -> None:
    try:
        sys.stderr.write(message + "\n")
    except BrokenPipeError:
        pass


def _near(word: str) -> str:
    from difflib import get_close_matches

    close = get_close_matches(
        word, [*command_table.COMMANDS, *command_table.GROUPS], n=3, cutoff=0.6
    )
    return f" Near: {', '.join(close)}." if close else ""
