"""Parse the text of a Dockerfile into stages of instructions.

Source: the Dockerfile reference. Every error is a :class:`~.errors.DockerfileError` with the text
of the line. Quotes, escapes and variables stay as written. Everything that can be checked without
the values of variables is checked here, so that an error is reported before any work is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from jaula.images.dockerfile import format, lint
from jaula.images.dockerfile.ast import (
    Arg,
    Dockerfile,
    Env,
    Expose,
    From,
    Instruction,
    InstructionLine,
    Label,
    Location,
    Maintainer,
    Onbuild,
    Pairs,
    Run,
    Stage,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from jaula.images.dockerfile.dockerfile_error import DockerfileError, did_you_mean, printable
from jaula.images.dockerfile.dockerfile_words import (
    FlagKind,
    Flags,
    fields,
    json_list,
    split_first,
    split_flags,
    split_quoted,
)
from jaula.images.dockerfile.expand import Substitution, substitute_variables
from jaula.images.dockerfile.instructions.command_instructions import (
    cmd,
    entrypoint,
    healthcheck,
    run,
    shell,
)
from jaula.images.dockerfile.instructions.copy_instructions import add, copy
from jaula.images.dockerfile.lexer import LogicalLine, split


def parse_line(line: LogicalLine, escape: str) -> Instruction:
    """Parse a logical line.

    :raises DockerfileError: without a location, if it is not valid.
    """
    name, rest = split_first(line.text)
    reader = _READERS.get(name.upper())
    if reader is None:
        raise DockerfileError(
            f"unknown instruction: {printable(name)}", hint=did_you_mean(name, _READERS)
        )
    words, rest = split_flags(rest) if rest.startswith("--") else ([], rest)
    known = _FLAGS.get(name.upper(), {})
    parts = InstructionLine(
        line.location,
        name.upper(),
        Flags(words, known),
        rest,
        line.heredocs,
        line.documents,
        escape,
    )
    instruction = reader(parts)
    if "$" not in line.text and "$" not in line.documents:
        substitute_variables(instruction, Substitution({}, escape))  # values cannot make it valid
    source = format.source_text(instruction, parts, tuple(words))
    if isinstance(instruction, Run):
        return msgspec.structs.replace(instruction, source=source, flags=tuple(words))
    return msgspec.structs.replace(instruction, source=source)


def _from(line: InstructionLine) -> From:
    words = fields(line.rest)
    name = ""
    if len(words) == 3 and words[1].lower() == "as":
        name = words[2].lower()
        if not _is_stage_name(name):
            raise DockerfileError(
                f'invalid name for build stage: "{printable(words[2])}", '
                "name can't start with a number or contain symbols"
            )
    elif len(words) != 1:
        raise DockerfileError(
            "FROM requires either one or three arguments", hint="use FROM IMAGE [AS NAME]"
        )
    return From(line.location, "", words[0], line.flags.text("platform"), name)


def _is_stage_name(name: str) -> bool:
    return (
        name.isascii()
        and name[0].isalpha()
        and all(char.isalnum() or char in "-_." for char in name)
    )


def _arg(line: InstructionLine) -> Arg:
    words = split_quoted(line.rest, line.escape)
    if not words:
        raise DockerfileError("ARG requires at least one argument")
    pairs: list[tuple[str, str | None]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not name:
            raise DockerfileError("ARG names can not be blank")
        pairs.append((name, value if equals else None))
    return Arg(line.location, "", tuple(pairs))


def _env(line: InstructionLine) -> Env:
    return Env(line.location, "", _pairs(line))


def _label(line: InstructionLine) -> Label:
    return Label(line.location, "", _pairs(line))


def _pairs(line: InstructionLine) -> Pairs:
    """Parse ``NAME=value ...``, or the legacy form ``NAME value``.

    In the legacy form the value extends to the end of the line.
    """
    words = split_quoted(line.rest, line.escape)
    if not words:
        raise DockerfileError(f"{line.word} requires at least one argument")
    if "=" not in words[0]:
        name, value = split_first(line.rest)
        if not value:
            raise DockerfileError(
                f"{line.word} must have two arguments", hint=f"use {line.word} NAME=value"
            )
        return ((name, value),)
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise DockerfileError(
                f'Syntax error - can\'t find = in "{printable(word)}". '
                "Must be of the form: name=value"
            )
        if not name:
            raise DockerfileError(f"{line.word} names can not be blank")
        pairs.append((name, value))
    return tuple(pairs)


def _single_argument(line: InstructionLine) -> str:
    if not line.rest:
        raise DockerfileError(f"{line.word} requires exactly one argument")
    return line.rest


def _arguments(line: InstructionLine, words: tuple[str, ...]) -> tuple[str, ...]:
    if not words:
        raise DockerfileError(f"{line.word} requires at least one argument")
    return words


def _volume(line: InstructionLine) -> Volume:
    listed = json_list(line.rest)
    paths = _arguments(line, tuple(fields(line.rest)) if listed is None else listed)
    if not all(path.strip() for path in paths):
        raise DockerfileError("VOLUME specified can not be an empty string")
    return Volume(line.location, "", paths)


def _onbuild(line: InstructionLine) -> Onbuild:
    word = split_first(line.rest)[0].upper()
    if not word:
        raise DockerfileError("ONBUILD requires at least one argument")
    if word == "ONBUILD":
        raise DockerfileError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if word in ("FROM", "MAINTAINER"):
        raise DockerfileError(f"{word} isn't allowed as an ONBUILD trigger")
    trigger = line.rest + (f"\n{line.documents}" if line.heredocs else "")
    parse_line(LogicalLine(line.location, line.rest, line.heredocs, line.documents), line.escape)
    return Onbuild(line.location, "", trigger)


_READERS: Mapping[str, Callable[[InstructionLine], Instruction]] = {
    "ADD": add,
    "ARG": _arg,
    "CMD": cmd,
    "COPY": copy,
    "ENTRYPOINT": entrypoint,
    "ENV": _env,
    "EXPOSE": lambda line: Expose(line.location, "", _arguments(line, tuple(fields(line.rest)))),
    "FROM": _from,
    "HEALTHCHECK": healthcheck,
    "LABEL": _label,
    "MAINTAINER": lambda line: Maintainer(line.location, "", _single_argument(line)),
    "ONBUILD": _onbuild,
    "RUN": run,
    "SHELL": shell,
    "STOPSIGNAL": lambda line: StopSignal(line.location, "", _single_argument(line)),
    "USER": lambda line: User(line.location, "", _single_argument(line)),
    "VOLUME": _volume,
    "WORKDIR": lambda line: Workdir(line.location, "", _single_argument(line)),
}

_COPY_FLAGS = {
    "chown": FlagKind.TEXT,
    "chmod": FlagKind.TEXT,
    "link": FlagKind.SWITCH,
    "exclude": FlagKind.TEXTS,
}
_FLAGS: Mapping[str, Mapping[str, FlagKind]] = {
    "ADD": _COPY_FLAGS
    | {"checksum": FlagKind.TEXT, "keep-git-dir": FlagKind.SWITCH, "unpack": FlagKind.SWITCH},
    "COPY": _COPY_FLAGS | {"from": FlagKind.TEXT, "parents": FlagKind.SWITCH},
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


LIMIT = 2 << 20
"""Bytes of a Dockerfile."""

STAGES_LIMIT = 1000
INSTRUCTIONS_LIMIT = 10_000

_NOWHERE = Location(1, 1)


def parse(text: str | bytes, name: str = "Dockerfile") -> Dockerfile:
    """Parse a Dockerfile. ``name`` is its name in messages."""
    rows = _rows(text, name)
    lexed = split(rows, name)
    escape = lexed.directives.escape
    if not lexed.lines:
        raise DockerfileError("file with no instructions", name=name, line=1)
    if len(lexed.lines) > INSTRUCTIONS_LIMIT:
        raise DockerfileError(
            f"more than {INSTRUCTIONS_LIMIT} instructions",
            name=name,
            line=lexed.lines[INSTRUCTIONS_LIMIT].location.first,
        )
    arguments: list[Arg] = []
    stages: list[tuple[From, list[Instruction]]] = []
    for line in lexed.lines:
        try:
            instruction = parse_line(line, escape)
            if isinstance(instruction, From):
                if len(stages) == STAGES_LIMIT:
                    raise DockerfileError(f"more than {STAGES_LIMIT} stages")
                stages.append((instruction, []))
            elif stages:
                stages[-1][1].append(instruction)
            elif isinstance(instruction, Arg):
                arguments.append(instruction)
            else:
                raise DockerfileError(
                    "no build stage in current context", hint="the first instruction must be FROM"
                )
        except DockerfileError as error:
            raise error.at(name, line.location.first, _rows_at(rows, line.location)) from None
    if not stages:
        last = lexed.lines[-1].location
        raise DockerfileError("no build stage in current context", hint="there is no FROM").at(
            name, last.first, _rows_at(rows, last)
        )
    dockerfile = Dockerfile(
        name,
        lexed.directives,
        tuple(arguments),
        tuple(
            Stage(index, base.name, base, tuple(instructions))
            for index, (base, instructions) in enumerate(stages)
        ),
        rows,
    )
    return lint.apply(dockerfile, lexed)


def parse_trigger(
    text: str, *, base: str = "", location: Location = _NOWHERE, escape: str = "\\"
) -> Instruction:
    """Parse the trigger of an ONBUILD. ``location`` is that of the FROM that executes it."""
    name = f"ONBUILD of {base}" if base else "ONBUILD"
    instruction = parse_one(text, escape, name=name)
    if isinstance(instruction, From | Maintainer | Onbuild):
        raise DockerfileError(f"{instruction.word} isn't allowed as an ONBUILD trigger").at(
            name, 1, text.split("\n")
        )
    return msgspec.structs.replace(instruction, location=location)


def parse_one(text: str, escape: str = "\\", *, name: str = "instruction") -> Instruction:
    """Parse a text with a single instruction. Directives are comments in it."""
    rows = _rows(text, name)
    try:
        lexed = split(rows, name, escape)
        if len(lexed.lines) != 1:
            raise DockerfileError(f"expected one instruction, got {len(lexed.lines)}")
        return parse_line(lexed.lines[0], escape)
    except DockerfileError as error:
        raise error.at(name, 1, rows) from None


def _rows(text: str | bytes, name: str) -> tuple[str, ...]:
    size = len(text)
    if size > LIMIT:
        raise DockerfileError(f"larger than {LIMIT} bytes", name=name, line=1)
    if isinstance(text, bytes):
        data = text
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise DockerfileError(
                f"not UTF-8: byte {data[error.start]:#04x}", name=name, line=line
            ) from None
    rows = tuple(text.removeprefix("\ufeff").split("\n"))
    if "\0" in text or not text.isascii():
        for at, row in enumerate(rows):
            bad = next((c for c in row if c == "\0" or "\ud800" <= c <= "\udfff"), "")
            if bad:
                what = "a null byte" if bad == "\0" else "a surrogate, which is not a character"
                raise DockerfileError(what).at(name, at + 1, [row])
    return rows


def _rows_at(rows: tuple[str, ...], location: Location) -> tuple[str, ...]:
    return rows[location.first - 1 : location.last]
