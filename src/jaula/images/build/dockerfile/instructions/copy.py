"""The instructions that take files: COPY and ADD."""

from __future__ import annotations

from jaula.images.build.dockerfile.ast import Add, Copy, Heredoc
from jaula.images.build.dockerfile.errors import DockerfileError, plain
from jaula.images.build.dockerfile.exec_form import json_list
from jaula.images.build.dockerfile.heredoc import file_name, marker
from jaula.images.build.dockerfile.instruction_line import InstructionLine
from jaula.images.build.dockerfile.words import fields


def copy(said: InstructionLine) -> Copy:
    """The last path is where the others go."""
    sources, heredocs, target = _paths(said)
    origin = said.flags.text("from")
    if "$" in origin:
        raise DockerfileError(
            "variable expansion is not supported for --from",
            hint="define a new stage with FROM using ARG from global scope",
        )
    return Copy(
        said.place,
        "",
        sources,
        target,
        heredocs,
        origin,
        said.flags.text("chown"),
        said.flags.text("chmod"),
        said.flags.switch("link") or False,
        said.flags.switch("parents") or False,
        said.flags.texts("exclude"),
    )


def add(said: InstructionLine) -> Add:
    """The last path is where the others go."""
    sources, heredocs, target = _paths(said)
    return Add(
        said.place,
        "",
        sources,
        target,
        heredocs,
        said.flags.text("chown"),
        said.flags.text("chmod"),
        said.flags.switch("link") or False,
        said.flags.texts("exclude"),
        said.flags.text("checksum"),
        said.flags.switch("keep-git-dir") or False,
        said.flags.switch("unpack"),
    )


def _paths(said: InstructionLine) -> tuple[tuple[str, ...], tuple[Heredoc, ...], str]:
    listed = json_list(said.rest)
    words = fields(said.rest) if listed is None else list(listed)
    if len(words) < 2:
        raise DockerfileError(
            f"{said.word} requires at least two arguments"
            + (", but only one was provided. Destination could not be determined" if words else "")
        )
    target = words.pop()
    if listed is not None:
        return tuple(words), (), target
    if said.heredocs and marker(target) is not None:
        raise DockerfileError(
            f"{said.word} cannot accept a heredoc as a destination: {plain(target)}"
        )
    if not said.heredocs:
        return tuple(words), (), target
    by_name = {heredoc.name: heredoc for heredoc in said.heredocs}
    sources: list[str] = []
    heredocs: list[Heredoc] = []
    for word in words:
        found = marker(word)
        if found is not None and found.name in by_name:
            heredocs.append(by_name[file_name(found.name)])
        else:
            sources.append(word)
    return tuple(sources), tuple(heredocs), target
