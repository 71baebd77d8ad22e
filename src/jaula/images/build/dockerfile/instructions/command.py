"""The instructions that name a command: RUN, CMD, ENTRYPOINT, SHELL, HEALTHCHECK."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from jaula.images.build.dockerfile.ast import (
    Cmd,
    Entrypoint,
    Healthcheck,
    Network,
    Run,
    Security,
    Shell,
)
from jaula.images.build.dockerfile.errors import DockerfileError, plain
from jaula.images.build.dockerfile.exec_form import json_list
from jaula.images.build.dockerfile.heredoc import file_name, marker
from jaula.images.build.dockerfile.instruction_line import InstructionLine
from jaula.images.build.dockerfile.instructions.mount import parse_mount
from jaula.images.build.dockerfile.words import halves
from jaula.spec import image
from jaula.spec.units import nanoseconds

_Choice = TypeVar("_Choice", bound=StrEnum)

_SHORTEST = 10**6
"""Nanoseconds; Docker's shortest interval, but for 0, which is the default."""


def run(said: InstructionLine) -> Run:
    """What is executed, and what is mounted for it."""
    if not said.rest:
        raise DockerfileError("RUN requires a command")
    if said.flags.texts("device"):
        raise DockerfileError("RUN --device: a build step has no devices of the host")
    mounts = tuple(parse_mount(text) for text in said.flags.texts("mount"))
    network = _choice(Network, said.flags.text("network"), "unsupported network mode")
    security = _choice(Security, said.flags.text("security"), "unsupported security mode")
    command, shell_form, script = _command(said)
    return Run(
        said.place, "", command, shell_form, said.heredocs, mounts, network, security, script
    )


def _choice(kind: type[_Choice], text: str, what: str) -> _Choice:
    """The member that ``text`` names, the first one for ''."""
    for member in kind:
        if text in (member.value, ""):
            return member
    raise DockerfileError(f"{what}: {plain(text)!r}", hint=f"there are {', '.join(kind)}")


def _command(said: InstructionLine) -> tuple[tuple[str, ...], bool, str]:
    """Command, whether it is a shell's, and the script that is to be a file."""
    listed = json_list(said.rest)
    if listed is not None:
        if not listed:
            raise DockerfileError("RUN requires a command", hint="the list is empty")
        return listed, False, ""
    if not said.heredocs:
        return (said.rest,), True, ""
    if marker(said.rest) is None:
        return (f"{said.rest}\n{said.documents}",), True, ""
    content = said.heredocs[0].content
    if content.startswith("#!"):
        file_name(said.heredocs[0].name)
        return (), False, content
    return (content,), True, ""


def cmd(said: InstructionLine) -> Cmd:
    """An empty list, or nothing at all, is no command."""
    listed = json_list(said.rest)
    return Cmd(said.place, "", *_form(said, listed))


def entrypoint(said: InstructionLine) -> Entrypoint:
    """An empty list, or nothing at all, is no entry point."""
    return Entrypoint(said.place, "", *_form(said, json_list(said.rest)))


def _form(said: InstructionLine, listed: tuple[str, ...] | None) -> tuple[tuple[str, ...], bool]:
    if listed is not None:
        return listed, False
    return ((said.rest,), True) if said.rest else ((), False)


def shell(said: InstructionLine) -> Shell:
    """In JSON form only, as in Docker."""
    listed = json_list(said.rest)
    if listed is None:
        raise DockerfileError(
            "SHELL requires the arguments to be in JSON form", hint='["/bin/sh", "-c"]'
        )
    if not listed:
        raise DockerfileError("SHELL requires at least one argument")
    return Shell(said.place, "", listed)


def healthcheck(said: InstructionLine) -> Healthcheck:
    """``NONE``, or ``CMD`` and a command in either form."""
    kind, rest = halves(said.rest)
    kind = kind.upper()
    if not kind:
        raise DockerfileError(
            "HEALTHCHECK requires at least one argument", hint="NONE, or CMD COMMAND"
        )
    if kind == "NONE":
        if rest:
            raise DockerfileError("HEALTHCHECK NONE takes no arguments")
        return Healthcheck(said.place, "", image.Healthcheck(("NONE",)))
    if kind != "CMD":
        raise DockerfileError(f'Unknown type "{plain(kind)}" in HEALTHCHECK (try CMD)')
    listed = json_list(rest)
    if not rest or listed == ():
        raise DockerfileError("Missing command after HEALTHCHECK CMD")
    return Healthcheck(
        said.place,
        "",
        image.Healthcheck(
            ("CMD-SHELL", rest) if listed is None else ("CMD", *listed),
            _interval(said, "interval"),
            _interval(said, "timeout"),
            _interval(said, "start-period"),
            _interval(said, "start-interval"),
            _retries(said.flags.text("retries")),
        ),
    )


def _interval(said: InstructionLine, name: str) -> int:
    text = said.flags.text(name)
    if not text:
        return 0
    try:
        found = nanoseconds(text)
    except ValueError:
        raise DockerfileError(
            f'--{name}: invalid duration "{plain(text)}"', hint="5s, 1m30s"
        ) from None
    if found and not _SHORTEST <= found < 2**63:
        raise DockerfileError(f'Interval "{name}" cannot be less than 1ms, it is {plain(text)}')
    return found


def _retries(text: str) -> int:
    if not text:
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise DockerfileError(f"--retries: {plain(text)!r} is no number from 0 on")
    return int(text)
