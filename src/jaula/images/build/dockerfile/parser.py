"""From a logical line to its instruction.

Source: the Dockerfile reference. Quotes, escapes and variables stay as they were written; what can
be judged without their values is judged here, so that a mistake costs no work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from jaula.images.build.dockerfile import flags
from jaula.images.build.dockerfile import format as dockerfile_format
from jaula.images.build.dockerfile.ast import (
    Arg,
    Env,
    Expose,
    From,
    Instruction,
    Label,
    Maintainer,
    Onbuild,
    Pairs,
    Run,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from jaula.images.build.dockerfile.errors import DockerfileError, nearest, plain
from jaula.images.build.dockerfile.exec_form import json_list
from jaula.images.build.dockerfile.expand import filled
from jaula.images.build.dockerfile.flags import FlagKind, Flags
from jaula.images.build.dockerfile.instruction_line import InstructionLine
from jaula.images.build.dockerfile.instructions.command import (
    cmd,
    entrypoint,
    healthcheck,
    run,
    shell,
)
from jaula.images.build.dockerfile.instructions.copy import add, copy
from jaula.images.build.dockerfile.lexer import LogicalLine
from jaula.images.build.dockerfile.shell_vars import Substitution
from jaula.images.build.dockerfile.words import fields, halves, quoted


def read(line: LogicalLine, escape: str) -> Instruction:
    """The instruction of ``line``; raises :class:`DockerfileError` without a place."""
    name, rest = halves(line.text)
    reader = _READERS.get(name.upper())
    if reader is None:
        raise DockerfileError(f"unknown instruction: {plain(name)}", hint=nearest(name, _READERS))
    words, rest = flags.take(rest) if rest.startswith("--") else ([], rest)
    known = _FLAGS.get(name.upper(), {})
    sentence = InstructionLine(
        line.place, name.upper(), Flags(words, known), rest, line.heredocs, line.documents, escape
    )
    instruction = reader(sentence)
    if "$" not in line.text and "$" not in line.documents:
        filled(instruction, Substitution({}, escape))  # what is wrong now is wrong with any values
    source = dockerfile_format.written(instruction, sentence, tuple(words))
    if isinstance(instruction, Run):
        return msgspec.structs.replace(instruction, source=source, flags=tuple(words))
    return msgspec.structs.replace(instruction, source=source)


def _from(said: InstructionLine) -> From:
    words = fields(said.rest)
    name = ""
    if len(words) == 3 and words[1].lower() == "as":
        name = words[2].lower()
        if not _is_stage_name(name):
            raise DockerfileError(
                f'invalid name for build stage: "{plain(words[2])}", '
                "name can't start with a number or contain symbols"
            )
    elif len(words) != 1:
        raise DockerfileError(
            "FROM requires either one or three arguments", hint="FROM IMAGE [AS NAME]"
        )
    return From(said.place, "", words[0], said.flags.text("platform"), name)


def _is_stage_name(name: str) -> bool:
    return (
        name.isascii()
        and name[0].isalpha()
        and all(char.isalnum() or char in "-_." for char in name)
    )


def _arg(said: InstructionLine) -> Arg:
    words = quoted(said.rest, said.escape)
    if not words:
        raise DockerfileError("ARG requires at least one argument")
    pairs: list[tuple[str, str | None]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not name:
            raise DockerfileError("ARG names can not be blank")
        pairs.append((name, value if equals else None))
    return Arg(said.place, "", tuple(pairs))


def _env(said: InstructionLine) -> Env:
    return Env(said.place, "", _pairs(said))


def _label(said: InstructionLine) -> Label:
    return Label(said.place, "", _pairs(said))


def _pairs(said: InstructionLine) -> Pairs:
    """``NAME=value ...``, or the old form ``NAME value``, where the value goes on to the end."""
    words = quoted(said.rest, said.escape)
    if not words:
        raise DockerfileError(f"{said.word} requires at least one argument")
    if "=" not in words[0]:
        name, value = halves(said.rest)
        if not value:
            raise DockerfileError(
                f"{said.word} must have two arguments", hint=f"{said.word} NAME=value"
            )
        return ((name, value),)
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise DockerfileError(
                f'Syntax error - can\'t find = in "{plain(word)}". Must be of the form: name=value'
            )
        if not name:
            raise DockerfileError(f"{said.word} names can not be blank")
        pairs.append((name, value))
    return tuple(pairs)


def _one(said: InstructionLine) -> str:
    if not said.rest:
        raise DockerfileError(f"{said.word} requires exactly one argument")
    return said.rest


def _some(said: InstructionLine, words: tuple[str, ...]) -> tuple[str, ...]:
    if not words:
        raise DockerfileError(f"{said.word} requires at least one argument")
    return words


def _volume(said: InstructionLine) -> Volume:
    listed = json_list(said.rest)
    paths = _some(said, tuple(fields(said.rest)) if listed is None else listed)
    if not all(path.strip() for path in paths):
        raise DockerfileError("VOLUME specified can not be an empty string")
    return Volume(said.place, "", paths)


def _onbuild(said: InstructionLine) -> Onbuild:
    word = halves(said.rest)[0].upper()
    if not word:
        raise DockerfileError("ONBUILD requires at least one argument")
    if word == "ONBUILD":
        raise DockerfileError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if word in ("FROM", "MAINTAINER"):
        raise DockerfileError(f"{word} isn't allowed as an ONBUILD trigger")
    trigger = said.rest + (f"\n{said.documents}" if said.heredocs else "")
    read(LogicalLine(said.place, said.rest, said.heredocs, said.documents), said.escape)
    return Onbuild(said.place, "", trigger)


_READERS: Mapping[str, Callable[[InstructionLine], Instruction]] = {
    "ADD": add,
    "ARG": _arg,
    "CMD": cmd,
    "COPY": copy,
    "ENTRYPOINT": entrypoint,
    "ENV": _env,
    "EXPOSE": lambda said: Expose(said.place, "", _some(said, tuple(fields(said.rest)))),
    "FROM": _from,
    "HEALTHCHECK": healthcheck,
    "LABEL": _label,
    "MAINTAINER": lambda said: Maintainer(said.place, "", _one(said)),
    "ONBUILD": _onbuild,
    "RUN": run,
    "SHELL": shell,
    "STOPSIGNAL": lambda said: StopSignal(said.place, "", _one(said)),
    "USER": lambda said: User(said.place, "", _one(said)),
    "VOLUME": _volume,
    "WORKDIR": lambda said: Workdir(said.place, "", _one(said)),
}

_COPIES = {
    "chown": FlagKind.TEXT,
    "chmod": FlagKind.TEXT,
    "link": FlagKind.SWITCH,
    "exclude": FlagKind.TEXTS,
}
_FLAGS: Mapping[str, Mapping[str, FlagKind]] = {
    "ADD": _COPIES
    | {"checksum": FlagKind.TEXT, "keep-git-dir": FlagKind.SWITCH, "unpack": FlagKind.SWITCH},
    "COPY": _COPIES | {"from": FlagKind.TEXT, "parents": FlagKind.SWITCH},
    "FROM": {"platform": FlagKind.TEXT},
    "HEALTHCHECK": {
        "interval": FlagKind.TEXT,
        "timeout": FlagKind.TEXT,
        "start-period": FlagKind.TEXT,
        "start-interval": FlagKind.TEXT,
        "retries": FlagKind.TEXT,
    },
    "RUN": {
        "mount": FlagKind.TEXTS,
        "network": FlagKind.TEXT,
        "security": FlagKind.TEXT,
        "device": FlagKind.TEXTS,
    },
}
