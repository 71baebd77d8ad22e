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
    """Read a Dockerfile that is called ``name`` in messages."""
    rows = _rows(text, name)
    found = split(rows, name)
    escape = found.directives.escape
    if not found.lines:
        raise DockerfileError("file with no instructions", name=name, line=1)
    if len(found.lines) > INSTRUCTIONS_LIMIT:
        raise DockerfileError(
            f"more than {INSTRUCTIONS_LIMIT} instructions",
            name=name,
            line=found.lines[INSTRUCTIONS_LIMIT].place.first,
        )
    arguments: list[Arg] = []
    stages: list[tuple[From, list[Instruction]]] = []
    for line in found.lines:
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
                raise DockerfileError("no build stage in current context", hint="FROM comes first")
        except DockerfileError as mistake:
            raise mistake.at(name, line.place.first, _shown(rows, line.place)) from None
    if not stages:
        last = found.lines[-1].place
        raise DockerfileError("no build stage in current context", hint="there is no FROM").at(
            name, last.first, _shown(rows, last)
        )
    dockerfile = Dockerfile(
        name,
        found.directives,
        tuple(arguments),
        tuple(
            Stage(index, base.name, base, tuple(instructions))
            for index, (base, instructions) in enumerate(stages)
        ),
        rows,
    )
    return lint.apply(dockerfile, found)


def parse_trigger(
    text: str, *, base: str = "", place: Location = _NOWHERE, escape: str = "\\"
) -> Instruction:
    """The instruction of an ONBUILD, which stands at ``place`` of what was built upon ``base``."""
    name = f"ONBUILD of {base}" if base else "ONBUILD"
    instruction = parse_one(text, escape, name=name)
    if isinstance(instruction, From | Maintainer | Onbuild):
        raise DockerfileError(f"{instruction.word} isn't allowed as an ONBUILD trigger").at(
            name, 1, text.split("\n")
        )
    return msgspec.structs.replace(instruction, place=place)


def parse_one(text: str, escape: str = "\\", *, name: str = "instruction") -> Instruction:
    """Read a text that is a single instruction, called ``name``; directives are comments in it."""
    rows = _rows(text, name)
    try:
        found = split(rows, name, escape)
        if len(found.lines) != 1:
            raise DockerfileError(f"one instruction is wanted, there are {len(found.lines)}")
        return read(found.lines[0], escape)
    except DockerfileError as mistake:
        raise mistake.at(name, 1, rows) from None


def _rows(text: str | bytes, name: str) -> tuple[str, ...]:
    size = len(text)
    if size > LIMIT:
        raise DockerfileError(f"holds more than {LIMIT} bytes", name=name, line=1)
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
                what = "a zero byte" if bad == "\0" else "a surrogate, which is no character"
                raise DockerfileError(what).at(name, at + 1, [row])
    return rows


def _shown(rows: tuple[str, ...], place: Location) -> tuple[str, ...]:
    return rows[place.first - 1 : place.last]
