"""``--cidfile`` and ``--ignore`` of commands that act on containers, as podman's."""

from __future__ import annotations

from jaula.cli.command import Flag
from jaula.cli.errors import CliError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jaula.cli.command import Options

MISSING = 404  # the code of an answer about a container that does not exist
_MAX_ID = 4096  # bytes of a file

FLAGS = (
    Flag("cidfile", "", "list", "Read the container ID from the file", completes="file"),
    Flag("ignore", "i", "bool", "Ignore containers and files that do not exist"),
)


def containers(options: Options) -> list[str]:
    """Return the arguments, and the ids in the files.

    :raises UsageError: when there is neither.
    :raises CliError: when a file cannot be read, unless it is absent and ``--ignore`` is set.
    """
    result = list(options.arguments)
    if not result and not options.is_set("cidfile"):
        path = options.command.path
        raise UsageError(f'"jaula {path}" requires at least 1 argument.', status=1, usage=True)
    for path in options.texts("cidfile"):
        try:
            with open(path, encoding="ascii") as file:
                result.append(file.read(_MAX_ID).strip())
        except FileNotFoundError:
            if not options.on("ignore"):
                raise CliError(f"{path} does not exist; --ignore skips it") from None
        except (OSError, UnicodeDecodeError) as error:
            raise CliError(f"reading {path} failed: {error}") from None
    return [name for name in result if name]
