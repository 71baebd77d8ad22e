"""Files of ``--env-file`` and ``--label-file``: one ``NAME=value`` per line, ``#`` comments."""

from __future__ import annotations

from jaula.cli.cli_errors import UsageError
from jaula.cli.environ import variable


def lines(path: str) -> list[str]:
    """Return the lines that are neither empty nor comments, without leading white space.

    :raises UsageError: when the file cannot be read or a line is invalid.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise UsageError(f"open {path}: {(error.strerror or str(error)).lower()}") from None
    try:
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        number = data[: error.start].count(b"\n") + 1
        raise UsageError(f"invalid utf8 bytes at line {number} of {path}") from None
    result = []
    for line in text.split("\n"):
        line = line.removesuffix("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        name = line.partition("=")[0]
        if not name:
            raise UsageError(f"invalid file {path}: no variable name on line '{line}'")
        if any(character.isspace() for character in name):
            raise UsageError(f"invalid file {path}: variable '{name}' contains whitespaces")
        result.append(line)
    return result


def variables(path: str) -> list[str]:
    """Return the lines of an environment file.

    A name without a value takes the client's value, or is left out if it is not set.

    :raises UsageError: when the file cannot be read or a line is invalid.
    """
    result = []
    for line in lines(path):
        if "=" in line:
            result.append(line)
        elif (value := variable(line)) is not None:
            result.append(f"{line}={value}")
    return result
