"""From a logical line to its instruction.

Source: the Dockerfile reference. Quotes, escapes and variables stay as they were written; what can
be judged without their values is judged here, so that a mistake costs no work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from jaula.images.build.language import flags, rendering
from jaula.images.build.language.commands import cmd, entrypoint, healthcheck, run, shell
from jaula.images.build.language.copying import add, copy
from jaula.images.build.language.expansion import filled
from jaula.images.build.language.flags import Flags, Kind
from jaula.images.build.language.forms import json_list
from jaula.images.build.language.instructions import (
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
from jaula.images.build.language.lines import Line
from jaula.images.build.language.mistakes import Mistake, nearest, plain
from jaula.images.build.language.sentence import Sentence
from jaula.images.build.language.substitution import Substitution
from jaula.images.build.language.words import fields, halves, quoted


def read(line: Line, escape: str) -> Instruction:
    """The instruction of ``line``; raises :class:`Mistake` without a place."""
    name, rest = halves(line.text)
    reader = _READERS.get(name.upper())
    if reader is None:
        raise Mistake(f"unknown instruction: {plain(name)}", hint=nearest(name, _READERS))
    words, rest = flags.take(rest) if rest.startswith("--") else ([], rest)
    known = _FLAGS.get(name.upper(), {})
    sentence = Sentence(
        line.place, name.upper(), Flags(words, known), rest, line.heredocs, line.documents, escape
    )
    instruction = reader(sentence)
    if "$" not in line.text and "$" not in line.documents:
        filled(instruction, Substitution({}, escape))  # what is wrong now is wrong with any values
    source = rendering.written(instruction, sentence, tuple(words))
    if isinstance(instruction, Run):
        return msgspec.structs.replace(instruction, source=source, flags=tuple(words))
    return msgspec.structs.replace(instruction, source=source)


def _from(said: Sentence) -> From:
    words = fields(said.rest)
    name = ""
    if len(words) == 3 and words[1].lower() == "as":
        name = words[2].lower()
        if not _is_stage_name(name):
            raise Mistake(
                f'invalid name for build stage: "{plain(words[2])}", '
                "name can't start with a number or contain symbols"
            )
    elif len(words) != 1:
        raise Mistake("FROM requires either one or three arguments", hint="FROM IMAGE [AS NAME]")
    return From(said.place, "", words[0], said.flags.text("platform"), name)


def _is_stage_name(name: str) -> bool:
    return (
        name.isascii()
        and name[0].isalpha()
        and all(char.isalnum() or char in "-_." for char in name)
    )


def _arg(said: Sentence) -> Arg:
    words = quoted(said.rest, said.escape)
    if not words:
        raise Mistake("ARG requires at least one argument")
    pairs: list[tuple[str, str | None]] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not name:
            raise Mistake("ARG names can not be blank")
        pairs.append((name, value if equals else None))
    return Arg(said.place, "", tuple(pairs))


def _env(said: Sentence) -> Env:
    return Env(said.place, "", _pairs(said))


def _label(said: Sentence) -> Label:
    return Label(said.place, "", _pairs(said))


def _pairs(said: Sentence) -> Pairs:
    """``NAME=value ...``, or the old form ``NAME value``, where the value goes on to the end."""
    words = quoted(said.rest, said.escape)
    if not words:
        raise Mistake(f"{said.word} requires at least one argument")
    if "=" not in words[0]:
        name, value = halves(said.rest)
        if not value:
            raise Mistake(f"{said.word} must have two arguments", hint=f"{said.word} NAME=value")
        return ((name, value),)
    pairs = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise Mistake(
                f'Syntax error - can\'t find = in "{plain(word)}". Must be of the form: name=value'
            )
        if not name:
            raise Mistake(f"{said.word} names can not be blank")
        pairs.append((name, value))
    return tuple(pairs)


def _one(said: Sentence) -> str:
    if not said.rest:
        raise Mistake(f"{said.word} requires exactly one argument")
    return said.rest


def _some(said: Sentence, words: tuple[str, ...]) -> tuple[str, ...]:
    if not words:
        raise Mistake(f"{said.word} requires at least one argument")
    return words


def _volume(said: Sentence) -> Volume:
    listed = json_list(said.rest)
    paths = _some(said, tuple(fields(said.rest)) if listed is None else listed)
    if not all(path.strip() for path in paths):
        raise Mistake("VOLUME specified can not be an empty string")
    return Volume(said.place, "", paths)


def _onbuild(said: Sentence) -> Onbuild:
    word = halves(said.rest)[0].upper()
    if not word:
        raise Mistake("ONBUILD requires at least one argument")
    if word == "ONBUILD":
        raise Mistake("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if word in ("FROM", "MAINTAINER"):
        raise Mistake(f"{word} isn't allowed as an ONBUILD trigger")
    trigger = said.rest + (f"\n{said.documents}" if said.heredocs else "")
    read(Line(said.place, said.rest, said.heredocs, said.documents), said.escape)
    return Onbuild(said.place, "", trigger)


_READERS: Mapping[str, Callable[[Sentence], Instruction]] = {
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
    "chown": Kind.TEXT,
    "chmod": Kind.TEXT,
    "link": Kind.SWITCH,
    "exclude": Kind.TEXTS,
}
_FLAGS: Mapping[str, Mapping[str, Kind]] = {
    "ADD": _COPIES | {"checksum": Kind.TEXT, "keep-git-dir": Kind.SWITCH, "unpack": Kind.SWITCH},
    "COPY": _COPIES | {"from": Kind.TEXT, "parents": Kind.SWITCH},
    "FROM": {"platform": Kind.TEXT},
    "HEALTHCHECK": {
        "interval": Kind.TEXT,
        "timeout": Kind.TEXT,
        "start-period": Kind.TEXT,
        "start-interval": Kind.TEXT,
        "retries": Kind.TEXT,
    },
    "RUN": {
        "mount": Kind.TEXTS,
        "network": Kind.TEXT,
        "security": Kind.TEXT,
        "device": Kind.TEXTS,
    },
}
