"""From a Dockerfile's text to its stages.

Source: the Dockerfile reference. What is wrong raises :class:`~.mistakes.Mistake`, which shows the
line; nothing else is ever raised.
"""

from __future__ import annotations

import msgspec

from jaula.images.build.dockerfile import lint
from jaula.images.build.dockerfile.ast import (
    Arg,
    From,
    Instruction,
    Location,
    Maintainer,
    Onbuild,
)
from jaula.images.build.dockerfile.document import Dockerfile, Stage
from jaula.images.build.dockerfile.errors import DockerfileError
from jaula.images.build.dockerfile.lexer import split
from jaula.images.build.dockerfile.parser import read

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
            line=lexed.lines[INSTRUCTIONS_LIMIT].place.first,
        )
    arguments: list[Arg] = []
    stages: list[tuple[From, list[Instruction]]] = []
    for line in lexed.lines:
        try:
            instruction = read(line, escape)
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
            raise error.at(name, line.place.first, _rows_at(rows, line.place)) from None
    if not stages:
        last = lexed.lines[-1].place
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
    text: str, *, base: str = "", place: Location = _NOWHERE, escape: str = "\\"
) -> Instruction:
    """Parse the trigger of an ONBUILD. ``place`` is the location of the FROM that executes it."""
    name = f"ONBUILD of {base}" if base else "ONBUILD"
    instruction = parse_one(text, escape, name=name)
    if isinstance(instruction, From | Maintainer | Onbuild):
        raise DockerfileError(f"{instruction.word} isn't allowed as an ONBUILD trigger").at(
            name, 1, text.split("\n")
        )
    return msgspec.structs.replace(instruction, place=place)


def parse_one(text: str, escape: str = "\\", *, name: str = "instruction") -> Instruction:
    """Parse a text with a single instruction. Directives are comments in it."""
    rows = _rows(text, name)
    try:
        lexed = split(rows, name, escape)
        if len(lexed.lines) != 1:
            raise DockerfileError(f"expected one instruction, got {len(lexed.lines)}")
        return read(lexed.lines[0], escape)
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


def _rows_at(rows: tuple[str, ...], place: Location) -> tuple[str, ...]:
    return rows[place.first - 1 : place.last]
