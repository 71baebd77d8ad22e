"""``--cidfile`` and ``--ignore`` of commands that act on containers, as podman's."""

from __future__ import annotations

from jaula.cli.cli_errors import CliError, UsageError
from jaula.cli.command_parser import Flag
from jaula.cli.id_file import IdFile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.cli.command_parser import Options

MISSING = 404  # the code of an answer about a container that does not exist

FLAGS = (
    Flag("cidfile", "", "list", "Read the container ID from the file", completes="file"),
    Flag("ignore", "i", "bool", "Ignore containers and files that do not exist"),
)


def files(options: Options) -> list[IdFile]:
    """Read the files of ``--cidfile``.

    :raises CliError: when a file cannot be read, unless it is absent and ``--ignore`` is set.
    """
    result = []
    for path in options.texts("cidfile"):
        try:
            result.append(IdFile(path))
        except FileNotFoundError:
            if not options.on("ignore"):
                raise CliError(f"{path} does not exist; --ignore skips it") from None
        except (OSError, UnicodeDecodeError) as error:
            raise CliError(f"reading {path} failed: {error}") from None
    return result


def containers(options: Options, files: list[IdFile]) -> list[str]:
    """Return the arguments, and the ids in the files.

    :raises UsageError: when neither is in the command line.
    """
    if not options.arguments and not options.is_set("cidfile"):
        path = options.command.path
        raise UsageError(f'"jaula {path}" requires at least 1 argument.', status=1, usage=True)
    return [name for name in (*options.arguments, *(file.id for file in files)) if name]
