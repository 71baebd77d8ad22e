"""Variables substitute into an instruction, where Docker puts them in.

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

_MAX_PORTS = 3 * 65535
"""Ports of one EXPOSE: all that exist."""

_MAX_CONTENT = 16 << 20
"""Characters of the here-documents of one instruction."""


def expand(
    instruction: Instruction,
    variables: Mapping[str, str],
    escape: str = "\\",
    *,
    unset: set[str] | None = None,
    name: str = "Dockerfile",
) -> Instruction:
    """Return the instruction with its variables replaced, and its canonical text.

    ``unset`` receives the names of variables without a value. ``name`` is the file, for errors.

    :raises DockerfileError: if the result is not valid.
    """
    substitute = Substitution(variables, escape)
    try:
        expanded = filled(instruction, substitute)
    except DockerfileError as error:
        raise error.at(name, instruction.place.first, [instruction.headline]) from None
    if unset is not None:
        unset.update(substitute.unset)
    if expanded is instruction:
        return instruction
    return msgspec.structs.replace(expanded, source=dockerfile_format.meant(expanded))


def filled(instruction: Instruction, substitute: Substitution) -> Instruction:
    """Return the instruction with its variables replaced; its text stays unchanged.

    :raises DockerfileError: without a location, if the result is not valid.
    """
    handler = _HANDLERS.get(type(instruction))
    return instruction if handler is None else handler(instruction, substitute)


def _pairs(instruction: Env | Label, substitute: Substitution) -> Instruction:
    pairs: Pairs = tuple((substitute(name), substitute(value)) for name, value in instruction.pairs)
    for name, _ in pairs:
        if not name:
            raise DockerfileError(f"{instruction.word} names can not be blank")
        if "=" in name and isinstance(instruction, Env):
            raise DockerfileError(f"ENV: {name[:80]!r} is not a valid name: it contains =")
    return msgspec.structs.replace(instruction, pairs=pairs)


def _arg(instruction: Arg, substitute: Substitution) -> Instruction:
    pairs = tuple(
        (substitute(name), None if default is None else substitute(default))
        for name, default in instruction.pairs
    )
    if not all(name for name, _ in pairs):
        raise DockerfileError("ARG names can not be blank")
    return msgspec.structs.replace(instruction, pairs=pairs)


def _copy(instruction: Copy | Add, substitute: Substitution) -> Instruction:
    fields: dict[str, Any] = {
        "sources": _each(instruction.sources, substitute),
        "target": substitute(instruction.target),
        "chown": substitute(instruction.chown),
        "chmod": substitute(instruction.chmod),
        "excludes": _each(instruction.excludes, substitute),
    }
    if not fields["target"]:
        raise DockerfileError(
            f"{instruction.word} has an empty destination: {instruction.target[:80]}"
        )
    if isinstance(instruction, Add):
        fields["checksum"] = substitute(instruction.checksum)
    if instruction.heredocs:
        fields["heredocs"] = _expand_heredocs(instruction.heredocs, substitute)
    return msgspec.structs.replace(instruction, **fields)


def _expand_heredocs(heredocs: Sequence[Heredoc], substitute: Substitution) -> tuple[Heredoc, ...]:
    substitute_text = substitute.without_quotes()
    expanded = tuple(
        msgspec.structs.replace(heredoc, content=substitute_text(heredoc.content))
        if heredoc.expand
        else heredoc
        for heredoc in heredocs
    )
    if sum(len(heredoc.content) for heredoc in expanded) > _MAX_CONTENT:
        raise DockerfileError(f"the here-documents have more than {_MAX_CONTENT} characters")
    return expanded


def _each(words: Sequence[str], substitute: Substitution) -> tuple[str, ...]:
    return tuple(substitute(word) for word in words)


def _expose(instruction: Expose, substitute: Substitution) -> Instruction:
    listed = tuple(port for word in instruction.ports for port in fields(substitute(word)))
    if sum(len(ports(text)[0]) for text in listed) > _MAX_PORTS:
        raise DockerfileError(f"more than {_MAX_PORTS} ports")
    return msgspec.structs.replace(instruction, ports=listed)


def _signal(instruction: StopSignal, substitute: Substitution) -> Instruction:
    name = substitute(instruction.signal)
    try:
        signals.parse(name)
    except InvalidRequest:
        raise DockerfileError(
            f"invalid signal: {plain(name)}", hint="use SIGTERM, TERM or 15"
        ) from None
    return msgspec.structs.replace(instruction, signal=name)


def _run(instruction: Run, substitute: Substitution) -> Instruction:
    texts = [flag.partition("=")[2] for flag in instruction.flags if flag.startswith("--mount=")]
    return msgspec.structs.replace(
        instruction, mounts=tuple(parse_mount(text, substitute) for text in texts)
    )


def _one(field: str) -> Callable[[Any, Substitution], Instruction]:
    def handler(instruction: Instruction, substitute: Substitution) -> Instruction:
        value = substitute(getattr(instruction, field))
        if not value and field != "user":
            raise DockerfileError(
                f"{instruction.word} has an empty value: {getattr(instruction, field)}"
            )
        return msgspec.structs.replace(instruction, **{field: value})

    return handler


def _volume(instruction: Volume, substitute: Substitution) -> Instruction:
    paths = _each(instruction.paths, substitute)
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
