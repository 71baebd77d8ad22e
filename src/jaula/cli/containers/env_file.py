"""Files of ``--env-file`` and ``--label-file``: one ``NAME=value`` a line, ``#`` comments."""

from __future__ import annotations

from jaula.cli.environ import variable
from jaula.cli.errors import UsageError


def lines(path: str) -> list[str]:
    """The lines that say something, left white space removed. Raises UsageError."""
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
    found = []
    for line in text.split("\n"):
        line = line.removesuffix("\r").lstrip()
        if not line or line.startswith("#"):
            continue
        name = line.partition("=")[0]
        if not name:
            raise UsageError(f"invalid file {path}: no variable name on line '{line}'")
        if any(character.isspace() for character in name):
            raise UsageError(f"invalid file {path}: variable '{name}' contains whitespaces")
        found.append(line)
    return found


def variables(path: str) -> list[str]:
    """As ``lines``; a name without a value is taken from the environment, or left out."""
    found = []
    for line in lines(path):
        if "=" in line:
            found.append(line)
        elif (value := variable(line)) is not None:
            found.append(f"{line}={value}")
    return found
