"""Variables put into an instruction, where Docker puts them in.

Source: the Dockerfile reference, section 'Environment replacement'. In RUN, CMD, ENTRYPOINT and
HEALTHCHECK it is the shell of the container that does it, but for the mounts of a RUN; SHELL,
MAINTAINER and ONBUILD have none. FROM sees other variables and is expanded by the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from jaula.errors import InvalidRequest
from jaula.images.build.dockerfile import format as dockerfile_format
from jaula.images.build.dockerfile.ast import (
    Add,
    Arg,
    Copy,
    Env,
    Expose,
    Heredoc,
    Instruction,
    Label,
    Pairs,
    Run,
    StopSignal,
    User,
    Volume,
    Workdir,
)
from jaula.images.build.dockerfile.errors import DockerfileError, plain
from jaula.images.build.dockerfile.expose import ports
from jaula.images.build.dockerfile.instructions.mount import parse_mount
from jaula.images.build.dockerfile.shell_vars import Substitution
from jaula.images.build.dockerfile.words import fields
from jaula.spec import signals

_PORTS = 3 * 65535
"""Of one EXPOSE: every one there is."""

_CONTENTS = 16 << 20
"""Characters of the here-documents of one instruction."""


def expand(
    instruction: Instruction,
    variables: Mapping[str, str],
    escape: str = "\\",
    *,
    unset: set[str] | None = None,
    name: str = "Dockerfile",
) -> Instruction:
    """The instruction with values instead of variables, and its canonical text with them.

    ``unset`` gets the names of variables that have no value. Raises :class:`DockerfileError`, as of the
    file ``name``.
    """
    put = Substitution(variables, escape)
    try:
        changed = filled(instruction, put)
    except DockerfileError as mistake:
        raise mistake.at(name, instruction.place.first, [instruction.headline]) from None
    if unset is not None:
        unset.update(put.unset)
    if changed is instruction:
        return instruction
    return msgspec.structs.replace(changed, source=dockerfile_format.meant(changed))


def filled(instruction: Instruction, put: Substitution) -> Instruction:
    """The instruction with values, its text as it was; raises :class:`DockerfileError` without a place."""
    handler = _HANDLERS.get(type(instruction))
    return instruction if handler is None else handler(instruction, put)


def _pairs(instruction: Env | Label, put: Substitution) -> Instruction:
    pairs: Pairs = tuple((put(name), put(value)) for name, value in instruction.pairs)
    for name, _ in pairs:
        if not name:
            raise DockerfileError(f"{instruction.word} names can not be blank")
        if "=" in name and isinstance(instruction, Env):
            raise DockerfileError(f"ENV: {name[:80]!r} is no name: it has a = in it")
    return msgspec.structs.replace(instruction, pairs=pairs)


def _arg(instruction: Arg, put: Substitution) -> Instruction:
    pairs = tuple(
        (put(name), None if default is None else put(default))
        for name, default in instruction.pairs
    )
    if not all(name for name, _ in pairs):
        raise DockerfileError("ARG names can not be blank")
    return msgspec.structs.replace(instruction, pairs=pairs)


def _copy(instruction: Copy | Add, put: Substitution) -> Instruction:
    fields: dict[str, Any] = {
        "sources": _each(instruction.sources, put),
        "target": put(instruction.target),
        "chown": put(instruction.chown),
        "chmod": put(instruction.chmod),
        "excludes": _each(instruction.excludes, put),
    }
    if not fields["target"]:
        raise DockerfileError(
            f"{instruction.word} has an empty destination: {instruction.target[:80]}"
        )
    if isinstance(instruction, Add):
        fields["checksum"] = put(instruction.checksum)
    if instruction.heredocs:
        fields["heredocs"] = _contents(instruction.heredocs, put)
    return msgspec.structs.replace(instruction, **fields)


def _contents(heredocs: Sequence[Heredoc], put: Substitution) -> tuple[Heredoc, ...]:
    inside = put.without_quotes()
    expanded = tuple(
        msgspec.structs.replace(heredoc, content=inside(heredoc.content))
        if heredoc.expand
        else heredoc
        for heredoc in heredocs
    )
    if sum(len(heredoc.content) for heredoc in expanded) > _CONTENTS:
        raise DockerfileError(f"here-documents of more than {_CONTENTS} characters")
    return expanded


def _each(words: Sequence[str], put: Substitution) -> tuple[str, ...]:
    return tuple(put(word) for word in words)


def _expose(instruction: Expose, put: Substitution) -> Instruction:
    found = tuple(port for word in instruction.ports for port in fields(put(word)))
    if sum(len(ports(text)[0]) for text in found) > _PORTS:
        raise DockerfileError(f"more than {_PORTS} ports")
    return msgspec.structs.replace(instruction, ports=found)


def _signal(instruction: StopSignal, put: Substitution) -> Instruction:
    name = put(instruction.signal)
    try:
        signals.parse(name)
    except InvalidRequest:
        raise DockerfileError(
            f"invalid signal: {plain(name)}", hint="SIGTERM, TERM or 15"
        ) from None
    return msgspec.structs.replace(instruction, signal=name)


def _run(instruction: Run, put: Substitution) -> Instruction:
    texts = [flag.partition("=")[2] for flag in instruction.flags if flag.startswith("--mount=")]
    return msgspec.structs.replace(
        instruction, mounts=tuple(parse_mount(text, put) for text in texts)
    )


def _one(field: str) -> Callable[[Any, Substitution], Instruction]:
    def handler(instruction: Instruction, put: Substitution) -> Instruction:
        value = put(getattr(instruction, field))
        if not value and field != "user":
            raise DockerfileError(
                f"{instruction.word} has an empty value: {getattr(instruction, field)}"
            )
        return msgspec.structs.replace(instruction, **{field: value})

    return handler


def _volume(instruction: Volume, put: Substitution) -> Instruction:
    paths = _each(instruction.paths, put)
    if not all(paths):
        raise DockerfileError("VOLUME specified can not be an empty string")
    return msgspec.structs.replace(instruction, paths=paths)


_HANDLERS: dict[type[Instruction], Callable[[Any, Substitution], Instruction]] = {
    Add: _copy,
    Arg: _arg,
    Copy: _copy,
    Env: _pairs,
    Expose: _expose,
    Label: _pairs,
    Run: _run,
    StopSignal: _signal,
    User: _one("user"),
    Volume: _volume,
    Workdir: _one("path"),
}
