"""Parse the instructions with a command: RUN, CMD, ENTRYPOINT, SHELL, HEALTHCHECK."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from jaula.images.dockerfile.ast import (
    Cmd,
    Entrypoint,
    Healthcheck,
    InstructionLine,
    Network,
    Run,
    Security,
    Shell,
)
from jaula.images.dockerfile.dockerfile_error import DockerfileError, printable
from jaula.images.dockerfile.dockerfile_words import json_list, split_first
from jaula.images.dockerfile.instructions.run_mount import parse_mount
from jaula.images.dockerfile.lexer import check_file_name, parse_marker
from jaula.spec import image_documents
from jaula.spec.units import nanoseconds

_Choice = TypeVar("_Choice", bound=StrEnum)

_MIN_INTERVAL = 10**6
"""Nanoseconds; Docker's shortest interval, except 0, which is the default."""


def run(line: InstructionLine) -> Run:
    """Parse the command and the mounts of a RUN."""
    if not line.rest:
        raise DockerfileError("RUN requires a command")
    if line.flags.texts("device"):
        raise DockerfileError("RUN --device: a build step has no access to devices of the host")
    mounts = tuple(parse_mount(text) for text in line.flags.texts("mount"))
    network = _choice(Network, line.flags.text("network"), "unsupported network mode")
    security = _choice(Security, line.flags.text("security"), "unsupported security mode")
    command, shell_form, script = _command(line)
    return Run(
        line.location, "", command, shell_form, line.heredocs, mounts, network, security, script
    )


def _choice(kind: type[_Choice], text: str, what: str) -> _Choice:
    """Return the member that ``text`` names, the first one for ''."""
    for member in kind:
        if text in (member.value, ""):
            return member
    raise DockerfileError(f"{what}: {printable(text)!r}", hint=f"one of {', '.join(kind)}")


def _command(line: InstructionLine) -> tuple[tuple[str, ...], bool, str]:
    """Return the command, whether it is in shell form, and the script to execute as a file."""
    listed = json_list(line.rest)
    if listed is not None:
        if not listed:
            raise DockerfileError("RUN requires a command", hint="the list is empty")
        return listed, False, ""
    if not line.heredocs:
        return (line.rest,), True, ""
    if parse_marker(line.rest) is None:
        return (f"{line.rest}\n{line.documents}",), True, ""
    content = line.heredocs[0].content
    if content.startswith("#!"):
        check_file_name(line.heredocs[0].name)
        return (), False, content
    return (content,), True, ""


def cmd(line: InstructionLine) -> Cmd:
    """Parse a CMD. Its list may be empty, and the text of its shell form too."""
    listed = json_list(line.rest)
    return Cmd(line.location, "", *_form(line, listed))


def entrypoint(line: InstructionLine) -> Entrypoint:
    """Parse an ENTRYPOINT. Its list may be empty, and the text of its shell form too."""
    return Entrypoint(line.location, "", *_form(line, json_list(line.rest)))


def _form(line: InstructionLine, listed: tuple[str, ...] | None) -> tuple[tuple[str, ...], bool]:
    if listed is not None:
        return listed, False
    return ((line.rest,) if line.rest else ()), True


def shell(line: InstructionLine) -> Shell:
    """Parse a SHELL, which must be in JSON form, as in Docker."""
    listed = json_list(line.rest)
    if listed is None:
        raise DockerfileError(
            "SHELL requires the arguments to be in JSON form", hint='for example ["/bin/sh", "-c"]'
        )
    if not listed:
        raise DockerfileError("SHELL requires at least one argument")
    return Shell(line.location, "", listed)


def healthcheck(line: InstructionLine) -> Healthcheck:
    """Parse ``NONE``, or ``CMD`` and a command in either form."""
    kind, rest = split_first(line.rest)
    kind = kind.upper()
    if not kind:
        raise DockerfileError(
            "HEALTHCHECK requires at least one argument", hint="use NONE, or CMD COMMAND"
        )
    if kind == "NONE":
        if rest:
            raise DockerfileError("HEALTHCHECK NONE takes no arguments")
        return Healthcheck(line.location, "", image_documents.Healthcheck(("NONE",)))
    if kind != "CMD":
        raise DockerfileError(f'Unknown type "{printable(kind)}" in HEALTHCHECK (try CMD)')
    listed = json_list(rest)
    if not rest or listed == ():
        raise DockerfileError("Missing command after HEALTHCHECK CMD")
    return Healthcheck(
        line.location,
        "",
        image_documents.Healthcheck(
            ("CMD-SHELL", rest) if listed is None else ("CMD", *listed),
            _interval(line, "interval"),
            _interval(line, "timeout"),
            _interval(line, "start-period"),
            _interval(line, "start-interval"),
            _retries(line.flags.text("retries")),
        ),
    )


def _interval(line: InstructionLine, name: str) -> int:
    text = line.flags.text(name)
    if not text:
        return 0
    try:
        duration = nanoseconds(text)
    except ValueError:
        raise DockerfileError(
            f'--{name}: invalid duration "{printable(text)}"', hint="for example 5s or 1m30s"
        ) from None
    if duration and not _MIN_INTERVAL <= duration < 2**63:
        raise DockerfileError(f'Interval "{name}" cannot be less than 1ms, got {printable(text)}')
    return duration


def _retries(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise DockerfileError(f"--retries: {printable(text)!r} is not a non-negative number")
    return int(text)
